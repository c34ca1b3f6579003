"""How does the face come to lie in the same place in every picture?

A face is aligned by the similarity transform (rotation, scale, shift) that brings its five landmarks closest to a fixed
template, in the least-squares sense (Umeyama 1991, "Least-squares estimation of transformation parameters between
two point patterns", IEEE TPAMI 13:376).
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

SIZE = 64
"""Side of an aligned face, in pixels."""

LANDMARKS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")

TEMPLATE: Array = np.array([[18.3, 22.5], [45.7, 22.5], [32.0, 37.6], [20.4, 48.9], [43.6, 48.9]])
"""The five landmarks of an aligned face: (x, y) in pixels of the 64-pixel crop, from the mean shape."""


def similarity_transform(source: Array, target: Array) -> Array:
    """The similarity transform that brings `source` points closest to `target` points.

    Parameters
    ----------
    source, target
        (P, 2) points (x, y), P at least 2.

    Returns
    -------
    (2, 3) matrix A; a point p maps to ``A[:, :2] @ p + A[:, 2]``.
    """
    centre_source, centre_target = source.mean(0), target.mean(0)
    s, t = source - centre_source, target - centre_target
    u, singular, vt = np.linalg.svd(t.T @ s)
    sign = np.array([1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ np.diag(sign) @ vt
    scale = (singular * sign).sum() / (s**2).sum()
    linear = scale * rotation
    return np.concatenate([linear, (centre_target - linear @ centre_source)[:, None]], axis=1)


def warp(image: Array, matrix: Array, size: int = SIZE) -> Array:
    """Resample an image through an affine map by cubic splines. Where the map shrinks, the image is blurred first.

    Parameters
    ----------
    image
        (H, W) or (H, W, C), any real values.
    matrix
        (2, 3) map from image points (x, y) to output points.
    size
        Side of the square output in pixels.

    Returns
    -------
    (size, size) or (size, size, C) float64. Outside the image it continues as its mirror image.
    """
    from scipy import ndimage

    inverse = np.linalg.inv(matrix[:, :2])
    y, x = np.mgrid[:size, :size].astype(float)
    points = np.stack([x - matrix[0, 2], y - matrix[1, 2]], -1) @ inverse.T
    shrink = np.sqrt(np.abs(np.linalg.det(inverse)))
    sigma = 0.5 * np.sqrt(max(shrink**2 - 1.0, 0.0))
    planes = image[..., None] if image.ndim == 2 else image
    warped = []
    for plane in np.moveaxis(planes.astype(float), -1, 0):
        smooth = ndimage.gaussian_filter(plane, sigma) if sigma > 0.05 else plane
        warped.append(ndimage.map_coordinates(smooth, [points[..., 1], points[..., 0]], order=3, mode="mirror"))
    return warped[0] if image.ndim == 2 else np.stack(warped, -1)

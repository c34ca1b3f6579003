"""How is a made face put into a photograph? Masks, tone, and two ways of blending."""

import functools

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bayesdf.faces import SIZE, TEMPLATE, similarity_transform

Image = NDArray[np.floating]


def ellipse(
    landmarks: NDArray[np.floating], centre: tuple[float, float], radii: tuple[float, float]
) -> NDArray[np.bool_]:
    """An ellipse given in the template's pixels, moved to the landmarks.

    Returns
    -------
    (64, 64) bool.
    """
    matrix = similarity_transform(np.asarray(landmarks, float), TEMPLATE)
    y, x = np.mgrid[:SIZE, :SIZE]
    points = np.stack([x, y], -1) @ matrix[:, :2].T + matrix[:, 2]
    return (((points - centre) / radii) ** 2).sum(-1) <= 1.0


def face_mask(landmarks: NDArray[np.floating]) -> NDArray[np.bool_]:
    """The inner face, from the brows to below the mouth: what face-swap tools replace. (64, 64) bool."""
    return ellipse(landmarks, centre=(32.0, 36.5), radii=(21.0, 24.5))


def mouth_mask(landmarks: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Mouth and its surroundings, below the nose: what lip-synthesis tools replace. (64, 64) bool."""
    return ellipse(landmarks, centre=(32.0, 49.5), radii=(17.0, 10.5))


def soften(mask: NDArray[np.bool_], sigma: float = 1.5) -> Image:
    """Weights in [0, 1]: the mask with an edge that fades inwards over about two `sigma` pixels."""
    inner = ndimage.binary_erosion(mask, iterations=max(round(sigma), 1))
    return ndimage.gaussian_filter(inner.astype(float), sigma)


def match_tone(image: Image, reference: Image, mask: NDArray[np.bool_]) -> Image:
    """Give `image` the mean and the standard deviation that `reference` has within the mask (Reinhard et al. 2001)."""
    a, b = image[mask], reference[mask]
    return (image - a.mean()) * (b.std() / max(a.std(), 1e-6)) + b.mean()


def alpha_blend(made: Image, target: Image, weight: Image) -> Image:
    """Put `made` over `target` with a weight in [0, 1] for each pixel (`soften`)."""
    return weight * made + (1.0 - weight) * target


def without_border(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask without the pixels at the image's border."""
    inside = mask.copy()
    inside[[0, -1], :] = inside[:, [0, -1]] = False
    return inside


def poisson_blend(made: Image, target: Image, mask: NDArray[np.bool_]) -> Image:
    """Blend with the gradients of `made` within the mask and the values of `target` at its edge.

    Solves the discrete Poisson equation of Perez, Gangnet and Blake 2003, "Poisson image editing" (equation 7), with
    the guidance field grad(made). Pixels at the image's border keep the values of `target` (`without_border`).
    """
    from scipy import sparse
    from scipy.sparse.linalg import spsolve

    inside = without_border(mask)
    number = np.full(inside.shape, -1)
    number[inside] = np.arange(inside.sum())
    y, x = np.nonzero(inside)
    rows, columns, right = [], [], np.zeros(len(y))
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        ny, nx = y + dy, x + dx
        right += made[y, x] - made[ny, nx]
        known = ~inside[ny, nx]
        right[known] += target[ny[known], nx[known]]
        rows.append(np.nonzero(~known)[0])
        columns.append(number[ny[~known], nx[~known]])
    i, j = np.concatenate(rows), np.concatenate(columns)
    laplacian = sparse.csc_array((-np.ones(len(i)), (i, j)), shape=(len(y), len(y))) + 4.0 * sparse.eye_array(len(y))
    blended = target.astype(float).copy()
    blended[inside] = spsolve(laplacian.tocsc(), right)
    return blended


@functools.cache
def _border_anchors() -> NDArray[np.float64]:
    edge = np.linspace(0.0, SIZE - 1.0, 5)
    ring = [(e, s) for e in edge for s in (0.0, SIZE - 1.0)] + [(s, e) for e in edge[1:-1] for s in (0.0, SIZE - 1.0)]
    return np.array(ring)


def motion_field(start: NDArray[np.floating], end: NDArray[np.floating]) -> NDArray[np.float64]:
    """The smooth backward field that moves points `start` to `end` and keeps the picture's border in place.

    It is a thin-plate spline through the points (Bookstein 1989, "Principal warps"). For each output pixel it gives the
    place in the input.

    Returns
    -------
    (64, 64, 2) points (x, y).
    """
    from scipy.interpolate import RBFInterpolator

    anchors = _border_anchors()
    spline = RBFInterpolator(
        np.concatenate([end, anchors]), np.concatenate([start, anchors]), kernel="thin_plate_spline"
    )
    y, x = np.mgrid[:SIZE, :SIZE]
    return spline(np.stack([x, y], -1).reshape(-1, 2).astype(float)).reshape(SIZE, SIZE, 2)


def displacement(field: NDArray[np.floating]) -> NDArray[np.float64]:
    """How far from each pixel a backward field (64, 64, 2) looks: (64, 64) pixels."""
    y, x = np.mgrid[:SIZE, :SIZE]
    return np.hypot(field[..., 0] - x, field[..., 1] - y)


def resample(image: Image, field: NDArray[np.floating]) -> Image:
    """Sample an image at the points of a backward field, with bilinear interpolation."""
    return ndimage.map_coordinates(image, [field[..., 1], field[..., 0]], order=1, mode="mirror")

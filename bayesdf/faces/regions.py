"""Which part of the face is where in a picture?

Seven regions are drawn once, over the mean of the aligned photographs. In another picture they follow its five
landmarks, by the similarity transform that brings these closest to the template (`bayesdf.faces.align`).
"""

import numpy as np
from numpy.typing import NDArray

from bayesdf.errors import BayesdfError
from bayesdf.faces.align import LANDMARKS, SIZE, TEMPLATE, similarity_transform

REGIONS = ("forehead", "eyes", "nose", "cheeks", "mouth", "jaw", "background")
"""The eyes include the brows, the forehead the temples, the cheeks what lies beside the nose. All else, such as hair
and ears, is background."""

_MIDDLE = 32.0
"""Where the template is symmetric: x in its pixels, as all numbers below."""


def region_masks(size: int, landmarks: NDArray[np.floating] | None = None) -> NDArray[np.bool_]:
    """The regions of a face in a square picture.

    Parameters
    ----------
    size
        Side of the picture in pixels.
    landmarks
        (5, 2) points (x, y) in pixels of the picture, in the order of `align.LANDMARKS`; the centre of the first pixel
        is (0, 0). None: the picture is an aligned face, whatever its size.

    Returns
    -------
    (7, size, size) in the order of `REGIONS`. Every pixel is in exactly one region.

    Raises
    ------
    BayesdfError
        The landmarks are not five points of finite coordinates, or all at one place.
    """
    y, x = np.mgrid[:size, :size].astype(float)
    points = np.stack([x, y], -1)
    if landmarks is None:
        points = (points + 0.5) * (SIZE / size) - 0.5
    else:
        marks = np.asarray(landmarks, float)
        if marks.shape != TEMPLATE.shape or not np.isfinite(marks).all() or np.ptp(marks, 0).max() == 0.0:
            raise BayesdfError(
                f"landmarks {np.asarray(landmarks).tolist()} are not the places (x, y) of {', '.join(LANDMARKS)}: give "
                "five points in pixels"
            )
        matrix = similarity_transform(marks, TEMPLATE)
        points = points @ matrix[:, :2].T + matrix[:, 2]
    return _template_regions(points[..., 0], points[..., 1])


def _template_regions(x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.bool_]:
    """The regions at points of the template. Of those that overlap, the first holds."""
    side = np.abs(x - _MIDDLE)

    def ellipse(across: float, down: float, width: float, height: float) -> NDArray[np.bool_]:
        return ((side - across) / width) ** 2 + ((y - down) / height) ** 2 <= 1.0

    claims = {
        "background": ~ellipse(0.0, 27.0, 29.5, 42.0),
        "mouth": ellipse(0.0, 50.5, 15.7, 7.4),
        "nose": (y > 15.7) & (y < 43.6) & (side < np.clip(3.45 + 0.3 * (y - 16.0), 3.45, 10.2)),
        "eyes": ellipse(14.0, 19.0, 13.2, 9.4),
        "forehead": y < 19.3,
        "jaw": y > 49.7,
        "cheeks": np.ones(x.shape, bool),
    }
    first = np.stack(list(claims.values())).argmax(0)
    order = list(claims)
    return np.stack([first == order.index(name) for name in REGIONS])

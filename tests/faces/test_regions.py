"""The regions are where the parts of the face are, and each pixel is in one of them."""

import numpy as np
import pytest

from bayesdf.errors import BayesdfError
from bayesdf.faces import LANDMARKS, REGIONS, SIZE, TEMPLATE, photographs, region_masks

HOME = dict(zip(LANDMARKS, ("eyes", "eyes", "nose", "mouth", "mouth"), strict=True))
TURNED = (TEMPLATE - 32.0) @ np.array([[0.9, 0.3], [-0.3, 0.9]]) + [40.0, 28.0]


@pytest.mark.parametrize("landmarks", [None, TEMPLATE, TURNED, TEMPLATE * 0.2 + 100.0], ids=str)
@pytest.mark.parametrize("size", [5, 64, 100])
def test_every_pixel_is_in_exactly_one_region(size: int, landmarks: np.ndarray | None) -> None:
    masks = region_masks(size, landmarks)
    assert masks.shape == (len(REGIONS), size, size) and masks.dtype == bool
    assert (masks.sum(0) == 1).all()


@pytest.mark.parametrize("landmarks", [TEMPLATE, TURNED], ids=["template", "turned"])
def test_landmarks_lie_in_their_regions(landmarks: np.ndarray) -> None:
    found = region_masks(96, landmarks).argmax(0)
    for mark, (x, y) in zip(LANDMARKS, landmarks, strict=True):
        assert REGIONS[found[round(y), round(x)]] == HOME[mark]


def test_the_photographs_landmarks_lie_in_their_regions_too() -> None:
    """Even where the template is taken for all, in nearly every photograph."""
    found, faces = region_masks(SIZE).argmax(0), photographs()
    for number, mark in enumerate(LANDMARKS):
        x, y = faces.landmarks[:, number].round().astype(int).clip(0, SIZE - 1).T
        assert (found[y, x] == REGIONS.index(HOME[mark])).mean() > 0.95, mark


def test_the_regions_lie_as_in_a_face() -> None:
    """From top to bottom and from the middle outwards; symmetric; the dark and the bright where they should be."""
    masks = dict(zip(REGIONS, region_masks(SIZE), strict=True))
    height = {name: np.nonzero(mask)[0].mean() for name, mask in masks.items()}
    assert height["forehead"] < height["eyes"] < height["nose"] < height["mouth"] < height["jaw"]
    assert not masks["background"][:, 24:40].any() and masks["background"][[0, 0, -1, -1], [0, -1, 0, -1]].all()
    for name, mask in masks.items():
        assert (mask[:, 1:] == mask[:, :0:-1]).all(), name  # the middle is the centre of pixel 32
        assert mask.mean() > 0.05
    mean = photographs().images.mean(0)
    brightness = {name: mean[mask].mean() for name, mask in masks.items()}
    assert brightness["background"] < brightness["mouth"] < brightness["cheeks"]
    assert brightness["eyes"] < brightness["cheeks"] < brightness["forehead"]


def test_regions_follow_the_picture() -> None:
    """Up to a few pixels on the edges, where rounding decides."""
    whole, shifted = region_masks(SIZE), region_masks(SIZE, TEMPLATE + np.array([6.0, -4.0]))
    for one, other in [
        (whole, region_masks(SIZE, TEMPLATE)),
        (region_masks(160), region_masks(160, (TEMPLATE + 0.5) * 2.5 - 0.5)),
        (shifted[:, :-4, 6:], whole[:, 4:, :-6]),
    ]:
        assert (one == other).mean() > 0.999
    cells = region_masks(2 * SIZE).reshape(len(REGIONS), SIZE, 2, SIZE, 2).mean((2, 4))
    assert cells[whole].mean() > 0.97


@pytest.mark.parametrize(
    "landmarks", [TEMPLATE[:4], np.full((5, 2), 3.0), np.where(TEMPLATE > 40, np.nan, TEMPLATE), TEMPLATE.ravel()]
)
def test_what_is_no_face_is_one_clear_line(landmarks: np.ndarray) -> None:
    with pytest.raises(BayesdfError, match=r"are not the places .* of left_eye, right_eye, nose"):
        region_masks(SIZE, landmarks)

"""Windows: position says nothing in them, a true map still finds the changed pixels, and bad bounds are refused."""

import numpy as np
import pytest
import xarray as xr

from bayesdf.analysis import centred_gaussian, localisation, random_order, windows
from bayesdf.analysis.map_windows import _shares
from bayesdf.errors import BayesdfError

DIMS = ("image", "y", "x")
ROW, COLUMN = np.mgrid[:64, :64]


def array(values, **coords):
    return xr.DataArray(np.asarray(values, dtype=np.float64), dims=DIMS, coords=coords)


def discs(radius, images=600):
    rows, columns = np.random.default_rng(radius).uniform(0, 64, (2, images, 1, 1))
    found = array((ROW - rows) ** 2 + (COLUMN - columns) ** 2 <= radius**2)
    return found[found.any(("y", "x")).values]


def half_planes(images=600):
    rng = np.random.default_rng(0)
    angle, offset = rng.uniform(0, 2 * np.pi, (images, 1, 1)), rng.uniform(-20, 20, (images, 1, 1))
    return array(np.cos(angle) * (ROW - 31.5) + np.sin(angle) * (COLUMN - 31.5) > offset)


def centred(side):
    """The mean AUROC of the centred Gaussian in windows, and four of its standard errors."""

    def of(masks):
        _, cut = windows(masks, masks, side)
        scores = localisation(centred_gaussian(cut), cut)["auroc"].values
        return scores.mean(), 4 * scores.std() / np.sqrt(len(scores))

    return of


def test_position_says_nothing_in_a_window():
    mean, error = centred(16)(half_planes())
    assert abs(mean - 0.5) < error
    for masks in (discs(8), discs(16)):  # round masks leave a little (the table of the module)
        mean, error = centred(16)(masks)
        assert abs(mean - 0.5) < 0.02 + error


def test_centred_masks_lose_the_advantage_of_the_middle():
    ellipse = ((ROW - 31.5) / 22) ** 2 + ((COLUMN - 31.5) / 16) ** 2 <= 1
    masks = array(np.broadcast_to(ellipse, (400, 64, 64)))
    assert localisation(centred_gaussian(masks), masks)["auroc"].mean() > 0.95
    mean, error = centred(16)(masks)
    assert abs(mean - 0.5) < 0.03 + error


def test_a_true_map_still_finds_what_was_changed():
    masks = discs(10, 60)
    maps = xr.Dataset({"epistemic": masks + 0.1 * random_order(masks), "random": random_order(masks, seed=1)})
    cut, cut_masks = windows(maps, masks, 16)
    found = localisation(cut, cut_masks)["auroc"]
    assert (found.sel(quantity="epistemic") == 1.0).all() and abs(
        float(found.sel(quantity="random").mean()) - 0.5
    ) < 0.05


def test_a_window_is_a_part_of_its_picture():
    place = array(
        (ROW * 64 + COLUMN)[None] + 10_000 * np.arange(40)[:, None, None], subject=("image", np.arange(40).astype(str))
    )
    masks = array(np.random.default_rng(1).random((40, 64, 64)) < 0.5)
    masks[3], masks[4] = np.nan, 0.0
    cut, cut_masks = windows(place, masks, 8, low=0.4, high=0.6)
    assert cut.attrs["without_window"] == 2 and cut["map"].shape == (38, 8, 8)
    top, left, image = cut["top"].values, cut["left"].values, cut["subject"].values.astype(int)
    expected = 10_000 * image[:, None, None] + (top[:, None] + np.arange(8))[:, :, None] * 64
    np.testing.assert_array_equal(cut["map"], expected + (left[:, None] + np.arange(8))[:, None, :])
    for row, (i, t, c) in enumerate(zip(image, top, left, strict=True)):
        np.testing.assert_array_equal(cut_masks[row], masks[i, t : t + 8, c : c + 8])
    assert ((cut_masks.mean(("y", "x")) >= 0.4) & (cut_masks.mean(("y", "x")) <= 0.6)).all()
    again, _ = windows(place * 2, masks, 8, low=0.4, high=0.6)
    other, _ = windows(place, masks, 8, low=0.4, high=0.6, seed=1)
    np.testing.assert_array_equal(again["top"], cut["top"])
    assert (other["top"].values != cut["top"].values).any()


def test_every_allowed_position_is_as_likely():
    mask = np.zeros((6, 6))
    mask[:, :3] = 1.0
    masks = array(np.broadcast_to(mask, (3000, 6, 6)))
    cut, _ = windows(masks, masks, 4, low=0.25, high=0.75)  # three columns of windows, shares 3/4, 1/2, 1/4
    count = np.bincount(cut["top"].values * 3 + cut["left"].values, minlength=9)
    assert count.sum() == 3000 and (abs(count - 3000 / 9) < 5 * np.sqrt(3000 / 9)).all()


def test_shares_are_means_over_windows():
    changed = np.random.default_rng(2).random((3, 9, 11)) < 0.3
    view = np.lib.stride_tricks.sliding_window_view(changed, (4, 4), axis=(1, 2))
    np.testing.assert_allclose(_shares(changed, 4), view.mean(axis=(-1, -2)))


def test_bad_input_gets_one_line():
    masks = discs(8, 5)
    for message, arguments, settings in [
        ("side=65", (masks, masks, 65), {}),
        ("low=0.8, high=0.2", (masks, masks, 8), {"low": 0.8, "high": 0.2}),
        ("no window of 60 by 60 pixels", (masks, masks, 60), {"low": 0.9}),
        ("maps of 2 images", (masks[:2], masks, 8), {}),
    ]:
        with pytest.raises(BayesdfError, match=message) as caught:
            windows(*arguments, **settings)
        assert "\n" not in str(caught.value)

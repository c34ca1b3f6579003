"""Windows: position says nothing in them, a true map still finds the changed pixels, and bad bounds are refused."""

import numpy as np
import pytest
import xarray as xr

from bayesdf.analysis import centred_gaussian, localisation, random_order, windows
from bayesdf.analysis.map_windows import _centred_aurocs, _mirrored, _shares
from bayesdf.errors import BayesdfError

DIMS = ("image", "y", "x")
ROW, COLUMN = np.mgrid[:64, :64]


def array(values, **coords):
    return xr.DataArray(np.asarray(values, dtype=np.float64), dims=DIMS, coords=coords)


def discs(radius, images=600):
    rows, columns = np.random.default_rng(radius).uniform(0, 64, (2, images, 1, 1))
    found = array((ROW - rows) ** 2 + (COLUMN - columns) ** 2 <= radius**2)
    return found[found.any(("y", "x")).values]


def position_alone(masks, side):
    """Mean AUROCs of maps that know nothing but the position in the window, each with four standard errors."""
    _, cut = windows(masks, masks, side)
    place = np.arange(side) - (side - 1) / 2
    rivals = {"down": place[:, None], "right": place}
    scores = {"centre": localisation(centred_gaussian(cut), cut)["auroc"].values}
    for name, values in rivals.items():
        scores[name] = localisation(array(np.broadcast_to(values, cut.shape)), cut)["auroc"].values
    return {name: (values.mean(), 4 * values.std() / np.sqrt(len(values))) for name, values in scores.items()}


@pytest.mark.parametrize("side", [16, 24])
@pytest.mark.parametrize("masks", [discs(8), discs(16)], ids=["small discs", "discs"])
def test_position_says_nothing_in_a_window(masks, side):
    for name, (mean, error) in position_alone(masks, side).items():
        assert abs(mean - 0.5) < error, name


def test_centred_masks_lose_the_advantage_of_the_middle():
    ellipse = ((ROW - 31.5) / 22) ** 2 + ((COLUMN - 31.5) / 16) ** 2 <= 1
    mouth = ((ROW - 46.0) / 6) ** 2 + ((COLUMN - 31.5) / 12) ** 2 <= 1
    for mask in (ellipse, mouth):
        masks = array(np.broadcast_to(mask, (400, 64, 64)))
        assert localisation(centred_gaussian(masks), masks)["auroc"].mean() > 0.75
        for name, (mean, error) in position_alone(masks, 16).items():
            assert abs(mean - 0.5) < error, name


def test_a_map_of_the_whole_picture_still_knows_where_it_is():
    """Which is why pictures are to be cut before they are mapped."""
    ellipse = ((ROW - 31.5) / 22) ** 2 + ((COLUMN - 31.5) / 16) ** 2 <= 1
    masks = array(np.broadcast_to(ellipse, (100, 64, 64)))
    cut, cut_masks = windows(centred_gaussian(masks), masks, 16)
    assert localisation(cut, cut_masks)["auroc"].mean() > 0.95


def test_pictures_are_cut_as_their_maps_are():
    masks = discs(10, 20)
    pictures = xr.DataArray(
        np.random.default_rng(0).random((len(masks), 3, 64, 64)), dims=("image", "channel", "y", "x")
    )
    cut, cut_masks = windows(pictures, masks, 12)
    assert cut["pictures"].dims == ("image", "channel", "y", "x") and cut["pictures"].shape[1:] == (3, 12, 12)
    alone, same = windows(pictures[:, 2].rename("blue"), masks, 12)
    np.testing.assert_array_equal(cut["pictures"][:, 2], alone["blue"])
    xr.testing.assert_identical(cut_masks, same)
    with pytest.raises(BayesdfError, match="pictures of 32 by 64 pixels and masks of 64 by 64"):
        windows(pictures[:, :, :32], masks, 12)


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


def test_mirror_images_of_a_window_are_possible_too():
    changed = np.zeros((1, 12, 12), dtype=bool)
    changed[0, 6:10, 5] = True  # its middle row is 7.5
    allowed = np.ones((1, 9, 9), dtype=bool)
    # Windows of 4 rows from `top` have their middle at top + 1.5, so that top and 12 - top are mirror images.
    assert np.flatnonzero(_mirrored(allowed, changed, 4, axis=1)[0, :, 0]).tolist() == [4, 5, 6, 7, 8]
    allowed[0, 7] = False
    assert np.flatnonzero(_mirrored(allowed, changed, 4, axis=1)[0, :, 0]).tolist() == [4, 6, 7, 8]
    turned = _mirrored(allowed.transpose(0, 2, 1), changed.transpose(0, 2, 1), 4, axis=2)
    np.testing.assert_array_equal(turned, _mirrored(allowed, changed, 4, axis=1).transpose(0, 2, 1))


def test_the_scores_of_all_positions_are_those_of_localisation():
    changed = np.random.default_rng(3).random((2, 7, 9)) < 0.4
    changed[1, :4, :4] = True
    found = _centred_aurocs(changed, 4, _shares(changed, 4))
    for image in range(2):
        for top in range(4):
            for left in range(6):
                cut = array(changed[image : image + 1, top : top + 4, left : left + 4])
                if 0 < cut.sum() < 16:
                    expected = float(localisation(centred_gaussian(cut), cut)["auroc"][0])
                    assert found[image, top, left] == pytest.approx(expected, abs=1e-12)


def test_shares_are_means_over_windows():
    changed = np.random.default_rng(2).random((3, 9, 11)) < 0.3
    view = np.lib.stride_tricks.sliding_window_view(changed, (4, 4), axis=(1, 2))
    np.testing.assert_allclose(_shares(changed, 4), view.mean(axis=(-1, -2)))


def test_bad_input_gets_one_line():
    masks = discs(8, 5)
    for message, arguments, settings in [
        ("side=65", (masks, masks, 65), {}),
        ("low=0.8, high=0.2", (masks, masks, 8), {"low": 0.8, "high": 0.2}),
        ("no image has windows of 60 by 60 pixels", (masks, masks, 60), {"low": 0.9}),
        ("says nothing; give a smaller side", (masks, array(np.broadcast_to(COLUMN > 40, masks.shape)), 16), {}),
        ("maps of 2 images", (masks[:2], masks, 8), {}),
    ]:
        with pytest.raises(BayesdfError, match=message) as caught:
            windows(*arguments, **settings)
        assert "\n" not in str(caught.value)

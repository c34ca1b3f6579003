"""Localisation against scikit-learn and SciPy, its invariances, and its refusals."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from bayesdf.analysis import centred_gaussian, localisation, random_order
from bayesdf.analysis.map_grid import on_grid
from bayesdf.analysis.roc import auroc_by_rank, row_ranks
from bayesdf.errors import BayesdfError

DIMS = ("image", "y", "x")


def array(values, **coords):
    return xr.DataArray(np.asarray(values, dtype=np.float64), dims=DIMS, coords=coords)


@pytest.fixture
def masks():
    """Six images of 16 × 16 pixels: squares, one soft; the last three empty, full and unknown."""
    found = np.zeros((6, 16, 16))
    found[0, 3:9, 4:12] = 1.0
    found[1, 10:, :5] = 0.7
    found[2, ::3, ::2] = 1.0
    found[2, 1::3] = 0.5  # not above one half
    found[4] = 1.0
    found[5] = np.nan
    return array(found)


@pytest.fixture
def maps(masks):
    rng = np.random.default_rng(0)
    return xr.Dataset(
        {"epistemic": (DIMS, rng.normal(size=masks.shape)), "rounded": (DIMS, rng.integers(0, 4, masks.shape) * 0.1)},
        coords={"source": ("image", list("aabbcc")), "subject": ("image", list("pqrpqr"))},
    )


def test_auroc_is_that_of_scikit_learn(maps, masks):
    found = localisation(maps, masks)
    assert found["auroc"].dims == ("image", "quantity") and list(found["quantity"]) == ["epistemic", "rounded"]
    for name in maps:
        for image in range(3):
            truth, score = masks.values[image].ravel() > 0.5, maps[name].values[image].ravel()
            expected = roc_auc_score(truth, score)
            assert float(found["auroc"].sel(quantity=name)[image]) == pytest.approx(expected, abs=1e-12)
    assert np.isnan(found["auroc"][3:]).all() and np.isnan(found["pointing"][3:]).all()
    assert found.attrs == {"tolerance": 0.0, "unknown_masks": 1, "empty_masks": 1, "full_masks": 1}
    assert list(found["source"].values) == list("aabbcc") and list(found["subject"].values) == list("pqrpqr")


def test_ranks_are_those_of_scipy_and_rounding_makes_ties():
    rng = np.random.default_rng(1)
    score = np.stack(
        [rng.integers(0, 5, 200) / 7, rng.normal(size=200), np.zeros(200), -rng.integers(0, 9, 200) * 1e-9]
    )
    np.testing.assert_array_equal(row_ranks(score), rankdata(score, axis=1))
    rounded = score * (1 + 1e-14 * rng.normal(size=score.shape))
    np.testing.assert_array_equal(row_ranks(rounded), row_ranks(score))
    positive = rng.random(score.shape) < 0.3
    positive[3] = False
    found = auroc_by_rank(positive, row_ranks(score))
    np.testing.assert_allclose(found[:3], [roc_auc_score(a, b) for a, b in zip(positive[:3], score[:3], strict=True)])
    assert np.isnan(found[3])


def test_only_the_order_of_the_pixels_counts(maps, masks):
    found = localisation(maps["epistemic"], masks)
    assert found["auroc"].dims == ("image",)
    xr.testing.assert_allclose(found, localisation(np.exp(maps["epistemic"]), masks))
    turned = localisation(-maps["epistemic"], masks)
    np.testing.assert_allclose(turned["auroc"], 1.0 - found["auroc"])
    flipped = localisation(maps["epistemic"][:, ::-1, ::-1], masks[:, ::-1, ::-1])
    xr.testing.assert_allclose(found, flipped)


def test_a_mask_finds_itself_and_a_constant_finds_nothing(masks):
    own = localisation(masks.fillna(0.0), masks)
    np.testing.assert_array_equal(own["auroc"][:3], 1.0)
    np.testing.assert_array_equal(own["pointing"][:3], 1.0)
    flat = localisation(xr.zeros_like(masks) + 0.3, masks)
    np.testing.assert_array_equal(flat["auroc"][:3], 0.5)
    np.testing.assert_allclose(flat["pointing"][:3], (masks.values[:3] > 0.5).mean(axis=(1, 2)))


def test_pointing_game_counts_a_hit_within_the_tolerance(masks):
    point = np.zeros(masks.shape)
    point[:, 12, 8] = 1.0  # 4 rows below the first mask, 4 columns beside the second, on the third
    found = {limit: localisation(array(point), masks, tolerance=limit)["pointing"].values[:3] for limit in (0, 3.9, 4)}
    assert found[0].tolist() == [0, 0, 1] and found[3.9].tolist() == [0, 0, 1] and found[4].tolist() == [1, 1, 1]
    # A mask at the edge of one image is not near the next image.
    near = array(np.zeros((2, 8, 8)))
    near[0, 0, 0] = near[1, 7, 7] = 1.0
    assert localisation(near[::-1], near, tolerance=3.0)["pointing"].values.tolist() == [0, 0]


def test_coarse_maps_are_interpolated_between_the_centres_of_their_cells():
    y, x = np.meshgrid(np.arange(32.0), np.arange(32.0), indexing="ij")
    plane = array((2 * y - x)[None])
    centres = np.arange(8) * 4 + 1.5
    coarse = array((2 * centres[:, None] - centres)[None], y=centres, x=centres)
    rng = np.random.default_rng(2)
    masks = array(np.zeros((1, 32, 32)))
    masks[0, 2:30, 2:30] = rng.random((28, 28)) < 0.4
    np.testing.assert_allclose(on_grid(coarse, masks)[0, 2:30, 2:30], plane.values[0, 2:30, 2:30], atol=1e-12)
    # Without coordinates the cells tile the image, which are the same centres.
    np.testing.assert_allclose(on_grid(coarse.drop_vars(["y", "x"]), masks), on_grid(coarse, masks), atol=1e-12)
    # A constant stays one: all pixels are equal in spite of rounding.
    constant = xr.full_like(coarse, 0.1)
    assert float(localisation(constant, masks)["auroc"][0]) == 0.5
    # Outside the outermost centres the map keeps their value.
    assert on_grid(coarse, masks)[0, 0, 0] == pytest.approx(2 * 1.5 - 1.5)


def test_a_tree_with_the_group_maps_is_found(maps, masks):
    tree = xr.DataTree.from_dict({"maps": maps})
    xr.testing.assert_identical(localisation(tree, masks), localisation(maps, masks))
    with pytest.raises(BayesdfError, match="no group 'maps'"):
        localisation(xr.DataTree.from_dict({"uncertainty": maps}), masks)


def test_rivals_have_the_shape_and_the_seed(maps, masks):
    rival = centred_gaussian(maps)
    assert rival.shape == masks.shape and list(rival["source"].values) == list("aabbcc")
    for turned in (rival[:, ::-1], rival[:, :, ::-1], rival.transpose("image", "x", "y")):
        np.testing.assert_array_equal(turned.values, rival.values)
    assert float(rival.max()) <= 1.0 and rival.values[0].argmax() in (7 * 16 + 7, 7 * 16 + 8)
    odd = centred_gaussian(array(np.zeros((1, 9, 9))))
    assert float(odd[0, 4, 4]) == 1.0 and float(odd[0, 4, 0]) == pytest.approx(np.exp(-0.5 * (4 / 2.25) ** 2))
    xr.testing.assert_identical(random_order(masks, seed=3), random_order(masks, seed=3))
    assert (random_order(masks, seed=3).values != random_order(masks, seed=4).values).any()
    many = array(np.zeros((400, 12, 12)))
    changed = many.copy()
    changed[:, :6] = 1.0
    scores = localisation(random_order(many), changed)["auroc"].values
    assert abs(scores.mean() - 0.5) < 4 * scores.std() / 20


def test_bad_input_gets_one_line(maps, masks):
    def refused(message, *arguments, **settings):
        with pytest.raises(BayesdfError, match=message) as caught:
            localisation(*arguments, **settings)
        assert "\n" not in str(caught.value)

    refused("no image has a mask that tells pixels apart", maps.isel(image=[3, 4]), masks[3:5])
    refused("the mask of every image is unknown", maps.isel(image=[5]), masks[5:])
    refused("maps of 6 images and masks of 2", maps, masks[:2])
    refused("masks of another size", maps, masks[:, :8, :8])
    refused("masks have values from 0 to 255", maps, masks * 255)
    torn = masks.copy()
    torn[0, 0, 7] = np.nan
    refused("mask of image 0 is not finite at 1 of its pixels", maps, torn)
    refused(
        "'epistemic' of 1 images is not finite, first image 2",
        maps.where(maps["source"].copy(data=range(6)) != 2),
        masks,
    )
    refused("epistemic has dimensions image, y", maps.isel(x=0), masks)
    refused("holds no maps", xr.Dataset(), masks)
    refused("an array of shape", maps["epistemic"].values, masks)
    refused("an array of shape", maps, masks.values)
    refused("tolerance=-1", maps, masks, tolerance=-1)
    named = maps.assign_coords(image=list("abcdef"))
    refused("different images: at row 0 the image is a", named, masks.assign_coords(image=list("fbcdea")))
    whole = maps.assign_coords(y=np.arange(16.0), x=np.arange(16.0))
    larger = array(np.zeros((6, 32, 32))).copy()
    larger[:, :8] = 1.0
    refused("cells of the maps lie at y = 0 … 15, the pixels of the masks at 0 … 31", whole, larger)
    shifted = array(np.zeros((6, 4, 4)), y=np.arange(4) * 16.0, x=np.arange(4) * 16.0)
    refused("cells of the maps lie at y = 0 … 48", shifted, masks)


def test_only_the_pixels_that_count_are_ranked() -> None:
    """AUROC and pointing within a part of the picture are scikit-learn's over the pixels of that part."""
    rng = np.random.default_rng(5)
    values = rng.integers(0, 9, (6, 12, 10)).astype(float)
    changed = rng.random((6, 12, 10)) < 0.3
    inside = rng.random((6, 12, 10)) < 0.4
    dims = ("image", "y", "x")
    found = localisation(
        xr.DataArray(values, dims=dims),
        xr.DataArray(changed.astype(float), dims=dims),
        within=xr.DataArray(inside, dims=dims),
    )
    for row in range(6):
        own = inside[row]
        expected = roc_auc_score(changed[row][own], values[row][own])
        assert found["auroc"][row].item() == pytest.approx(expected, abs=1e-12)
        top = values[row][own] == values[row][own].max()
        assert found["pointing"][row].item() == pytest.approx(changed[row][own][top].mean())

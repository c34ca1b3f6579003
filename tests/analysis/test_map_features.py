"""Features of maps: what they are, that they name sources by place alone, and the mean map of each generator."""

import numpy as np
import pytest
import xarray as xr

from bayesdf.analysis import (
    attribute,
    average_map,
    beyond_mean_probability,
    combine,
    describe_feature,
    localisation,
    map_features,
    region_shares,
    scalars,
    score,
)
from bayesdf.errors import BayesdfError

DIMS = ("image", "y", "x")
PLACES = {"eyes": (4, 4), "mouth": (11, 8), "jaw": (13, 2)}


@pytest.fixture
def maps():
    """Three generators that leave uncertainty at three places. Eight people, two images of each by each generator."""
    rng = np.random.default_rng(0)
    source = np.repeat(list(PLACES), 16)
    values = rng.gamma(2.0, size=(48, 16, 16))
    for image, name in enumerate(source):
        row, column = PLACES[name]
        values[image, row : row + 3, column : column + 4] += 6.0
    values *= rng.gamma(3.0, size=(48, 1, 1))  # how large the map is says nothing
    known = {"source": ("image", source), "subject": ("image", np.tile(np.repeat(list("abcdefgh"), 2), 3))}
    noise = rng.normal(size=values.shape)
    return xr.Dataset({"epistemic": (DIMS, values), "aleatoric": (DIMS, noise)}, coords=known)


@pytest.fixture
def regions():
    found = np.zeros((2, 16, 16), dtype=bool)
    found[0, :9], found[1, 9:] = True, True
    return xr.DataArray(found, dims=("region", "y", "x"), coords={"region": ["upper", "lower"]})


def test_features_are_cells_and_shares(maps, regions):
    found = map_features(maps, regions)
    assert found.sizes == {"image": 48, "feature": 2 * 16 + 2 * 2} and np.isfinite(found).all()
    cell = np.abs(maps["aleatoric"].values[7, 4:8, 12:16]).mean()
    assert float(found.sel(feature="map_cell:aleatoric:1,3")[7]) == pytest.approx(np.log(cell))
    shares = region_shares(maps, regions)["share"]
    lower = found.sel(feature="map_share:epistemic:lower")
    np.testing.assert_allclose(lower, shares.sel(quantity="epistemic", region="lower"))
    assert map_features(maps["epistemic"]).sizes["feature"] == 16
    assert {describe_feature(str(name)).mean_probability_alone for name in found["feature"].values} == {False}
    assert beyond_mean_probability(found).identical(found)


def test_the_place_alone_names_the_source(maps, regions):
    found = attribute(map_features(maps[["epistemic"]], regions), folds=4)
    assert float(score(found, resamples=20)["accuracy"][0]) > 0.9
    control = attribute(map_features(maps[["aleatoric"]], regions), folds=4)
    assert float(score(control, resamples=20)["accuracy"][0]) < 0.6


def test_they_stand_beside_the_other_families(predictions):
    images = predictions["posterior_predictive"].sizes["image"]
    values = np.random.default_rng(1).random((images, 8, 8))
    joined = combine(scalars(predictions), map_features(xr.DataArray(values, dims=DIMS, name="epistemic")))
    assert joined.sizes["feature"] == 13 + 16 and "subject" in joined.coords
    assert joined.name == "scalars+map_features"


def test_grids_of_any_size_are_pooled(regions):
    constant = xr.DataArray(np.full((2, 7, 10), 0.5), dims=DIMS)
    np.testing.assert_allclose(map_features(constant), np.log(0.5))
    coarse = xr.DataArray(np.full((2, 2, 3), 0.5), dims=DIMS, coords={"y": [8.0, 24.0], "x": [5.0, 15.0, 25.0]})
    np.testing.assert_allclose(map_features(coarse), np.log(0.5))
    nothing = map_features(xr.zeros_like(constant), regions)
    assert np.isfinite(nothing).all()
    np.testing.assert_allclose(nothing.sel(feature="map_share:map:upper"), 9 / 16)
    dark = constant.copy()
    dark[:, :2] = 0.0  # two of seven rows without a gradient: no outlier
    assert float(map_features(dark).min()) > np.log(0.5) + np.log(1e-6) - 1


def test_the_average_map_is_the_mean_of_each_generator(maps):
    found = average_map(maps)
    assert found["epistemic"].dims == ("source", "y", "x") and found["images"].values.tolist() == [16, 16, 16]
    expected = maps["epistemic"].groupby("source").mean()
    np.testing.assert_allclose(found["epistemic"], expected, rtol=1e-12)
    assert list(found["source"].values) == list(expected["source"].values)
    for name, (row, column) in PLACES.items():
        top = np.unravel_index(found["epistemic"].sel(source=name).values.argmax(), (16, 16))
        assert row <= top[0] < row + 3 and column <= top[1] < column + 4
    people = average_map(maps["epistemic"], by="subject")
    assert people["epistemic"].sizes["subject"] == 8


def test_the_mean_mask_of_other_people_is_a_rival():
    masks = xr.DataArray(np.zeros((6, 8, 8)), dims=DIMS, coords={"source": ("image", list("ababab"))}, name="mask")
    masks[::2, :4, 2:6], masks[1::2, 5:, :3] = 1.0, 1.0
    rival = average_map(masks[:4])["mask"].sel(source=masks["source"])
    assert rival.dims == DIMS
    np.testing.assert_array_equal(localisation(rival[4:], masks[4:])["auroc"], 1.0)


def test_bad_input_gets_one_line(maps, regions):
    with pytest.raises(BayesdfError, match="no coordinate 'generator'; their coordinates are source, subject"):
        average_map(maps, by="generator")
    with pytest.raises(BayesdfError, match="no coordinate 'source'; their coordinates are none"):
        average_map(maps.drop_vars(["source", "subject"]))
    with pytest.raises(BayesdfError, match="regions have dtype"):
        map_features(maps, regions.astype(int))
    with pytest.raises(BayesdfError, match="is not finite"):
        map_features(maps * np.nan)

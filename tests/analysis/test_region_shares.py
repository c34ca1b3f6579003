"""Shares of maps in regions add to one, are what a sum by hand gives, and need regions that divide the picture."""

import numpy as np
import pytest
import xarray as xr

from bayesdf.analysis import region_shares
from bayesdf.errors import BayesdfError

DIMS = ("image", "y", "x")


@pytest.fixture
def regions():
    """Four regions of 12 by 12 pixels: stripes of 2, 4 and 6 rows, and an empty one."""
    found = np.zeros((4, 12, 12), dtype=bool)
    found[0, :2], found[1, 2:6], found[2, 6:] = True, True, True
    return xr.DataArray(found, dims=("region", "y", "x"), coords={"region": ["eyes", "nose", "mouth", "jaw"]})


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    values = {"epistemic": (DIMS, rng.gamma(0.3, size=(5, 12, 12))), "signed": (DIMS, rng.normal(size=(5, 12, 12)))}
    return xr.Dataset(values, coords={"source": ("image", list("aabbb"))})


def test_shares_add_to_one_and_are_sums_of_magnitudes(maps, regions):
    found = region_shares(maps, regions)
    assert found["share"].dims == ("image", "quantity", "region") and list(found["source"].values) == list("aabbb")
    np.testing.assert_allclose(found["share"].sum("region"), 1.0, rtol=1e-13)
    np.testing.assert_allclose(found["area"], [2 / 12, 4 / 12, 6 / 12, 0])
    one = np.abs(maps["signed"].values[3])
    assert float(found["share"].sel(quantity="signed", region="nose")[3]) == pytest.approx(one[2:6].sum() / one.sum())
    assert (found["share"].sel(region="jaw") == 0).all()
    xr.testing.assert_allclose(found, region_shares(maps * -3.0, regions))


def test_a_map_that_is_the_same_everywhere_has_the_share_of_the_area(maps, regions):
    coarse = xr.DataArray(np.full((2, 3, 3), 0.2), dims=DIMS)
    found = region_shares(coarse, regions)
    np.testing.assert_allclose(found["share"], np.tile(found["area"], (2, 1)))
    assert np.isnan(region_shares(coarse * 0, regions)["share"]).all()


def test_each_image_may_have_its_own_regions(maps, regions):
    own = xr.concat([regions, regions[:, ::-1], regions, regions, regions], "image")
    found, alike = region_shares(maps, own)["share"], region_shares(maps, regions)["share"]
    np.testing.assert_allclose(found[2:], alike[2:])
    np.testing.assert_allclose(found[1], region_shares(maps.isel(y=slice(None, None, -1)), regions)["share"][1])


def test_bad_input_gets_one_line(maps, regions):
    overlap, hole = regions.copy(deep=True), regions.copy(deep=True)
    overlap[3, 0, 0], hole[0, 0, :3] = True, False
    for message, arguments in [
        ("0 pixels are in no region and 1 in several of eyes, nose, mouth, jaw", (maps, overlap)),
        ("3 pixels are in no region", (maps, hole)),
        ("regions have dtype float64", (maps, regions.astype(float))),
        ("an array of shape", (maps, regions.values)),
        ("regions of 2 images and maps of 5", (maps, xr.concat([regions, regions], "image"))),
        ("masks of another size", (maps, regions[:, :8].copy(data=np.arange(4)[:, None, None] == np.zeros((8, 12))))),
    ]:
        with pytest.raises(BayesdfError, match=message) as caught:
            region_shares(*arguments)
        assert "\n" not in str(caught.value)

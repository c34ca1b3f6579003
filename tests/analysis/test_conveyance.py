"""Conveyance on maps whose answer is known."""

import numpy as np
import pytest
import xarray as xr

from bayesdf.analysis import conveyance, localisation, random_order
from bayesdf.errors import BayesdfError


@pytest.fixture
def patches():
    found = np.zeros((4, 16, 16))
    for image, (row, column) in enumerate([(0, 0), (3, 9), (10, 2)]):
        found[image, row : row + 5, column : column + 5] = 1.0
    return xr.DataArray(found, dims=("image", "y", "x"), coords={"subject": ("image", list("abca"))})


def test_what_was_injected_is_found(patches):
    noise = random_order(patches)
    maps = xr.Dataset({"epistemic": noise + 2 * patches, "aleatoric": noise, "total": 2 * noise + 2 * patches})
    found = conveyance(maps, patches)
    assert (found["auroc"].sel(quantity="epistemic")[:3] == 1.0).all()
    xr.testing.assert_allclose(found["auroc"], localisation(maps, patches)["auroc"])
    difference = 1.0 - found["auroc"].sel(quantity="aleatoric")[:3]
    np.testing.assert_allclose(found["difference"][:3], difference)
    assert found["difference"].dims == ("image",) and np.isnan(found["difference"][3])
    # The rise over the pictures without the patch is a difference of maps.
    before = maps.assign(epistemic=noise, total=2 * noise)
    assert (conveyance(maps - before, patches)["difference"][:3] == 0.5).all()


def test_both_quantities_are_needed(patches):
    with pytest.raises(BayesdfError, match="maps are of epistemic; conveyance compares"):
        conveyance(xr.Dataset({"epistemic": patches}), patches)
    with pytest.raises(BayesdfError, match="maps are of total; conveyance compares"):
        conveyance(patches.rename("total"), patches)

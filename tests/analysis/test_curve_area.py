"""Areas under curves: exact for straight lines, and the same as NumPy's."""

import numpy as np
import pytest
import xarray as xr

from bayesdf.analysis import area_under
from bayesdf.errors import BayesdfError


def test_the_area_is_that_of_the_trapezoids():
    share = np.array([0.0, 0.1, 0.4, 1.0])
    values = np.random.default_rng(0).normal(size=(5, 4))
    curve = xr.DataArray(values, dims=("image", "share"), coords={"share": share, "source": ("image", list("aabbb"))})
    found = area_under(curve, "share")
    np.testing.assert_allclose(found, np.trapezoid(values, share, axis=1))
    assert found.dims == ("image",) and list(found["source"].values) == list("aabbb")
    xr.testing.assert_allclose(area_under(curve.to_dataset(name="epistemic"), "share")["epistemic"], found)
    np.testing.assert_allclose(area_under(2 * curve["share"] + 1, "share"), 2.0)  # a straight line: exact
    np.testing.assert_allclose(area_under(xr.full_like(curve, 0.3), "share"), 0.3)  # its mean height


def test_bad_input_gets_one_line():
    curve = xr.DataArray([1.0, 2.0], dims="share", coords={"share": [0.5, 0.5]})
    for message, given, dim in [
        ("share = 0.5, 0.5; an area needs two points or more, in rising order", curve, "share"),
        ("an area over 'step' needs both", curve, "step"),
        ("an area over 'share' needs both", curve.drop_vars("share"), "share"),
        ("an array of shape", curve.values, "share"),
    ]:
        with pytest.raises(BayesdfError, match=message):
            area_under(given, dim)

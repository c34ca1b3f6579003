"""Sparsification: by brute force, against the risk-coverage curve, by cases known exactly, and its refusals."""

import numpy as np
import pytest
import xarray as xr

from bayesdf.analysis import random_order, sparsification
from bayesdf.analysis.selective_prediction import risks
from bayesdf.errors import BayesdfError

DIMS = ("image", "y", "x")


def array(values):
    return xr.DataArray(np.asarray(values, dtype=np.float64), dims=DIMS)


@pytest.fixture
def error():
    return array(np.random.default_rng(0).gamma(0.5, size=(3, 8, 10)))


def test_curve_is_the_mean_error_of_the_pixels_kept(error):
    uncertainty = array(np.random.default_rng(1).normal(size=error.shape))
    found = sparsification(uncertainty, error)
    for image in range(3):
        e, u = error.values[image].ravel(), uncertainty.values[image].ravel()
        for share in (0.0, 0.25, 0.5, 0.95):
            kept = 80 - round(share * 80)
            at = found.isel(image=image).sel(share=share)
            assert float(at["kept"]) == pytest.approx(e[np.argsort(u)[:kept]].mean(), abs=1e-12)
            assert float(at["oracle"]) == pytest.approx(np.sort(e)[:kept].mean(), abs=1e-12)
        kept = np.array([e[np.argsort(u)[:k]].mean() for k in range(1, 81)])
        best = np.array([np.sort(e)[:k].mean() for k in range(1, 81)])
        assert float(found["ause"][image]) == pytest.approx((kept - best).mean(), abs=1e-12)
        assert float(found["aurg"][image]) == pytest.approx((e.mean() - kept).mean(), abs=1e-12)


def test_ties_are_those_of_the_risk_coverage_curve():
    rng = np.random.default_rng(2)
    wrong, uncertainty = rng.random((4, 9, 9)) < 0.3, rng.integers(0, 5, (4, 9, 9)) / 3
    found = sparsification(array(uncertainty), array(wrong))
    for image in range(4):
        truth = wrong[image].ravel().astype(float)
        expected = risks(-uncertainty[image].ravel(), truth).mean() - risks(-truth, truth).mean()
        assert float(found["ause"][image]) == pytest.approx(expected, abs=1e-12)


def test_the_error_itself_is_the_oracle_and_a_constant_is_chance(error):
    own = sparsification(error**3, error)
    np.testing.assert_allclose(own["ause"], 0.0, atol=1e-12)
    np.testing.assert_allclose(own["kept"], own["oracle"], atol=1e-12)
    constant = sparsification(xr.full_like(error, 0.1), error)
    np.testing.assert_allclose(constant["aurg"], 0.0, atol=1e-12)
    np.testing.assert_allclose(constant["kept"], np.broadcast_to(error.mean(("y", "x")).values[:, None], (3, 20)))
    assert (sparsification(-error, error)["aurg"] < 0).all()
    assert (np.diff(own["kept"], axis=1) <= 1e-12).all()


def test_quantities_and_unknown_images_stand_apart(error):
    error = error.copy()
    error[1] = np.nan
    maps = xr.Dataset({"epistemic": error.fillna(1.0), "random": random_order(error)})
    found = sparsification(maps, error, shares=[0.0, 0.5])
    assert found["kept"].dims == ("image", "quantity", "share") and found["oracle"].dims == ("image", "share")
    assert found.attrs["unknown"] == 1 and np.isnan(found["ause"][1]).all() and np.isnan(found["error"][1])
    alone = sparsification(maps["random"], error)
    np.testing.assert_array_equal(found["ause"].sel(quantity="random"), alone["ause"])


def test_bad_input_gets_one_line(error):
    for message, arguments, settings in [
        ("shares=\\[1.0\\]", (error, error), {"shares": [1.0]}),
        ("smallest error is -", (error, -error), {}),
        ("error of every image is unknown", (error, error * np.nan), {}),
        ("maps of 3 images and errors of 2", (error, error[:2]), {}),
        ("error of image 0 is not finite", (error, error.where(error < float(error[0].max()))), {}),
        ("the map 'map' of 3 images is not finite", (error * np.nan, error), {}),
    ]:
        with pytest.raises(BayesdfError, match=message) as caught:
            sparsification(*arguments, **settings)
        assert "\n" not in str(caught.value)

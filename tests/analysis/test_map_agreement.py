"""Agreement against SciPy's rank correlation, and its invariances."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import spearmanr

from bayesdf.analysis import agreement
from bayesdf.errors import BayesdfError

DIMS = ("image", "y", "x")


def array(values, **coords):
    return xr.DataArray(np.asarray(values, dtype=np.float64), dims=DIMS, coords=coords)


def test_agreement_is_the_rank_correlation_of_scipy():
    rng = np.random.default_rng(0)
    a, b = array(rng.integers(0, 5, (300, 6, 7)) / 7), array(rng.normal(size=(300, 6, 7)))
    b[::2] += 3 * a[::2]
    found = agreement(a, b)
    assert found.dims == ("image",)
    expected = [spearmanr(one.ravel(), other.ravel()).statistic for one, other in zip(a.values, b.values, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(agreement(b, a), found, atol=1e-15)
    np.testing.assert_allclose(agreement(np.exp(a), -b), -found, atol=1e-12)


def test_a_map_agrees_with_itself_and_a_constant_with_nothing():
    a = array(np.random.default_rng(1).integers(0, 3, (4, 5, 5)))
    np.testing.assert_array_equal(agreement(a, a * 1e-9), 1.0)
    assert np.isnan(agreement(a, xr.full_like(a, 0.1))).all()


def test_sets_are_compared_quantity_by_quantity():
    rng = np.random.default_rng(2)
    a = xr.Dataset({name: (DIMS, rng.normal(size=(3, 6, 6))) for name in ("total", "epistemic")})
    b = xr.Dataset({name: (DIMS, rng.normal(size=(3, 6, 6))) for name in ("epistemic", "aleatoric")})
    a, b = a.assign_coords(source=("image", list("pqr"))), xr.DataTree.from_dict({"maps": b})
    found = agreement(a, b)
    assert found.dims == ("image", "quantity") and list(found["quantity"].values) == ["epistemic"]
    assert list(found["source"].values) == list("pqr")
    np.testing.assert_allclose(found[:, 0], agreement(a["epistemic"], b["maps/epistemic"]))
    one = agreement(a, a["total"])
    assert list(one["quantity"].values) == ["total", "epistemic"] and (one.sel(quantity="total") == 1).all()


def test_the_coarser_map_is_brought_to_the_grid_of_the_other():
    fine = array((np.arange(16.0)[:, None] + 3 * np.arange(16.0))[None])
    centres = np.arange(4) * 4 + 1.5
    coarse = array((centres[:, None] + 3 * centres)[None], y=centres, x=centres)
    assert float(agreement(fine, coarse)[0]) > 0.98
    assert float(agreement(fine, coarse)[0]) == pytest.approx(float(agreement(coarse, fine)[0]))


def test_bad_input_gets_one_line():
    a = array(np.zeros((2, 4, 4)))
    for message, arguments in [
        ("no quantity in common: total and epistemic", (a.to_dataset(name="total"), a.to_dataset(name="epistemic"))),
        ("maps of 2 images and maps of 1", (a, a[:1])),
        ("a float was given", (a, 1.0)),
    ]:
        with pytest.raises(BayesdfError, match=message) as caught:
            agreement(*arguments)
        assert "\n" not in str(caught.value)

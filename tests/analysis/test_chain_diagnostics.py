"""R-hat and effective sample sizes: known autocorrelations, chains that disagree, one chain alone, no spread."""

import numpy as np
import pytest
import xarray as xr

from bayesdf.analysis import convergence
from bayesdf.analysis.chain_diagnostics import ess, r_hat
from bayesdf.errors import BayesdfError


def autoregressive(coefficient, chains=4, draws=1000, seed=0):
    """``x_t = a x_{t-1} + e``, stationary, with variance 1 (chain, draw)."""
    noise = np.random.default_rng(seed).normal(size=(chains, draws)) * np.sqrt(1 - coefficient**2)
    values = np.empty((chains, draws))
    values[:, 0] = np.random.default_rng(seed + 1).normal(size=chains)
    for step in range(1, draws):
        values[:, step] = coefficient * values[:, step - 1] + noise[:, step]
    return values


@pytest.mark.parametrize("coefficient", [-0.4, 0.0, 0.5, 0.9])
def test_ess_of_a_known_autocorrelation(coefficient):
    """The sum of the autocorrelations aᵗ is known: ESS = S (1 - a) / (1 + a); within 15 % of it."""
    draws = 20_000
    expected = 4 * draws * (1 - coefficient) / (1 + coefficient)
    assert ess(autoregressive(coefficient, draws=draws)) == pytest.approx(expected, rel=0.15)


def test_r_hat_of_chains_that_agree_and_of_chains_that_do_not():
    values = autoregressive(0.5, draws=2000)
    assert r_hat(values) < 1.01
    shifted = values + np.array([0, 0, 0, 1.0])[:, None]
    assert r_hat(shifted) > 1.05
    wider = values * np.array([1, 1, 1, 3.0])[:, None]  # the same centre: only folding sees it
    assert r_hat(wider) > 1.05
    drifting = values + np.linspace(0, 2, 2000)  # the same in all chains: only splitting sees it
    assert r_hat(drifting) > 1.05
    heavy = np.tan(np.pi * np.random.default_rng(0).uniform(-0.5, 0.5, (4, 2000)))  # no mean, no variance
    assert r_hat(heavy) < 1.01


def test_ranks_make_them_the_same_under_any_monotone_map():
    values = autoregressive(0.7)
    assert ess(np.exp(3 * values)) == ess(values)
    assert r_hat(values * 5 - 2) == pytest.approx(r_hat(values), abs=1e-12)


@pytest.mark.parametrize(
    ("coefficient", "r", "size"),
    [(-0.8, 1.05874807892, 200), (0.0, 0.999067424932, 81.9821193956), (0.95, 1.42877841275, 2.3894617501)],
)
def test_one_chain_is_compared_with_itself_half_with_half(coefficient, r, size):
    """Numbers of an implementation of the paper that shares no line with ArviZ."""
    values = autoregressive(coefficient, chains=1, draws=101)
    assert r_hat(values) == pytest.approx(r, rel=1e-9) and ess(values) == pytest.approx(size, rel=1e-9)
    assert np.isnan(r_hat(values[:, :7])) and np.isfinite(ess(values[:, :7]))


PAPER = {
    4: (2.39504035406, 12.9501749526),
    5: (1.76936644622, 12.9501749526),
    11: (1.20371176989, 17.009061957),
    100: (1.01073176148, 100.928720922),
}


@pytest.mark.parametrize("draws", PAPER)
def test_numbers_are_those_of_the_paper(draws):
    """By the same implementation, for three chains, rounded so that there are ties."""
    values = autoregressive(0.5, 3, draws).round(1)
    assert (r_hat(values), ess(values)) == pytest.approx(PAPER[draws], rel=1e-9)


def test_every_number_of_every_site():
    values = np.stack([autoregressive(0.5, seed=seed) for seed in range(6)], -1).reshape(4, 1000, 3, 2)
    dims = ("chain", "draw", "w_dim_0", "w_dim_1")
    sites = xr.Dataset({"w": (dims, values), "scale": (("chain", "draw"), values[..., 2, 1])})
    found = convergence(xr.DataTree.from_dict({"/posterior": sites}))
    assert found.identical(convergence(sites)) and found.identical(convergence(sites.transpose("draw", ...)))
    assert found["w"].dims == ("statistic", "w_dim_0", "w_dim_1") and found["scale"].dims == ("statistic",)
    assert float(found["w"].sel(statistic="r_hat")[1, 0]) == r_hat(values[..., 1, 0])
    assert float(found["scale"].sel(statistic="ess")) == ess(values[..., 2, 1])


def test_values_without_spread():
    constant = np.ones((2, 10))
    assert np.isnan(r_hat(constant)) and np.isnan(ess(constant))
    assert r_hat(constant * [[1.0], [2.0]]) == np.inf
    lost = autoregressive(0.0, draws=10)
    lost[0, 3] = np.nan
    assert np.isnan(r_hat(lost)) and np.isnan(ess(lost))


def test_what_cannot_be_judged():
    with pytest.raises(BayesdfError, match="3 draws a chain"):
        convergence(xr.Dataset({"w": (("chain", "draw"), np.zeros((2, 3)))}))
    with pytest.raises(BayesdfError, match="chain and draw are needed"):
        convergence(xr.Dataset({"w": (("draw",), np.zeros(5))}))
    with pytest.raises(BayesdfError, match="no group 'posterior' \\(it has sample_stats\\)"):
        convergence(xr.DataTree.from_dict({"/sample_stats": xr.Dataset()}))
    with pytest.raises(BayesdfError, match="shape \\(8,\\)"):
        r_hat(np.zeros(8))


def test_a_number_of_two_values_has_an_r_hat():
    values = np.random.default_rng(0).integers(0, 2, (4, 100)).astype(float)
    assert r_hat(values) == pytest.approx(1.00295858635, rel=1e-9)
    assert r_hat(np.tile([0.0, 1.0], (4, 50))) == pytest.approx(0.989949493661, rel=1e-9)

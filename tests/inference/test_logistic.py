"""Logistic regression with correlated features: every method that claims a covariance, against a long run of NUTS."""

from typing import Any

import numpy as np
import pytest
import torch

from bayesdf.analysis import convergence
from bayesdf.inference import NUTS, SGMCMC, SVI, Laplace
from bayesdf.models import Detector, priors
from tests.inference.linear import Logistic, simulate

FEATURES = 3
"""Two weights then have a correlation of about -0.4; of more features, at most of -1 / (FEATURES - 1)."""
CLOSE: dict[str, Any] = {"lr": 0.05, "class_balanced": False, "progress": False, "batch_size": 1000}

METHODS = {
    "svi_lowrank": SVI(guide="lowrank", rank=FEATURES, epochs=2000, scale_lr=0.05, **CLOSE),
    "laplace_full": Laplace(structure="full", epochs=400, **CLOSE),
    "sghmc": SGMCMC(chains=1, epochs=200, sampling_epochs=1000, stored_draws=800, **{**CLOSE, "batch_size": 200}),
}


@pytest.fixture(scope="module")
def problem():
    noise = torch.Generator().manual_seed(0)
    features = torch.randn(1000, FEATURES, generator=noise) + 2 * torch.randn(1000, 1, generator=noise)
    train = simulate(features, torch.tensor([1.0, -0.5, -0.2]), seed=1)
    return Detector(Logistic(FEATURES), {"linear": priors.normal(1.5)}), train


@pytest.fixture(scope="module")
def reference(problem):
    """Draws (1200, FEATURES) of chains that agree: R-hat at most 1.03, where chance alone gives 1.01 to 1.02."""
    posterior = NUTS(epochs=200, warmup=80, samples=300, **CLOSE).fit(*problem)
    table = convergence(posterior.draws())["linear.weight"]
    assert float(table.sel(statistic="r_hat").max()) <= 1.03
    assert float(table.sel(statistic="ess").min()) > 600
    return posterior.draws()["posterior/linear.weight"].values.reshape(-1, FEATURES)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_mean_and_covariance_are_those_of_nuts(name, problem, reference):
    """Means within 0.25 of a standard deviation, standard deviations within 15 %, correlations within 0.15."""
    posterior = METHODS[name].fit(*problem)
    count = posterior.sampler.capacity or 4000
    found = posterior.draws(count)["posterior/linear.weight"].values.reshape(-1, FEATURES)
    sd = reference.std(0)
    assert (abs(found.mean(0) - reference.mean(0)) / sd).max() < 0.25
    np.testing.assert_allclose(found.std(0), sd, rtol=0.15)
    np.testing.assert_allclose(np.corrcoef(found.T), np.corrcoef(reference.T), atol=0.15)

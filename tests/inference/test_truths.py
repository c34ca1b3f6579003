"""What every method must get right: posteriors known exactly, and what uncertainty does where there is no data.

A method that is added gets a line in `METHODS`.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest
import torch

from bayesdf.inference import MAP, NUTS, SGMCMC, SVI, SWAG, DeepEnsemble, Laplace
from bayesdf.models import priors
from tests.inference.linear import PRIOR_SCALE, Gaussian, Logistic, conjugate, correlated, simulate

WEIGHTS = torch.tensor([1.0, -0.5])
CLOSE: dict[str, Any] = {"lr": 0.05, "class_balanced": False, "progress": False, "batch_size": 80}


@dataclass(frozen=True)
class Truth:
    """A method, and how much of a normal posterior's covariance Λ⁻¹ its family can hold."""

    method: Any
    covariance: Literal["full", "diagonal", "none", "other"]
    """``diagonal``: the closest family member (in KL(q || p)) has the variances 1 / Λ_ii. ``other``: the spread is not
    meant to be the posterior's."""


METHODS = {
    "map": Truth(MAP(epochs=600, **CLOSE), "none"),
    "svi_normal": Truth(SVI(epochs=1000, scale_lr=0.05, **CLOSE), "diagonal"),
    "svi_local": Truth(SVI(epochs=1000, scale_lr=0.05, estimator="local", **CLOSE), "diagonal"),
    "svi_flipout": Truth(SVI(epochs=1000, scale_lr=0.05, estimator="flipout", **CLOSE), "diagonal"),
    "svi_annealed": Truth(SVI(epochs=1000, scale_lr=0.05, kl_annealing=0.3, moped=0.1, **CLOSE), "diagonal"),
    "svi_matrix": Truth(SVI(guide="matrix", epochs=800, scale_lr=0.05, **CLOSE), "full"),
    "svi_full": Truth(SVI(guide="full", epochs=2000, scale_lr=0.05, **CLOSE), "full"),
    "svi_lowrank": Truth(SVI(guide="lowrank", rank=2, epochs=2000, scale_lr=0.05, **CLOSE), "full"),
    "laplace": Truth(Laplace(epochs=600, **CLOSE), "full"),
    "laplace_kron": Truth(Laplace(structure="kron", epochs=600, **CLOSE), "full"),
    "swag": Truth(SWAG(epochs=300, collect_epochs=100, **{**CLOSE, "batch_size": 20}), "other"),
    "ensemble": Truth(DeepEnsemble(members=2, epochs=800, **{**CLOSE, "lr": 0.5}), "none"),
    "sghmc": Truth(SGMCMC(chains=1, epochs=200, sampling_epochs=4000, stored_draws=700, **CLOSE), "full"),
    "sgld": Truth(
        SGMCMC(chains=1, dynamics="sgld", step_size=1.0, epochs=200, sampling_epochs=6000, stored_draws=1000, **CLOSE),
        "full",
    ),
    "nuts": Truth(NUTS(epochs=100, warmup=50, samples=150, **CLOSE), "full"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_conjugate_linear_model(name):
    """Mean within 0.15 of a standard deviation, standard deviations within 15 %, correlation within 0.03 of -0.9."""
    truth = METHODS[name]
    train = simulate(correlated(80), WEIGHTS, seed=0)
    mean, covariance = conjugate(train)
    sd = np.sqrt(np.diag(covariance))
    correlation = covariance[0, 1] / sd.prod()
    assert correlation < -0.85
    posterior = truth.method.fit(Gaussian(Logistic(2), {"linear": priors.normal(PRIOR_SCALE)}), train)
    draws = 1 if truth.covariance == "none" else posterior.sampler.capacity or 4000
    found = posterior.draws(draws)["posterior/linear.weight"].values.reshape(-1, 2)
    assert (abs(found.mean(0) - mean) / sd).max() < 0.15
    if truth.covariance == "full":
        np.testing.assert_allclose(found.std(0), sd, rtol=0.15)
        assert np.corrcoef(found.T)[0, 1] == pytest.approx(correlation, abs=0.03)
    if truth.covariance == "diagonal":
        np.testing.assert_allclose(found.std(0), 1 / np.sqrt(np.diag(np.linalg.inv(covariance))), rtol=0.15)

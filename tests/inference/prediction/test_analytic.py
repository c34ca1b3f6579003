"""Logits of a normal last layer in closed form: the limit of draws."""

import numpy as np
import pytest
import xarray as xr
from torch import nn

from bayesdf.errors import BayesdfError
from bayesdf.inference import Posterior
from bayesdf.inference.prediction.analytic import logit_moments
from bayesdf.models import build
from tests.inference.prediction.test_prediction import images, samplers, vectors


@pytest.mark.parametrize("kind", ["normal", "lowrank", "full", "matrix", "delta"])
def test_moments_are_those_of_many_draws(kind):
    """4000 draws: means within five standard errors, covariances within 12 % of the largest."""
    _, posteriors = vectors()
    moments = logit_moments(posteriors[kind], images(side=16), batch_size=2)
    drawn = posteriors[kind].predict(images(side=16), draws=4000)["posterior_predictive/logits"].values[0]
    error = np.sqrt(np.einsum("ncc->nc", moments["covariance"].values) / 4000)
    assert (np.abs(drawn.mean(0) - moments["mean"].values) <= 5 * error + 1e-4).all()
    for image in range(5):
        found, expected = np.cov(drawn[:, image].T), moments["covariance"].values[image]
        np.testing.assert_allclose(found, expected, atol=0.12 * np.abs(expected).max() + 1e-8)


def test_one_of_weight_and_bias_may_be_fixed():
    network, _ = vectors()
    for sites in (["4.weight"], ["4.bias"]):
        posterior = Posterior(network, samplers(network, sites)["lowrank"], xr.Dataset(), {})
        moments = logit_moments(posterior, images(side=16))
        drawn = posterior.predict(images(side=16), draws=3000)["posterior_predictive/logits"].values[0]
        np.testing.assert_allclose(drawn.var(0), np.einsum("ncc->nc", moments["covariance"].values), rtol=0.15)
        np.testing.assert_allclose(drawn.mean(0), moments["mean"].values, atol=0.01)


def test_what_has_no_closed_form_says_so():
    _, posteriors = vectors()
    with pytest.raises(BayesdfError, match="use draws"):
        logit_moments(posteriors["stored"], images(side=16))
    network = build("resnet18", 2).eval()
    posterior = Posterior(network, samplers(network, ["layer4.1.bn2.weight", "fc.bias"])["normal"], xr.Dataset(), {})
    with pytest.raises(BayesdfError, match=r"layer4\.1\.bn2\.weight is random too"):
        logit_moments(posterior, images())
    squashed = nn.Sequential(nn.Flatten(), nn.Linear(12, 2), nn.Tanh()).eval()
    posterior = Posterior(squashed, samplers(squashed, ["1.weight"])["normal"], xr.Dataset(), {})
    with pytest.raises(BayesdfError, match="more than a linear layer"):
        logit_moments(posterior, images(side=2))

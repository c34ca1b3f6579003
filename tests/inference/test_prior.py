"""Draws from the prior, and what the network makes of them, against closed forms."""

import arviz
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from bayesdf import prior_predictive
from bayesdf.errors import BayesdfError
from bayesdf.models import Detector, priors
from tests.inference.linear import Logistic

IMAGES = torch.randn(30, 2, 1, 1, generator=torch.Generator().manual_seed(0))


def test_a_linear_network_under_a_normal_prior():
    """``logit_i ~ N(0, scale² |x_i|²)``, the covariance of two images' logits ``scale² x_i·x_j``."""
    detector = Detector(Logistic(2), {"linear": priors.normal(1.5)})
    tree = prior_predictive(detector, IMAGES, draws=600)
    logit = tree["prior_predictive/logits"].values[0, :, :, 1]
    x = IMAGES.flatten(1).numpy()
    expected = 1.5**2 * x @ x.T
    size = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    # A covariance of n draws has a standard error of at most size sqrt(2 / n); these are of two numbers alone.
    assert (abs(np.cov(logit.T) - expected) / size).max() < 5 * np.sqrt(2 / 600)
    assert (abs(logit.mean(0)) / np.sqrt(np.diag(expected))).max() < 5 / np.sqrt(600)
    np.testing.assert_allclose(tree["prior_predictive/probability"].sum("class"), 1, rtol=1e-5)
    np.testing.assert_allclose(
        tree["prior_predictive/probability"].values[0, :, :, 1], 1 / (1 + np.exp(-logit)), atol=1e-6
    )
    weight = tree["prior/linear.weight"]
    assert weight.dims == ("chain", "draw", "linear.weight_dim_0", "linear.weight_dim_1")
    np.testing.assert_allclose(weight.values[0, :, 0] @ x.T, logit, rtol=1e-3, atol=1e-3)
    assert "observed_data" not in tree.children and "posterior" not in tree.children


def test_hyperpriors_come_along_and_arviz_reads_them():
    @priors.shared
    def scale():
        return pyro.sample("scale", dist.HalfCauchy(0.5))

    def prior(name, parameter):
        return dist.Normal(torch.zeros_like(parameter), scale()).to_event(parameter.dim())

    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
    data = TensorDataset(IMAGES, torch.arange(30) % 2)
    tree = prior_predictive(Detector(network, {"1": prior, "3.weight": prior}), data, draws=400, seed=1)
    drawn = tree["prior/scale"].values[0]
    assert abs(np.median(drawn) - 0.5) < 5 * np.pi / 4 / np.sqrt(400)  # 1 / (2 f(median)), f = 2 / (pi 0.5 (1 + 1))
    spread = np.abs(tree["prior/1.weight"].values[0]).reshape(400, -1).mean(1)
    assert np.corrcoef(np.log(spread), np.log(drawn))[0, 1] > 0.9
    assert "3.bias" not in tree["prior"].data_vars and tree["observed_data/label"].sizes["image"] == 30
    known = arviz.InferenceData.from_datatree(tree)
    assert {"prior", "prior_predictive", "observed_data"} <= set(known.groups())
    assert np.isfinite(arviz.summary(known, group="prior", var_names=["scale"], kind="stats")["mean"]).all()


def test_ten_draws_are_the_first_of_twenty_and_nothing_is_changed():
    network = Logistic(2)
    detector = Detector(network, {"linear": priors.normal(1.0)})
    before = torch.get_rng_state()
    ten, twenty = (prior_predictive(detector, IMAGES, draws=n, seed=3)["prior/linear.weight"].values for n in (10, 20))
    np.testing.assert_array_equal(ten, twenty[:, :10])
    assert torch.equal(before, torch.get_rng_state()) and not network.linear.weight.any()
    assert not np.array_equal(ten, prior_predictive(detector, IMAGES, draws=10, seed=4)["prior/linear.weight"].values)


def test_what_cannot_be_drawn_gets_one_line():
    detector = Detector(Logistic(2), {"linear": priors.normal(1.0)})
    with pytest.raises(BayesdfError, match="no priors"):
        prior_predictive(Detector(Logistic(2), {}), IMAGES)
    with pytest.raises(BayesdfError, match="draws is 0"):
        prior_predictive(detector, IMAGES, draws=0)
    with pytest.raises(BayesdfError, match="network fails on images of shape"):
        prior_predictive(detector, torch.rand(2, 5, 1, 1))
    with pytest.raises(BayesdfError, match="empty"):
        prior_predictive(detector, [])

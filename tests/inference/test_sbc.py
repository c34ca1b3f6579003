"""Simulation-based calibration: over many truths drawn from the prior, posteriors are right on average.

Talts, Betancourt, Simpson, Vehtari and Gelman, "Validating Bayesian Inference Algorithms with Simulation-Based
Calibration", 2018: where a truth is drawn from the prior, data from the model given the truth, and L draws from the
posterior given the data, the rank of the truth among the draws is uniform on 0, …, L. Ranks are tested by chi-square in
ten bins: right ones pass at the level of 1 in 10,000, since another processor makes other draws, and wrong ones fail at
1 in 1,000.

Many data sets are fitted at once: each has weights of its own, and images in which all other features are 0. The
posterior is then the product of theirs.
"""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.stats import chisquare
from torch import nn
from torch.func import functional_call
from torch.utils.data import TensorDataset

from bayesdf.inference import NUTS, SVI
from bayesdf.models import Detector, priors
from tests.inference.linear import NOISE, Logistic, simulate

SCALE = 1.5
DRAWS = 99
BINS = 10
LEVEL, WRONG = 1e-4, 1e-3


def p_value(truths, draws):
    """Of uniform ranks, for truths (K,) and draws (DRAWS, K)."""
    assert draws.shape == (DRAWS, len(truths))
    ranks = (draws < truths).sum(0)
    return chisquare(np.bincount(ranks * BINS // (DRAWS + 1), minlength=BINS)).pvalue


def narrowed(draws, factor):
    """The same posterior, so many times as wide."""
    mean = draws.mean(0)
    return mean + factor * (draws - mean)


def shifted(draws, share):
    """The same posterior, so many standard deviations further up."""
    return draws + share * draws.std(0)


def blocks(sets, features, images, seed):
    """Features (sets * images, sets * features): a data set's images have its own features alone."""
    noise = torch.Generator().manual_seed(seed)
    values = torch.randn(sets, images, features, generator=noise)
    values = values + torch.randn(sets, images, 1, generator=noise)  # which are correlated
    return torch.block_diag(*values)


def assert_calibrated(truths, draws):
    assert p_value(truths, draws) > LEVEL
    assert p_value(truths, narrowed(draws, 0.6)) < WRONG
    assert p_value(truths, narrowed(draws, 1.7)) < WRONG
    assert p_value(truths, shifted(draws, 0.5)) < WRONG


def test_ranks_of_exact_draws_are_uniform():
    noise = np.random.default_rng(0)
    centres = noise.normal(size=500)
    assert_calibrated(centres + noise.normal(size=500), centres + noise.normal(size=(DRAWS, 500)))


class Residual(nn.Module):
    """Logits (0, w·x - t) of images (B, D + 1, 1, 1) that end with their target t."""

    def __init__(self, features):
        super().__init__()
        self.linear = nn.Linear(features, 1, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, images):
        values = images.flatten(1)
        score = self.linear(values[:, :-1]) - values[:, -1:]
        return torch.cat([torch.zeros_like(score), score], dim=1)


class Targets(Detector):
    """``t_i ~ N(w·x_i, NOISE²)``, where targets are part of the images; labels say nothing."""

    def model(self, images, labels=None, *, size=None, class_weights=None, network=None):
        inputs = images if isinstance(images, tuple) else (images,)
        residual = functional_call(self.network if network is None else network, self.sample(), inputs)[:, 1]
        with pyro.plate("images", size or len(residual), subsample=torch.arange(len(residual))):
            pyro.sample("label", dist.Normal(residual, NOISE), obs=torch.zeros_like(residual))


@pytest.mark.slow
def test_mean_field_is_calibrated_where_the_posterior_factorises():
    """400 data sets of one weight and four images, whose posteriors are normal."""
    sets = 400
    noise = torch.Generator().manual_seed(1)
    truths = SCALE * torch.randn(sets, generator=noise)
    features = blocks(sets, 1, 4, seed=2)
    targets = features @ truths + NOISE * torch.randn(len(features), generator=noise)
    images = torch.cat([features, targets[:, None]], 1)[:, :, None, None]
    train = TensorDataset(images, torch.arange(len(images)) % 2)
    settings = {"epochs": 800, "lr": 0.05, "scale_lr": 0.05, "batch_size": len(images), "progress": False}
    posterior = SVI(**settings).fit(Targets(Residual(sets), {"linear": priors.normal(SCALE)}), train)
    assert_calibrated(truths.numpy(), posterior.draws(DRAWS)["posterior/linear.weight"].values.reshape(DRAWS, sets))


@pytest.mark.slow
def test_nuts_is_calibrated_on_logistic_regression():
    """200 data sets of two weights and ten images: the posteriors are skewed."""
    sets, width = 200, 2
    noise = torch.Generator().manual_seed(3)
    truths = SCALE * torch.randn(sets * width, generator=noise)
    train = simulate(blocks(sets, width, 10, seed=4), truths, seed=5)
    method = NUTS(chains=1, warmup=100, samples=2 * DRAWS, epochs=0, class_balanced=False, progress=False)
    posterior = method.fit(Detector(Logistic(sets * width), {"linear": priors.normal(SCALE)}), train)
    draws = posterior.draws()["posterior/linear.weight"].values.reshape(2 * DRAWS, -1)[::2]  # nearly independent
    for weight in range(width):
        assert_calibrated(truths.numpy()[weight::width], draws[:, weight::width])

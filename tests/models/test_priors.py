"""The densities of the priors against scipy's, and what bad arguments get."""

import math

import numpy as np
import pyro
import pytest
import scipy.stats
import torch

from bayesdf.errors import BayesdfError
from bayesdf.models import priors

WEIGHTS = torch.tensor([[0.3, -0.2, 0.0], [1.2, 0.05, -0.7]])

DENSITIES = {
    "normal": (priors.normal(0.4, loc=0.1), scipy.stats.norm(0.1, 0.4)),
    "laplace": (priors.laplace(0.4, loc=0.1), scipy.stats.laplace(0.1, 0.4)),
    "student_t": (priors.student_t(3.0, 0.4), scipy.stats.t(3.0, scale=0.4)),
    "he_normal": (priors.he_normal(), scipy.stats.norm(0, math.sqrt(2 / 3))),
}


@pytest.mark.parametrize("name", DENSITIES)
def test_density_is_the_formula(name):
    prior, reference = DENSITIES[name]
    distribution = prior("fc.weight", torch.zeros(2, 3))
    assert distribution.event_shape == (2, 3) and distribution.batch_shape == ()
    expected = reference.logpdf(WEIGHTS.numpy()).sum()
    np.testing.assert_allclose(float(distribution.log_prob(WEIGHTS)), expected, rtol=1e-5)


def test_scale_mixture_density_and_samples():
    distribution = priors.scale_mixture(0.3, 1.0, 0.1)("w", torch.zeros(200, 500))
    small = priors.scale_mixture(0.3, 1.0, 0.1)("w", WEIGHTS)
    density = 0.3 * scipy.stats.norm.pdf(WEIGHTS, 0, 1) + 0.7 * scipy.stats.norm.pdf(WEIGHTS, 0, 0.1)
    np.testing.assert_allclose(float(small.log_prob(WEIGHTS)), np.log(density).sum(), rtol=1e-5)
    torch.manual_seed(0)
    sample = distribution.sample()
    variance = 0.3 + 0.7 * 0.01
    assert float(sample.var()) == pytest.approx(variance, rel=0.03)
    kurtosis = 3 * (0.3 + 0.7 * 1e-4) / variance**2
    assert float(sample.pow(4).mean() / sample.var() ** 2) == pytest.approx(kurtosis, rel=0.1)


def test_he_normal_of_a_bias_is_standard():
    assert priors.he_normal()("b", torch.zeros(7)).base_dist.scale.eq(1).all()


def test_moped_is_centred_on_the_weights_and_never_without_width():
    weights = torch.tensor([0.5, -0.2, 0.0])
    distribution = priors.moped(delta=0.1, floor=0.01)("w", weights).base_dist
    torch.testing.assert_close(distribution.loc, weights)
    torch.testing.assert_close(distribution.scale, torch.tensor([0.05, 0.02, 0.001]))


def test_horseshoe_samples_its_hyperpriors():
    torch.manual_seed(0)
    trace = pyro.poutine.trace(lambda: priors.horseshoe(0.1)("fc.weight", WEIGHTS)).get_trace()
    assert trace.nodes["fc.weight.lambda"]["value"].shape == WEIGHTS.shape
    expected = trace.nodes["fc.weight.tau"]["value"] * trace.nodes["fc.weight.lambda"]["value"]
    torch.testing.assert_close(trace.nodes["_RETURN"]["value"].base_dist.scale, expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda: priors.normal(0.0),
        lambda: priors.laplace(-1.0),
        lambda: priors.student_t(float("nan"), 1.0),
        lambda: priors.scale_mixture(1.0, 1.0, 0.1),
        lambda: priors.horseshoe(float("inf")),
        lambda: priors.moped(0.1, floor=0.0),
    ],
)
def test_arguments_out_of_range(make):
    with pytest.raises(BayesdfError, match="must"):
        make()


def test_describe_names_the_call():
    assert priors.describe(priors.normal(0.1)) == "normal(scale=0.1, loc=0.0)"
    assert priors.describe(test_describe_names_the_call) == "test_describe_names_the_call"

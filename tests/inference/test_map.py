"""MAP finds the mode of the posterior."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from bayesdf.inference import MAP
from bayesdf.models import Detector, priors
from tests.inference.linear import PRIOR_SCALE, Logistic, separate, simulate

WEIGHTS = torch.tensor([1.0, -0.5])
CLOSE = {"epochs": 500, "batch_size": 80, "lr": 0.05, "class_balanced": False, "progress": False}


def test_the_gradient_of_the_density_is_zero_at_the_mode():
    train = simulate(separate(80), WEIGHTS, seed=0)
    posterior = MAP(**CLOSE).fit(Detector(Logistic(2), {"linear": priors.normal(PRIOR_SCALE)}), train)
    found = torch.tensor(posterior.draws(3)["posterior/linear.weight"].values.reshape(3, 2))
    assert torch.equal(found[0], found[2])
    weight = found[0].requires_grad_()
    score = train.tensors[0].flatten(1) @ weight
    log_joint = dist.Bernoulli(logits=score).log_prob(train.tensors[1].float()).sum()
    log_joint = log_joint + dist.Normal(0.0, PRIOR_SCALE).log_prob(weight).sum()
    assert torch.autograd.grad(log_joint, weight)[0].abs().max() < 0.01


def test_a_hyperprior_is_maximised_as_it_is_written():
    """The mode of a Gamma(3, 2) is 1; in logarithms, with the Jacobian, it would be 1.5."""

    def prior(name, parameter):
        pyro.sample(f"{name}.free", dist.Gamma(3.0, 2.0))
        return dist.Normal(torch.zeros_like(parameter), 1.0).to_event(parameter.dim())

    train = simulate(separate(40), WEIGHTS, seed=0)
    posterior = MAP(**CLOSE).fit(Detector(Logistic(2), {"linear": prior}), train)
    assert float(posterior.draws(1)["posterior/linear.weight.free"].values.item()) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("prior", [priors.laplace(0.5), priors.student_t(4.0, 0.5), priors.horseshoe(0.5)])
def test_every_prior(prior):
    train = simulate(separate(40), WEIGHTS, seed=0)
    posterior = MAP(**{**CLOSE, "epochs": 3}).fit(Detector(Logistic(2), {"linear": prior}), train)
    assert np.isfinite(posterior.sample_stats["loss"]).all()

"""The mean-field ELBO is Pyro's, computed with less."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceMeanField_ELBO

from bayesdf.inference import SVI
from bayesdf.inference.elbo import MeanFieldELBO, divergence
from bayesdf.inference.guides import make_guide
from bayesdf.models import Detector, priors
from tests.inference.linear import Logistic

IMAGES, LABELS = torch.randn(12, 3, 1, 1), torch.arange(12) % 2


@pytest.mark.parametrize(
    "prior",
    [priors.normal(0.5, loc=0.2), priors.moped(0.3), priors.laplace(0.4), priors.horseshoe(0.3)],
)
def test_value_and_gradients_are_pyros(prior):
    torch.manual_seed(0)
    network = Logistic(3)
    torch.nn.init.normal_(network.linear.weight)
    detector = Detector(network, {"linear": prior})

    def model(images, labels):
        return detector.model(images, labels, size=120, class_weights=torch.tensor([0.5, 1.5]))

    found = []
    with pyro.get_param_store().scope():
        guide = make_guide("normal", model, (IMAGES, LABELS), {"linear.weight": network.linear.weight}, SVI())
        own = [value for _, value in pyro.get_param_store().named_parameters()]
        for elbo in (TraceMeanField_ELBO(), MeanFieldELBO()):
            torch.manual_seed(1)
            loss = elbo.differentiable_loss(model, guide, IMAGES, LABELS)
            found.append([loss.detach(), *torch.autograd.grad(loss, own)])
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_divergence_of_normals_is_torchs():
    q = dist.Normal(torch.randn(4, 3), torch.rand(4, 3) + 0.1).to_event(2)
    for scale in (torch.tensor(0.7), torch.rand(4, 3) + 0.5, torch.rand(3) + 0.5):
        p = dist.Normal(torch.randn(4, 3), scale).to_event(2)
        expected = torch.distributions.kl_divergence(q, p)
        torch.testing.assert_close(divergence(q, p, q.sample()), expected, rtol=1e-4, atol=1e-4)

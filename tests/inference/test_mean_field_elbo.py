"""The mean-field ELBO is Pyro's, computed with less."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceMeanField_ELBO
from torch.distributions import biject_to, constraints

from bayesdf.inference import SVI
from bayesdf.inference.guides import make_guide
from bayesdf.inference.mean_field_elbo import MeanFieldELBO, divergence
from bayesdf.inference.mean_field_kernels import normal_divergence, reparameterise
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

        def plain(*args):
            """The same guide, written with torch's own normals."""
            for name, support in guide.support.items():
                loc, log_scale = guide.parameters(name)
                base = dist.Normal(loc, log_scale.exp())
                if support != "real":
                    base = dist.TransformedDistribution(base, [biject_to(constraints.positive)])
                pyro.sample(name, base.to_event(loc.dim()))

        for elbo, q in ((TraceMeanField_ELBO(), plain), (MeanFieldELBO(), guide)):
            torch.manual_seed(1)
            loss = elbo.differentiable_loss(model, q, IMAGES, LABELS)
            found.append([loss.detach(), *torch.autograd.grad(loss, own)])
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_fused_divergence_and_sample_are_torchs(layout):
    """Value and gradients, of more numbers than one piece, whatever the layout in memory and the shape of the prior."""
    torch.manual_seed(0)
    shape = (64, 32, 7, 7)
    loc, log_scale = (0.3 * torch.randn(shape) for _ in range(2))
    loc, log_scale = (value.contiguous(memory_format=layout).requires_grad_() for value in (loc, log_scale))
    for prior_loc, prior_scale in (
        (torch.zeros(()).expand(shape), torch.tensor(0.7).expand(shape)),
        (torch.randn(shape), torch.rand(shape) + 0.5),
        (torch.zeros(()).expand(shape), torch.tensor(0.7, requires_grad=True).expand(shape)),
        (torch.randn(shape, requires_grad=True), (torch.rand(shape) + 0.5).requires_grad_()),
    ):
        p, q = dist.Normal(prior_loc, prior_scale), dist.Normal(loc, log_scale.exp())
        wanted = [value for value in (loc, log_scale, prior_loc, prior_scale) if value.requires_grad]
        expected = torch.distributions.kl_divergence(q, p).sum()
        found = normal_divergence(loc, log_scale, prior_loc, prior_scale)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-3)
        gradients = [torch.autograd.grad(value, wanted, retain_graph=True) for value in (found, expected)]
        torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)
    value = reparameterise(loc, log_scale)
    noise = ((value - loc) / log_scale.exp()).detach()
    assert abs(float(noise.mean())) < 0.02 and abs(float(noise.std()) - 1) < 0.02
    assert noise.unique().numel() > 0.9 * noise.numel()  # no piece repeats another
    weight = torch.randn(shape)
    found = torch.autograd.grad((value * weight).sum(), (loc, log_scale))
    torch.testing.assert_close(found[0], weight)
    torch.testing.assert_close(found[1], weight * noise * log_scale.exp().detach(), rtol=1e-3, atol=1e-5)


def test_divergence_of_normals_is_torchs():
    q = dist.Normal(torch.randn(4, 3), torch.rand(4, 3) + 0.1).to_event(2)
    for scale in (torch.tensor(0.7), torch.rand(4, 3) + 0.5, torch.rand(3) + 0.5):
        p = dist.Normal(torch.randn(4, 3), scale).to_event(2)
        expected = torch.distributions.kl_divergence(q, p)
        torch.testing.assert_close(divergence(q, p, q.sample()), expected, rtol=1e-4, atol=1e-4)

"""Gradients through the predictive are those of the whole computation."""

import copy

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn
from torch.func import functional_call

from bayesdf.errors import BayesdfError
from bayesdf.inference import Posterior, uncertainty_maps
from bayesdf.inference.maps.gradient import input_gradients
from bayesdf.inference.maps.predictive import QUANTITIES, Predictive
from bayesdf.inference.prediction.predictor import to_device
from bayesdf.models import build
from tests.inference.maps.small import convolutional, dense, pictures, posterior_over
from tests.inference.prediction.test_prediction import images, samplers


@pytest.mark.parametrize("sites", [["fc.weight"], ["layer4.1.conv2.weight", "fc.bias"], ["conv1.weight"]])
def test_the_same_as_autograd_through_every_draw_of_the_whole_network(sites):
    torch.manual_seed(0)
    network = to_device(build("resnet18", 3, high_pass=True), torch.device("cpu")).eval()
    sampler = samplers(network, sites)["normal"]
    sampler.scale = {name: 5 * scale for name, scale in sampler.scale.items()}
    pixels = images(3, 32).tensors[0]
    found = input_gradients(Posterior(network, sampler, xr.Dataset(), {}), pixels, draws=4, seed=2)
    leaf = pixels.clone().requires_grad_()
    p = torch.stack([functional_call(network, sampler.draw(s, 2), (leaf,)).softmax(-1) for s in range(4)])
    entropy = {"total": -(p.mean(0) * p.mean(0).log()).sum(), "aleatoric": -(p * p.log()).sum(-1).mean(0).sum()}
    entropy["epistemic"] = entropy["total"] - entropy["aleatoric"]
    for name, value in entropy.items():
        (expected,) = torch.autograd.grad(value, leaf, retain_graph=True)
        scale = float(expected.abs().max())
        assert scale > 0 and found[name].dims == ("image", "channel", "y", "x")
        np.testing.assert_allclose(found[name].values, expected.numpy(), atol=1e-3 * scale)
    np.testing.assert_allclose(found["total"], found["aleatoric"] + found["epistemic"], atol=1e-6)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_images_must_be_a_batch():
    network = build("resnet18", 2).eval()
    posterior = Posterior(network, samplers(network, ["fc.weight"])["normal"], xr.Dataset(), {})
    with pytest.raises(BayesdfError, match="must be"):
        input_gradients(posterior, torch.rand(3, 32, 32))


@pytest.mark.parametrize("made", [convolutional, dense])
@pytest.mark.parametrize("sites", [("head.weight", "head.bias"), ("body.weight", "head.bias")])
def test_finite_differences_in_double_precision(made, sites):
    posterior, pixels = made(sites=sites), pictures(2)
    network = copy.deepcopy(posterior.network).double()
    draws = [{name: value.double() for name, value in posterior.sampler.draw(index, 1).items()} for index in range(4)]

    def quantities(x):
        p = torch.stack([functional_call(network, draw, (x,)).softmax(-1) for draw in draws])
        total, aleatoric = torch.special.entr(p.mean(0)).sum(-1), torch.special.entr(p).sum(-1).mean(0)
        found = torch.stack([total, aleatoric, total - aleatoric, 1 - p.mean(0)[..., 0]])
        return found.flatten(2).mean(2) if found.dim() > 2 else found  # (quantity, image)

    found = Predictive(posterior, 4, 1).gradients(pixels)
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for _ in range(3):
            way = torch.randn(pixels.shape, generator=noise, dtype=torch.double)
            slope = (quantities(pixels + 1e-5 * way) - quantities(pixels - 1e-5 * way)) / 2e-5
            for name, expected in zip(QUANTITIES, slope, strict=True):
                along = (found[name] * way).sum((1, 2, 3))
                size = found[name].norm() * way.norm()
                np.testing.assert_allclose(along, expected, atol=1e-5 * float(size))


def test_each_quantity_alone_has_the_same_gradient():
    posterior, pixels = convolutional(), pictures()
    together = Predictive(posterior, 4).gradients(pixels)
    for name in QUANTITIES:
        (alone,) = Predictive(posterior, 4, quantities=(name,)).gradients(pixels).values()
        torch.testing.assert_close(alone, together[name], rtol=1e-3, atol=1e-6)


class Counted(nn.Module):
    """It counts bright pixels, which has no gradient."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(1, 3), nn.Linear(3, 2)

    def forward(self, images):
        return self.head(self.first((images > 0.5).float().flatten(1).mean(1, keepdim=True)))


@pytest.mark.parametrize("site", ["first.weight", "head.weight"])
def test_a_network_without_gradient_is_told_which_methods_will_do(site):
    posterior = posterior_over(Counted().eval(), [site])
    with pytest.raises(BayesdfError, match="occlusion or superpixels"):
        uncertainty_maps(posterior, pictures(), "gradient")
    uncertainty_maps(posterior, pictures(), "occlusion")

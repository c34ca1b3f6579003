"""Gradients through the predictive are those of the whole computation."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch.func import functional_call

from bayesdf.errors import BayesdfError
from bayesdf.inference import Posterior
from bayesdf.inference.maps.gradient import input_gradients
from bayesdf.inference.prediction.predictor import to_device
from bayesdf.models import build
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

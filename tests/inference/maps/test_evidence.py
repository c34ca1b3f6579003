"""Evidence of locations: its logits average to the image's in every draw, and its decomposition is that of analysis."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn
from torch.func import functional_call

from bayesdf import analysis
from bayesdf.errors import BayesdfError
from bayesdf.inference import MCDropout, uncertainty_maps
from bayesdf.inference.maps.evidence import by_location
from bayesdf.inference.maps.predictive import QUANTITIES
from bayesdf.models import Detector, build
from tests.inference.maps.small import convolutional, pictures, posterior_over


def by_hand(posterior, images, draws, seed):
    """Logits (draw, image, y, x, class)."""
    network = by_location(posterior, images).network
    with torch.no_grad():
        return torch.stack([functional_call(network, posterior.sampler.draw(s, seed), (images,)) for s in range(draws)])


@pytest.mark.parametrize("sites", [("head.weight", "head.bias"), ("body.weight", "head.weight")])
def test_decomposition_of_logits_that_average_to_the_image(sites):
    posterior, images = convolutional(sites=sites), pictures()
    logits = by_hand(posterior, images, 6, 2)
    whole = posterior.predict(images, draws=6, seed=2)["posterior_predictive/logits"].values[0]
    np.testing.assert_allclose(logits.mean((2, 3)), whole, rtol=1e-4, atol=1e-5)
    maps = uncertainty_maps(posterior, images, "evidence", 6, 2)["maps"]
    flat = xr.DataArray(logits.flatten(1, 3).numpy(), dims=("draw", "image", "class"))
    expected = analysis.decompose(flat)
    for name in QUANTITIES[:3]:
        np.testing.assert_allclose(maps[name].values.ravel(), expected[name], atol=1e-6)
    np.testing.assert_allclose(maps["p_fake"].values.ravel(), expected["probability"][:, 1:].sum("class"), atol=1e-6)
    assert maps["y"].values.tolist() == [0.5 + 2 * k for k in range(8)]


@pytest.mark.parametrize("outputs", [1, 2])
def test_masks_and_one_logit(outputs):
    torch.manual_seed(0)
    data = torch.utils.data.TensorDataset(pictures(4, 64), torch.arange(4) % 2)
    posterior = MCDropout(epochs=0, progress=False).fit(Detector(build("resnet10t_half", outputs), {}), data)
    maps = uncertainty_maps(posterior, pictures(4, 64), "evidence", 4)["maps"]
    assert maps["total"].shape == (4, 2, 2) and (maps["epistemic"] > 0).any()
    np.testing.assert_allclose(maps["total"], maps["aleatoric"] + maps["epistemic"], atol=1e-6)


def test_other_networks_are_told_which_methods_will_do():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    posterior = posterior_over(network, ["3.weight"])
    with pytest.raises(BayesdfError, match=r"gradient.*occlusion"):
        uncertainty_maps(posterior, pictures(), "evidence", 2)
    uncertainty_maps(posterior, pictures(), "occlusion", 2)


def test_images_that_do_not_fit():
    with pytest.raises(BayesdfError, match="the network fails on images of shape"):
        uncertainty_maps(convolutional(), torch.rand(2, 4, 8, 8), "evidence", 2)

"""The values of all pixels add to the difference from the baseline."""

import numpy as np
import pytest
import torch
from torch import nn

from bayesdf.errors import BayesdfError, BayesdfWarning
from bayesdf.inference import uncertainty_maps
from bayesdf.inference.maps.hiding import FILLS, filled
from bayesdf.inference.maps.integrated_gradient import IntegratedGradient
from bayesdf.inference.maps.predictive import QUANTITIES, Predictive
from tests.inference.maps.small import convolutional, pictures, posterior_over


@pytest.mark.parametrize("baseline", FILLS)
def test_completeness(baseline):
    posterior, images = convolutional(), pictures()
    maps = uncertainty_maps(posterior, images, IntegratedGradient(baseline=baseline), 5, 1)["maps"]
    predictive = Predictive(posterior, 5, 1)
    image, base = predictive(images), predictive(filled(images, baseline))
    for name in QUANTITIES:
        difference = (image[name] - base[name]).numpy()
        np.testing.assert_allclose(maps[name].sum(("y", "x")), difference, atol=1e-4 * abs(difference).max())
    assert float(maps["total"].min()) < 0 and maps.attrs["baseline"] == baseline and maps.attrs["signed"] == 1


class Step(nn.Module):
    """Its logit rises within a narrow range of contrast."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(1, 2)

    def forward(self, images):
        contrast = images.flatten(1).std(1, keepdim=True)
        return self.head(torch.sigmoid(400 * (contrast - 0.2)))


def test_too_few_steps_are_warned_of():
    torch.manual_seed(0)
    network = Step()
    nn.init.constant_(network.head.weight, 0.0)
    network.head.weight.data[1] = 5.0
    posterior = posterior_over(network.eval(), ["head.weight"], 0.1)
    with pytest.warns(BayesdfWarning, match="raise steps above 1"):
        uncertainty_maps(posterior, pictures(), IntegratedGradient(steps=1, baseline="grey"), 5)


@pytest.mark.parametrize("settings, words", [({"steps": 0}, "steps is 0"), ({"baseline": "black"}, "choose from")])
def test_bad_settings(settings, words):
    with pytest.raises(BayesdfError, match=words):
        IntegratedGradient(**settings)

"""The mean gradient over noise: that of the gradient where there is no noise, and less of what changes with it."""

import numpy as np
import pytest
import torch

from bayesdf.errors import BayesdfError
from bayesdf.inference import uncertainty_maps
from bayesdf.inference.maps.predictive import QUANTITIES, Predictive
from bayesdf.inference.maps.smooth_gradient import SmoothGradient
from tests.inference.maps.small import convolutional, pictures


def test_without_noise_it_is_the_gradient():
    posterior, images = convolutional(), pictures()
    plain = uncertainty_maps(posterior, images, "gradient", 5)["maps"]
    smooth = uncertainty_maps(posterior, images, SmoothGradient(copies=2, deviation=1e-7), 5)["maps"]
    for name in QUANTITIES:
        np.testing.assert_allclose(smooth[name], plain[name], rtol=1e-3, atol=1e-3 * float(plain[name].max()))


def test_mean_of_the_gradients_of_noisy_copies():
    posterior, images = convolutional(), pictures(1)
    found = uncertainty_maps(posterior, images, SmoothGradient(copies=400, deviation=0.3), 3)["maps"]
    torch.manual_seed(0)
    noisy = images + 0.3 * torch.randn(4000, 3, 16, 16)
    gradients = Predictive(posterior, 3).gradients(noisy)["total"]
    error = gradients.std(0) / 400**0.5  # of the mean of 400
    expected = gradients.mean(0).abs().sum(0)
    assert (abs(found["total"].values[0] - expected.numpy()) < 5 * error.sum(0).numpy()).all()


@pytest.mark.parametrize("settings, words", [({"copies": 0}, "copies is 0"), ({"deviation": 0.0}, "deviation is 0")])
def test_bad_settings(settings, words):
    with pytest.raises(BayesdfError, match=words):
        SmoothGradient(**settings)

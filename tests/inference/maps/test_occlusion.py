"""Hiding what the network does not look at changes nothing; hiding what it looks at changes what it says."""

import numpy as np
import pytest
import torch
from torch import nn

from bayesdf.errors import BayesdfError
from bayesdf.inference import uncertainty_maps
from bayesdf.inference.maps.hiding import FILLS, blurred, filled
from bayesdf.inference.maps.occlusion import Occlusion, squares
from bayesdf.inference.maps.predictive import QUANTITIES, Predictive
from tests.inference.maps.small import convolutional, pictures, posterior_over


class Corner(nn.Module):
    """It looks at the upper left quarter alone."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3 * 64, 2)

    def forward(self, images):
        return self.head(images[:, :, :8, :8].flatten(1))


def test_what_the_network_does_not_look_at_has_no_part_in_it():
    torch.manual_seed(0)
    posterior = posterior_over(Corner().eval(), ["head.weight"])
    for fill in FILLS:
        maps = uncertainty_maps(posterior, pictures(), Occlusion(patch=4, fill=fill), 5)["maps"]
        for name in QUANTITIES:
            seen = np.zeros((16, 16), bool)
            seen[:8, :8] = True
            assert abs(maps[name].values[:, ~seen]).max() < 1e-6  # rounding: other batches are summed in another order
            assert abs(maps[name].values[:, seen]).min() > 1e-5


def test_fall_is_that_of_the_image_with_the_square_replaced():
    posterior, images = convolutional(), pictures()
    maps = uncertainty_maps(posterior, images, Occlusion(patch=8), 5, 2)["maps"]
    predictive = Predictive(posterior, 5, 2)
    changed = images.clone()
    changed[:, :, 8:, :8] = filled(images, "blurred")[:, :, 8:, :8]
    before, after = predictive(images), predictive(changed)
    for name in QUANTITIES:
        fall = (before[name] - after[name]).numpy()
        for y, x in ((8, 0), (15, 7)):
            np.testing.assert_allclose(maps[name].values[:, y, x], fall, atol=1e-6)


@pytest.mark.parametrize("patch, stride", [(4, 4), (5, 3), (20, 20), (16, 1)])
def test_squares_cover_every_pixel(patch, stride):
    masks = squares(16, 12, patch, stride)
    assert masks.any(0).all() and (masks.flatten(1).sum(1) <= patch**2).all()


def test_blur_keeps_a_plain_image_and_the_mean():
    plain = torch.full((1, 3, 16, 16), 0.4)
    torch.testing.assert_close(blurred(plain, 1.6), plain)
    images = pictures()
    soft = blurred(images, 1.6)
    assert (soft.std((2, 3)) < 0.5 * images.std((2, 3))).all()
    grey = filled(images, "grey")
    torch.testing.assert_close(grey.mean((2, 3)), images.mean((2, 3)))
    assert float(grey.std((2, 3)).max()) < 1e-6


@pytest.mark.parametrize(
    "settings, words",
    [({"patch": 0}, "patch is 0"), ({"patch": 4, "stride": 5}, "left out"), ({"fill": "black"}, "choose from blurred")],
)
def test_bad_settings(settings, words):
    with pytest.raises(BayesdfError, match=words):
        Occlusion(**settings)

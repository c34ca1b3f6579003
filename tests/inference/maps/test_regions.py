"""Regions seen alone and hidden: known answers at the whole image and at its fill."""

import numpy as np
import pytest
import torch

from bayesdf.errors import BayesdfError
from bayesdf.inference.maps.hiding import filled
from bayesdf.inference.maps.predictive import QUANTITIES, Predictive
from bayesdf.inference.maps.regions import region_uncertainty
from tests.inference.maps.small import convolutional, pictures


def halves():
    masks = np.zeros((3, 16, 16), bool)
    masks[0, :8] = masks[1, 8:] = masks[2] = True
    return masks


def test_what_is_seen_of_one_half_is_what_is_hidden_of_the_other():
    posterior, images = convolutional(), pictures()
    found = region_uncertainty(posterior, images, halves(), ["top", "bottom", "all"], 5, 1, batch_size=3)["uncertainty"]
    predictive = Predictive(posterior, 5, 1)
    whole, base = predictive(images), predictive(filled(images, "blurred"))
    for name in QUANTITIES:
        visible, hidden = found[f"{name}_visible"], found[f"{name}_hidden"]
        assert visible.dims == ("image", "region")
        np.testing.assert_allclose(visible.sel(region="top"), hidden.sel(region="bottom"), atol=1e-6)
        np.testing.assert_allclose(visible.sel(region="all"), whole[name], atol=1e-6)
        np.testing.assert_allclose(hidden.sel(region="all"), base[name], atol=1e-6)
        np.testing.assert_allclose(found[name], whole[name], atol=1e-6)


def test_masks_of_each_image():
    posterior, images = convolutional(), pictures()
    same = region_uncertainty(posterior, images, halves(), draws=3)["uncertainty"]
    each = region_uncertainty(posterior, images, np.stack([halves()] * 4), draws=3, batch_size=2)["uncertainty"]
    np.testing.assert_allclose(each["total_hidden"], same["total_hidden"], atol=1e-6)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"masks": np.ones((2, 8, 8))}, "masks are of .8, 8. pixels"),
        ({"masks": np.ones((3, 2, 16, 16))}, "masks of 3 images, but 4"),
        ({"masks": np.zeros((2, 16, 16))}, "region 0 is empty"),
        ({"masks": 2 * np.ones((2, 16, 16))}, "must lie in 0 to 1"),
        ({"masks": np.full((2, 16, 16), np.nan)}, "NaN"),
        ({"masks": np.ones((16, 16))}, "but must be"),
        ({"names": ["a"]}, "1 names of 3 regions"),
        ({"images": torch.rand(0, 3, 16, 16)}, "no images"),
    ],
)
def test_bad_input(change, words):
    with pytest.raises(BayesdfError, match=words):
        region_uncertainty(**{"posterior": convolutional(), "images": pictures(), "masks": halves(), **change})

"""Superpixels are regions of like pixels, and the fall is that of the region."""

import numpy as np
import pytest

from bayesdf.errors import BayesdfError
from bayesdf.inference import uncertainty_maps
from bayesdf.inference.maps.superpixels import Superpixels, superpixels
from tests.inference.maps.small import convolutional, pictures


def test_they_follow_edges():
    grey = np.zeros((32, 32))
    grey[:, 13:] = 1.0
    labels = superpixels(grey, 16, 0.05)
    assert 2 <= len(np.unique(labels)) <= 16
    assert not set(labels[:, :13].flat) & set(labels[:, 13:].flat)


def test_plain_images_have_the_grid():
    labels = superpixels(np.full((16, 16), 0.5), 16, 0.2)
    _, counts = np.unique(labels, return_counts=True)
    assert len(counts) == 16 and counts.max() <= 25


def test_a_map_is_constant_in_each_region():
    images = pictures()
    maps = uncertainty_maps(convolutional(), images, Superpixels(segments=9), 5)["maps"]
    for index in range(len(images)):
        labels = superpixels(images[index].mean(0).double().numpy(), 9, 0.2)
        for label in np.unique(labels):
            assert np.ptp(maps["total"].values[index][labels == label]) == 0


@pytest.mark.parametrize(
    "settings, words",
    [({"segments": 0}, "segments is 0"), ({"compactness": 0.0}, "compactness is 0"), ({"fill": "x"}, "choose from")],
)
def test_bad_settings(settings, words):
    with pytest.raises(BayesdfError, match=words):
        Superpixels(**settings)

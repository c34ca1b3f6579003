"""Curves begin and end where they must, and a map that is right beats its opposite."""

import numpy as np
import pytest
import torch
import xarray as xr

from bayesdf.errors import BayesdfError
from bayesdf.inference import uncertainty_maps
from bayesdf.inference.maps.hiding import filled
from bayesdf.inference.maps.occlusion import Occlusion
from bayesdf.inference.maps.perturbation import deletion, insertion, rank
from bayesdf.inference.maps.predictive import QUANTITIES, Predictive
from tests.inference.maps.small import convolutional, pictures


def random_maps(count=4, side=16):
    values = np.random.default_rng(0).random((count, side, side))
    return xr.DataArray(values, dims=("image", "y", "x"))


def test_ends_are_the_image_and_the_fill():
    posterior, images = convolutional(), pictures()
    predictive = Predictive(posterior, 5, 1)
    image, base = predictive(images), predictive(filled(images, "grey"))
    gone = deletion(posterior, images, random_maps(), (0.0, 0.3, 1.0), 5, 1, fill="grey", batch_size=3)
    come = insertion(posterior, images, random_maps(), (1.0, 0.7, 0.0), 5, 1, fill="grey")
    for name in QUANTITIES:
        np.testing.assert_allclose(gone[name][:, 0], image[name], atol=1e-6)
        np.testing.assert_allclose(gone[name][:, 2], base[name], atol=1e-6)
    # What is left after the first 0.3 of a map have gone comes as the first 0.7 of the opposite map.
    opposite = insertion(posterior, images, -random_maps(), (1.0, 0.7, 0.0), 5, 1, fill="grey")
    cells = round(0.3 * 256) + round(0.7 * 256)
    assert cells == 256
    for name in QUANTITIES:
        np.testing.assert_allclose(opposite[name], gone[name], atol=1e-6)
        np.testing.assert_allclose(come[name][:, [0, 2]], gone[name][:, [0, 2]], atol=1e-6)
    assert gone["share"].values.tolist() == [0.0, 0.3, 1.0] and gone.attrs["fill"] == "grey"


def test_order_by_what_lowers_the_uncertainty_lowers_it_first():
    posterior, images = convolutional(scale=0.5), pictures(8)
    maps = uncertainty_maps(posterior, images, Occlusion(patch=4), 20)["maps"]["total"]
    right, wrong = (deletion(posterior, images, sign * maps, draws=20)["total"].mean() for sign in (1, -1))
    assert float(right) < float(wrong)


def test_ranks():
    maps = torch.tensor([[[0.1, 0.9], [0.5, 0.5]]])
    assert rank(maps, 2, 2).tolist() == [[[3, 0], [1, 2]]]
    coarse = rank(maps, 8, 8)
    assert coarse.flatten().sort().values.tolist() == list(range(64))
    assert coarse[0, 0, 7] < coarse[0, 7, 7] < coarse[0, 0, 0]


@pytest.mark.parametrize(
    "change, words",
    [
        ({"shares": (0.5, 1.1)}, "within 0 to 1"),
        ({"shares": ()}, "within 0 to 1"),
        ({"maps": random_maps(3)}, "maps of 3 images, but 4"),
        ({"maps": random_maps().rename(x="z")}, "must have image, y and x"),
        ({"maps": random_maps() * np.nan}, "NaN"),
        ({"fill": "black"}, "choose from"),
    ],
)
def test_bad_input(change, words):
    with pytest.raises(BayesdfError, match=words):
        deletion(**{"posterior": convolutional(), "images": pictures(), "maps": random_maps(), **change})

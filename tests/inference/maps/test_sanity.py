"""Randomised weights: the last layers first, the same values for each number, and the original left alone."""

import numpy as np
import pytest
import torch

from bayesdf.errors import BayesdfError
from bayesdf.inference import uncertainty_maps
from bayesdf.inference.maps.sanity import layers, randomised
from tests.inference.maps.small import convolutional, pictures


def test_layers_change_from_the_last_on():
    posterior = convolutional(sites=("body.weight", "head.weight"))
    assert layers(posterior) == ["head", "body", "stem"]
    before = {name: value.clone() for name, value in posterior.network.state_dict().items()}
    for number in range(4):
        other = randomised(posterior, number, 3)
        changed = set(layers(posterior)[:number])
        for name, value in other.network.state_dict().items():
            assert torch.equal(value, before[name]) == (name.rpartition(".")[0] not in changed), name
        draw, point = other.sampler.draw(2, 0), other.sampler.point()
        for site, value in posterior.sampler.draw(2, 0).items():
            torch.testing.assert_close(draw[site] - point[site], value - posterior.sampler.point()[site])
            torch.testing.assert_close(point[site], other.network.state_dict()[site])
        assert np.array_equal(
            randomised(posterior, 1, 3).network.head.weight.detach(),
            randomised(posterior, 3, 3).network.head.weight.detach(),
        )
    assert all(torch.equal(value, before[name]) for name, value in posterior.network.state_dict().items())


def test_nothing_randomised_is_the_same_map():
    posterior, images = convolutional(), pictures()
    plain, same, other = (
        uncertainty_maps(one, images, draws=4)["maps"]["total"]
        for one in (posterior, randomised(posterior, 0), randomised(posterior, 3))
    )
    np.testing.assert_allclose(same, plain, rtol=1e-5)
    assert abs(np.corrcoef(other.values.ravel(), plain.values.ravel())[0, 1]) < 0.9


def test_scale_is_kept_and_numbers_are_checked():
    posterior = convolutional()
    old, new = posterior.network.body.weight, randomised(posterior, 3, 1).network.body.weight
    assert (new.std() / old.std()).item() == pytest.approx(1, abs=0.1)
    with pytest.raises(BayesdfError, match="number is 4, but the network has 3"):
        randomised(posterior, 4)

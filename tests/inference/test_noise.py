"""The control without inference: noise of a posterior's size, around weights that nothing was fitted to."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from bayesdf.errors import BayesdfError
from bayesdf.inference import MCDropout, Posterior, load_posterior, matched_noise
from bayesdf.inference.noise import spread
from bayesdf.inference.samplers import NormalSampler, StoredSampler
from bayesdf.models import Detector
from tests.inference.convolutional import convolutional, pictures


def network(seed: int = 0, width: int = 40) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 2))


def posterior(scale: float, seed: int = 0) -> Posterior:
    loc = {"3.weight": torch.randn(2, 40, generator=torch.Generator().manual_seed(seed))}
    sampler = NormalSampler(loc, {"3.weight": torch.full((2, 40), scale)}, {"3.weight": "real"})
    return Posterior(network(seed), sampler, xr.Dataset(), {"method": "SVI"})


def test_the_size_is_that_of_the_posterior_and_the_centre_is_the_networks_own() -> None:
    given = network(seed=7)
    noise = matched_noise(posterior(0.3), given)
    size = json.loads(noise.attrs["noise"])["3.weight"]
    assert size == pytest.approx(0.3, rel=0.03)  # 80 numbers, 50 draws: a standard error of 1.1 %
    assert torch.equal(noise.sampler.point()["3.weight"], given[3].weight.detach())
    drawn = torch.stack([noise.sampler.draw(index, 0)["3.weight"] for index in range(400)])
    np.testing.assert_allclose(drawn.std(0).mean(), size, rtol=0.02)


def test_nothing_but_the_size_of_a_posterior_is_used() -> None:
    """Two posteriors with other means and the same spread give the same noise."""
    one, other = (matched_noise(posterior(0.3, seed), network(seed=7), seed=3) for seed in (0, 1))
    assert torch.allclose(one.sampler.draw(5, 0)["3.weight"], other.sampler.draw(5, 0)["3.weight"], atol=1e-5)


def test_stored_draws_count_by_their_variance() -> None:
    draws = torch.randn(2, 5, 2, 40, generator=torch.Generator().manual_seed(0)) * 0.2
    stored = posterior(0.3)
    stored.sampler = StoredSampler({"3.weight": draws})
    expected = float(draws.flatten(0, 1).var(0).mean().sqrt())
    assert spread(stored)["3.weight"] == pytest.approx(expected, rel=1e-5)


def test_masks_are_drawn_as_they_are_in_the_network_given(tmp_path: Path) -> None:
    model, train = Detector(convolutional(), {}), pictures()
    fitted = MCDropout(rate=0.3, epochs=2, lr=0.01, progress=False).fit(model, train)
    noise = matched_noise(fitted, convolutional())
    logits = [part.predict(train, 4)["posterior_predictive/logits"].values for part in (fitted, noise)]
    assert not np.allclose(*logits)
    for name, value in convolutional().state_dict().items():
        assert torch.equal(noise.network.state_dict()[name], value), name
    again = load_posterior(noise.save(tmp_path / "noise.zarr"), model)
    np.testing.assert_array_equal(again.predict(train, 4)["posterior_predictive/logits"].values, logits[1])
    assert again.attrs["method"] == "matched_noise"


def test_another_architecture_and_a_single_draw_are_refused() -> None:
    with pytest.raises(BayesdfError, match=r"3.weight has shape \(2, 40\), and the network's \(2, 8\)"):
        matched_noise(posterior(0.3), network(width=8))
    with pytest.raises(BayesdfError, match="single draw"):
        matched_noise(posterior(0.3), network(), draws=1)

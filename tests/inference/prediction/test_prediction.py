"""Prediction by prefix and suffix: the numbers of the naive loop, however they are come by."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn
from torch.func import functional_call
from torch.utils.data import TensorDataset

import bayesdf.analysis as analysis
from bayesdf.errors import BayesdfWarning
from bayesdf.inference import MCDropout, Posterior
from bayesdf.inference.batches import batches
from bayesdf.inference.prediction import predictor as module
from bayesdf.inference.prediction.predictor import to_device
from bayesdf.inference.samplers import (
    DeltaSampler,
    FullSampler,
    LowRankSampler,
    MaskSampler,
    Matrix,
    MatrixSampler,
    NormalSampler,
    StoredSampler,
)
from bayesdf.models import build, classifier, penultimate
from bayesdf.models.networks import NAMES

LAST_BLOCK = {
    "resnet18": "layer4.1.conv2.weight",
    "xception": "block12.rep.4.pointwise.weight",
    "efficientnet": "blocks.6.0.conv_pw.weight",
    "mobilenet": "blocks.5.0.conv.weight",
}


def images(count=5, side=64):
    return TensorDataset(
        torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)), torch.arange(count) % 2
    )


def samplers(network, sites):
    """One of every kind, over these sites."""
    torch.manual_seed(1)
    loc = {site: dict(network.named_parameters())[site].detach() for site in sites}
    shapes, support = {site: tuple(value.shape) for site, value in loc.items()}, dict.fromkeys(loc, "real")
    flat = torch.cat([value.flatten() for value in loc.values()])
    scale = {site: 0.02 * torch.ones_like(value) for site, value in loc.items()}
    few = {site: torch.stack([value + 0.02 * torch.randn_like(value) for _ in range(4)]) for site, value in loc.items()}
    made = {
        "normal": NormalSampler(loc, scale, support),
        "lowrank": LowRankSampler(flat, 0.01 * torch.randn(len(flat), 3), torch.full_like(flat, 1e-4), shapes, support),
        "delta": DeltaSampler(loc),
        "stored": StoredSampler({site: value.unflatten(0, (2, 2)) for site, value in few.items()}),
        "matrix": MatrixSampler({site: _matrix(value) for site, value in loc.items()}, support),
    }
    if len(flat) < 5000:
        made["full"] = FullSampler(flat, 0.002 * torch.randn(len(flat), len(flat)).tril(), shapes, support)
    return made


def _matrix(loc):
    flat = loc.reshape(len(loc), -1)
    factors = [torch.eye(side) + 0.1 * torch.randn(side, side).tril(-1) if side < 600 else None for side in flat.shape]
    return Matrix(loc, torch.full(flat.shape, 0.01), *factors)


def naive(posterior, dataset, draws, seed=0):
    """The whole network on all images, once a draw; (chain, draw, image, class)."""
    network, sampler = posterior.network, posterior.sampler
    known = {name for name, _ in network.named_parameters()} | {name for name, _ in network.named_buffers()}
    pixels = dataset.tensors[0].to(memory_format=torch.channels_last)
    found = []
    with torch.no_grad():
        for index in range(draws * sampler.chains):
            values = {name: value for name, value in sampler.draw(index, seed).items() if name in known}
            found.append(functional_call(network, values, (pixels,)))
    return torch.stack(found).unflatten(0, (draws, sampler.chains)).transpose(0, 1).numpy()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_same_numbers_as_the_naive_loop_for_every_network_and_kind_of_posterior(name):
    """In float32 to its rounding; every kind of posterior, over the last layer, a convolution, and dropout masks."""
    torch.manual_seed(0)
    network = to_device(build(name, 2, high_pass=True), torch.device("cpu")).eval()
    head = classifier(network)
    cases = [([f"{head}.weight", f"{head}.bias"], None), ([LAST_BLOCK[name], f"{head}.weight"], {"normal", "stored"})]
    for sites, kinds in cases:
        for kind, sampler in samplers(network, sites).items():
            if kinds is None or kind in kinds:
                _check_against_naive(Posterior(network, sampler, xr.Dataset(), {}), images(), kind)
    masks = MCDropout(rate=0.2, epochs=0, progress=False).fit(_Plain(network), images())
    assert isinstance(masks.sampler, MaskSampler)
    _check_against_naive(masks, images(), "mask")


class _Plain:
    """What MC dropout asks of a detector: a network without priors."""

    def __new__(cls, network):
        from bayesdf.models import Detector

        return Detector(network, {})


def _check_against_naive(posterior, dataset, kind):
    tree = posterior.predict(dataset, draws=2, batch_size=2, penultimate=True)
    found, expected = tree["posterior_predictive/logits"].values, naive(posterior, dataset, 2)
    known = penultimate(posterior.network, dataset.tensors[0]).numpy()
    np.testing.assert_allclose(tree["features/penultimate"].values, known, rtol=1e-4, atol=1e-5, err_msg=kind)
    assert posterior.predictor("cpu")._parts.traced
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5, err_msg=kind)
    if kind != "delta":
        assert not np.allclose(found[0, 0], found[0, 1], atol=1e-4)


def vectors():
    """A network whose only random layer is linear, and its posterior."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    ).eval()
    sites = ["4.weight", "4.bias"]
    return network, {
        name: Posterior(network, sampler, xr.Dataset(), {}) for name, sampler in samplers(network, sites).items()
    }


def test_many_draws_at_once_in_lots_that_fit_give_the_same_numbers(monkeypatch):
    _, posteriors = vectors()
    expected = naive(posteriors["normal"], images(side=16), 9)
    for size in (1 << 26, 4 * 100, 1):
        monkeypatch.setattr(module, "DRAW_BYTES", size)
        found = posteriors["normal"].predict(images(side=16), draws=9, batch_size=2)["posterior_predictive/logits"]
        np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-6)


def test_logits_beyond_memory_are_kept_in_a_file_that_goes_with_them(monkeypatch):
    _, posteriors = vectors()
    expected = posteriors["stored"].predict(images(side=16), draws=2)["posterior_predictive/logits"].values
    monkeypatch.setattr(module, "LOGIT_BYTES", 1)
    tree = posteriors["stored"].predict(images(side=16), draws=2)
    assert np.array_equal(tree["posterior_predictive/logits"].values, expected)


@pytest.mark.parametrize("bytes_", [1, 1 << 29])
def test_streamed_uncertainty_is_that_of_all_draws_together(monkeypatch, bytes_):
    """Lots of draws and lots of images, and chains."""
    _, posteriors = vectors()
    monkeypatch.setattr(module, "FEATURE_BYTES", bytes_)
    monkeypatch.setattr(module, "DRAW_BYTES", 400)
    for name, draws in (("normal", 40), ("stored", 2)):
        whole = analysis.decompose(posteriors[name].predict(images(side=16), draws=draws, batch_size=2))
        streamed = analysis.decompose(posteriors[name].stream(images(side=16), draws=draws, batch_size=2))
        assert set(streamed.data_vars) == set(whole.data_vars)
        for variable in whole.data_vars:
            np.testing.assert_allclose(streamed[variable], whole[variable], rtol=1e-9, atol=1e-15)
        assert streamed["image"].values.tolist() == list(range(5))
        assert streamed["label"].values.tolist() == [0, 1, 0, 1, 0]


def test_mixed_precision_is_near():
    torch.manual_seed(0)
    network = to_device(build("resnet18", 2), torch.device("cpu")).eval()
    posterior = Posterior(network, samplers(network, ["fc.weight", "fc.bias"])["normal"], xr.Dataset(), {})
    trees = [posterior.predict(images(), draws=3, mixed_precision=half, penultimate=True) for half in (False, True)]
    full, mixed = (tree["features/penultimate"].values for tree in trees)
    assert mixed.dtype == np.float32
    np.testing.assert_allclose(mixed, full, atol=0.03 * np.abs(full).max())
    full, mixed = (tree["posterior_predictive/logits"].values for tree in trees)
    assert mixed.dtype == np.float32 and not np.array_equal(full, mixed)
    np.testing.assert_allclose(mixed, full, atol=0.03 * np.abs(full).max())


def test_a_network_is_split_once():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(12, 2)

        def forward(self, pixels):
            flat = pixels.flatten(1)
            return self.linear(flat if flat.sum() > -1e9 else -flat)

    network = Branches().eval()
    posterior = Posterior(network, samplers(network, ["linear.weight"])["normal"], xr.Dataset(), {})
    data = images(side=2)
    with pytest.warns(BayesdfWarning, match="cannot be split") as caught:
        for _ in range(3):
            found = posterior.predict(data, draws=2)["posterior_predictive/logits"].values
    assert len(caught) == 1
    np.testing.assert_allclose(found, naive(posterior, data, 2), rtol=1e-5, atol=1e-6)
    pixels = posterior.predict(data, draws=2, penultimate=True)["features/penultimate"].values
    assert np.array_equal(pixels, data.tensors[0].flatten(1).numpy())


class Item(TensorDataset):
    """As any data set is read: one image after another."""


@pytest.mark.parametrize("order", [None, torch.tensor([4, 0, 6, 1, 5, 2, 3]), torch.tensor([6, 6, 1]).short()])
@pytest.mark.parametrize(
    "images",
    [
        torch.rand(7, 5),
        torch.rand(7, 4, 5).permute(0, 2, 1),
        torch.rand(7, 3, 4, 4),
        torch.rand(7, 4, 4, 3).permute(0, 3, 1, 2),
    ],
)
def test_tensors_are_read_at_once_as_they_are_one_by_one(images, order):
    labels = torch.arange(7)
    seen = []  # as augmentation gets them

    def read(kind):
        def augment(part):
            seen.append(part.stride())
            return part

        return list(batches(kind(images, labels), 3, torch.device("cpu"), order, augment))

    at_once, one_by_one = read(TensorDataset), read(Item)
    assert seen[: len(at_once)] == seen[len(at_once) :]
    for found, expected in zip(at_once, one_by_one, strict=True):
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one, other) and one.stride() == other.stride() and one.dtype == other.dtype
    before = images.clone(), labels.clone()
    for part, label in at_once:
        part += 1.0
        label += 1
    assert torch.equal(images, before[0]) and torch.equal(labels, before[1]), "what was read is a copy"


def test_streams_leave_gradients_as_they_are():
    _, posteriors = vectors()
    pieces = zip(*(posteriors["stored"].stream(images(side=16), draws=1) for _ in range(2)), strict=True)
    for _ in pieces:
        assert torch.is_grad_enabled()
    assert torch.is_grad_enabled()


def test_wide_layers_behind_a_random_one_run_for_few_draws_at_once(monkeypatch):
    """What runs at once is bounded by the largest tensor on the way, not by what goes in and out."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.Linear(16, 4096), nn.ReLU(), nn.Linear(4096, 2)).eval()
    posterior = Posterior(network, samplers(network, ["1.bias"])["normal"], xr.Dataset(), {})
    predictor, seen = posterior.predictor("cpu"), []
    monkeypatch.setattr(module, "DRAW_BYTES", 4 * 10 * 2 * 5 * 4096)
    for piece in predictor.pieces(images(side=2), 40, 0, batch_size=5):
        seen.append(len(piece.logits))
    assert sum(seen) == 40 and 5 <= max(seen) <= 10

"""Prefix and suffix give the network's own numbers."""

import operator

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.utils.data import TensorDataset

from bayesdf.errors import BayesdfWarning
from bayesdf.inference import MAP
from bayesdf.inference.prediction.predictor import to_device
from bayesdf.inference.prediction.split import depends_on_mode, split
from bayesdf.models import Detector, build, priors
from bayesdf.models.networks import NAMES

LAST = {
    "resnet18": ["layer4.1.conv2.weight", "fc.weight"],
    "xception": ["block12.rep.4.pointwise.weight", "fc.weight"],
    "efficientnet": ["blocks.6.0.conv_pw.weight", "classifier.bias"],
    "mobilenet": ["blocks.5.0.conv.weight", "classifier.weight"],
}


@pytest.mark.parametrize("name", NAMES)
def test_the_same_numbers_as_running_the_whole_network(name):
    torch.manual_seed(0)
    network = to_device(build(name, 2, high_pass=True), torch.device("cpu")).eval()
    images = torch.rand(2, 3, 64, 64).to(memory_format=torch.channels_last)
    parameters = dict(network.named_parameters())
    values = {site: parameters[site] + 0.02 * torch.randn_like(parameters[site]) for site in LAST[name]}
    with torch.no_grad():
        parts = split(network, LAST[name], images)
        assert parts.traced
        features = parts.prefix(images)
        expected = functional_call(network, values, (images,))
        for _ in range(2):  # a suffix must not spoil its features for the next draw
            assert torch.equal(functional_call(parts.suffix, values, features), expected)
    assert set(LAST[name]) <= set(parts.trainable()) < set(parameters)


def test_the_suffix_starts_at_the_first_random_operation():
    network = build("resnet18", 2)
    parts = split(network, ["layer4.1.conv2.weight"], torch.rand(1, 3, 64, 64))
    names = {name.rpartition(".")[0] for name in parts.trainable()}
    assert names == {"layer4.1.conv2", "layer4.1.bn2", "fc"}
    assert parts.trainable()["fc.weight"] is network.fc.weight


def test_modes_are_as_before():
    network = build("resnet18", 2).train()
    network.layer1.eval()
    split(network, ["fc.weight"], torch.rand(1, 3, 64, 64))
    assert network.training and network.bn1.training and not network.layer1[0].bn1.training


def test_nothing_random_leaves_nothing_to_the_suffix():
    network = build("resnet18", 2).eval()
    images = torch.rand(2, 3, 64, 64)
    parts = split(network, [], images)
    assert not parts.trainable()
    assert torch.equal(parts.suffix(*parts.prefix(images)), network(images))


class InPlace(nn.Module):
    """Changes a prefix value in place, in an operation that depends on a random weight."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(12, 2), nn.Linear(12, 2)

    def forward(self, images):
        kept = self.first(images.flatten(1))
        return operator.iadd(kept, self.second(images.flatten(1)))


class Hidden(InPlace):
    """An in-place change that reordering prefix before suffix would spoil, and tracing cannot see."""

    def forward(self, images):
        kept = self.first(images.flatten(1))
        logits = self.second(images.flatten(1)) * kept
        kept.zero_().add_(1.0)
        return logits + kept.flip(0)


class Branches(InPlace):
    """Control flow that depends on the images: torch.fx cannot trace it."""

    def forward(self, images):
        flat = images.flatten(1)
        return self.first(flat) if flat.sum() > 0 else self.second(flat)


def test_features_survive_a_suffix_that_writes_into_them():
    network, images = InPlace().eval(), torch.rand(2, 3, 2, 2)
    with torch.no_grad():
        parts = split(network, ["second.weight"], images)
        assert parts.traced
        features = parts.prefix(images)
        for _ in range(3):
            torch.testing.assert_close(parts.suffix(*features), network(images))


@pytest.mark.parametrize("kind", [Hidden, Branches])
def test_what_cannot_be_split_runs_whole_with_one_warning(kind):
    network, images = kind().eval(), torch.rand(2, 3, 2, 2)
    with torch.no_grad():
        parts = split(network, ["second.weight"], images)
        torch.testing.assert_close(parts.suffix(*parts.prefix(images)), network(images))
    assert not parts.traced and parts.obstacle and parts.suffix is network
    model, data = Detector(network, {"second": priors.normal(1.0)}), TensorDataset(images, torch.arange(2))
    with pytest.warns(BayesdfWarning, match="every draw runs all of it") as caught:
        posterior = MAP(epochs=0, progress=False).fit(model, data)
        for _ in range(2):
            posterior.predict(data)
    assert sum("every draw runs all of it" in str(one.message) for one in caught) == 1  # fits warn of their own


def test_functional_dropout_is_noticed():
    """Its mode is settled when it is traced; modules read theirs when they run."""

    class Functional(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.linear, self.module = nn.Linear(12, 2), module

        def forward(self, images):
            values = images.flatten(1)
            return self.linear(self.module(values) if self.module else F.dropout(values, 0.5, self.training))

    assert depends_on_mode(Functional(None).train()) and not depends_on_mode(Functional(nn.Dropout(0.5)))
    assert not any(depends_on_mode(build(name, 2)) for name in NAMES)
    model = Detector(Functional(None), {"linear": priors.normal(1.0)})
    data = TensorDataset(torch.rand(4, 3, 2, 2), torch.arange(4) % 2)
    with pytest.warns(BayesdfWarning, match="training mode"):
        MAP(epochs=1, freeze="prefix", progress=False).fit(model, data)

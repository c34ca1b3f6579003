"""A linear layer at each location of a map: the same features, fresh logits."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bayesdf.errors import BayesdfError
from bayesdf.models import Detector, build, dense_head, last_maps, priors
from bayesdf.models.networks import rebuild


@pytest.mark.parametrize(
    ("name", "layer"),
    [("resnet10t_half", "layer2"), ("resnet10t_half", "layer3.0.act2"), ("mobilenet", "blocks.3"), ("resnet18", "bn1")],
)
def test_logits_are_linear_in_the_layer_s_map(name, layer):
    network = build(name, 2, high_pass=True).eval()
    dense = dense_head(network, layer, 3)
    assert not dense.training
    seen = []
    network.get_submodule(layer).register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
    images = torch.rand(2, 3, 64, 48)
    with torch.no_grad():
        network(images)
        logits = dense(images)
    features = seen[0]
    assert logits.shape == (2, 3, *features.shape[2:])
    expected = torch.einsum("cf,bfyx->bcyx", dense.head.weight[:, :, 0, 0], features) + dense.head.bias[:, None, None]
    torch.testing.assert_close(logits, expected)
    own, theirs = dict(dense.named_parameters()), dict(network.named_parameters())
    assert set(own) - set(theirs) == {"head.weight", "head.bias"} and not any(name.startswith("fc") for name in own)
    assert all(value is theirs[name] for name, value in own.items() if name in theirs)
    assert list(Detector(dense, {"head": priors.normal(1.0)}).sites) == ["head.weight", "head.bias"]


@pytest.mark.parametrize(
    ("layer", "classes", "why"),
    [
        ("layer9", 2, "'layer9' matches no module.*layer4"),
        ("fc", 2, r"fc returns \(2, 2\), but must return a map"),
        ("layer2", 0, "at least one logit"),
    ],
)
def test_what_is_no_map_is_refused(layer, classes, why):
    with pytest.raises(BayesdfError, match=why) as error:
        dense_head(build("resnet10t_half", 2), layer, classes)
    assert "\n" not in str(error.value)


def test_a_network_that_cannot_be_traced_or_has_a_head():
    with pytest.raises(BayesdfError, match=r"cannot be traced.*itself"):
        dense_head(build("vit_tiny_patch16_224", 2), "blocks.0")
    network = nn.Sequential()
    network.add_module("head", nn.Conv2d(3, 2, 3))
    network.add_module("body", nn.Conv2d(2, 2, 3))
    with pytest.raises(BayesdfError, match="module 'head' below"):
        dense_head(network, "body")


def test_maps_of_several_layers_stand_side_by_side_on_the_grid_of_the_first() -> None:
    """The head sees the map of the first layer and, brought to its size, that of the second."""
    network = build("resnet10t_half", 2, small_stem=True).eval()
    images = torch.rand(2, 3, 64, 64)
    layers = last_maps(network, images=images)
    assert layers == ["layer3", "layer4"]
    dense = dense_head(network, layers, images=images)
    seen = []
    handles = [
        network.get_submodule(name).register_forward_hook(lambda module, inputs, output: seen.append(output))
        for name in layers
    ]
    with torch.no_grad():
        network(images)
        for handle in handles:
            handle.remove()
        fine, coarse = seen
        together = torch.cat([fine, F.interpolate(coarse, fine.shape[-2:], mode="bilinear", align_corners=False)], 1)
        expected = F.conv2d(together, dense.head.weight, dense.head.bias)
        torch.testing.assert_close(dense(images), expected)
    again = rebuild(dense.recipe)
    again.load_state_dict(dense.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(images), dense(images))

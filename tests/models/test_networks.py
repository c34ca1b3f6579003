"""The blind networks: shapes, names, and what the options change."""

import pytest
import torch
from torch import nn

from bayesdf.errors import BayesdfError
from bayesdf.models.networks import NAMES, build, rebuild, residual


@pytest.mark.parametrize("name", NAMES)
def test_logits_for_every_class_and_a_recipe_that_rebuilds(name):
    network = build(name, 3, high_pass=True, small_stem=True).eval()
    images = torch.rand(2, 3, 48, 48)
    with torch.no_grad():
        logits = network(images)
        assert logits.shape == (2, 3)
        again = rebuild(network.recipe).eval()
        again.load_state_dict(network.state_dict())
        torch.testing.assert_close(again(images), logits)


def test_resnet18_has_the_names_of_torchvision():
    names = {name for name, _ in build("resnet18", 2).named_parameters()}
    assert {"fc.weight", "fc.bias", "layer4.1.conv2.weight", "layer4.0.conv1.weight"} <= names


def test_either_library_can_be_named():
    assert type(build("timm/resnet18", 2)).__module__.startswith("timm")
    assert type(build("squeezenet1_1", 2)).__module__.startswith("torchvision")
    assert build("vit_tiny_patch16_224", 2)(torch.rand(1, 3, 224, 224)).shape == (1, 2)


def test_unknown_name_says_the_closest_ones():
    with pytest.raises(BayesdfError, match=r"no network 'resnet19'.*resnet18"):
        build("resnet19", 2)


@pytest.mark.parametrize("name", ["hf-hub:timm/resnet18", "local-dir:weights", "hf-hub:someone/model"])
def test_no_name_fetches_a_file(name):
    with pytest.raises(BayesdfError, match="no network"):
        build(name, 2)


def test_no_class_is_refused():
    with pytest.raises(BayesdfError, match="at least one"):
        build("resnet18", 0)


def test_images_are_normalised_before_the_first_convolution():
    network = build("resnet18", 2).eval()
    seen = []
    network.bn1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    images = torch.rand(2, 3, 32, 32)
    network(images)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (images - mean[:, None, None]) / std[:, None, None]
    expected = nn.functional.conv2d(normalised, network.conv1.weight, stride=2, padding=3)
    torch.testing.assert_close(seen[0], expected)


def test_small_stem_keeps_resolution_and_refuses_other_stems():
    seen = {}
    for small in (False, True):
        network = build("resnet18", 2, small_stem=small).eval()
        network.layer1.register_forward_pre_hook(lambda m, x, small=small: seen.update({small: x[0]}))
        network(torch.rand(1, 3, 64, 64))
    assert seen[True].shape[-1] == 2 * seen[False].shape[-1]
    with pytest.raises(BayesdfError, match="stem"):
        build("vit_tiny_patch16_224", 2, small_stem=True)


def test_residual_is_blind_to_slow_changes_and_sees_fast_ones():
    ramp = torch.linspace(0, 1, 16).expand(1, 3, 16, 16)
    assert residual(ramp)[..., 1:-1].abs().max() < 1e-4
    checkers = 0.5 + 0.01 * (-1.0) ** (torch.arange(16)[:, None] + torch.arange(16)).expand(1, 3, 16, 16)
    assert residual(checkers).abs().mean() > 0.3
    assert residual(torch.rand(1, 3, 16, 16)).abs().max() <= 3


def test_high_pass_reaches_the_network():
    network = build("mobilenet", 2, high_pass=True)
    assert network.conv_stem.in_channels == 6
    assert network.conv_stem.weight[:, 3:].std() > 0


@pytest.mark.parametrize("name", ["resnet18", "xception"])
def test_weights_that_cannot_be_downloaded_get_one_line(monkeypatch, tmp_path, name):
    def offline(*args, **kwargs):
        raise OSError("[Errno -2] Name or service not known\nand more lines")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("socket.create_connection", offline)
    monkeypatch.setattr("socket.getaddrinfo", offline)
    with pytest.raises(BayesdfError, match=r"ImageNet weights cannot be had .*connect to the internet") as caught:
        build(name, 2, pretrained=True)
    assert "\n" not in str(caught.value)


def test_a_narrow_network_is_a_quarter_of_the_whole_and_is_built_again() -> None:
    half, whole = (build(name, 2, small_stem=True, high_pass=True) for name in ("resnet10t_half", "resnet10t"))
    count = [sum(value.numel() for value in network.parameters()) for network in (half, whole)]
    assert count[0] == pytest.approx(count[1] / 4, rel=0.01)
    again = rebuild(half.recipe)
    again.load_state_dict(half.state_dict())
    assert half(torch.rand(2, 3, 64, 64)).shape == (2, 2)
    with pytest.raises(BayesdfError, match="nobody publishes weights of this narrow network"):
        build("resnet10t_half", 2, pretrained=True)

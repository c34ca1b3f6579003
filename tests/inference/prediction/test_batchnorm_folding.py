"""Folding normalisation into convolutions changes nothing but rounding."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from bayesdf.inference.prediction.batchnorm_folding import fold_batch_norm
from bayesdf.inference.prediction.split import split
from bayesdf.models import build
from bayesdf.models.networks import NAMES


@pytest.mark.parametrize("name", [*NAMES, "plain"])
def test_the_same_function_in_double_precision(name):
    """Also with other weights, gains and statistics put in by name."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, bias=True), nn.BatchNorm2d(4, affine=False), nn.ReLU(), nn.Conv2d(4, 4, 3)]
    head = [nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)]
    network = nn.Sequential(*layers, *head) if name == "plain" else build(name, 2, high_pass=True)
    network = network.double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        parts = split(network, [], images)
        joined = fold_batch_norm(parts.prefix)
        torch.testing.assert_close(joined(images)[0], network(images), rtol=1e-9, atol=1e-9)
        other = {key: value * 1.1 for key, value in network.named_parameters()}
        torch.testing.assert_close(
            functional_call(joined, other, images)[0],
            functional_call(network, other, images),
            rtol=1e-9,
            atol=1e-9,
        )
    folds = [node for node in joined.graph.nodes if node.op == "call_function" and node.target.__name__ == "_convolve"]
    assert len(folds) == {"plain": 2, "resnet18": 20}.get(name, len(folds))
    if name in ("efficientnet", "mobilenet"):  # timm's norms with an activation are folded too
        assert len(folds) == sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert dict(joined.named_parameters()).keys() == dict(network.named_parameters()).keys()


def test_a_convolution_that_is_used_twice_or_has_hooks_stays():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, images):
            seen = self.convolution(images)
            return (self.norm(seen) + seen).mean((2, 3))

    network, images = Twice().eval(), torch.rand(2, 3, 4, 4)
    parts = split(network, [], images)
    nodes = fold_batch_norm(parts.prefix).graph.nodes
    assert not any(node.op == "call_function" and "convolve" in str(node.target) for node in nodes)
    torch.testing.assert_close(fold_batch_norm(parts.prefix)(images)[0], network(images))

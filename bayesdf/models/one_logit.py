"""Networks that return one logit an image, ``z = log p(fake) - log p(real)``, as networks of two classes.

The logits (0, z) have the same probabilities: ``softmax(0, z)[1] = sigmoid(z)``. So a Bernoulli with logit z is a
categorical with logits (0, z), and all code for classes works unchanged.
"""

from typing import Any

import torch
from torch import Tensor, nn


def two_classes(output: Tensor) -> Tensor:
    """Logits (B, C) or (B, C, H, W). One logit, (B,), (B, 1) or (B, 1, H, W), becomes (0, z). Others stay as they are.

    >>> two_classes(torch.tensor([[1.5], [-2.0]])).tolist()
    [[0.0, 1.5], [0.0, -2.0]]
    """
    if output.dim() == 1:
        output = output[:, None]
    return torch.cat([torch.zeros_like(output), output], 1) if output.shape[1] == 1 else output


def class_logits(output: Tensor) -> Tensor:
    """Logits (B, C). (B, 1) and (B,) become (0, z), (B, 2). Others stay as they are.

    >>> class_logits(torch.tensor([[1.5], [-2.0]])).tolist()
    [[0.0, 1.5], [0.0, -2.0]]
    """
    return two_classes(output) if output.dim() <= 2 else output


class TwoClasses:
    """Forward hook of a network: it does `class_logits`. It is a hook, so that parameters keep their names."""

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        return class_logits(output)


def to_two_classes(network: nn.Module) -> nn.Module:
    """Make a network of one logit return two, in place."""
    if not has_one_logit(network):
        network.register_forward_hook(TwoClasses())
    return network


def has_one_logit(network: nn.Module) -> bool:
    """Whether `to_two_classes` has changed this network."""
    return any(isinstance(hook, TwoClasses) for hook in network._forward_hooks.values())

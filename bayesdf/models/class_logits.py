"""In which form do logits stand inside inference? One for each class, and the class is the last dimension.

A network may return logits (B, C), or (B, C, H, W) for a label at each location of an image, as a *dense* network does.
Inside inference they are (B, C) and (B, H, W, C), so that a softmax over the last dimension is right for both, and
labels have the shape of the logits without the class.

A network may also return one logit, ``z = log p(fake) - log p(real)``. The logits (0, z) have the same probabilities:
``softmax(0, z)[1] = sigmoid(z)``. So a Bernoulli with logit z is a categorical with logits (0, z), and all code for
classes works unchanged.
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
    """The output of a network in the form above: `two_classes`, and (B, C, H, W) as (B, H, W, C).

    Logits (B, C) of several classes are returned themselves.
    """
    logits = two_classes(output)
    return logits.movedim(1, -1) if logits.dim() == 4 else logits


class ClassLogits:
    """Forward hook of a network: it does `class_logits`. It is a hook, so that parameters keep their names."""

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        return class_logits(output)


def to_class_logits(network: nn.Module) -> nn.Module:
    """Make a network return its logits in the form above, in place."""
    if not has_class_logits(network):
        network.register_forward_hook(ClassLogits())
    return network


def has_class_logits(network: nn.Module) -> bool:
    """Whether `to_class_logits` has changed this network."""
    return any(isinstance(hook, ClassLogits) for hook in network._forward_hooks.values())

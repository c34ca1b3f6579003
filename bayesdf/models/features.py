"""The penultimate features of a network: the input of its classifier."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bayesdf.errors import BayesdfError
from bayesdf.models.eval_mode import evaluating, hooked


def classifier(network: nn.Module) -> str:
    """The name of the module that turns features into logits: the last linear layer, ``fc`` in a ResNet.

    A 1 x 1 convolution is linear at each location. In a network without ``nn.Linear`` it is meant if it is the last
    layer with weights, as in one of `bayesdf.models.dense_head`.

    Raises
    ------
    BayesdfError
        The network has no linear layer.
    """
    names = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not names:
        weighted = [name for name, module in network.named_modules() if any(True for _ in module.parameters(False))]
        names = [name for name in weighted[-1:] if is_pointwise(network.get_submodule(name))]
    if not names:
        raise BayesdfError(f"{type(network).__name__} has no linear layer, so it has no penultimate features")
    return names[-1]


def is_pointwise(module: nn.Module) -> bool:
    """Whether a module is a 1 x 1 convolution: a linear layer at each location."""
    return (
        type(module) is nn.Conv2d
        and module.kernel_size == module.stride == module.dilation == (1, 1)
        and module.padding in ((0, 0), "valid", "same")
        and module.groups == 1
    )


@torch.no_grad()
def penultimate(network: nn.Module, images: Tensor) -> Tensor:
    """The input of the network's classifier, in evaluation mode.

    Parameters
    ----------
    network : nn.Module
        Its last linear layer is taken as the classifier.
    images : Tensor (B, 3, H, W)
        Values in [0, 1].

    Returns
    -------
    Tensor (B, F)
    """
    with evaluating(network), classifier_inputs(network) as seen:
        network(images)
    return seen[-1]


@contextmanager
def classifier_inputs(network: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the input of the network's classifier within it: a tensor (B, F) for each run."""
    seen: list[Tensor] = []
    module = network.get_submodule(classifier(network))
    with hooked([module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten(1)))]):
        yield seen

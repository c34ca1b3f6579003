"""Temporary evaluation mode, temporary hooks, and the check of a network's precision."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from bayesdf.errors import BayesdfError


@contextmanager
def evaluating(network: nn.Module) -> Iterator[nn.Module]:
    """The network in eval mode. Afterwards every module has its former mode again."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield network
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def hooked(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Remove these hooks afterwards."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def check_precision(network: nn.Module) -> None:
    """Refuse a network that is not in single precision, since posteriors are computed and stored in it.

    Raises
    ------
    BayesdfError
        Torch's default dtype or a parameter of the network has another dtype.
    """
    default = torch.get_default_dtype()
    if default != torch.float32:
        raise BayesdfError(f"torch's default dtype is {default}: call torch.set_default_dtype(torch.float32)")
    for name, value in network.named_parameters():
        if value.dtype != torch.float32:
            raise BayesdfError(f"parameter {name} of the network is {value.dtype}: call network.float() first")

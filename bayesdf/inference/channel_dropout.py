"""Dropout of whole channels: the module, and where in a network it goes."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from bayesdf.errors import BayesdfError
from bayesdf.models.eval_mode import evaluating, hooked
from bayesdf.models.features import classifier
from bayesdf.models.name_patterns import select

TEMPERATURE = 0.1
"""Temperature of the relaxed masks of concrete dropout, as in the paper's code."""


class ChannelDropout(nn.modules.dropout._DropoutNd):
    """Dropout of whole channels. These are dimension 1 of (B, C, H, W), and the last dimension of anything else.

    In train mode each image has a fresh mask, which is relaxed if its rate is being learnt (`logit`). In eval mode the
    mask is the buffer ``mask`` (C,). It is all ones, the expectation, unless a draw replaces it.
    """

    mask: Tensor

    def __init__(self, channels: int, rate: float) -> None:
        super().__init__(rate)
        self.rate = rate
        self.logit: Tensor | None = None
        self.register_buffer("mask", torch.ones(channels))

    def forward(self, value: Tensor) -> Tensor:
        if self.training:
            noise = torch.rand(len(value), len(self.mask), device=value.device)
            if self.logit is None:
                scaled = (noise >= self.rate).to(value.dtype) / (1 - self.rate)
            else:
                # Gal, Hron and Kendall, equation 5: how much of a channel is dropped.
                drop = torch.sigmoid((self.logit + torch.logit(noise, eps=1e-6)) / TEMPERATURE)
                scaled = (1 - drop) / torch.sigmoid(-self.logit)
            shape = (len(value), -1, 1, 1) if value.dim() == 4 else (len(value), *(1,) * (value.dim() - 2), -1)
            return value * scaled.view(shape)
        return value * (self.mask.view(-1, 1, 1) if value.dim() == 4 else self.mask)


def insert(
    network: nn.Module, rate: float, layers: str | tuple[str, ...] | list[str] | None, image: Tensor
) -> dict[str, int]:
    """Put `ChannelDropout` into a network, in place.

    Parameters
    ----------
    network : nn.Module
    rate : float
    layers : globs over module names, or None for the default places
    image : Tensor (1, 3, H, W)
        It runs through the network once, to count channels.

    Returns
    -------
    dict from the path of each `ChannelDropout` to its number of channels
    """
    own = [path for path, module in network.named_modules() if isinstance(module, nn.Dropout) and module.p > 0]
    if layers is not None:
        modules = [path for path, _ in network.named_modules() if path]
        added = [f"{path}.dropout" for path in select(layers, modules)]
    else:
        added = [] if own else places(network)
    counts = _count_channels(network, [*own, *added], image)
    for path, channels in counts.items():
        install(network, path, channels, rate)
    return counts


def places(network: nn.Module) -> list[str]:
    """Where dropout goes in a network that has none: the paths of the new modules.

    After each block of the last stage (``<block>.dropout``), and before the classifier
    (``<classifier>.input_dropout``; see `bayesdf.models.classifier`). The last stage is ``layer4``
    (ResNets), the last entry of ``stages``, ``blocks`` or ``features`` (EfficientNet, MobileNet, ConvNeXt, …; if that
    is a single block, it alone), or the ``block<n>`` with the highest number (Xception). A network with none of these
    gets dropout before the classifier alone.
    """
    found: list[str] = []
    numbered = [name for name, _ in network.named_children() if name.startswith("block") and name[5:].isdigit()]
    for stage in ("layer4", "stages", "blocks", "features"):
        module = getattr(network, stage, None)
        if isinstance(module, nn.Sequential) and len(module):
            path = stage if stage == "layer4" else f"{stage}.{len(module) - 1}"
            last = network.get_submodule(path)
            found = [f"{path}.{name}" for name, _ in last.named_children()] if _is_stage(last) else [path]
            break
    else:
        if numbered:
            found = [max(numbered, key=lambda name: int(name[5:]))]
    result = [f"{path}.dropout" for path in found]
    with suppress(BayesdfError):  # there is none
        result.append(f"{classifier(network)}.input_dropout")
    if not result:
        raise BayesdfError("MCDropout: no place for dropout is known in this network: name modules with layers=")
    return result


def _is_stage(module: nn.Module) -> bool:
    """Whether a module is a plain sequence of blocks, not of single layers."""
    blocks = list(module.children())
    return type(module) is nn.Sequential and all(any(True for _ in block.children()) for block in blocks)


def _count_channels(network: nn.Module, paths: list[str], image: Tensor) -> dict[str, int]:
    """The channels that each dropout will see. Those that the image does not reach are left out."""
    counts: dict[str, int] = {}

    def record(path: str, value: Any) -> None:
        if not isinstance(value, Tensor):
            raise BayesdfError(
                f"MCDropout: {path} would see a {type(value).__name__}, not a tensor: choose other layers"
            )
        counts[path] = value.shape[1] if value.dim() == 4 else value.shape[-1]

    def before(path: str) -> Any:
        return lambda module, inputs: record(path, _of_linear(module, inputs[0]))

    def after(path: str) -> Any:
        return lambda module, inputs, output: record(path, output)

    handles = []
    for path in paths:
        owner, _, name = path.rpartition(".")
        if name == "dropout" and not isinstance(_existing(network, path), nn.Dropout):
            handles.append(network.get_submodule(owner).register_forward_hook(after(path)))
        elif name == "input_dropout":
            handles.append(network.get_submodule(owner).register_forward_pre_hook(before(path)))
        else:
            handles.append(network.get_submodule(path).register_forward_pre_hook(before(path)))
    with torch.no_grad(), hooked(handles):
        network(image)
    return {path: counts[path] for path in paths if path in counts}


@torch.no_grad()
def masks_before(network: nn.Module, images: Tensor) -> dict[str, tuple[str, ...]]:
    """The weight matrices and kernels that masks multiply: those of the first layer to run after each mask.

    Parameters
    ----------
    network : nn.Module
        With its `ChannelDropout`.
    images : Tensor (B, 3, H, W)
        They run through the network once.

    Returns
    -------
    dict from the name of a weight to the names of its masks
    """
    found: dict[str, tuple[str, ...]] = {}
    waiting: list[str] = []

    def drawn(path: str) -> Callable[..., None]:
        return lambda *_: waiting.append(f"{path}.mask")

    def runs(weights: list[str]) -> Callable[..., None]:
        def note(*_: object) -> None:
            for weight in weights:
                found.setdefault(weight, tuple(waiting))
            waiting.clear()

        return note

    handles = []
    for path, module in network.named_modules():
        weights = [f"{path}.{name}" for name, value in module.named_parameters(recurse=False) if value.dim() > 1]
        if isinstance(module, ChannelDropout):
            handles.append(module.register_forward_pre_hook(drawn(path)))
        elif weights:
            handles.append(module.register_forward_pre_hook(runs(weights)))
    with evaluating(network), hooked(handles):
        network(images)
    return {weight: masks for weight, masks in found.items() if masks}


def install(network: nn.Module, path: str, channels: int, rate: float) -> None:
    """Put a `ChannelDropout` at a path: in place of the network's own, or hooked to the module that holds it."""
    owner_path, _, name = path.rpartition(".")
    owner = network.get_submodule(owner_path)
    own = _existing(network, path)
    dropout = ChannelDropout(channels, rate)
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    owner.register_module(name, dropout.to(device).train(owner.training))
    if own is not None:
        return
    if name == "dropout":
        owner.register_forward_hook(_after)
    elif name == "input_dropout":
        owner.register_forward_pre_hook(_before)
    else:
        raise BayesdfError(f"the network has no dropout module at {path!r}")


def _existing(network: nn.Module, path: str) -> nn.Module | None:
    owner, _, name = path.rpartition(".")
    return dict(network.get_submodule(owner).named_children()).get(name)


def _after(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return module.dropout(output)  # type: ignore[operator]


def _before(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    value = inputs[0]
    dropped = module.input_dropout(_of_linear(module, value))  # type: ignore[operator]
    return (dropped.reshape(value.shape), *inputs[1:])


def _of_linear(module: nn.Module, value: Any) -> Any:
    """The input of a module. That of a linear layer has its channels last: (B, H, W, C) becomes (B, H W, C)."""
    many = isinstance(module, nn.Linear) and isinstance(value, Tensor) and value.dim() == 4
    return value.flatten(1, 2) if many else value

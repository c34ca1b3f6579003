"""Fold batch normalisation into the weights of the convolution before it, for prediction.

In evaluation mode batch normalisation multiplies and shifts each channel by numbers that do not depend on the image:

    BN(w ∗ x + b) = (g w) ∗ x + (β + g (b - μ)),    g = γ / sqrt(σ² + ε)

This saves one pass over the activations for one pass over the weights, even if the weights differ between draws. If
there are fewer activations than weights, nothing is folded. The numbers differ only by rounding.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn


def fold_batch_norm(module: nn.Module) -> nn.Module:
    """A traced module in which each plain convolution and the batch normalisation behind it are one operation.

    Parameters and buffers keep their names and are shared. A module that was not traced is returned as it is. The
    result is for evaluation mode. Modules with hooks are left alone.
    """
    if not isinstance(module, fx.GraphModule):
        return module
    modules = dict(module.named_modules())
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    taken: dict[fx.Node, fx.Node] = {}
    for node in module.graph.nodes:
        behind = next(iter(node.users)) if len(node.users) == 1 else None
        if behind is not None and _foldable(node, behind, modules):
            taken[behind] = node
    for node in module.graph.nodes:
        if node in taken.values():
            continue
        if node in taken:
            before, norm = taken[node], str(node.target)
            (x,) = before.all_input_nodes
            copies[node] = _one(graph, str(before.target), norm, modules, copies[x])
            for part in _BEHIND.get(type(modules[norm]).__name__, ()):
                copies[node] = graph.call_module(f"{norm}.{part}", (copies[node],))
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    return fx.GraphModule(module, graph)


_BEHIND = {"BatchNormAct2d": ("drop", "act")}
"""What norms of timm do behind the normalisation: modules of theirs, in this order."""


def _foldable(first: fx.Node, second: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if first.op != "call_module" or second.op != "call_module" or len(first.args) != 1:
        return False
    convolution, norm = modules[str(first.target)], modules[str(second.target)]
    return (
        type(convolution) is nn.Conv2d
        and convolution.padding_mode == "zeros"
        and isinstance(norm, nn.BatchNorm2d)
        and (type(norm) is nn.BatchNorm2d or _is_timm(norm))
        and norm.track_running_stats
        and not any(_hooked(part) for part in (convolution, norm))
    )


def _is_timm(norm: nn.Module) -> bool:
    return type(norm).__module__.startswith("timm.") and type(norm).__name__ in _BEHIND


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _one(graph: fx.Graph, path: str, norm_path: str, modules: dict[str, nn.Module], x: fx.Node) -> fx.Node:
    convolution, norm = modules[path], modules[norm_path]
    assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)

    def get(owner: str, name: str) -> fx.Node | None:
        present = getattr(modules[owner], name) is not None
        return graph.get_attr(f"{owner}.{name}") if present else None

    weights = (get(path, "weight"), get(path, "bias"))
    statistics = tuple(get(norm_path, name) for name in ("weight", "bias", "running_mean", "running_var"))
    settings = (norm.eps, convolution.stride, convolution.padding, convolution.dilation, convolution.groups)
    return graph.call_function(_convolve, (x, *weights, *statistics, *settings))


def _convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gain: Tensor | None,
    shift: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    eps: float,
    *settings: Any,
) -> Tensor:
    if len(x) * math.prod(x.shape[2:]) < weight[0].numel():  # fewer numbers come out than the weight has
        return F.batch_norm(F.conv2d(x, weight, bias, *settings), mean, variance, gain, shift, False, 0.0, eps)
    scale = torch.rsqrt(variance + eps)
    if gain is not None:
        scale = scale * gain
    offset = -mean * scale if bias is None else (bias - mean) * scale
    if shift is not None:
        offset = offset + shift
    return F.conv2d(x, weight * scale.view(-1, 1, 1, 1), offset, *settings)

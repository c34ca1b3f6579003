"""What does a network's classifier say at each location of the last feature map?

If the classifier is linear, ``z = W φ + b``, and its features are averages over the locations, ``φ = mean_l φ_l``, then

    z = mean_l (W φ_l + b),

so that each location has logits of its own, and their mean is the image's (Zhou et al., "Learning Deep Features for
Discriminative Localization", 2016, equation 2, there without the bias).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from bayesdf.errors import BayesdfError
from bayesdf.models.class_logits import has_class_logits, two_classes
from bayesdf.models.eval_mode import evaluating
from bayesdf.models.features import classifier
from bayesdf.models.tracing import TracedNetwork, Tracer, example_images, output_of, values

OTHERS = "gradient, smooth_gradient, integrated_gradient, occlusion and superpixels"
"""The methods of uncertainty maps that any network has."""

_ROUNDING = 1e-3
_RESHAPING = ("flatten", "squeeze", "view", "reshape", "getitem")


def located(network: nn.Module, images: Tensor | None = None) -> nn.Module:
    """The network with its classifier applied at each location of the last feature map, in place of global pooling.

    Parameters
    ----------
    network : nn.Module
        Maps images (B, 3, H, W) to logits (B, C). Its last linear layer is its classifier, and sees a global average.
        Between them stand only dropout and what changes shapes alone (flatten, squeeze, identity).
    images : Tensor (B, 3, H, W), optional
        Images on which the result is checked. Default: two random ones of 128 pixels.

    Returns
    -------
    nn.Module
        Maps images to logits (B, C, h, w). Their mean over locations equals the network's logits in evaluation mode.
        It shares the network's modules, so that parameters, buffers and hooks (preprocessing) are the same and have
        the same names. A network of one logit gives (B, 1, h, w).

    Raises
    ------
    BayesdfError
        The network is not of this form. The line says why, and which methods of maps need no such form.

    Examples
    --------
    >>> from bayesdf.models import build
    >>> located(build("resnet18", 2))(torch.rand(4, 3, 64, 96)).shape
    torch.Size([4, 2, 2, 3])
    """
    images = example_images(network, images)
    with evaluating(network), torch.no_grad():
        try:
            layer = classifier(network)
            graph = Tracer().trace(network)
            found = values(network, graph, images)
        except Exception as error:  # tracing runs the network's own code, which may raise anything
            cause = " ".join(str(error).split())[:150]
            raise _refusal(network, f"it cannot be traced on images {tuple(images.shape)} ({cause})") from error
        _move_to_locations(network, graph, layer, found)
        if has_class_logits(network):
            end = output_of(graph)
            with graph.inserting_before(end):
                end.args = (graph.call_function(two_classes, (end.args[0],)),)
        graph.eliminate_dead_code()
        module = TracedNetwork(network, graph, f"Located{type(network).__name__}", located=True)
        expected = network(images)
        mean = module(images).mean((2, 3))
        if not _close(mean, expected.reshape(mean.shape)):
            raise _refusal(network, "its traced form gives other numbers")
    module.training = network.training
    return module


def _move_to_locations(network: nn.Module, graph: fx.Graph, layer: str, found: dict[fx.Node, Any]) -> None:
    """Change the graph, in place: the classifier and the dropout before it run at each location."""
    calls = [node for node in graph.nodes if node.op == "call_module" and node.target == layer]
    if len(calls) != 1:
        raise _refusal(network, f"its classifier, {layer}, runs {len(calls)} times")
    (linear,) = calls
    if not isinstance(network.get_submodule(layer), nn.Linear):
        raise _refusal(network, f"its classifier, {layer}, is a convolution")
    after = _chain(network, output_of(graph).args[0], until=linear)
    if after is None:
        raise _refusal(network, f"its output is more than that of its last linear layer, {layer}")
    before = _chain(network, linear.args[0])
    assert before is not None
    pool = before[-1]
    dropouts = [node for node in before[:-1] if not _reshapes(network, node)]
    what = _name(network, pool)
    pooled = found[pool]
    of_maps = [node for node in pool.all_input_nodes if isinstance(found[node], Tensor) and found[node].dim() == 4]
    if not isinstance(pooled, Tensor) or len(of_maps) != 1 or pooled.numel() != found[of_maps[0]][..., 0, 0].numel():
        raise _refusal(network, f"what comes before its classifier, {layer}, is {what} and not global average pooling")
    if not _close(pooled.flatten(), found[of_maps[0]].mean((2, 3)).flatten()):
        raise _refusal(network, f"what comes before its classifier, {layer}, is {what}, which is no global average")
    with graph.inserting_before(output_of(graph)):
        moved = of_maps[0]
        for node in reversed(dropouts):
            moved = graph.node_copy(node, lambda _, moved=moved: moved)  # type: ignore[misc]
        last = graph.call_method("permute", (moved, 0, 2, 3, 1))
        logits = graph.node_copy(linear, lambda _: last)
        output_of(graph).args = (graph.call_method("permute", (logits, 0, 3, 1, 2)),)


def _chain(network: nn.Module, start: Any, until: fx.Node | None = None) -> list[fx.Node] | None:
    """The nodes from this one back to the first that is neither dropout nor a change of shape, or to `until`.

    None if the chain does not reach `until`.
    """
    nodes = []
    node = start
    while isinstance(node, fx.Node):
        nodes.append(node)
        passes = _reshapes(network, node) or _drops(network, node)
        if node is until or not passes:
            break
        node = node.args[0] if node.args else node.kwargs.get("input")
    return None if until is not None and (not nodes or nodes[-1] is not until) else nodes


def _reshapes(network: nn.Module, node: fx.Node) -> bool:
    """Whether an operation changes a shape alone."""
    if node.op == "call_module":
        return isinstance(network.get_submodule(str(node.target)), nn.Flatten | nn.Identity)
    return node.op in ("call_function", "call_method") and _called(node) in _RESHAPING


def _drops(network: nn.Module, node: fx.Node) -> bool:
    """Whether an operation is dropout, which does nothing in evaluation mode, or multiplies each channel by a mask."""
    if node.op == "call_module":
        return isinstance(network.get_submodule(str(node.target)), nn.modules.dropout._DropoutNd)
    return node.op == "call_function" and node.target in (F.dropout, F.dropout1d, F.dropout2d, torch.dropout)


def _called(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))


def _name(network: nn.Module, node: fx.Node) -> str:
    """What an operation is, in words for a message."""
    if node.op == "call_module":
        return f"{type(network.get_submodule(str(node.target))).__name__} ({node.target})"
    return "the network's input" if node.op == "placeholder" else _called(node)


def _close(found: Tensor, expected: Tensor) -> bool:
    """Whether numbers are equal but for rounding, which is judged by the largest."""
    return bool((found - expected).abs().max() <= _ROUNDING * expected.abs().max())


def _refusal(network: nn.Module, why: str) -> BayesdfError:
    return BayesdfError(
        f"{type(network).__name__} has no linear classifier after global average pooling, which evidence by location "
        f"needs: {why}; other methods of maps will do: {OTHERS}"
    )

"""How does a network of images become one of locations? Its first layers, and a linear layer at each location."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from bayesdf.errors import BayesdfError
from bayesdf.models.eval_mode import evaluating, hooked
from bayesdf.models.name_patterns import nothing
from bayesdf.models.tracing import TracedNetwork, Tracer, example_images, output_of, values


def dense_head(
    network: nn.Module, layer: str | Sequence[str], num_classes: int = 2, images: Tensor | None = None
) -> nn.Module:
    """The network up to the output of one or several named modules, then a 1 x 1 convolution to logits.

    Parameters
    ----------
    network : nn.Module
        Maps images (B, 3, H, W) to anything.
    layer : str or sequence of str
        The name of a module that returns a map (B, F, h, w), such as ``layer3`` of a ResNet. The location (i, j) of its
        map sees a part of the image around the same place. The maps of several modules are brought to the size of the
        first (bilinear) and stand side by side, as hypercolumns do (Hariharan et al. 2015, arXiv:1411.5752). The
        function `last_maps` finds some.
    num_classes : int
        Number of logits. 1 stands for two classes: it is the logit of the second (see `bayesdf.Detector`).
    images : Tensor (B, 3, H, W), optional
        Images that the network takes. Default: two random ones of 128 pixels.

    Returns
    -------
    nn.Module
        Maps images to logits (B, C, h, w). The parameters of the convolution are ``head.weight`` and ``head.bias``,
        freshly initialised. It shares the network's modules, so that parameters, buffers and hooks (preprocessing) are
        the same and have the same names. Layers behind `layer` are left out.

    Raises
    ------
    BayesdfError
        There is no such module, it does not return a map, the network has a ``head`` before it, there are no classes,
        or the network cannot be traced.

    Examples
    --------
    >>> import torch
    >>> from bayesdf.models import build
    >>> dense_head(build("resnet18", 2), "layer3")(torch.rand(4, 3, 64, 64)).shape
    torch.Size([4, 2, 4, 4])
    """
    if num_classes < 1:
        raise BayesdfError(f"dense_head: num_classes is {num_classes}, but a detector has at least one logit")
    layers = [layer] if isinstance(layer, str) else list(layer)
    names = [name for name, _ in network.named_modules() if name]
    for one in layers:
        if one not in names:
            raise nothing(one, names, "module")
    if not layers:
        raise BayesdfError("dense_head: no module is named: give one that returns a map (B, F, h, w)")
    images = example_images(network, images)
    with evaluating(network):
        try:
            graph, nodes = _traced(network, layers)
            known = values(network, graph, images)
        except Exception as error:  # tracing runs the network's own code, which may raise anything
            cause = " ".join(str(error).split())[:150]
            raise BayesdfError(
                f"dense_head: {type(network).__name__} cannot be traced on images {tuple(images.shape)} ({cause}): "
                "write a network that returns logits (B, C, h, w) itself"
            ) from error
    features = [None if node is None else known[node] for node in nodes]
    for one, feature in zip(layers, features, strict=True):
        if not isinstance(feature, Tensor) or feature.dim() != 4:
            what = f"returns {tuple(feature.shape)}" if isinstance(feature, Tensor) else "has no tensor as its output"
            raise BayesdfError(f"dense_head: {one} {what}, but must return a map (B, F, h, w): name another module")
    end = output_of(graph)
    with graph.inserting_before(end):
        end.args = (graph.call_function(side_by_side, tuple(nodes)),) if len(nodes) > 1 else (nodes[0],)
    graph.eliminate_dead_code()
    recipe = {"dense_head": {"layer": layer if isinstance(layer, str) else layers, "num_classes": num_classes}}
    module = TracedNetwork(network, graph, f"Dense{type(network).__name__}", **recipe)
    width = sum(feature.shape[1] for feature in features if feature is not None)
    if hasattr(module, "head"):
        raise BayesdfError("dense_head: the network has a module 'head' below this layer: rename it")
    module.add_submodule("head", nn.Conv2d(width, num_classes, 1, device=images.device))
    end = output_of(module.graph)
    with module.graph.inserting_before(end):
        end.args = (module.graph.call_module("head", end.args),)
    module.recompile()
    return module


def side_by_side(first: Tensor, *others: Tensor) -> Tensor:
    """Maps (B, F, h, w), the others brought to the size of the first, one behind another in F."""
    size = first.shape[-2:]
    return torch.cat([first, *(F.interpolate(one, size, mode="bilinear", align_corners=False) for one in others)], 1)


def last_maps(network: nn.Module, number: int = 2, images: Tensor | None = None) -> list[str]:
    """The modules that return the last map of each of the coarsest sizes, the finest of these first.

    Parameters
    ----------
    network : nn.Module
    number : int
        Of sizes. Maps of one location, such as pooled ones, do not count.
    images : Tensor (B, 3, H, W), optional
        Images that the network takes, whose size decides how coarse maps are. Default: two random ones of 128 pixels.

    Returns
    -------
    list of str
        At most `number` names of modules, for `dense_head`.

    Raises
    ------
    BayesdfError
        No module returns a map.
    """
    last: dict[int, str] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.dim() == 4 and output.shape[-1] * output.shape[-2] > 1:
                last[output.shape[-1]] = name

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in network.named_modules() if name]
    with evaluating(network), hooked(handles), torch.no_grad():
        network(example_images(network, images))
    if not last:
        raise BayesdfError(f"{type(network).__name__} has no module that returns a map (B, F, h, w)")
    return [last[size] for size in sorted(last)[:number]][::-1]


def _traced(network: nn.Module, layers: Sequence[str]) -> tuple[fx.Graph, list[fx.Node | None]]:
    """The operations of a network, and the last one of each named module."""
    seen: dict[str, Any] = {}

    def note(layer: str) -> Callable[..., None]:
        return lambda _, inputs, output: seen.__setitem__(layer, output)

    handles = [network.get_submodule(layer).register_forward_hook(note(layer)) for layer in layers]
    with hooked(handles):  # of a module with parts, tracing runs the hook; one without is an operation
        graph = Tracer().trace(network)
    calls = {str(node.target): node for node in graph.nodes if node.op == "call_module"}
    found = [seen[layer].node if isinstance(seen.get(layer), fx.Proxy) else calls.get(layer) for layer in layers]
    return graph, found

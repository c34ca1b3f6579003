"""How does a network of images become one of locations? Its first layers, and a linear layer at each location."""

from typing import Any

from torch import Tensor, fx, nn

from bayesdf.errors import BayesdfError
from bayesdf.models.eval_mode import evaluating, hooked
from bayesdf.models.name_patterns import nothing
from bayesdf.models.tracing import TracedNetwork, Tracer, example_images, output_of, values


def dense_head(network: nn.Module, layer: str, num_classes: int = 2, images: Tensor | None = None) -> nn.Module:
    """The network up to the output of a named module, then a 1 x 1 convolution to logits.

    Parameters
    ----------
    network : nn.Module
        Maps images (B, 3, H, W) to anything.
    layer : str
        The name of a module that returns a map (B, F, h, w), such as ``layer3`` of a ResNet. The location (i, j) of its
        map sees a part of the image around the same place.
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
    names = [name for name, _ in network.named_modules() if name]
    if layer not in names:
        raise nothing(layer, names, "module")
    images = example_images(network, images)
    with evaluating(network):
        try:
            graph, node = _traced(network, layer)
            feature = None if node is None else values(network, graph, images)[node]
        except Exception as error:  # tracing runs the network's own code, which may raise anything
            cause = " ".join(str(error).split())[:150]
            raise BayesdfError(
                f"dense_head: {type(network).__name__} cannot be traced on images {tuple(images.shape)} ({cause}): "
                "write a network that returns logits (B, C, h, w) itself"
            ) from error
    if node is None or not isinstance(feature, Tensor) or feature.dim() != 4:
        what = f"returns {tuple(feature.shape)}" if isinstance(feature, Tensor) else "has no tensor as its output"
        raise BayesdfError(f"dense_head: {layer} {what}, but must return a map (B, F, h, w): name another module")
    output_of(graph).args = (node,)
    graph.eliminate_dead_code()
    recipe = {"dense_head": {"layer": layer, "num_classes": num_classes}}
    module = TracedNetwork(network, graph, f"Dense{type(network).__name__}", **recipe)
    if hasattr(module, "head"):
        raise BayesdfError("dense_head: the network has a module 'head' below this layer: rename it")
    module.add_submodule("head", nn.Conv2d(feature.shape[1], num_classes, 1, device=feature.device))
    end = output_of(module.graph)
    with module.graph.inserting_before(end):
        end.args = (module.graph.call_module("head", end.args),)
    module.recompile()
    return module


def _traced(network: nn.Module, layer: str) -> tuple[fx.Graph, fx.Node | None]:
    """The operations of a network, and the last one of the named module."""
    seen: list[Any] = []
    handle = network.get_submodule(layer).register_forward_hook(lambda _, inputs, output: seen.append(output))
    with hooked([handle]):  # of a module with parts, tracing runs the hook; one without is an operation
        graph = Tracer().trace(network)
    own = [node for node in graph.nodes if node.op == "call_module" and node.target == layer]
    own += [output.node for output in seen if isinstance(output, fx.Proxy)]
    return graph, own[-1] if own else None

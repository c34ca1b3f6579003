"""How is a network traced? Its modules without parts, its norms and its linear layers stay modules."""

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn

from bayesdf.models.class_logits import two_classes

_SIZE = 128  # pixels of the random images on which a traced network is tried


class Tracer(fx.Tracer):
    """The tracer of this package, for networks in evaluation mode."""

    def __init__(self) -> None:
        # An operation of networks that were traced before. Its own code asks for shapes, so that it stays one.
        super().__init__(autowrap_functions=(two_classes,))

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        # Norms stay modules although timm builds them of parts, and linear layers although dropout may sit in one. So
        # do all modules without parts. Their training mode is then read when they run, not when they are traced.
        one = isinstance(module, nn.modules.batchnorm._NormBase | nn.Linear)
        return one or super().is_leaf_module(module, path) or not any(True for _ in module.children())


class TracedNetwork(fx.GraphModule):
    """A network that was made by tracing another. It shares the other's modules.

    Attributes
    ----------
    recipe : dict, optional
        From which `bayesdf.models.networks.rebuild` builds the same architecture, if the other network has one.
    """

    def __init__(self, network: nn.Module, graph: fx.Graph, class_name: str, **recipe: Any) -> None:
        super().__init__(network, graph, class_name)
        known = getattr(network, "recipe", None)
        if known is not None and recipe:
            self.recipe = {**known, **recipe}

    def __deepcopy__(self, memo: Any) -> "TracedNetwork":
        other = super().__deepcopy__(memo)
        assert isinstance(other, TracedNetwork)
        # Torch's copy of a traced network loses its name, its hooks and its attributes.
        type(other).__name__ = type(self).__name__
        for name in ("_forward_hooks", "_forward_pre_hooks", "recipe"):
            if name in self.__dict__:
                setattr(other, name, copy.deepcopy(self.__dict__[name], memo))
        return other


def example_images(network: nn.Module, images: Tensor | None) -> Tensor:
    """The given images, or two random ones of 128 pixels, on the network's device."""
    device = next((value.device for value in network.parameters()), torch.device("cpu"))
    if images is None:
        images = torch.rand(2, 3, _SIZE, _SIZE, generator=torch.Generator().manual_seed(0))
    return images.to(device)


def output_of(graph: fx.Graph) -> fx.Node:
    """The operation that returns the result."""
    return next(node for node in graph.nodes if node.op == "output")


@torch.no_grad()
def values(network: nn.Module, graph: fx.Graph, images: Tensor) -> dict[fx.Node, Any]:
    """What every operation of a traced network returns for these images."""
    recorder = _Recorder(fx.GraphModule(network, graph))
    recorder.run(images)
    return recorder.values


class _Recorder(fx.Interpreter):
    """Runs a traced module, and keeps what every operation returns, before another writes into it."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.values: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        self.values[n] = result.clone() if isinstance(result, Tensor) else result
        return result

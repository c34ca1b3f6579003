"""Prefix and suffix: the part of a network that is the same in every draw, and the part that is not.

S draws cost one run of the prefix and S runs of the suffix. ``torch.fx`` traces the network once. An operation belongs
to the suffix if it uses a random tensor, or the result of an operation of the suffix.
"""

import copy
import operator
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from bayesdf.models.class_logits import class_logits, has_class_logits
from bayesdf.models.eval_mode import evaluating
from bayesdf.models.networks import Preprocess, preprocess
from bayesdf.models.tracing import Tracer

_IN_PLACE = {operator.iadd, operator.isub, operator.imul, operator.itruediv}


@dataclass(frozen=True)
class Split:
    """``network(images) == suffix(*prefix(images))``. Both share the modules of the network.

    Attributes
    ----------
    prefix : nn.Module
        Maps images (B, 3, H, W) to a tuple of features.
    suffix : nn.Module
        Maps those features to logits (B, C). Its parameters and buffers have the names they have in the network.
    obstacle : str or None
        Why the network could not be split. The prefix then passes the images on, and the suffix is the network.
    """

    prefix: nn.Module
    suffix: nn.Module
    obstacle: str | None = None

    @property
    def traced(self) -> bool:
        """Whether the network could be split."""
        return self.obstacle is None

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that the suffix uses."""
        return dict(self.suffix.named_parameters())


def split(network: nn.Module, names: Iterable[str], images: Tensor) -> Split:
    """Split a network before the first operation that uses one of the named tensors.

    The result is checked against the network itself on the images. A network that cannot be traced, or that does
    something that tracing cannot see, is not split, and `obstacle` says why. The numbers are then the same, but slower.

    Parameters
    ----------
    network : nn.Module
    names : iterable of str
        Parameters and buffers that differ between draws.
    images : Tensor (B, 3, H, W)
        One or two images.
    """
    names = set(names)
    with evaluating(network):
        try:
            parts = _split(network, names)
            if _same(network, parts, names, images):
                return parts
            reason = "its traced form gives other numbers"
        except Exception as error:  # tracing runs the network's own code, which may raise anything
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
    return Split(PassOn(), network, reason)


def depends_on_mode(network: nn.Module) -> bool:
    """Whether the forward of a traceable network itself differs in training mode, apart from that of its modules."""
    with evaluating(network):
        forms = []
        for mode in (False, True):
            network.train(mode)
            nodes = Tracer().trace(network).nodes
            forms.append([(node.op, str(node.target), str(node.args), str(node.kwargs)) for node in nodes])
    return forms[0] != forms[1]


class PassOn(nn.Module):
    """The prefix of a network that is not split."""

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (images,)


def _split(network: nn.Module, names: set[str]) -> Split:
    graph = Tracer().trace(network)
    bare = _preprocessing_apart(graph, network)
    if has_class_logits(network):
        _append_class_logits(graph)
    random = _random_nodes(graph, names)
    crossing = [
        node
        for node in graph.nodes
        if node not in random and node.op != "get_attr" and any(user in random for user in node.users)
    ]
    constants = [node for node in graph.nodes if node.op == "get_attr" and node not in random]

    prefix = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node not in random:
            copies[node] = prefix.node_copy(node, copies.__getitem__)
    prefix.output(tuple(copies[node] for node in crossing))

    suffix = fx.Graph()
    copies = {node: suffix.placeholder(f"feature_{i}") for i, node in enumerate(crossing)}
    for node in crossing:
        if any(_changes(user, node) for user in node.users if user in random):
            copies[node] = suffix.call_method("clone", (copies[node],))  # features are used again by the next draw
    for node in graph.nodes:
        if node in random or node in constants:
            copies[node] = suffix.node_copy(node, copies.__getitem__)
    return Split(_module(network, prefix, bare), _module(network, suffix, bare))


def _preprocessing_apart(graph: fx.Graph, network: nn.Module) -> set[str]:
    """Make the hook of a network of ours an operation: it is the same in every draw, and its convolution is then plain.

    Returns the paths of the modules that must run without it.
    """
    bare = set()
    modules = dict(network.named_modules())
    for node in list(graph.nodes):
        hooks = list(modules[str(node.target)]._forward_pre_hooks.values()) if node.op == "call_module" else []
        if len(hooks) == 1 and isinstance(hook := hooks[0], Preprocess):
            with graph.inserting_before(node):
                ready = graph.call_function(preprocess, (node.args[0], hook.mean, hook.std, hook.high_pass))
            node.args = (ready, *node.args[1:])
            bare.add(str(node.target))
    return bare


def _append_class_logits(graph: fx.Graph) -> None:
    """Make the hook of a network of one logit an operation: tracing does not see a network's own hooks."""
    (end,) = (node for node in graph.nodes if node.op == "output")
    with graph.inserting_before(end):
        end.args = (graph.call_function(class_logits, (end.args[0],)),)


def _module(network: nn.Module, graph: fx.Graph, bare: set[str]) -> fx.GraphModule:
    module = fx.GraphModule(network, graph)
    for path, part in list(module.named_modules()):
        if path in bare:
            plain = copy.copy(part)  # the same parameters, and the same other hooks
            plain._forward_pre_hooks = OrderedDict()
            module.set_submodule(path, plain)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()
    return module


def _random_nodes(graph: fx.Graph, names: set[str]) -> set[fx.Node]:
    random: set[fx.Node] = set()
    for node in graph.nodes:
        own = node.op in ("call_module", "get_attr") and any(
            name == node.target or name.startswith(f"{node.target}.") for name in names
        )
        if own or node.op == "output" or any(parent in random for parent in node.all_input_nodes):
            random.add(node)
    return random


def _changes(node: fx.Node, argument: fx.Node) -> bool:
    """Whether an operation writes into its first argument."""
    if not node.args or node.args[0] is not argument:
        return False
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    method = node.op == "call_method" and name.endswith("_")
    function = node.op == "call_function" and (node.target in _IN_PLACE or name.endswith("_"))
    return method or function or bool(node.kwargs.get("inplace"))


@torch.no_grad()
def _same(network: nn.Module, parts: Split, names: set[str], images: Tensor) -> bool:
    """Whether the parts give the network's numbers, twice, with other values in the random tensors."""
    state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    expected: Any
    features = parts.prefix(images)
    for factor in (1.1, 0.9):
        values = {name: state[name] * factor + 0.01 for name in names}
        expected = functional_call(network, values, (images,))
        found = functional_call(parts.suffix, values, features)
        if not torch.allclose(found, expected, rtol=1e-4, atol=1e-5, equal_nan=True):
            return False
    return True

"""What do the draws say at each location of the last feature map?

If the classifier is linear after global average pooling, each location has logits of its own, and their mean over the
locations is the image's, in every draw (`bayesdf.models.located`). Their draws are decomposed at each location as those
of an image are. No backward pass is needed. A dense network has logits at each location anyway.

References
----------
Zhou, Khosla, Lapedriza, Oliva, Torralba, "Learning Deep Features for Discriminative Localization", CVPR 2016.
"""

from dataclasses import dataclass
from typing import ClassVar
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from bayesdf.inference.maps.method import MapMethod
from bayesdf.inference.maps.predictive import Predictive, Values
from bayesdf.inference.posterior import Posterior
from bayesdf.inference.prediction.predictor import naming
from bayesdf.models.class_logits import to_class_logits
from bayesdf.models.features import classifier
from bayesdf.models.located import located

_LOCATED: WeakKeyDictionary[Posterior, Posterior | None] = WeakKeyDictionary()
"""The posterior by location of each posterior that was asked; None for one whose network is dense itself."""


@dataclass(frozen=True)
class Evidence(MapMethod):
    """The decomposition at each location, in nats, at the resolution of the features."""

    name: ClassVar[str] = "evidence"

    def asked(self, posterior: Posterior, images: Tensor) -> Posterior:
        return by_location(posterior, images)

    def maps(self, predictive: Predictive, images: Tensor, indices: range) -> Values:
        return predictive(images)


def by_location(posterior: Posterior, images: Tensor) -> Posterior:
    """The same posterior over the network with logits at each location (B, h, w, C). It is made once.

    Raises
    ------
    BayesdfError
        The network has no linear classifier after global average pooling. The line names the methods that will do.
    """
    if posterior not in _LOCATED:
        with torch.no_grad(), naming(images):
            dense = posterior.network(images).dim() == 4
        _LOCATED[posterior] = None if dense else _located(posterior, images)
    return _LOCATED[posterior] or posterior


def _located(posterior: Posterior, images: Tensor) -> Posterior:
    network = located(posterior.network, images)
    assert isinstance(network, fx.GraphModule)
    _as_convolution(network, classifier(posterior.network))
    return Posterior(to_class_logits(network), posterior.sampler, posterior.sample_stats, posterior.attrs)


def _as_convolution(network: fx.GraphModule, layer: str) -> None:
    """Apply the classifier as a 1 x 1 convolution, in place: that of many draws at once is one convolution.

    A linear layer of many draws would copy the features for each draw. One with hooks (dropout) stays as it is.
    """
    module = network.get_submodule(layer)
    (linear,) = (node for node in network.graph.nodes if node.op == "call_module" and node.target == layer)
    last, (back,) = linear.args[0], linear.users
    if module._forward_pre_hooks or module._forward_hooks:
        return
    with network.graph.inserting_before(linear):
        weight = network.graph.get_attr(f"{layer}.weight")
        bias = None if module.bias is None else network.graph.get_attr(f"{layer}.bias")
        logits = network.graph.call_function(_pointwise, (last.args[0], weight, bias))
        logits.meta["is_wrapped"] = True  # it stays one operation when the network is traced again
        back.replace_all_uses_with(logits)
    network.graph.eliminate_dead_code()
    network.recompile()


def _pointwise(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(B, F, h, w) to (B, C, h, w)"""
    return F.conv2d(features, weight[:, :, None, None], bias)

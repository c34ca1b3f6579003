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
from torch import Tensor, fx

from bayesdf.inference.maps.method import MapMethod
from bayesdf.inference.maps.predictive import Predictive, Values
from bayesdf.inference.posterior import Posterior
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
        with torch.no_grad():
            dense = posterior.network(images).dim() == 4
        _LOCATED[posterior] = None if dense else _located(posterior, images)
    return _LOCATED[posterior] or posterior


def _located(posterior: Posterior, images: Tensor) -> Posterior:
    network = located(posterior.network, images)
    assert isinstance(network, fx.GraphModule)
    (end,) = (node for node in network.graph.nodes if node.op == "output")
    with network.graph.inserting_before(end):
        end.args = (network.graph.call_method("permute", (end.args[0], 0, 2, 3, 1)),)
    network.recompile()
    return Posterior(network, posterior.sampler, posterior.sample_stats, posterior.attrs)

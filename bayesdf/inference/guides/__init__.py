"""Guides: the families of distributions that SVI searches, and the samplers they become.

Each is a guide in Pyro's sense, a function of ``(images, labels)`` that samples every site, and knows the estimator
of the ELBO that is valid for it. Sites live in unconstrained space, from where a transform takes them to their
support.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from bayesdf.inference.guides.full import Full
from bayesdf.inference.guides.guide import Guide, Options
from bayesdf.inference.guides.lowrank import LowRank
from bayesdf.inference.guides.matrix import MatrixNormal
from bayesdf.inference.guides.normal import MeanField
from bayesdf.inference.guides.user import UserGuide
from bayesdf.inference.joint import Example

__all__ = ["NAMED", "Guide", "MeanField", "Options", "make_guide"]

NAMED: dict[str, Callable[..., Guide]] = {
    "normal": MeanField,
    "matrix": MatrixNormal,
    "lowrank": LowRank,
    "full": Full,
}
"""The guides SVI knows by name."""


def make_guide(
    guide: Any, model: Callable[..., Any], example: Example, start: Mapping[str, Tensor], options: Options
) -> Guide:
    """The guide of that name, or the user's, at its start.

    Parameters
    ----------
    guide : str, AutoGuide class, guide or function
    model : callable
        The Pyro model of ``(images, labels)``.
    example : (images, labels)
        A few of them; the model and the guide are run on them.
    start : mapping from site to Tensor
        Where the weights start; hyperpriors start at their median.
    options : SVI
    """
    if isinstance(guide, str):
        return NAMED[guide](model, example, start, options)
    return UserGuide(guide, model, example, start, options)

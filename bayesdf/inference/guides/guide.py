"""The interface of guides, and the helpers that they share."""

from collections.abc import Callable
from typing import Any, Protocol

import pyro
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoContinuous
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from bayesdf.inference.joint import Example
from bayesdf.inference.samplers import Sampler
from bayesdf.inference.samplers.sampler import support_name


class Options(Protocol):
    """The settings of SVI that guides read."""

    @property
    def init_scale(self) -> float: ...
    @property
    def moped(self) -> float | None: ...
    @property
    def rank(self) -> int: ...
    @property
    def stored_draws(self) -> int: ...


class Guide(Protocol):
    """A family of distributions over the sites."""

    elbo: Any
    """Has ``differentiable_loss(model, guide, images, labels)``, the negative ELBO."""

    def __call__(self, *args: Any) -> Any:
        """Sample every site by ``pyro.sample``."""

    def scale_reach(self, parameter: str) -> float | None:
        """How far a scale or an entry of a factor moves at the rate of scales; None for a location.

        The logarithm of a scale moves 1. Each entry of a factor with n rows moves 1/√n: at the full rate, the noise of
        so many entries would add up.
        """

    def draw(self) -> dict[str, Tensor]:
        """The values of one draw, from torch's global random state."""

    def sampler(self) -> Sampler:
        """The sampler that the posterior keeps."""


class OneNormal:
    """The base of guides that are one of Pyro's normals over all numbers of all sites."""

    def __init__(self, auto: AutoContinuous, example: Example, options: Options) -> None:
        self.elbo = Trace_ELBO()
        self.auto, self.example = auto, example
        auto(*example)
        pieces = [start_scale(piece, options) for _, piece in auto._unpack_latent(auto.loc)]
        auto.scale = torch.cat([piece.flatten() for piece in pieces])

    def __call__(self, *args: Any) -> Any:
        return self.auto(*args)

    def scale_reach(self, parameter: str) -> float | None:
        if parameter.endswith("Normal.loc"):
            return None
        name = parameter.rpartition(".")[2]
        return len(getattr(self.auto, name)) ** -0.5 if name in ("scale_tril", "cov_factor") else 1.0

    def draw(self) -> dict[str, Tensor]:
        return draw_from(self, *self.example)

    def layout(self) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
        """Shapes and supports of the sites, in the order in which they lie in the guide's one vector."""
        sites = dict(self.auto.prototype_trace.iter_stochastic_nodes())
        shapes = {name: tuple(site["value"].shape) for name, site in sites.items()}
        return shapes, {name: support_name(site["fn"].support, name) for name, site in sites.items()}


def start_scale(loc: Tensor, options: Options) -> Tensor:
    """The standard deviations at the start: relative to each location (MOPED), or to their root mean square."""
    if options.moped is not None:
        return options.moped * loc.detach().abs().clamp_min(0.01)
    return (options.init_scale * rms(loc)).expand_as(loc).clone(memory_format=torch.preserve_format)


def rms(loc: Tensor) -> Tensor:
    return loc.detach().square().mean().sqrt().clamp_min(0.01)


@torch.no_grad()
def draw_from(guide: Callable[..., Any], *args: Any) -> dict[str, Tensor]:
    trace = prune_subsample_sites(pyro.poutine.trace(guide).get_trace(*args))
    return {name: trace.nodes[name]["value"].detach() for name in sites_of(trace)}


def sites_of(trace: pyro.poutine.Trace) -> list[str]:
    """The names of the sites in a guide's trace, without auxiliary ones."""
    return [name for name, site in trace.iter_stochastic_nodes() if not site["infer"].get("is_auxiliary")]

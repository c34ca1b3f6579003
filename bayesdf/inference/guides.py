"""Guides: the families of distributions that SVI searches, and the samplers they become.

Each is a guide in Pyro's sense, a function of ``(images, labels)`` that samples every site, and knows the estimator
of the ELBO that is valid for it. Sites live in unconstrained space, from where a transform takes them to their
support.
"""

import copy
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoGuide, AutoLowRankMultivariateNormal
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn
from torch.distributions import biject_to

from bayesdf.errors import BayesdfError
from bayesdf.inference.elbo import MeanFieldELBO
from bayesdf.inference.joint import Example, start_from, unconstrained_start
from bayesdf.inference.samplers import LowRankSampler, NormalSampler, Sampler, StoredSampler
from bayesdf.inference.samplers.sampler import CONSTRAINTS, support_name


class Options(Protocol):
    """The settings of SVI that guides read."""

    @property
    def init_scale(self) -> float: ...
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

    def fast(self, parameter: str) -> bool:
        """Whether a parameter takes the larger learning rate."""

    def draw(self) -> dict[str, Tensor]:
        """The values of one draw, from torch's global random state."""

    def sampler(self) -> Sampler:
        """What the posterior keeps."""


class MeanField:
    """``normal``: independent normals, a location and a log scale for each number.

    Pyro's AutoNormal puts the samples into Delta sites, which hides the normals from the closed-form KL (and keeps no
    site whose name continues another's, such as ``fc.weight.scale`` beside ``fc.weight``).
    """

    def __init__(
        self, model: Callable[..., Any], example: Example, start: Mapping[str, Tensor], options: Options
    ) -> None:
        self.elbo = MeanFieldELBO()
        self.locations = {f"{name}.loc" for name in start}
        self.support: dict[str, str] = {}
        for name, (loc, support) in unconstrained_start(model, example, start).items():
            self.support[name] = support
            pyro.param(f"{name}.loc", loc)
            pyro.param(f"{name}.log_scale", _start_scale(loc, options.init_scale).log())

    def __call__(self, *args: Any) -> None:
        for name, support in self.support.items():
            loc, scale = pyro.param(f"{name}.loc"), pyro.param(f"{name}.log_scale").exp()
            base = dist.Normal(loc, scale)
            if support != "real":
                base = dist.TransformedDistribution(base, [biject_to(CONSTRAINTS[support])])
            pyro.sample(name, base.to_event(loc.dim()))

    def fast(self, parameter: str) -> bool:
        return parameter not in self.locations

    def draw(self) -> dict[str, Tensor]:
        return _draw(self)

    @torch.no_grad()
    def sampler(self) -> Sampler:
        loc = {name: pyro.param(f"{name}.loc") for name in self.support}
        scale = {name: pyro.param(f"{name}.log_scale").exp() for name in self.support}
        return NormalSampler(loc, scale, self.support)


class LowRank:
    """``lowrank``: one normal over all numbers, its covariance a diagonal plus a matrix of low rank."""

    def __init__(
        self, model: Callable[..., Any], example: Example, start: Mapping[str, Tensor], options: Options
    ) -> None:
        self.elbo = Trace_ELBO()
        self.example = example
        self.auto = AutoLowRankMultivariateNormal(model, init_loc_fn=start_from(start), rank=options.rank)
        self.auto(*example)
        pieces = [_start_scale(piece, options.init_scale) for _, piece in self.auto._unpack_latent(self.auto.loc)]
        # The factor starts as the other half of the variance.
        self.auto.scale = torch.cat([piece.flatten() for piece in pieces]) / 2**0.5

    def __call__(self, *args: Any) -> Any:
        return self.auto(*args)

    def fast(self, parameter: str) -> bool:
        return not parameter.endswith("Normal.loc")

    def draw(self) -> dict[str, Tensor]:
        return _draw(self, *self.example)

    @torch.no_grad()
    def sampler(self) -> Sampler:
        normal = self.auto.get_posterior()
        sites = dict(self.auto.prototype_trace.iter_stochastic_nodes())
        shapes = {name: tuple(site["value"].shape) for name, site in sites.items()}
        support = {name: support_name(site["fn"].support, name) for name, site in sites.items()}
        return LowRankSampler(normal.loc, normal.cov_factor, normal.cov_diag, shapes, support)


class Given:
    """Any guide of Pyro: a class of automatic guides, or a function (or module) of its own; its draws are stored."""

    def __init__(
        self, guide: Any, model: Callable[..., Any], example: Example, start: Mapping[str, Tensor], options: Options
    ) -> None:
        self.elbo = Trace_ELBO()  # of the two, the one that assumes nothing about the guide
        self.example, self.stored_draws = example, options.stored_draws
        made_from = guide.func if isinstance(guide, partial) else guide
        if inspect.isclass(made_from) and issubclass(made_from, AutoGuide):
            make: Any = guide
            together = torch.cat([value.flatten() for value in start.values()])
            known = {
                "init_loc_fn": start_from(start),
                "init_scale": float(_start_scale(together, options.init_scale)[0]),
            }
            given = guide.keywords if isinstance(guide, partial) else {}
            missing = set(inspect.signature(made_from).parameters) & set(known) - set(given)
            self.guide = make(model, **{name: known[name] for name in missing})
        elif isinstance(guide, AutoGuide):
            raise BayesdfError(
                f"SVI: the guide is an instance of {type(guide).__name__}, which is bound to its model: pass the "
                "class, or functools.partial(the class, its options), to be made on the network that is fitted"
            )
        else:
            self.guide = copy.deepcopy(guide) if isinstance(guide, nn.Module) else guide
        try:
            self.guide(*example)
        except AttributeError as error:
            name = getattr(made_from, "__name__", type(guide).__name__)
            raise BayesdfError(
                f"SVI: the guide {name} fails ({error}): some guides of Pyro cannot hold a site whose name continues "
                "another's; call hyperpriors f'{name}_scale', not f'{name}.scale'"
            ) from error

    def __call__(self, *args: Any) -> Any:
        return self.guide(*args)

    def fast(self, parameter: str) -> bool:
        return False

    def draw(self) -> dict[str, Tensor]:
        return _draw(self.guide, *self.example)

    def sampler(self) -> Sampler:
        draws = [self.draw() for _ in range(self.stored_draws)]
        return StoredSampler({name: torch.stack([draw[name] for draw in draws])[None] for name in draws[0]})


NAMED: dict[str, Callable[..., Guide]] = {"normal": MeanField, "lowrank": LowRank}
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
    return Given(guide, model, example, start, options)


def _start_scale(loc: Tensor, init_scale: float) -> Tensor:
    """Standard deviations to start from, relative to the root mean square of the locations."""
    return (init_scale * loc.detach().square().mean().sqrt().clamp_min(0.01)).expand_as(loc).clone()


@torch.no_grad()
def _draw(guide: Callable[..., Any], *args: Any) -> dict[str, Tensor]:
    trace = prune_subsample_sites(pyro.poutine.trace(guide).get_trace(*args))
    sites = [site for _, site in trace.iter_stochastic_nodes() if not site["infer"].get("is_auxiliary")]
    return {site["name"]: site["value"].detach() for site in sites}

"""The joint density of labels and sites, given images. All methods except MC dropout work with it."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.util import scale_and_mask
from pyro.infer.autoguide.initialization import init_to_median, init_to_value
from pyro.poutine.condition_messenger import ConditionMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import prune_subsample_sites, site_is_subsample
from torch import Tensor, nn
from torch.distributions import biject_to

from bayesdf.errors import BayesdfError
from bayesdf.inference.samplers.sampler import CONSTRAINTS, constrain, support_name
from bayesdf.inference.training.problem import Problem
from bayesdf.inference.training.rates import site_reach
from bayesdf.models.detector import Detector

Example = tuple[Tensor, Tensor]


class Joint:
    """``log p(labels, sites | images)`` as a function of the sites' unconstrained values ``z``.

    Hyperpriors are sites like others. The likelihood of a batch is scaled to the whole data set. Its classes are
    balanced if the method's settings say so.

    Parameters
    ----------
    centred : bool
        False: a weight w whose prior has a random location or scale gets the coordinate ε of ``w = location + scale
        ε``, whose prior has neither. The density of w and a scale is a funnel: its neck is so narrow that no step size
        serves both neck and mouth, and its maximum is infinite. That of ε and the scale is not (Papaspiliopoulos,
        Roberts and Sköld, "A General Framework for the Parametrization of Hierarchical Models", 2007; Betancourt and
        Girolami, "Hamiltonian Monte Carlo for Hierarchical Models", 2013).

    Attributes
    ----------
    start : dict from site to Tensor
        The weights of the network, and the medians of hyperpriors, in unconstrained space.
    random : frozenset of str
        The weights whose prior depends on hyperpriors. Known only if not `centred`.
    standard : frozenset of str
        Those of them whose coordinate is ε.
    support : dict from site to str
        The support of each site: ``real``, ``positive`` or ``unit_interval``.
    weights : frozenset of str
        The sites that are weights of the network. The others are hyperpriors.
    prior : callable
        Samples every site.
    reach : dict from site to float
        See `bayesdf.inference.training.rates`.
    """

    def __init__(self, detector: Detector, problem: Problem, *, centred: bool = True) -> None:
        self.model = partial(detector.model, size=problem.size, class_weights=problem.class_weights)
        begin = {name: value.detach() for name, value in problem.network.named_parameters() if name in detector.sites}
        with pyro.validation_enabled(True):  # checks the model once
            found = unconstrained_start(partial(self.model, network=problem.network), problem.example, begin)
        self.start = {name: value for name, (value, _) in found.items()}
        self.support = {name: support for name, (_, support) in found.items()}
        self.shapes = {name: tuple(value.shape) for name, value in self.start.items()}
        self.weights = frozenset(detector.sites)
        device = problem.device if problem.device.type == "cuda" else None
        self.prior = partial(detector.sample, device)
        self.reach = site_reach(self.prior, problem.network)
        self.random: frozenset[str] = frozenset()
        self.standard: frozenset[str] = frozenset()
        if not centred and self.weights < set(self.start):
            self._standardise()

    @property
    def numbers(self) -> int:
        """The number of numbers in all sites together."""
        return sum(value.numel() for value in self.start.values())

    def values(self, z: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Map values from unconstrained space to the space of the priors."""
        return self._values(z)[0]

    def _values(self, z: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor | float]:
        """The same, and the log determinant of the scales of standard coordinates."""
        if not self.standard:
            return {name: constrain(value, self.support[name]) for name, value in z.items()}, 0.0
        known = {name: constrain(value, self.support[name]) for name, value in z.items() if name not in self.standard}
        placed = _Placed(known, {name: z[name] for name in self.standard})
        with pyro.poutine.block(), pyro.validation_enabled(False), placed:
            self.prior()
        return {name: placed.values[name] for name in z}, placed.log_scale

    @torch.no_grad()
    def _standardise(self) -> None:
        """Find the weights whose prior is random. Those with a location and a scale start at the network's weights."""
        own = {name: constrain(self.start[name], self.support[name]) for name in self.start}
        first, second = (self._priors() for _ in range(2))
        one, other = (self._same_noise(priors) for priors in (first, second))
        self.random = frozenset(name for name in self.weights if not torch.equal(one[name], other[name]))
        self.standard = frozenset(name for name in self.random if scaled(first[name]) is not None)
        placed = self._priors({name: value for name, value in own.items() if name not in self.weights})
        for name in self.standard:
            base = scaled(placed[name])
            self.start[name] = ((own[name] - base.loc) / base.scale).contiguous()
            self.reach[name] = min(1.0, self.reach[name] / float(base.scale.median()))

    def _priors(self, hyper: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
        """The prior of every weight, given these hyperpriors, or drawn ones."""
        model = self.prior if hyper is None else pyro.poutine.condition(self.prior, data=dict(hyper))
        with pyro.poutine.block(), pyro.validation_enabled(False):
            trace = prune_subsample_sites(pyro.poutine.trace(model).get_trace())
        return {name: trace.nodes[name]["fn"] for name in self.weights}

    def _same_noise(self, priors: Mapping[str, Any]) -> dict[str, Tensor]:
        """A draw of each prior, always by the same noise: equal priors give equal draws."""
        devices = {value.device for value in self.start.values() if value.device.type == "cuda"}
        with torch.random.fork_rng(devices):
            found = {}
            for name, prior in priors.items():
                torch.manual_seed(0)
                found[name] = prior.sample()
        return found

    @torch.no_grad()
    def prior_draws(self, count: int) -> dict[str, Tensor]:
        """Draws of every site from its prior (count, …). They are always the same draws."""
        devices = {value.device for value in self.start.values() if value.device.type == "cuda"}
        with torch.random.fork_rng(devices), pyro.poutine.block(), pyro.validation_enabled(False):
            torch.manual_seed(0)
            traces = [prune_subsample_sites(pyro.poutine.trace(self.prior).get_trace()) for _ in range(count)]
        return {name: torch.stack([trace.nodes[name]["value"] for trace in traces]) for name in self.start}

    def log_density(
        self,
        z: Mapping[str, Tensor],
        module: nn.Module,
        inputs: tuple[Tensor, ...],
        labels: Tensor,
        *,
        jacobian: bool,
    ) -> Tensor:
        """The log density, a number to differentiate.

        Parameters
        ----------
        module, inputs
            The network or its suffix, and the images or features that it takes.
        jacobian : bool
            Whether the density is of ``z`` (as sampling needs) or of the sites' own values (whose mode is the maximum
            a posteriori).
        """
        values, log_scale = self._values(z)
        total = self.log_density_at(values, module, inputs, labels)
        if jacobian:
            total = total + log_scale
            for name, support in self.support.items():
                if support != "real":
                    transform = biject_to(CONSTRAINTS[support])
                    total = total + transform.log_abs_det_jacobian(z[name], values[name]).sum()
        return total

    def log_density_at(
        self, values: Mapping[str, Tensor], module: nn.Module, inputs: tuple[Tensor, ...], labels: Tensor
    ) -> Tensor:
        """The same for the sites' own values, in the space of the priors."""
        images = inputs[0] if len(inputs) == 1 else inputs
        density = _Density(values)
        with pyro.validation_enabled(False), density:  # validation costs a pass over the weights for each distribution
            self.model(images, labels, network=module)
        return density.total


class _Density(ConditionMessenger):
    """Sums a model's log density with its sites at these values. It does what a trace does, but is cheaper."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__(dict(values))
        self.total: Any = 0.0

    def _pyro_post_sample(self, msg: Any) -> None:
        if not site_is_subsample(msg):
            log_prob = msg["fn"].log_prob(msg["value"], *msg["args"], **msg["kwargs"])
            self.total = self.total + scale_and_mask(log_prob, msg["scale"], msg["mask"]).sum()


class _Placed(Messenger):
    """Runs a prior with its sites at known values, or at ``location + scale ε``."""

    def __init__(self, known: Mapping[str, Tensor], standard: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values, self.standard = dict(known), standard
        self.log_scale: Tensor | float = 0.0

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if name in self.standard:
            base = scaled(msg["fn"])
            self.values[name] = base.loc + base.scale * self.standard[name]
            self.log_scale = self.log_scale + base.scale.log().expand(self.values[name].shape).sum()
        if name in self.values:
            msg["value"], msg["is_observed"], msg["done"] = self.values[name], True, True


def scaled(distribution: Any) -> Any:
    """The distribution of single numbers, if its family has a location and a scale; else None."""
    while isinstance(distribution, dist.Independent):
        distribution = distribution.base_dist
    return distribution if type(distribution) in (dist.Normal, dist.Laplace, dist.StudentT, dist.Cauchy) else None


def start_from(start: Mapping[str, Tensor]) -> Callable[..., Any]:
    """Pyro's ``init_loc_fn``: weights start at the given values, hyperpriors at their median."""
    return init_to_value(values=dict(start), fallback=init_to_median)


@torch.no_grad()
def unconstrained_start(
    model: Callable[..., Any], example: Example, start: Mapping[str, Tensor]
) -> dict[str, tuple[Tensor, str]]:
    """Site name to its start in unconstrained space, and the name of its support."""
    with pyro.poutine.block():
        trace = prune_subsample_sites(pyro.poutine.trace(model).get_trace(*example))
    found, begin = {}, start_from(start)
    for name, site in trace.iter_stochastic_nodes():
        support = support_name(site["fn"].support, name)
        value = begin(site).detach().to(site["value"].device).expand_as(site["value"])
        inside = (value >= 0) & ((value <= 1) | (support != "unit_interval")) | (support == "real")
        if not bool(inside.all()):
            where = "the unit interval" if support == "unit_interval" else "positive numbers"
            raise BayesdfError(
                f"the prior of {name} is over {where}, but {int((~inside).sum())} of its {value.numel()} numbers start "
                f"outside (the least is {float(value.min()):.3g}): take a prior over all reals, as priors.normal, or "
                "start the network's weights inside"
            )
        found[name] = (biject_to(CONSTRAINTS[support]).inv(value).clone(), support)
    return found

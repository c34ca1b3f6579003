"""Stochastic variational inference: the posterior as the closest member of a family of distributions.

Maximises the evidence lower bound over the parameters of a guide q, and over the weights without a prior,

    ELBO = E_q[log p(labels | images, w)] - T KL(q(w) || p(w)),

on mini-batches whose likelihood is scaled to the whole data set (Hoffman et al., "Stochastic Variational
Inference", 2013; for networks Blundell et al., "Weight Uncertainty in Neural Networks", 2015, equation 2).
The hierarchy of a prior is part of w.
"""

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoDelta, AutoGuide, AutoLowRankMultivariateNormal
from pyro.infer.autoguide.initialization import init_to_median, init_to_value
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn
from torch.distributions import biject_to
from torch.utils.data import Dataset

from bayesdf.errors import BayesdfError
from bayesdf.inference.posterior import Posterior, fitted_by
from bayesdf.inference.prediction import state_names
from bayesdf.inference.samplers import (
    CONSTRAINTS,
    DeltaSampler,
    LowRankSampler,
    NormalSampler,
    Sampler,
    StoredSampler,
    support_name,
)
from bayesdf.inference.training import Clock, Problem, Training, pose, seeded, train
from bayesdf.models.detector import Detector

GUIDES = ("normal", "lowrank", "delta")


@dataclass(frozen=True, kw_only=True)
class SVI(Training):
    """Stochastic variational inference.

    Parameters
    ----------
    guide : str, guide class or guide
        ``normal``: independent normals (mean field), with the KL in closed form where there is one.
        ``lowrank``: one normal over all sites with a covariance of rank `rank` plus a diagonal. ``delta``: a
        point, that is MAP under the priors. Or any guide of Pyro: a class that takes the model
        (``pyro.infer.autoguide.AutoIAFNormal``), an instance, or a function ``(images, labels)``; its
        posterior is then a store of `stored_draws` draws.
    epochs : int
        Passes over the training images.
    lr : float
        Highest learning rate of Adam, for the guide's locations and for the point estimates; it rises over
        the first twentieth of the steps and falls to zero along a cosine.
    scale_lr : float, optional
        The same for the scales of guides ``normal`` and ``lowrank`` (in logarithms) and for hyperpriors,
        which have further to go; default ``10 lr``.
    init_scale : float
        Where the guide's scales start, relative to the root mean square of each site's start (at least 0.01).
        Locations start at the network's own weights.
    batch_size : int
        Images a step; batches of an epoch differ by one image at most.
    freeze : None, "prefix" or "all"
        What happens to weights without a prior. None: all are trained, together with the guide. ``prefix``:
        those before the first random operation stay as they are (batch normalisation with its running
        statistics too), and where nothing is augmented they run only once; those after are trained. ``all``:
        only the guide is trained.
    class_balanced : bool
        Raise each image's likelihood to the power ``N / (K n_class)``. The powers average 1, so the data
        weighs against the prior as before.
    temperature : float
        T above; 1 is Bayes, below 1 a "cold" posterior (Wenzel et al., 2020).
    augment : callable, optional
        ``(images, torch.Generator) -> images`` on each batch of (B, 3, H, W).
    patience : int, optional
        Stop after so many epochs without a lower validation NLL. With validation data the best epoch is
        restored in any case.
    rank : int
        Of ``lowrank``.
    stored_draws : int
        Draws kept of a Pyro guide.
    seed, device, progress
        Seed of everything random (the caller's generators are left alone); ``auto``, ``cpu`` or ``cuda``; a
        bar.

    Examples
    --------
    >>> posterior = SVI(guide="normal", epochs=10).fit(detector, data.train)  # doctest: +SKIP
    """

    guide: Any = "normal"
    scale_lr: float | None = None
    init_scale: float = 0.1
    temperature: float = 1.0
    rank: int = 10
    stored_draws: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.guide, str) and self.guide not in GUIDES:
            raise BayesdfError(f"SVI: guide is {self.guide!r}, but must be one of {', '.join(GUIDES)}, or a Pyro guide")
        for name in ("init_scale", "temperature"):
            if not getattr(self, name) > 0:
                raise BayesdfError(f"SVI: {name} is {getattr(self, name)}, but must be above 0")
        for name in ("rank", "stored_draws"):
            if getattr(self, name) < 1:
                raise BayesdfError(f"SVI: {name} is {getattr(self, name)}, but must be at least 1")

    def fit(self, detector: Detector, train_data: Dataset[Any], validation: Dataset[Any] | None = None) -> Posterior:
        """Fit the guide.

        Parameters
        ----------
        detector : Detector
            Left as it is.
        train_data, validation : torch dataset of (image, label)
            Image float32 (3, H, W) in [0, 1]; label int. On `validation` the class-balanced negative
            log-likelihood is measured after each epoch.

        Returns
        -------
        Posterior
            With ``elbo`` (step) in ``sample_stats``.

        Raises
        ------
        BayesdfError
            The data is empty or of one class, the network does not fit it, or the ELBO is not finite.
        """
        if not detector.sites:
            raise BayesdfError("SVI: the detector has no priors, so there is nothing to infer: give it some")
        clock = Clock()
        problem = pose(detector, self, train_data, validation, lambda network, image: list(detector.sites))
        with seeded(self.seed, problem.device):
            objective = _Objective(detector, problem, self)
            history = train(problem, objective)
            sampler = objective.sampler()
        _set_point(problem.network, sampler)
        stats = history.dataset("elbo", sign=-float(problem.size))
        attrs = fitted_by(self, self.settings(), detector, train_data, clock())
        return Posterior(problem.network, sampler, stats, attrs)


class _Objective:
    """The negative ELBO per image, and the guide behind it."""

    def __init__(self, detector: Detector, problem: Problem, settings: SVI) -> None:
        self.problem, self.settings = problem, settings
        # A likelihood scaled by 1/T has the optimum of a KL scaled by T.
        self.model = partial(
            detector.model, size=problem.size, class_weights=problem.class_weights / settings.temperature
        )
        self.sites = set(detector.sites)
        start = {name: value.detach() for name, value in problem.network.named_parameters() if name in self.sites}
        together = torch.cat([value.flatten() for value in start.values()])
        self.size = max(0.01, float(together.square().mean().sqrt()))
        self.start = init_to_value(values=start, fallback=init_to_median)
        self.elbo = Trace_ELBO()
        self.guide, self.family = self._guide(settings.guide)
        with torch.no_grad(), pyro.validation_enabled(True):
            # On whole images: builds the guide, and checks model and guide against each other once.
            self.elbo.loss(partial(self.model, network=problem.network), self.guide, *problem.example)
        pyro_parameters = pyro.poutine.trace(self.guide, param_only=True).get_trace(*problem.example)
        self.own = {
            name: site["value"].unconstrained()
            for name, site in pyro_parameters.nodes.items()
            if site["type"] == "param"
        }

    def _guide(self, guide: Any) -> tuple[Callable[..., Any], str]:
        model = partial(self.model, network=self.problem.network)
        if guide == "normal":
            self.elbo = TraceMeanField_ELBO()
            return MeanField(model, self.problem.example, self.start, self.settings.init_scale), "normal"
        if guide == "lowrank":
            low_rank = AutoLowRankMultivariateNormal(model, init_loc_fn=self.start, rank=self.settings.rank)
            low_rank(*self.problem.example)
            scales = [
                _start_scale(value, self.settings.init_scale).flatten()
                for _, value in low_rank._unpack_latent(low_rank.loc)
            ]
            low_rank.scale = torch.cat(scales) / 2**0.5  # the factor starts as the other half of the variance
            return low_rank, "lowrank"
        if guide == "delta":
            return AutoDelta(model, init_loc_fn=self.start), "delta"
        if inspect.isclass(guide) and issubclass(guide, AutoGuide):
            make: Any = guide
            options = {"init_loc_fn": self.start, "init_scale": self.settings.init_scale * self.size}
            takes = inspect.signature(make).parameters
            return make(model, **{name: value for name, value in options.items() if name in takes}), "stored"
        if isinstance(guide, nn.Module):
            return copy.deepcopy(guide), "stored"
        if callable(guide):
            return guide, "stored"
        raise BayesdfError(f"SVI: guide is a {type(guide).__name__}, but must be a name, a Pyro guide or its class")

    def loss(self, module: nn.Module, inputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        images = inputs[0] if len(inputs) == 1 else inputs
        with pyro.validation_enabled(False):  # costs a pass over the weights for each distribution
            loss = self.elbo.differentiable_loss(partial(self.model, network=module), self.guide, images, labels)
        return loss * (self.settings.temperature / self.problem.size)

    def groups(self) -> list[dict[str, Any]]:
        slow = {f"{site}.loc" for site in self.sites} | {"AutoLowRankMultivariateNormal.loc"}
        if self.family not in ("normal", "lowrank"):
            slow = set(self.own)
        return [
            {"params": [value for name, value in self.own.items() if name in slow]},
            {
                "params": [value for name, value in self.own.items() if name not in slow],
                "lr": self.settings.scale_lr or 10 * self.settings.lr,
            },
            {"params": list(self.problem.trained(exclude=self.sites).values())},
        ]

    @torch.no_grad()
    def draw(self) -> dict[str, Tensor]:
        trace = pyro.poutine.trace(self.guide).get_trace(*self.problem.example)
        return {
            name: site["value"].detach()
            for name, site in trace.nodes.items()
            if site["type"] == "sample" and not site["infer"].get("is_auxiliary") and not site["is_observed"]
        }

    @torch.no_grad()
    def sampler(self) -> Sampler:
        if isinstance(self.guide, MeanField):
            return NormalSampler(self.guide.loc(), self.guide.scale(), self.guide.support)
        if self.family == "lowrank":
            return _low_rank_sampler(self.guide)
        if self.family == "delta":
            return DeltaSampler(self.draw())
        draws = [self.draw() for _ in range(self.settings.stored_draws)]
        return StoredSampler({name: torch.stack([draw[name] for draw in draws]) for name in draws[0]})


class MeanField:
    """The guide ``normal``: independent normals in unconstrained space, a location and a log scale a weight.

    Pyro's AutoNormal puts the samples into Delta sites, which hides the normals from the closed-form KL.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        example: tuple[Tensor, Tensor],
        start: Callable[..., Tensor],
        init_scale: float,
    ) -> None:
        with torch.no_grad(), pyro.poutine.block():
            trace = prune_subsample_sites(pyro.poutine.trace(model).get_trace(*example))
        self.support: dict[str, str] = {}
        for name, site in trace.iter_stochastic_nodes():
            self.support[name] = support_name(site["fn"].support, name)
            value = start(site).detach().to(site["value"].device).expand_as(site["value"])
            loc = biject_to(CONSTRAINTS[self.support[name]]).inv(value).clone()
            pyro.param(f"{name}.loc", loc)
            pyro.param(f"{name}.log_scale", _start_scale(loc, init_scale).log())

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        values = {}
        for name, support in self.support.items():
            loc = pyro.param(f"{name}.loc")
            base = dist.Normal(loc, pyro.param(f"{name}.log_scale").exp())
            if support != "real":
                base = dist.TransformedDistribution(base, [biject_to(CONSTRAINTS[support])])
            values[name] = pyro.sample(name, base.to_event(loc.dim()))
        return values

    def loc(self) -> dict[str, Tensor]:
        return {name: pyro.param(f"{name}.loc").detach() for name in self.support}

    def scale(self) -> dict[str, Tensor]:
        return {name: pyro.param(f"{name}.log_scale").detach().exp() for name in self.support}


def _start_scale(loc: Tensor, init_scale: float) -> Tensor:
    """Standard deviations to start from, relative to the root mean square of the locations."""
    return (init_scale * loc.detach().square().mean().sqrt().clamp_min(0.01)).expand_as(loc).clone()


def _low_rank_sampler(guide: Any) -> LowRankSampler:
    normal = guide.get_posterior()
    sites = {name: site for name, site in guide.prototype_trace.iter_stochastic_nodes()}
    return LowRankSampler(
        normal.loc,
        normal.cov_factor,
        normal.cov_diag,
        {name: tuple(site["value"].shape) for name, site in sites.items()},
        {name: support_name(site["fn"].support, name) for name, site in sites.items()},
    )


@torch.no_grad()
def _set_point(network: nn.Module, sampler: Sampler) -> None:
    known = state_names(network)
    state = network.state_dict()
    for name, value in sampler.point().items():
        if name in known:
            state[name].copy_(value)

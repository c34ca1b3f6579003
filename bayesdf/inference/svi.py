"""Stochastic variational inference: the posterior as the closest member of a family of distributions.

Maximises the evidence lower bound over the parameters of a guide q, and over the weights without a prior,

    ELBO = E_q[log p(labels | images, w)] - T KL(q(w) || p(w)),

on mini-batches, whose likelihood is scaled to the whole data set (Hoffman et al., "Stochastic Variational Inference",
2013; for networks Blundell et al., "Weight Uncertainty in Neural Networks", 2015, equation 1). Hyperpriors are part of
w.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyro
import torch
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn
from torch.utils.data import Dataset

from bayesdf.errors import BayesdfError
from bayesdf.inference import pareto_k
from bayesdf.inference.convergence import Verdict, judge_scales, judge_search, k_hat_caution
from bayesdf.inference.estimators import Estimator, eligible_layers
from bayesdf.inference.fit_results import load_values, report_verdict, root_attrs
from bayesdf.inference.guides import NAMED, MeanField, make_guide
from bayesdf.inference.guides.guide import sites_of
from bayesdf.inference.joint import Joint
from bayesdf.inference.posterior import Posterior
from bayesdf.inference.training import Training
from bayesdf.inference.training.divergence import posterior_on_divergence
from bayesdf.inference.training.history import History
from bayesdf.inference.training.loop import minimise
from bayesdf.inference.training.objective import Objective
from bayesdf.inference.training.problem import Problem, prepare
from bayesdf.inference.training.progress import Clock
from bayesdf.inference.training.rates import SCALE_RATE, parameter_groups, site_reach, weight_reach
from bayesdf.inference.training.seeds import seeded
from bayesdf.models.detector import Detector

_VERDICT_DRAWS = 50


@dataclass(frozen=True, kw_only=True)
class SVI(Training):
    """Stochastic variational inference.

    Parameters
    ----------
    guide : str or guide
        ``normal``: independent normals (mean field), with the KL in closed form if there is one. ``lowrank``: one
        normal over all sites with a covariance of rank `rank` plus a diagonal. ``full``: one normal with any
        covariance, for up to five thousand numbers. ``matrix``: independent sites, each with covariances along the rows
        and the columns of its weight matrix. Or any guide of Pyro: a class of automatic guides
        (``pyro.infer.autoguide.AutoIAFNormal``, or ``functools.partial(AutoIAFNormal, hidden_dim=[64])``), or a
        function of ``(images, labels)`` that samples every site. The posterior then stores `stored_draws` draws.
    estimator : "plain", "local" or "flipout"
        With guide ``normal``: how the expectation of the likelihood is estimated. ``plain``: by one draw of the weights
        for each batch. ``local`` and ``flipout``: with independent noise for each image behind linear and convolutional
        layers, by local reparameterisation or flipout (see `bayesdf.inference.estimators`). The optimum is the same,
        and the gradients are less noisy.
    scale_lr : float, optional
        Learning rate of all that is not a location (logarithms of scales, factors of covariances, hyperpriors), which
        has further to go. Default: ``10 lr``. If `lr` is not given: 0.05 for logarithms of scales, and 0.05/√n for
        the entries of a factor with n rows.
    init_scale : float
        The start of the guide's scales, relative to the root mean square of each site's start (at least 0.01).
        Locations start at the network's own weights.
    moped : float, optional
        Start the scales at this share of each weight's size (at least 0.01) instead. In a trained network this is the
        start of MOPED (Krishnan, Subedar and Tickoo, 2020, who use 0.1). `bayesdf.models.priors.moped` is the prior
        that goes with it.
    kl_annealing : float
        Share of the steps, 0 to 1, in which the weight of the KL rises from 0 to T (Bowman et al., "Generating
        Sentences from a Continuous Space", 2016). ``elbo`` is computed with the weight of its step.
    temperature : float
        T above. 1 is Bayes; below 1 the posterior is "cold" (Wenzel et al., 2020).
    rank : int
        The rank of ``lowrank``.
    stored_draws : int
        The number of draws stored of a Pyro guide.
    epochs, lr, batch_size, freeze, class_balanced, augment, views, patience, seed, device, progress, checkpoint
        As for `bayesdf.inference.training.Training`; `lr` is the rate of the guide's locations and of
        the point estimates.

    Examples
    --------
    >>> posterior = SVI(guide="normal", epochs=10).fit(detector, data.train)  # doctest: +SKIP
    """

    guide: Any = "normal"
    estimator: Estimator = "plain"
    scale_lr: float | None = None
    init_scale: float = 0.1
    moped: float | None = None
    kl_annealing: float = 0.0
    temperature: float = 1.0
    rank: int = 10
    stored_draws: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.guide) and self.guide not in NAMED:
            raise BayesdfError(f"SVI: guide is {self.guide!r}, but must be one of {', '.join(NAMED)}, or a Pyro guide")
        if self.estimator not in ("plain", "local", "flipout"):
            raise BayesdfError(f"SVI: estimator is {self.estimator!r}, but must be 'plain', 'local' or 'flipout'")
        if self.estimator != "plain" and self.guide != "normal":
            raise BayesdfError(f"SVI: estimator {self.estimator!r} needs guide 'normal': others have no noise a weight")
        if not 0 <= self.kl_annealing <= 1:
            raise BayesdfError(f"SVI: kl_annealing is {self.kl_annealing}, but is a share of the steps, 0 to 1")
        if self.moped is not None and not self.moped > 0:
            raise BayesdfError(f"SVI: moped is {self.moped}, but must be above 0, or None")
        for name in ("init_scale", "temperature"):
            if not getattr(self, name) > 0:
                raise BayesdfError(f"SVI: {name} is {getattr(self, name)}, but must be above 0")
        for name in ("rank", "stored_draws"):
            if getattr(self, name) < 1:
                raise BayesdfError(f"SVI: {name} is {getattr(self, name)}, but must be at least 1")

    def fit(self, detector: Detector, train: Dataset[Any], validation: Dataset[Any] | None = None) -> Posterior:
        """Fit the guide.

        Parameters
        ----------
        detector : Detector
            Left as it is.
        train, validation : torch dataset of (image, label)
            Image float32 (3, H, W) in [0, 1]; label int. On `validation` the class-balanced negative log-likelihood
            is measured after each epoch.

        Returns
        -------
        Posterior
            With ``elbo`` (step) in ``sample_stats``.

        Raises
        ------
        BayesdfError
            The data is empty or of one class, the network does not fit it, or the ELBO is not finite.
        """
        clock = Clock()
        problem = prepare(detector, self, train, validation)
        with seeded(self.seed, problem.device):
            objective = _Objective(detector, problem, self)

            def posterior(history: History) -> Posterior:
                sampler = objective.guide.sampler()
                load_values(problem.network, sampler.point())
                stats = history.to_dataset("elbo", sign=-float(problem.size))
                return Posterior(problem.network, sampler, stats, root_attrs(self, detector, train, clock()))

            with posterior_on_divergence(posterior):
                history = minimise(problem, objective)
            found = posterior(history)
            found.sample_stats = objective.verdict(history).add_to(found.sample_stats)
        return report_verdict(self, found, problem)


class _Objective(Objective):
    """The negative ELBO per image."""

    def __init__(self, detector: Detector, problem: Problem, settings: SVI) -> None:
        self.detector, self.problem, self.settings = detector, problem, settings
        self.model = partial(detector.model, size=problem.size)
        self.network_sites = set(detector.sites)
        parameters = dict(problem.network.named_parameters())
        start = {name: parameters[name].detach() for name in detector.sites}
        model = partial(self.model, network=problem.network)
        with pyro.validation_enabled(True):  # checks model and guide against each other, once
            self.guide = make_guide(settings.guide, model, problem.example, start, settings)
            with torch.no_grad():
                self.guide.elbo.differentiable_loss(model, self.guide, *problem.example)
        trace = pyro.poutine.trace(self.guide, param_only=True).get_trace(*problem.example)
        self.own = {
            name: site["value"].unconstrained() for name, site in trace.nodes.items() if site["type"] == "param"
        }
        self.layers = (
            eligible_layers(problem.network, list(start), problem.example[0]) if settings.estimator != "plain" else {}
        )
        if settings.estimator != "plain" and not self.layers:
            raise BayesdfError(
                f"SVI: estimator {settings.estimator!r} is for the weights of linear and plain convolutional layers, "
                "and no site is one: take 'plain'"
            )
        self.annealed, self.step = 0, 0
        device = problem.device if problem.device.type == "cuda" else None
        self.reach = site_reach(partial(detector.sample, device), problem.network)

    def annealing_steps(self, total: int) -> int:
        self.annealed = round(self.settings.kl_annealing * total)
        return self.annealed

    def end_of_step(self, step: int) -> None:
        self.step = step + 1

    def loss(self, module: nn.Module, inputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        images = inputs[0] if len(inputs) == 1 else inputs
        weight = self.settings.temperature * min(1.0, (self.step + 1) / (self.annealed + 1))
        # A likelihood to the power 1/T has the optimum of a KL that weighs T.
        model = partial(self.model, network=module, class_weights=self.problem.class_weights / weight)
        estimating: AbstractContextManager[None] = nullcontext()
        if isinstance(self.guide, MeanField) and self.layers:
            estimating = self.guide.estimating(self.settings.estimator, self.layers)
        with pyro.validation_enabled(False), estimating:  # validation costs a pass over the weights a distribution
            loss = self.guide.elbo.differentiable_loss(model, self.guide, images, labels)
        return loss * (weight / self.problem.size)

    def groups(self) -> list[dict[str, Any]]:
        lr = self.settings.lr
        given = self.settings.scale_lr or (None if lr is None else 10 * lr)
        trained = self.problem.trained_parameters(exclude=self.network_sites)
        locations: dict[str, Tensor] = {}
        scales: dict[float, list[Tensor]] = {}
        for name, value in self.own.items():
            reach = self.guide.scale_reach(name)
            if reach is None:
                locations[name] = value
            else:
                scales.setdefault(reach if given is None else 1.0, []).append(value)
        # Parameters of no single site move as the site with the shortest way to go.
        least = min(self.reach.values())
        reaches = {name: self.reach.get(name.removesuffix(".loc"), least) for name in locations}
        scale_rate = SCALE_RATE if given is None else given
        return [
            *parameter_groups({**locations, **trained}, {**weight_reach(self.problem.network), **reaches}, lr),
            *({"params": values, "lr": scale_rate * reach, "reach": reach} for reach, values in scales.items()),
        ]

    def draw(self) -> dict[str, Tensor]:
        return self.guide.draw()

    def verdict(self, history: History) -> Verdict:
        """The verdict on the search, on scales in a hierarchy and, for a small model, on the guide."""
        found = judge_search(history, "negative ELBO")
        try:
            joint = Joint(self.detector, self.problem)
        except BayesdfError:
            return found  # a guide of the user's knows a support that nothing else here does
        draws = [self.guide.draw() for _ in range(_VERDICT_DRAWS)] if set(joint.support.values()) != {"real"} else []
        if draws:
            found = judge_scales(found, joint, {name: torch.stack([draw[name] for draw in draws]) for name in draws[0]})
        data = pareto_k.data_if_small(joint, self.problem) if self.settings.temperature == 1 else None
        if data is None:
            return found
        value = pareto_k.k_hat_of_draws(self._density, joint, self.problem, data)
        return found.with_caution(k_hat_caution(value), k_hat=value)

    def _density(self) -> tuple[dict[str, Tensor], Tensor]:
        """A draw of the guide, and its log density there."""
        trace = prune_subsample_sites(pyro.poutine.trace(self.guide).get_trace(*self.problem.example))
        return {name: trace.nodes[name]["value"] for name in sites_of(trace)}, trace.log_prob_sum()

    def sites(self) -> dict[str, list[Tensor]]:
        return {name: [value] for name, value in self.own.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]

"""Stochastic variational inference: the posterior as the closest member of a family of distributions.

Maximises the evidence lower bound over the parameters of a guide q, and over the weights without a prior,

    ELBO = E_q[log p(labels | images, w)] - T KL(q(w) || p(w)),

on mini-batches whose likelihood is scaled to the whole data set (Hoffman et al., "Stochastic Variational Inference",
2013; for networks Blundell et al., "Weight Uncertainty in Neural Networks", 2015, equation 1). The hierarchy of a
prior is part of w.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from bayesdf.errors import BayesdfError
from bayesdf.inference.guides import NAMED, make_guide
from bayesdf.inference.posterior import Posterior, fitted_by
from bayesdf.inference.prediction import state_names
from bayesdf.inference.samplers import Sampler
from bayesdf.inference.training import Clock, Problem, Training, minimise, pose, seeded
from bayesdf.models.detector import Detector


@dataclass(frozen=True, kw_only=True)
class SVI(Training):
    """Stochastic variational inference.

    Parameters
    ----------
    guide : str or guide
        ``normal``: independent normals (mean field), with the KL in closed form where there is one. ``lowrank``: one
        normal over all sites with a covariance of rank `rank` plus a diagonal. ``delta``: a point, that is MAP under
        the priors. Or any guide of Pyro: a class of automatic guides (``pyro.infer.autoguide.AutoIAFNormal``, or
        ``functools.partial(AutoIAFNormal, hidden_dim=[64])``), or a function of ``(images, labels)`` that samples
        every site; its posterior is then a store of `stored_draws` draws.
    epochs : int
        Passes over the training images.
    lr : float
        Highest learning rate of Adam, for the guide's locations and for the point estimates; it rises over the first
        twentieth of the steps and falls to zero along a cosine.
    scale_lr : float, optional
        The same for the scales of guides ``normal`` and ``lowrank`` (in logarithms) and for hyperpriors, which have
        further to go; default ``10 lr``.
    init_scale : float
        Where the guide's scales start, relative to the root mean square of each site's start (at least 0.01).
        Locations start at the network's own weights.
    batch_size : int
        Images a step; batches of an epoch differ by one image at most.
    freeze : None, "prefix" or "all"
        What happens to weights without a prior. None: all are trained, together with the guide. ``prefix``: those
        before the first random operation stay as they are, and where nothing is augmented (or `views` are kept) they
        run only once (a view); those
        after are trained; batch normalisation keeps its running statistics everywhere, so that the ELBO is of the
        function that predicts. ``all``: only the guide is trained.
    class_balanced : bool
        Raise each image's likelihood to the power ``N / (K n_class)``. The powers average 1, so the data weighs
        against the prior as before.
    temperature : float
        T above; 1 is Bayes, below 1 a "cold" posterior (Wenzel et al., 2020).
    augment : callable, optional
        ``(images, torch.Generator) -> images`` on each batch of (B, 3, H, W), on the CPU.
    views : int, optional
        With `augment` and `freeze`: how many versions of each training image there are. Their features are computed
        once and kept, and epochs take turns with them, if they take up at most a gigabyte. Default: every epoch
        sees new versions.
    patience : int, optional
        Stop after so many epochs without a lower validation NLL. With validation data the best epoch is restored in
        any case.
    rank : int
        Of ``lowrank``.
    stored_draws : int
        Draws kept of a Pyro guide.
    seed, device, progress
        Seed of everything random (the caller's generators are left alone); ``auto``, ``cpu`` or ``cuda``; a bar.
    checkpoint : path, optional
        File in which every finished epoch is noted. The same call goes on from it, to the same posterior as if it had
        never been stopped; when all is done, the same call returns at once. Delete it when the posterior is saved.

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
        if not callable(self.guide) and self.guide not in NAMED:
            raise BayesdfError(f"SVI: guide is {self.guide!r}, but must be one of {', '.join(NAMED)}, or a Pyro guide")
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
        if not detector.sites:
            raise BayesdfError("SVI: the detector has no priors, so there is nothing to infer: give it some")
        clock = Clock()
        problem = pose(detector, self, train, validation, lambda network, image: list(detector.sites))
        with seeded(self.seed, problem.device):
            objective = _Objective(detector, problem, self)
            history = minimise(problem, objective)
            sampler = objective.guide.sampler()
        _set_point(problem.network, sampler)
        stats = history.dataset("elbo", sign=-float(problem.size))
        attrs = fitted_by(self, self.settings(), detector, train, clock())
        return Posterior(problem.network, sampler, stats, attrs)


class _Objective:
    """The negative ELBO per image."""

    def __init__(self, detector: Detector, problem: Problem, settings: SVI) -> None:
        self.problem, self.settings = problem, settings
        # A likelihood scaled by 1/T has the optimum of a KL scaled by T.
        weights = problem.class_weights / settings.temperature
        self.model = partial(detector.model, size=problem.size, class_weights=weights)
        self.sites = set(detector.sites)
        start = {name: value.detach() for name, value in problem.network.named_parameters() if name in self.sites}
        model = partial(self.model, network=problem.network)
        with pyro.validation_enabled(True):  # checks model and guide against each other, once
            self.guide = make_guide(settings.guide, model, problem.example, start, settings)
            with torch.no_grad():
                self.guide.elbo.differentiable_loss(model, self.guide, *problem.example)
        trace = pyro.poutine.trace(self.guide, param_only=True).get_trace(*problem.example)
        self.own = {
            name: site["value"].unconstrained() for name, site in trace.nodes.items() if site["type"] == "param"
        }

    def loss(self, module: nn.Module, inputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        images = inputs[0] if len(inputs) == 1 else inputs
        with pyro.validation_enabled(False):  # it costs a pass over the weights for each distribution
            model = partial(self.model, network=module)
            loss = self.guide.elbo.differentiable_loss(model, self.guide, images, labels)
        return loss * (self.settings.temperature / self.problem.size)

    def groups(self) -> list[dict[str, Any]]:
        scale_lr = self.settings.scale_lr or 10 * self.settings.lr
        return [
            {"params": [value for name, value in self.own.items() if not self.guide.fast(name)]},
            {"params": [value for name, value in self.own.items() if self.guide.fast(name)], "lr": scale_lr},
            {"params": list(self.problem.trained(exclude=self.sites).values())},
        ]

    def draw(self) -> dict[str, Tensor]:
        return self.guide.draw()


@torch.no_grad()
def _set_point(network: nn.Module, sampler: Sampler) -> None:
    known, state = state_names(network), network.state_dict()
    for name, value in sampler.point().items():
        if name in known:
            state[name].copy_(value)

"""Maximum a posteriori: the most probable weights under the priors, and no uncertainty about them.

Where a comparison begins, and what Laplace, SWAG and the samplers begin from:

    ŵ = argmax log p(labels | images, w) + log p(w)

on mini-batches whose likelihood is scaled to the whole data set. Weights without a prior maximise the likelihood.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from bayesdf.inference.joint import Joint
from bayesdf.inference.posterior import Posterior, fitted_by, settle, told
from bayesdf.inference.rates import grouped, weight_reach
from bayesdf.inference.samplers import DeltaSampler
from bayesdf.inference.training import (
    Clock,
    History,
    Objective,
    Problem,
    Training,
    minimise,
    pose,
    rescuing,
    seeded,
)
from bayesdf.inference.verdict import Verdict, of_scales, of_search
from bayesdf.models.detector import Detector


@dataclass(frozen=True, kw_only=True)
class MAP(Training):
    """Maximum a posteriori.

    The maximum is of the density of the sites as the priors write them; hyperpriors are maximised too. A scale that
    many weights share has no such maximum in general: it runs to 0 with them, which the verdict says.

    Parameters
    ----------
    epochs, lr, batch_size, freeze, class_balanced, augment, views, patience, seed, device, progress, checkpoint
        As for `bayesdf.inference.training.Training`.

    Examples
    --------
    >>> posterior = MAP(epochs=10).fit(detector, data.train)  # doctest: +SKIP
    """

    def fit(self, detector: Detector, train: Dataset[Any], validation: Dataset[Any] | None = None) -> Posterior:
        """Find the maximum.

        Returns
        -------
        Posterior
            The same value in every draw, with ``loss`` (step), the negative log density an image, in
            ``sample_stats``.

        Raises
        ------
        BayesdfError
            As `bayesdf.SVI.fit`.
        """
        clock = Clock()
        problem = pose(detector, self, train, validation)
        with seeded(self.seed, problem.device):
            point = Point(Joint(detector, problem), problem)

            def posterior(history: History) -> Posterior:
                return point.posterior(history, fitted_by(self, detector, train, clock()))

            with rescuing(posterior):
                return told(self, posterior(minimise(problem, point)), problem)


class Point(Objective):
    """The negative log density an image, of one value of every site.

    Parameters
    ----------
    start
        In unconstrained space; by default the network's weights and the medians of hyperpriors.
    coordinates
        Maximise the density of the coordinates, not that of the values, for samplers to begin there. Where a scale and
        the weights under it go to 0 together the density of both grows without end. That of standard coordinates does
        not (see `Joint`); where these cannot be had, hyperpriors stay at their medians.
    """

    def __init__(
        self, joint: Joint, problem: Problem, start: dict[str, Tensor] | None = None, *, coordinates: bool = False
    ) -> None:
        self.joint, self.problem, self.coordinates = joint, problem, coordinates
        hold = coordinates and joint.random != joint.standard
        start = joint.start if start is None else start
        self.z = {name: value.clone() for name, value in start.items()}
        for name, value in self.z.items():
            value.requires_grad_(not hold or name in joint.weights)

    def loss(self, module: nn.Module, inputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        return -self.joint.log_density(self.z, module, inputs, labels, jacobian=self.coordinates) / self.problem.size

    def groups(self) -> list[dict[str, Any]]:
        sites = {name: value for name, value in self.z.items() if value.requires_grad}
        parameters = {**sites, **self.problem.trained(exclude=set(self.z))}
        reach = {**weight_reach(self.problem.network), **self.joint.reach}
        return grouped(parameters, reach, self.problem.settings.lr)

    def draw(self) -> dict[str, Tensor]:
        return self.values()

    def sites(self) -> dict[str, list[Tensor]]:
        return {name: [value] for name, value in self.z.items()}

    def posterior(self, history: History, attrs: dict[str, Any]) -> Posterior:
        """That has no other value."""
        sampler = DeltaSampler(self.values())
        settle(self.problem.network, sampler.point())
        stats = self.verdict(history).into(history.dataset("loss"))
        return Posterior(self.problem.network, sampler, stats, attrs)

    def verdict(self, history: History) -> Verdict:
        """Of the search, and of the scales that it ended at."""
        draws = {name: value[None] for name, value in self.values().items()}
        return of_scales(of_search(history, "negative log density"), self.joint, draws)

    @torch.no_grad()
    def values(self) -> dict[str, Tensor]:
        """The sites as the priors write them."""
        return {name: value.detach().clone() for name, value in self.joint.values(self.z).items()}

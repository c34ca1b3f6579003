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

from bayesdf.inference.divergence import posterior_on_divergence
from bayesdf.inference.fit_results import load_values, report_verdict, root_attrs
from bayesdf.inference.history import History
from bayesdf.inference.joint import Joint
from bayesdf.inference.objective import Objective
from bayesdf.inference.posterior import Posterior
from bayesdf.inference.problem import Problem, prepare
from bayesdf.inference.progress import Clock
from bayesdf.inference.rates import parameter_groups, weight_reach
from bayesdf.inference.samplers import DeltaSampler
from bayesdf.inference.seeds import seeded
from bayesdf.inference.settings import Training
from bayesdf.inference.training import minimise
from bayesdf.inference.verdict import Verdict, judge_scales, judge_search
from bayesdf.models.detector import Detector


@dataclass(frozen=True, kw_only=True)
class MAP(Training):
    """Maximum a posteriori.

    The maximum is of the density of the sites as the priors write them; hyperpriors are maximised too. A scale that
    many weights share has no such maximum in general: it runs to 0 with them, which the verdict says.

    Parameters
    ----------
    epochs, lr, batch_size, freeze, class_balanced, augment, views, patience, seed, device, progress, checkpoint
        As for `bayesdf.inference.settings.Training`.

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
        problem = prepare(detector, self, train, validation)
        with seeded(self.seed, problem.device):
            point = Point(Joint(detector, problem), problem)

            def posterior(history: History) -> Posterior:
                return point.posterior(history, root_attrs(self, detector, train, clock()))

            with posterior_on_divergence(posterior):
                return report_verdict(self, posterior(minimise(problem, point)), problem)


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
        parameters = {**sites, **self.problem.trained_parameters(exclude=set(self.z))}
        reach = {**weight_reach(self.problem.network), **self.joint.reach}
        return parameter_groups(parameters, reach, self.problem.settings.lr)

    def draw(self) -> dict[str, Tensor]:
        return self.values()

    def sites(self) -> dict[str, list[Tensor]]:
        return {name: [value] for name, value in self.z.items()}

    def posterior(self, history: History, attrs: dict[str, Any]) -> Posterior:
        """That has no other value."""
        sampler = DeltaSampler(self.values())
        load_values(self.problem.network, sampler.point())
        stats = self.verdict(history).add_to(history.to_dataset("loss"))
        return Posterior(self.problem.network, sampler, stats, attrs)

    def verdict(self, history: History) -> Verdict:
        """Of the search, and of the scales that it ended at."""
        draws = {name: value[None] for name, value in self.values().items()}
        return judge_scales(judge_search(history, "negative log density"), self.joint, draws)

    @torch.no_grad()
    def values(self) -> dict[str, Tensor]:
        """The sites as the priors write them."""
        return {name: value.detach().clone() for name, value in self.joint.values(self.z).items()}

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
from bayesdf.inference.posterior import Posterior, fitted_by, settle
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
from bayesdf.models.detector import Detector


@dataclass(frozen=True, kw_only=True)
class MAP(Training):
    """Maximum a posteriori.

    The maximum is of the density of the sites as the priors write them; hyperpriors are maximised too.

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
                return posterior(minimise(problem, point))


class Point(Objective):
    """The negative log density an image, of one value of every site."""

    def __init__(self, joint: Joint, problem: Problem, start: dict[str, Tensor] | None = None) -> None:
        self.joint, self.problem = joint, problem
        start = joint.start if start is None else start
        self.z = {name: value.clone().requires_grad_() for name, value in start.items()}

    def loss(self, module: nn.Module, inputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        return -self.joint.log_density(self.z, module, inputs, labels, jacobian=False) / self.problem.size

    def groups(self) -> list[dict[str, Any]]:
        return [
            {"params": list(self.z.values())},
            {"params": list(self.problem.trained(exclude=set(self.z)).values())},
        ]

    def draw(self) -> dict[str, Tensor]:
        return self.values()

    def sites(self) -> dict[str, list[Tensor]]:
        return {name: [value] for name, value in self.z.items()}

    def posterior(self, history: History, attrs: dict[str, Any]) -> Posterior:
        """That has no other value."""
        sampler = DeltaSampler(self.values())
        settle(self.problem.network, sampler.point())
        return Posterior(self.problem.network, sampler, history.dataset("loss"), attrs)

    @torch.no_grad()
    def values(self) -> dict[str, Tensor]:
        """The sites as the priors write them."""
        return {name: value.detach().clone() for name, value in self.joint.values(self.z).items()}

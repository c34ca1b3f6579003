"""Maximum a posteriori: the most probable weights under the priors, and no uncertainty about them.

It is the baseline of comparisons, and the start of Laplace, SWAG and the samplers:

    ŵ = argmax log p(labels | images, w) + log p(w)

on mini-batches, whose likelihood is scaled to the whole data set. Weights without a prior maximise the likelihood.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from bayesdf.inference.convergence import Verdict, judge_scales, judge_search
from bayesdf.inference.fit_results import load_values, report_verdict, root_attrs
from bayesdf.inference.joint import Joint
from bayesdf.inference.posterior import Posterior
from bayesdf.inference.samplers import DeltaSampler
from bayesdf.inference.training import Training
from bayesdf.inference.training.divergence import posterior_on_divergence
from bayesdf.inference.training.history import History
from bayesdf.inference.training.loop import minimise
from bayesdf.inference.training.objective import Objective
from bayesdf.inference.training.problem import Problem, prepare
from bayesdf.inference.training.progress import Clock
from bayesdf.inference.training.rates import parameter_groups, weight_reach
from bayesdf.inference.training.seeds import seeded
from bayesdf.models.detector import Detector


@dataclass(frozen=True, kw_only=True)
class MAP(Training):
    """Maximum a posteriori.

    The density is that of the sites in the space of the priors, and hyperpriors are maximised too. A scale that many
    weights share has no maximum in general: it runs to 0 with them. The verdict says so.

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
            With the same value in every draw. ``sample_stats`` has ``loss`` (step), the negative log density per image.

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
    """The negative log density per image, at one value of every site.

    Parameters
    ----------
    start
        In unconstrained space. Default: the network's weights and the medians of hyperpriors. A site that starts far
        from 0, as a draw of its prior may, has as far to go.
    coordinates
        Maximise the density of the coordinates instead of that of the values, as a start for samplers. If a scale and
        its weights go to 0 together, the density of the values grows without end. That of standard coordinates does
        not (see `Joint`). If there are no standard coordinates, hyperpriors stay at their medians.
    """

    def __init__(
        self, joint: Joint, problem: Problem, start: dict[str, Tensor] | None = None, *, coordinates: bool = False
    ) -> None:
        self.joint, self.problem, self.coordinates = joint, problem, coordinates
        hold = coordinates and joint.random != joint.standard
        self.reach = dict(joint.reach)
        for name, value in (start or {}).items():
            self.reach[name] = max(self.reach[name], float(value.square().mean().sqrt()))
        start = joint.start if start is None else start
        self.z = {name: value.clone() for name, value in start.items()}
        for name, value in self.z.items():
            value.requires_grad_(not hold or name in joint.weights)

    def loss(self, module: nn.Module, inputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        return -self.joint.log_density(self.z, module, inputs, labels, jacobian=self.coordinates) / self.problem.size

    def groups(self) -> list[dict[str, Any]]:
        sites = {name: value for name, value in self.z.items() if value.requires_grad}
        parameters = {**sites, **self.problem.trained_parameters(exclude=set(self.z))}
        reach = {**weight_reach(self.problem.network), **self.reach}
        return parameter_groups(parameters, reach, self.problem.settings.lr)

    def draw(self) -> dict[str, Tensor]:
        return self.values()

    def sites(self) -> dict[str, list[Tensor]]:
        return {name: [value] for name, value in self.z.items()}

    def posterior(self, history: History, attrs: dict[str, Any]) -> Posterior:
        """The posterior in which every draw is this value."""
        sampler = DeltaSampler(self.values())
        load_values(self.problem.network, sampler.point())
        stats = self.verdict(history).add_to(history.to_dataset("loss"))
        return Posterior(self.problem.network, sampler, stats, attrs)

    def verdict(self, history: History) -> Verdict:
        """The verdict on the search, and on the scales at its end."""
        draws = {name: value[None] for name, value in self.values().items()}
        return judge_scales(judge_search(history, "negative log density"), self.joint, draws)

    @torch.no_grad()
    def values(self) -> dict[str, Tensor]:
        """The sites in the space of the priors."""
        return {name: value.detach().clone() for name, value in self.joint.values(self.z).items()}

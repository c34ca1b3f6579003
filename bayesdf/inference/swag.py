"""SWAG: a normal fitted to the path of stochastic gradient descent around the maximum.

Averages over T snapshots of the weights w, taken while SGD continues at a constant rate, give

    q(w) = N(w̄, ½ diag(mean(w²) - w̄²) + D Dᵀ / (2 (K - 1)))

where the K columns of D are the last K snapshots, each minus the mean of all up to it (Maddox et al., "A Simple
Baseline for Bayesian Uncertainty in Deep Learning", 2019, equation 1). Weights without a prior end at their average
(SWA, Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", 2018).
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import LowRankMultivariateNormal
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.optim.swa_utils import update_bn
from torch.utils.data import Dataset

from bayesdf.errors import BayesdfError
from bayesdf.inference import pareto_k
from bayesdf.inference.batches import batches
from bayesdf.inference.convergence import Verdict, k_hat_caution
from bayesdf.inference.fit_results import load_values, report_verdict, root_attrs
from bayesdf.inference.joint import Joint
from bayesdf.inference.map import Point
from bayesdf.inference.posterior import Posterior
from bayesdf.inference.samplers import DeltaSampler, LowRankSampler, Sampler
from bayesdf.inference.training import Training
from bayesdf.inference.training.divergence import posterior_on_divergence
from bayesdf.inference.training.history import History
from bayesdf.inference.training.loop import minimise
from bayesdf.inference.training.problem import Problem, prepare, set_modes
from bayesdf.inference.training.progress import Clock
from bayesdf.inference.training.schedule import Schedule
from bayesdf.inference.training.seeds import seeded
from bayesdf.inference.whitening import flatten
from bayesdf.models.detector import Detector

MOMENTUM = 0.9
_CURVATURE_BATCHES, _POWER_STEPS = 4, 6


@dataclass(frozen=True, kw_only=True)
class SWAG(Training):
    """Stochastic weight averaging, Gaussian.

    What its spread means: near the maximum, where the loss of an image has the Hessian A and its gradient the
    covariance C over images, SGD with the rate ε, the momentum μ and batches of S images ends up with the covariance Σ
    of (for small ε; Mandt, Hoffman and Blei, "Stochastic Gradient Descent as Approximate Bayesian Inference", 2017)

        A Σ + Σ A = ε / ((1 - μ) S) C,

    so the spread is proportional to the rate. It is not the spread of the posterior. If the model is true (C = A), it
    is the same in every direction, while that of the posterior is ``A⁻¹ / N``. If training images are fitted perfectly,
    their gradients agree and nothing spreads, however little the images say. Here each epoch sees every image once,
    which makes the spread narrower. Directions so flat that `collect_epochs` do not cross them have not spread yet.

    Parameters
    ----------
    collect_epochs : int, optional
        Passes over the training images, after the search for the maximum, in which snapshots are taken. Default: ten
        passes, and at least ten steps for each snapshot.
    swag_lr : float
        Rate of these passes as a share, above 0 and below 1, of the largest rate at which no batch makes SGD unstable.
        That is ``2 (1 + μ) / λ`` with λ the largest curvature of the loss of a batch at the maximum. The share has no
        unit, so that it means the same for every prior, network and size of data. The momentum μ is 0.9, as in the
        paper. Trained weights without a prior have their own λ. The two rates are then half as large, so that both
        together are stable. The curvature of those weights so has no influence on the spread of the sites.
    snapshots : int
        The number of snapshots, spread evenly over these passes.
    rank : int
        K above, at least 2.
    epochs, lr, batch_size, freeze, class_balanced, augment, views, patience, seed, device, progress, checkpoint
        As for `bayesdf.inference.training.Training`, for the search for the maximum. If a batch would hold all images,
        it holds a quarter of them. All but `epochs`, `lr` and `patience` hold for the collection too, which has its own
        checkpoint.

    Examples
    --------
    >>> posterior = SWAG(epochs=10).fit(detector, data.train)  # doctest: +SKIP
    """

    collect_epochs: int | None = None
    swag_lr: float = 0.05
    snapshots: int = 40
    rank: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.swag_lr < 1:
            raise BayesdfError(f"SWAG: swag_lr is {self.swag_lr}, but must be above 0 and below 1")
        if self.collect_epochs is not None and self.collect_epochs < 1:
            raise BayesdfError(f"SWAG: collect_epochs is {self.collect_epochs}, but must be at least 1")
        if not 2 <= self.rank <= self.snapshots:
            raise BayesdfError(
                f"SWAG: rank is {self.rank}, but must be at least 2 and no more than snapshots, {self.snapshots}"
            )

    def fit(self, detector: Detector, train: Dataset[Any], validation: Dataset[Any] | None = None) -> Posterior:
        """Find the maximum, then collect snapshots.

        Returns
        -------
        Posterior
            ``sample_stats`` has ``loss`` (step), the negative log density per image, ``collect_loss`` (collect_step)
            and ``rate``, the rate of SGD for the sites.

        Raises
        ------
        BayesdfError
            There are fewer steps than snapshots. Also as `bayesdf.SVI.fit`.
        """
        clock = Clock()
        problem = prepare(detector, self, train, validation)
        steps = math.ceil(problem.size / self.batch_size)
        if steps == 1:  # without noise in its gradient SGD does not wander
            problem = replace(problem, settings=replace(self, batch_size=max(1, problem.size // 4)))
            steps = math.ceil(problem.size / problem.settings.batch_size)
        collect_epochs = self.collect_epochs or max(10, math.ceil(10 * self.snapshots / steps))
        if collect_epochs * steps < self.snapshots:
            raise BayesdfError(
                f"SWAG: collect_epochs is {collect_epochs}, which makes {collect_epochs * steps} steps for "
                f"{self.snapshots} snapshots: raise it, or lower snapshots"
            )
        with seeded(self.seed, problem.device):
            joint = Joint(detector, problem)
            point = Point(joint, problem)

            def posterior(sampler: Sampler, history: History, collected: History, rate: float) -> Posterior:
                load_values(problem.network, sampler.point())
                stats = history.to_dataset("loss")
                stats["collect_loss"] = ("collect_step", torch.tensor(collected.loss, dtype=torch.float64).numpy())
                stats["rate"] = rate
                stats = point.verdict(history).add_to(stats)
                return Posterior(problem.network, sampler, stats, root_attrs(self, detector, train, clock()))

            with posterior_on_divergence(
                lambda history: posterior(DeltaSampler(point.values()), history, History(), math.nan)
            ):
                history = minimise(problem, point, title="maximum")
            walk = _Walk(joint, problem, self, {name: value.detach() for name, value in point.z.items()})
            rate = walk.rates[0]
            with posterior_on_divergence(
                lambda collected: posterior(DeltaSampler(walk.values()), history, collected, rate)
            ):
                collected = minimise(problem, walk, phase=1, epochs=collect_epochs, title="snapshots")
            sampler = walk.sampler()
            load_values(problem.network, {**sampler.point(), **walk.averages})
            if self.freeze is None:
                update_bn(batches(problem.train, problem.settings.batch_size, problem.device), problem.network)
            found = posterior(sampler, history, collected, rate)
            found.sample_stats = _verdict(point.verdict(history), joint, problem, sampler).add_to(found.sample_stats)
            return report_verdict(self, found, problem)


def _verdict(search: Verdict, joint: Joint, problem: Problem, sampler: LowRankSampler) -> Verdict:
    """The verdict on the search and on the spread. k̂ says how far the spread of SGD is from the posterior's."""
    data = pareto_k.data_if_small(joint, problem) if set(joint.support.values()) == {"real"} else None
    if data is None:
        return search
    normal = LowRankMultivariateNormal(sampler.loc, sampler.factor, sampler.diagonal.clamp_min(1e-12))
    draws = iter(range(pareto_k.DRAWS))

    def drawn() -> tuple[dict[str, Tensor], Tensor]:
        values = sampler.draw(next(draws), problem.settings.seed)
        log_q = normal.log_prob(flatten(values))
        return {name: value.to(problem.device) for name, value in values.items()}, log_q

    value = pareto_k.k_hat_of_draws(drawn, joint, problem, data)
    return search.with_caution(k_hat_caution(value), k_hat=value)


class _Walk(Point):
    """SGD at a constant rate, and the moments of its path."""

    def __init__(self, joint: Joint, problem: Problem, settings: SWAG, start: dict[str, Tensor]) -> None:
        super().__init__(joint, problem, start)
        self.settings = settings
        self.due: set[int] = set()
        self.count = 0
        self.mean = torch.zeros_like(flatten(self.z))
        self.squares = torch.zeros_like(self.mean)  # sum of squared deviations from the mean
        self.deviations: deque[Tensor] = deque(maxlen=settings.rank)
        self.averages = {
            name: value.detach().clone() for name, value in problem.trained_parameters(exclude=set(self.z)).items()
        }
        self.blocks = [
            [value for value in block.values() if value.requires_grad]
            for block in (self.z, problem.trained_parameters(exclude=set(self.z)))
        ]
        blocks = sum(bool(values) for values in self.blocks)
        largest = settings.swag_lr * 2 * (1 + MOMENTUM) / blocks  # two blocks of curvature 1 have at most 2 together
        self.rates = [largest / _largest_curvature(problem, self, values) if values else 0.0 for values in self.blocks]

    def groups(self) -> list[dict[str, Any]]:
        return [{"params": block, "lr": rate} for block, rate in zip(self.blocks, self.rates, strict=True) if block]

    def optimiser(self, groups: list[dict[str, Any]], schedule: Schedule) -> tuple[Optimizer, LRScheduler]:
        count, total = self.settings.snapshots, schedule.total
        self.due = {math.ceil(number * total / count) - 1 for number in range(1, count + 1)}
        optimiser = torch.optim.SGD(groups, momentum=MOMENTUM)
        return optimiser, LambdaLR(optimiser, lambda step: 1.0)

    @torch.no_grad()
    def end_of_step(self, step: int) -> None:
        if step not in self.due:
            return
        self.count += 1
        value = flatten(self.z)
        before = value - self.mean
        self.mean = self.mean + before / self.count
        self.squares = self.squares + before * (value - self.mean)  # Welford (1962): no difference of large squares
        self.deviations.append(value - self.mean)
        for name, parameter in self.problem.trained_parameters(exclude=set(self.z)).items():
            self.averages[name].lerp_(parameter.detach(), 1 / self.count)

    def state_dict(self) -> dict[str, Any]:
        moments = {"count": self.count, "mean": self.mean, "squares": self.squares}
        return {**moments, "deviations": list(self.deviations), "averages": self.averages}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count, self.mean, self.squares = state["count"], state["mean"], state["squares"]
        self.deviations.extend(state["deviations"])
        self.averages = state["averages"]

    def sampler(self) -> LowRankSampler:
        """Equation 1 of the paper."""
        factor = torch.stack(list(self.deviations), 1) / math.sqrt(2 * (len(self.deviations) - 1))
        diagonal = self.squares / (2 * self.count)
        return LowRankSampler(self.mean, factor, diagonal, self.joint.shapes, self.joint.support)


def _largest_curvature(problem: Problem, objective: Point, values: list[Tensor]) -> float:
    """The largest eigenvalue, in size, of the Hessian H of a batch's loss in some of the weights, over a few batches.

    It uses the power method. Each batch starts with the direction where the last one ended. ``H d`` is a difference of
    two gradients, since not all operations of networks have second derivatives in torch. The distance is such that the
    loss changes by about 0.005 nats, whatever the unit of the weights. Over this distance the kinks of ReLU, where the
    gradient jumps, average out.
    """
    here = [value.detach().clone() for value in values]
    buffers = [value.clone() for value in problem.network.buffers()]
    noise = torch.Generator().manual_seed(problem.settings.seed)
    order = torch.randperm(problem.size, generator=noise)[: _CURVATURE_BATCHES * problem.settings.batch_size]
    direction = [torch.randn(value.shape, generator=noise).to(value) for value in values]
    direction = _scaled(direction, 1 / _length(direction))
    distance, largest = 1e-3 * (_length(here) or 1.0), 0.0
    set_modes(problem, training=True)
    for images, labels in batches(problem.train, problem.settings.batch_size, problem.device, order):
        with torch.no_grad():
            inputs = (images,) if problem.settings.freeze is None else problem.parts.prefix(images)
        for _ in range(_POWER_STEPS):
            slopes = []
            for side in (distance, -distance):
                _put(values, [torch.add(start, part, alpha=side) for start, part in zip(here, direction, strict=True)])
                with seeded(problem.settings.seed, problem.device):  # the same dropout on both sides
                    loss = objective.loss(problem.module, inputs, labels)
                slopes.append(torch.autograd.grad(loss, values, materialize_grads=True))
            product = [(plus - minus) / (2 * distance) for plus, minus in zip(*slopes, strict=True)]
            size = _length(product)
            if not (math.isfinite(size) and size > 0):
                raise BayesdfError(
                    f"SWAG: the curvature of the loss at the maximum is {size}: check the images and the priors' scales"
                )
            direction, distance = _scaled(product, 1 / size), 0.1 / math.sqrt(size)
        largest = max(largest, size)
    set_modes(problem, training=False)
    _put(values, here)
    _put(problem.network.buffers(), buffers)  # the running statistics of normalisation
    return largest


@torch.no_grad()
def _put(into: Iterable[Tensor], values: Iterable[Tensor]) -> None:
    for old, new in zip(into, values, strict=True):
        old.copy_(new)


def _scaled(parts: list[Tensor], factor: float) -> list[Tensor]:
    return [part * factor for part in parts]


def _length(parts: list[Tensor]) -> float:
    return math.sqrt(sum(float(part.square().sum()) for part in parts))

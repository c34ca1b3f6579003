"""Stochastic gradient MCMC: draws of the posterior from mini-batches, by steps with noise of the right size.

In coordinates u in which the posterior is about equally wide in every direction, ``z = ẑ + L u / sqrt(κ)`` for the
unconstrained numbers z of all sites, with the potential ``U = -log p(labels, z | images)`` of the full data set, steps
h and standard normal noise ξ:

    sgld     u ← u - h²/2 ∇U + h ξ
    sghmc    v ← v - h ∇U;   u ← u + h/2 v;   v ← c v + sqrt(1 - c²) ξ,  c = exp(-γ h);   u ← u + h/2 v

sgld is Welling and Teh, "Bayesian Learning via Stochastic Gradient Langevin Dynamics", 2011, equation 4. sghmc has the
friction γ and the noise of Chen, Fox and Guestrin, "Stochastic Gradient Hamiltonian Monte Carlo", 2014, in steps that
solve friction and noise exactly (the order "BAOAB" of Leimkuhler and Matthews, "Rational Construction of Stochastic
Numerical Methods for Molecular Sampling", 2013, with one gradient a step). Where U is quadratic with curvature λ along
u and gradients are of all images, the variance of the draws is

    sgld     1/λ · 1 / (1 - h² λ / 4): too wide, 7 % in the narrowest direction at h = 0.5
    sghmc    1/λ, exactly, while h sqrt(λ) < 2; elsewhere the error falls with h²

L is fixed. It comes from the Fisher information at the maximum a posteriori ẑ (see `bayesdf.inference.whitening`): all
entries for few numbers, else the diagonal. κ is the largest remaining curvature, so that the narrowest direction has
λ = 1, and h is a fraction of its standard deviation. Because L never changes, the draws are of the posterior as h goes
to 0, whatever L is.

On batches, ∇U is estimated with a control variate (Baker, Fearnhead, Fox and Nemeth, "Control Variates for Stochastic
Gradient MCMC", 2019),

    ∇U(z) ≈ ∇U_batch(z) - ∇U_batch(ẑ) + mean over all batches so far of ∇U_batch(ẑ).

Without it the noise of the gradient, N / batch_size times the information, would make draws far too wide. The remaining
noise is not subtracted from the added noise. It makes draws wider, by a share that falls with h.

The step is cyclical (Zhang et al., "Cyclical Stochastic Gradient MCMC for Bayesian Deep Learning", 2020, equation 1):
at step k of the K of a cycle ``h² = step_size² (1 + cos(π k / K)) / 2``. The first part of a cycle is burn-in, in which
long steps look for other modes. From the rest draws are taken at equal distances of the sum of h². This amounts to the
mean weighted by step sizes, equation 11 of Welling and Teh.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import Dataset

from bayesdf.errors import BayesdfError
from bayesdf.inference import whitening
from bayesdf.inference.convergence import Verdict, judge_chains, judge_scales, judge_search
from bayesdf.inference.fit_results import load_values, report_verdict, root_attrs
from bayesdf.inference.joint import Joint
from bayesdf.inference.map import Point
from bayesdf.inference.posterior import Posterior
from bayesdf.inference.samplers import StoredSampler
from bayesdf.inference.training import Training
from bayesdf.inference.training.divergence import posterior_on_divergence
from bayesdf.inference.training.history import History
from bayesdf.inference.training.loop import minimise
from bayesdf.inference.training.objective import Objective
from bayesdf.inference.training.problem import Problem, prepare
from bayesdf.inference.training.progress import Clock
from bayesdf.inference.training.schedule import Schedule
from bayesdf.inference.training.seeds import chain_seed, seeded
from bayesdf.inference.whitening import Whitening
from bayesdf.models.detector import Detector

CURVATURE_IMAGES = 512
"""The number of training images on which the largest curvature is computed."""
POWER_STEPS = 30
STEPS, LEAST_EPOCHS = 4_000, 10
"""The default length of a chain: this many steps, and at least this many epochs."""


@dataclass(frozen=True, kw_only=True)
class SGMCMC(Training):
    """Stochastic gradient MCMC over any number of sites.

    Weights without a prior are found by maximum a posteriori, together with the start. Then they stay fixed, as do the
    statistics of batch normalisation.

    Parameters
    ----------
    dynamics : "sghmc" or "sgld"
        With or without momentum. See the formulas of this module.
    chains : int
        Each chain starts at the maximum a posteriori, with its own random numbers.
    sampling_epochs : int, optional
        Passes of each chain over the training images. Default: 4,000 steps, and at least ten passes.
    cycles : int
        How many times the step size falls from `step_size` to 0 in a chain.
    burn_in : float
        Share of each cycle whose steps are discarded, at least 0 and below 1.
    step_size : float
        h at the start of a cycle, in standard deviations of the narrowest direction. It is above 0 and below 2, beyond
        which no step is stable.
    friction : float
        γ of ``sghmc``, above 0. With small friction a chain travels far in wide directions.
    stored_draws : int
        The number of draws stored, of all chains together. Each takes as much memory as the sites.
    epochs, lr, batch_size, freeze, class_balanced, augment, views, patience, seed, device, progress, checkpoint
        As for `bayesdf.inference.training.Training`; `epochs`, `lr`, `freeze` and `patience` are for the maximum
        a posteriori. With 0 epochs the network itself is taken for it. While sampling, everything but the sites is
        frozen.

    Examples
    --------
    >>> posterior = SGMCMC(epochs=10, sampling_epochs=50).fit(detector, data.train)  # doctest: +SKIP
    """

    dynamics: Literal["sghmc", "sgld"] = "sghmc"
    chains: int = 4
    sampling_epochs: int | None = None
    cycles: int = 4
    burn_in: float = 0.5
    step_size: float = 0.5
    friction: float = 0.5
    stored_draws: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dynamics not in ("sghmc", "sgld"):
            raise BayesdfError(f"SGMCMC: dynamics is {self.dynamics!r}, but must be 'sghmc' or 'sgld'")
        for name in ("chains", "sampling_epochs", "cycles", "stored_draws"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise BayesdfError(f"SGMCMC: {name} is {getattr(self, name)}, but must be at least 1")
        if self.stored_draws % self.chains:
            raise BayesdfError(
                f"SGMCMC: stored_draws is {self.stored_draws}, which {self.chains} chains cannot share equally: give a "
                f"multiple of {self.chains}"
            )
        if not 0 <= self.burn_in < 1:
            raise BayesdfError(f"SGMCMC: burn_in is {self.burn_in}, but must be at least 0 and below 1")
        if not 0 < self.step_size < 2:
            raise BayesdfError(f"SGMCMC: step_size is {self.step_size}, but must be above 0 and below 2")
        if not self.friction > 0:
            raise BayesdfError(f"SGMCMC: friction is {self.friction}, but must be above 0")

    def fit(self, detector: Detector, train: Dataset[Any], validation: Dataset[Any] | None = None) -> Posterior:
        """Find the maximum, and sample from there.

        Parameters
        ----------
        detector : Detector
            Left as it is.
        train, validation : torch dataset of (image, label)
            Image float32 (3, H, W) in [0, 1]; label int. `validation` chooses the best epoch of the maximum a
            posteriori.

        Returns
        -------
        Posterior
            Of stored draws (chain, draw). ``sample_stats`` has, by (chain, draw), ``step_size`` (h, in the units of the
            setting) and ``potential`` (U, estimated from a batch with the control variate), and ``loss`` (step) of the
            maximum a posteriori.

        Raises
        ------
        BayesdfError
            There are fewer steps than draws to store, a site's support has no transform, the loss is not finite; and
            as `bayesdf.SVI.fit`.
        """
        clock = Clock()
        problem = prepare(detector, self, train, validation)
        steps = _step_sizes(self, problem)
        stored_steps = _stored_steps(self, steps)
        with seeded(self.seed, problem.device):
            joint = Joint(detector, problem, centred=False)
            point = Point(joint, problem, coordinates=True)

            mode = History()
            chains: list[_Chain] = []

            def attrs() -> dict[str, Any]:
                return root_attrs(self, detector, train, clock())

            def posterior(count: int) -> Posterior:
                """The posterior of the first `count` draws of each chain."""
                sampler = StoredSampler(
                    {name: torch.stack([chain.draws[name][:count] for chain in chains]) for name in point.z}
                )
                load_values(problem.network, sampler.point())
                stats = mode.to_dataset("loss").assign_coords(chain=np.arange(len(chains)), draw=np.arange(count))
                stats["step_size"] = (("chain", "draw"), np.stack([steps[stored_steps[:count]]] * len(chains)))
                stats["potential"] = (("chain", "draw"), torch.stack([c.potential[:count] for c in chains]).numpy())
                return Posterior(problem.network, sampler, stats, attrs())

            def last_good(history: History) -> Posterior:
                """The posterior of the finished chains, else of the first chain's draws so far, else the maximum."""
                found = len(stored_steps)
                if len(chains) > 1:
                    chains.pop()
                elif chains:
                    found = int((stored_steps < len(history.loss)).sum())
                return posterior(found) if chains and found else point.posterior(mode if chains else history, attrs())

            with posterior_on_divergence(last_good):
                mode = minimise(problem, point, title="maximum")
                load_values(problem.network, point.values())
                space = _space(joint, problem, point)
                for number in range(self.chains):
                    torch.manual_seed(chain_seed(self.seed, number))
                    # In the loop only the sites may move: everything else is treated as frozen.
                    settings = replace(self, freeze="all", seed=self.seed + number)
                    chains.append(_Chain(joint, replace(problem, settings=settings), space, self, steps))
                    last, phase = chains[-1], 1 + number
                    minimise(last.problem, last, phase=phase, epochs=_epochs(self, problem), title=f"chain {phase}")
                found = posterior(len(stored_steps))
            draws = {name: torch.stack([chain.draws[name] for chain in chains]) for name in point.z}
            found.sample_stats = _verdict(mode, joint, problem, draws).add_to(found.sample_stats)
        return report_verdict(self, found, problem)


def _verdict(mode: History, joint: Joint, problem: Problem, draws: dict[str, Tensor]) -> Verdict:
    """The verdict on the chains, on their scales, and on the search if it has found weights that stay fixed."""
    advice = "raise sampling_epochs or chains, or take NUTS where there are few numbers"
    found = judge_chains({name: value.numpy() for name, value in draws.items()}, advice)
    found = judge_scales(found, joint, {name: value.flatten(0, 1) for name, value in draws.items()})
    stays = problem.trained_parameters(exclude=set(draws))
    search = judge_search(mode, "negative log density").about("the search of the weights without a prior")
    return found & search if stays else found


class _Chain(Objective):
    """The negative log density of z per image, with the slope at the anchor ẑ as control variate, and draws of z."""

    def __init__(self, joint: Joint, problem: Problem, space: Whitening, settings: SGMCMC, steps: np.ndarray) -> None:
        self.joint, self.problem, self.space, self.settings, self.steps = joint, problem, space, settings, steps
        self.u = torch.zeros_like(space.centre).requires_grad_()
        self.anchor = torch.zeros_like(space.centre).requires_grad_()
        self.draw_at_step = {int(step): draw for draw, step in enumerate(_stored_steps(settings, steps))}
        self.draws = {name: torch.empty(len(self.draw_at_step), *shape) for name, shape in joint.shapes.items()}
        self.potential = torch.empty(len(self.draw_at_step))
        # Batches that are all the same need no control variate.
        self.varied = problem.size > settings.batch_size or settings.augment is not None
        self.seen, self.mean_slope, self.mean_loss = 0, torch.zeros_like(self.u), torch.zeros_like(self.u[0])

    def loss(self, module: nn.Module, inputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        self.batch = (module, inputs, labels)
        if self.varied:
            at_anchor = self._loss(self.anchor)
            slope = torch.autograd.grad(at_anchor, self.anchor)[0]
            self.seen += 1
            self.mean_slope += (slope - self.mean_slope) / self.seen
            self.mean_loss += (at_anchor.detach() - self.mean_loss) / self.seen
            self.excess = (at_anchor.detach() - self.mean_loss, slope - self.mean_slope)
        return self._controlled()

    def groups(self) -> list[dict[str, Any]]:
        return [{"params": [self.u], "lr": self.settings.step_size}]

    def optimiser(self, groups: list[dict[str, Any]], schedule: Schedule) -> tuple[Optimizer, LRScheduler]:
        friction = self.settings.friction if self.settings.dynamics == "sghmc" else None
        optimiser = Langevin(groups, self.settings.step_size, self.problem.size, friction)
        shares = [*(self.steps / self.settings.step_size), 0.0]  # the schedule asks for one more than there are steps
        return optimiser, LambdaLR(optimiser, lambda step: float(shares[step]))

    def draw(self) -> dict[str, Tensor]:
        return self.space.values(self.u.detach())

    def sites(self) -> dict[str, list[Tensor]]:
        return {name: [value] for name, value in self.space.sites(self.u).items()}

    @torch.no_grad()
    def end_of_step(self, step: int) -> None:
        if step in self.draw_at_step:
            draw = self.draw_at_step[step]
            for name, value in self.draw().items():
                self.draws[name][draw] = value
            self.potential[draw] = self.problem.size * self._controlled()

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("draws", "potential", "seen", "mean_slope", "mean_loss")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.draws = {name: value.cpu() for name, value in state["draws"].items()}
        self.potential, self.seen = state["potential"].cpu(), state["seen"]
        self.mean_slope, self.mean_loss = state["mean_slope"], state["mean_loss"]

    def _loss(self, u: Tensor) -> Tensor:
        return -self.joint.log_density(self.space.sites(u), *self.batch, jacobian=True) / self.problem.size

    def _controlled(self) -> Tensor:
        """The loss at u, minus the excess of this batch over all batches."""
        if not self.varied:
            return self._loss(self.u)
        level, slope = self.excess
        return self._loss(self.u) - level - slope @ self.u


class Langevin(Optimizer):
    """Steps of ``sghmc``, or of ``sgld`` without friction. `lr` is h. The noise is from torch's global state.

    Parameters
    ----------
    size : int
        N. The loss is the potential divided by N.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, size: int, friction: float | None) -> None:
        super().__init__(groups, {"lr": lr})
        self.size, self.friction = size, friction
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["momentum"] = torch.randn_like(parameter)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            h = group["lr"]
            for parameter in group["params"]:
                noise = torch.randn_like(parameter)
                if self.friction is None:
                    parameter.sub_(parameter.grad, alpha=self.size * h**2 / 2).add_(noise, alpha=h)
                    continue
                momentum, kept = self.state[parameter]["momentum"], math.exp(-self.friction * h)
                momentum.sub_(parameter.grad, alpha=self.size * h)
                parameter.add_(momentum, alpha=h / 2)
                momentum.mul_(kept).add_(noise, alpha=math.sqrt(1 - kept**2))
                parameter.add_(momentum, alpha=h / 2)


def _space(joint: Joint, problem: Problem, point: Point) -> Whitening:
    """Coordinates whose narrowest direction has width 1."""
    centre = whitening.flatten(point.z)
    prior = whitening.prior_information(joint, problem, centre)
    images = whitening.image_information(joint, problem, centre)
    space = Whitening(joint, centre, images + (prior.diag() if images.dim() == 2 else prior))
    largest = _largest_curvature(joint, problem, space)
    if not (math.isfinite(largest) and largest > 0):
        raise BayesdfError(f"SGMCMC: the log density has curvature {largest} at its maximum: check the priors' scales")
    space.scale = space.scale / math.sqrt(largest)
    return space


def _largest_curvature(joint: Joint, problem: Problem, space: Whitening) -> float:
    """The largest curvature of the potential at the centre in coordinates u, by power iteration on some images."""
    inputs, labels = next(
        whitening.features(problem, CURVATURE_IMAGES, torch.randperm(problem.size)[:CURVATURE_IMAGES])
    )
    u = torch.zeros_like(space.centre).requires_grad_()
    density = joint.log_density(space.sites(u), problem.parts.suffix, inputs, labels, jacobian=True)
    slope = torch.autograd.grad(-density, u, create_graph=True)[0]
    direction = torch.randn_like(u)
    for _ in range(POWER_STEPS):
        direction = torch.autograd.grad(slope, u, direction / direction.norm(), retain_graph=True)[0]
    return float(direction.norm())


def _epochs(settings: SGMCMC, problem: Problem) -> int:
    """The number of passes of a chain over the images."""
    if settings.sampling_epochs is not None:
        return settings.sampling_epochs
    return max(LEAST_EPOCHS, math.ceil(STEPS / math.ceil(problem.size / settings.batch_size)))


def _step_sizes(settings: SGMCMC, problem: Problem) -> np.ndarray:
    """The step size h of every step of a chain."""
    total = _epochs(settings, problem) * math.ceil(problem.size / settings.batch_size)
    cycle = math.ceil(total / settings.cycles)
    return settings.step_size * np.sqrt((1 + np.cos(np.pi * (np.arange(total) % cycle) / cycle)) / 2)


def _stored_steps(settings: SGMCMC, steps: np.ndarray) -> np.ndarray:
    """The steps whose draws are stored."""
    cycle, stored = math.ceil(len(steps) / settings.cycles), settings.stored_draws // settings.chains
    counted = np.where(np.arange(len(steps)) % cycle >= settings.burn_in * cycle, steps**2, 0.0)
    reached = np.cumsum(counted)
    # The first step at which the sum has come so far; half a distance in, so that the last is not at a step of 0.
    stored_steps = np.searchsorted(reached, reached[-1] * (np.arange(stored) + 0.5) / stored)
    if len(np.unique(stored_steps)) < stored:
        raise BayesdfError(
            f"SGMCMC: {len(steps)} steps are too few for {stored} draws a chain from the last "
            f"{1 - settings.burn_in:.0%} of each cycle (at most {int(reached[-1] / counted.max())} fit): raise "
            "sampling_epochs, or store fewer draws"
        )
    return stored_steps

"""Is the result of a fit the posterior that was asked for, as far as can be checked?

Every fit ends with a verdict: converged or not, by how much, and what to do about it. The verdict is in the attributes
of ``sample_stats``, in the posterior's ``repr``, on the screen and in every report. What is judged depends on the
method:

- a search (MAP, SVI, dropout, members, the start of samplers): what its objective would still gain, in nats
  (`bayesdf.inference.training.flatness`);
- a guide or a normal approximation: Pareto k̂ of its importance weights against the joint density (Yao, Vehtari, Simpson
  and Gelman, "Yes, but Did It Work?: Evaluating Variational Inference", 2018): above 0.7 it is far from the posterior;
- chains: rank-normalised R-hat, bulk and tail effective sample size (Vehtari et al., 2021), divergences, and E-BFMI of
  the energy (Betancourt, "A Conceptual Introduction to Hamiltonian Monte Carlo", 2017);
- hierarchies: whether a scale has run to where its prior hardly lets it be.
"""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn

from bayesdf.cli import console
from bayesdf.errors import ConvergenceWarning
from bayesdf.inference.batches import batches
from bayesdf.inference.joint import Joint
from bayesdf.inference.training.history import History
from bayesdf.inference.training.problem import Problem
from bayesdf.models.eval_mode import evaluating

K_HAT = 0.7
"""Above it importance weights have no usable mean (Vehtari et al., "Pareto Smoothed Importance Sampling", 2024)."""
R_HAT, ESS, E_BFMI = 1.05, 100, 0.2
"""Limits for chains: the largest R-hat, the fewest effective draws of any number, the lowest E-BFMI."""
NUMBERS = 1_000
"""The most numbers of all sites that are checked. They are spread evenly."""
GUESSED, GUESS_NATS = 128, 0.005
"""A fit is compared with guessing on this many training images, and must be better by this many nats an image."""
BOUNDARY = 0.02
"""A scale whose draws nearly all lie below this quantile of its prior has run to its boundary."""


@dataclass(frozen=True)
class Verdict:
    """Whether a fit has converged, and why.

    Attributes
    ----------
    converged : bool
    text : str
        One line without the word converged: what was observed, and what to do.
    figures : dict from name to float
        The numbers behind the verdict.
    cautions : tuple of str
        What a reader must know even if the fit has converged.
    early : bool
        The fit has not converged only because validation images stopped it early.
    """

    converged: bool
    text: str
    figures: Mapping[str, float] = field(default_factory=dict)
    cautions: tuple[str, ...] = ()
    early: bool = False

    def __str__(self) -> str:
        line = f"{'converged' if self.converged else 'NOT converged'}: {self.text}"
        return "; ".join((line, *(f"but {caution}" for caution in self.cautions)))

    def __and__(self, other: "Verdict") -> "Verdict":
        """Both verdicts: converged if both are. One that is not comes first."""
        first, second = (self, other) if other.converged or not self.converged else (other, self)
        converged = self.converged and other.converged
        early = not converged and all(part.early for part in (self, other) if not part.converged)
        figures = {**self.figures, **other.figures}
        return Verdict(converged, f"{first.text}; {second.text}", figures, self.cautions + other.cautions, early)

    def with_caution(self, caution: str | None, **figures: float) -> "Verdict":
        """The verdict with one more caution. None adds no caution."""
        cautions = self.cautions + ((caution,) if caution else ())
        return replace(self, cautions=cautions, figures={**self.figures, **figures})

    def about(self, what: str) -> "Verdict":
        """The same verdict, about a part of the fit."""
        return replace(self, text=f"{what}: {self.text}")

    def add_to(self, stats: xr.Dataset) -> xr.Dataset:
        """``sample_stats`` with the verdict in its attributes: ``converged`` (1 or 0), ``verdict``, and the figures."""
        known = {name: value for name, value in self.figures.items() if not math.isnan(value)}
        known |= {"early_stop": 1} if self.early else {}
        return stats.assign_attrs(converged=int(self.converged), verdict=str(self), **known)


def announce(method: str, stats: xr.Dataset, progress: bool) -> None:
    """Show a verdict: as a line where there is a progress bar, as a warning if the fit is not to be trusted.

    An early stop is what validation images are for, and is no reason to warn.
    """
    line, attrs = f"{method}: {stats.attrs['verdict']}", stats.attrs
    if (not attrs["converged"] and "early_stop" not in attrs) or "guessing" in attrs:
        warnings.warn(line, ConvergenceWarning, stacklevel=4)
    elif progress:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def judge_search(history: History, objective: str) -> Verdict:
    """The verdict on a search for an optimum. `objective` names what falls, as in "negative ELBO"."""
    slope, kept = history.slope, history.kept_epoch
    if slope is None:
        return Verdict(False, "no step was taken: raise epochs above 0, or leave epochs out")
    figures = {"gain_nats": slope.gain, "gain_error_nats": slope.error, "gain_limit_nats": slope.limit}
    if math.isnan(slope.gain):
        text = f"{slope.steps} steps are too few to tell whether the {objective} is flat: {history.advice}"
        return Verdict(False, text)
    if slope.rises:
        return Verdict(False, f"the {objective} rose, by {-slope.gain:.2g} nats: lower lr", figures)
    if not slope.settled:
        text = (
            f"the {objective} was still falling when the rate had fallen to zero, by {slope.end_gain:.2g} nats over "
            f"the last tenth of {slope.steps} steps: lower lr, or raise epochs"
        )
        return Verdict(False, text, figures)
    if kept is not None:
        text = (
            f"stopped early, by the validation images: the state of epoch {kept[0] + 1} of {kept[1]} was kept, before "
            f"the {objective} was at its lowest"
        )
        return Verdict(False, text, figures, early=True)
    if not slope.flat and slope.gain > 2 * slope.error:
        found = f"{slope.gain:.2g} ± {2 * slope.error:.2g} nats"
        text = f"the {objective} was still falling, with {found} to go after {slope.steps} steps: {history.advice}"
        return Verdict(False, text, figures)
    if not slope.flat:
        text = f"{slope.steps} steps are too few to tell: the {objective} may have up to {slope.most:.2g} nats to go"
        return Verdict(False, f"{text}: {history.advice}", figures)
    left = max(slope.most, 0.0)
    return Verdict(True, f"the {objective} is flat after {slope.steps} steps, at most {left:.2g} nats to go", figures)


def judge_chains(
    draws: Mapping[str, NDArray[np.floating]], what_to_do: str, stats: Mapping[str, NDArray[Any]] | None = None
) -> Verdict:
    """The verdict on Markov chains.

    Parameters
    ----------
    draws
        Site to values (chain, draw, …), in the order in which the draws were made.
    what_to_do
        The advice if the chains have not converged.
    stats
        ``diverging`` and ``energy`` (chain, draw), if the sampler has them.
    """
    stats = stats or {}
    chains = np.concatenate([value.reshape(*value.shape[:2], -1) for value in draws.values()], -1)
    if chains.shape[1] < 8:
        return Verdict(False, f"{chains.shape[1]} draws a chain are too few to tell: {what_to_do}")
    if chains.shape[-1] > NUMBERS:
        chains = chains[..., np.linspace(0, chains.shape[-1] - 1, NUMBERS).round().astype(int)]
    figures, still = chain_figures(chains)
    reasons = []
    if still:
        reasons.append(f"{still} of {chains.shape[-1]} numbers never moved")
    if not figures["r_hat"] <= R_HAT:
        reasons.append(f"R-hat is up to {figures['r_hat']:.3f}, above {R_HAT}")
    for kind in ("bulk", "tail"):
        if not figures[f"ess_{kind}"] >= ESS:
            reasons.append(f"some number has {figures[f'ess_{kind}']:.0f} effective draws in the {kind}, below {ESS}")
    diverged = int(np.sum(stats.get("diverging", 0)))
    if diverged:
        figures["divergences"] = diverged
        reasons.append(f"{diverged} of {chains.shape[0] * chains.shape[1]} trajectories diverged")
    if "energy" in stats:
        figures["e_bfmi"] = e_bfmi(stats["energy"])
        if figures["e_bfmi"] < E_BFMI:
            reasons.append(f"E-BFMI is {figures['e_bfmi']:.2g}, below {E_BFMI}")
    if reasons:
        return Verdict(False, f"{', '.join(reasons)}: {what_to_do}", figures)
    text = (
        f"R-hat at most {figures['r_hat']:.3f}, effective draws at least {figures['ess_bulk']:.0f} (bulk) and "
        f"{figures['ess_tail']:.0f} (tail) of {chains.shape[0] * chains.shape[1]}"
    )
    return Verdict(True, text + (", no divergences" if "diverging" in stats else ""), figures)


def chain_figures(chains: NDArray[np.floating]) -> tuple[dict[str, float], int]:
    """The worst R-hat, bulk and tail ESS of numbers (chain, draw, number), and how many numbers never moved.

    A single chain is split into two halves, which are compared.
    """
    import arviz  # half a second, which only chains need

    moving = np.ptp(chains, axis=1).max(0) > 0
    still, chains = int((~moving).sum()), chains[..., moving].astype(np.float64)
    if not chains.shape[-1]:
        return {"r_hat": math.inf, "ess_bulk": 0.0, "ess_tail": 0.0}, still
    if len(chains) == 1:
        half = chains.shape[1] // 2
        chains = np.concatenate([chains[:, :half], chains[:, -half:]])
    draws = arviz.convert_to_dataset({"number": chains})
    found = {"r_hat": arviz.rhat(draws), "ess_bulk": arviz.ess(draws), "ess_tail": arviz.ess(draws, method="tail")}
    values = {name: found[name]["number"].values for name in found}
    worst = {"r_hat": np.max, "ess_bulk": np.min, "ess_tail": np.min}
    return {name: float(worst[name](values[name])) for name in values}, still


def e_bfmi(energy: NDArray[np.floating]) -> float:
    """The estimated Bayesian fraction of missing information of the worst chain, of energies (chain, draw)."""
    energy = np.asarray(energy, dtype=np.float64)
    spread = energy.var(1)
    if not (spread > 0).all():
        return 0.0
    return float((np.square(np.diff(energy, axis=1)).mean(1) / spread).min())


def k_hat(log_weights: NDArray[np.floating]) -> float:
    """Pareto k̂ of importance weights, given their logarithms (draw,), computed by ArviZ."""
    import arviz

    if not np.isfinite(log_weights).all():
        return math.inf
    return float(arviz.psislw(log_weights.astype(np.float64))[1])


def k_hat_caution(value: float) -> str | None:
    """The caution for this Pareto k̂; None if it is low enough."""
    if value <= K_HAT:
        return None
    return (
        f"k-hat is {value:.2f}, above {K_HAT}: the approximation is far from the posterior, in shape or in place; a "
        "richer guide (full, lowrank) or NUTS comes nearer"
    )


@torch.no_grad()
def guessing_caution(network: nn.Module, problem: Problem) -> str | None:
    """The caution if a fit separates its own training images no better than their class shares do; else None.

    The objective is also flat if a layer is dead, or if no slope leads away from the start.
    """
    order = torch.randperm(problem.size, generator=torch.Generator().manual_seed(0))[:GUESSED]
    losses, weights = [], []
    with evaluating(network):
        for images, labels in batches(problem.train, problem.settings.batch_size, problem.device, order):
            losses.append(F.cross_entropy(network(images).flatten(0, -2), labels.flatten(), reduction="none").cpu())
            weights.append(problem.class_weights[labels.flatten()].cpu())
    loss, weight, labels = torch.cat(losses), torch.cat(weights), problem.labels[order].flatten()
    shares = torch.bincount(labels, weight, minlength=len(problem.class_weights)).double() / weight.sum()
    guess = -torch.log(shares[labels])
    better = weight * (guess - loss)
    if not bool(better.isfinite().all()) or float(better.mean()) > max(
        GUESS_NATS, 2 * float(better.std()) / len(order)
    ):
        return None
    return (
        "it predicts its own training images no better than their class shares do: a layer may be dead, or the images "
        "say nothing"
    )


@torch.no_grad()
def judge_scales(verdict: Verdict, joint: Joint, draws: Mapping[str, Tensor]) -> Verdict:
    """The verdict, with a negative one added if scales in a hierarchy of priors have run to zero.

    Parameters
    ----------
    draws
        Site to values (draw, …), in the space of the priors.
    """
    scales = [name for name, kind in joint.support.items() if kind == "positive"]
    if not scales:
        return verdict
    numbers = sum(draws[name][0].numel() for name in scales)
    prior = joint.prior_draws(max(20, min(400, 1_000_000 // numbers)))
    low = []
    for name in scales:
        flat = prior[name].flatten()
        edge = flat.kthvalue(max(1, round(BOUNDARY * len(flat)))).values
        below = (draws[name].to(edge) < edge).float().mean(0)
        if float((below > 0.9).float().mean()) > 0.5:
            low.append(f"{name} (about {float(draws[name].median()):.2g})")
    if not low:
        return verdict
    return verdict & Verdict(
        False,
        f"{', '.join(low[:3])}{', …' if len(low) > 3 else ''} ran to the boundary at 0, below {BOUNDARY:.0%} of the "
        "prior, where the density of a scale and its weights grows without end: fix the scale, or take SVI or NUTS "
        "(a LogNormal in place of a HalfCauchy helps where a scale has few weights)",
    )

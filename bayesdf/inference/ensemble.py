"""Deep ensembles: how much do networks differ that were trained in the same way from different starts?

M maxima a posteriori are M draws of equal weight. Each starts from sites drawn from their prior, and has its own order
of batches (Lakshminarayanan, Pritzel and Blundell, "Simple and Scalable Predictive Uncertainty Estimation using Deep
Ensembles", 2017). If the posterior has one mode, the members agree: their spread is that of modes, not that of the
posterior around one mode. (Members anchored to different draws of the prior, and not only started there, would spread
like the posterior of a linear model: Pearce, Leibfried and Brintrup, "Uncertainty in Neural Networks: Approximately
Bayesian Ensembling", 2020.)
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyro
import torch
import xarray as xr
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.distributions import biject_to
from torch.utils.data import Dataset

from bayesdf.errors import BayesdfError
from bayesdf.inference.convergence import Verdict
from bayesdf.inference.fit_results import load_values, report_verdict, root_attrs
from bayesdf.inference.joint import Joint
from bayesdf.inference.map import Point
from bayesdf.inference.posterior import Posterior
from bayesdf.inference.prediction.predictor import state_names
from bayesdf.inference.samplers import StoredSampler
from bayesdf.inference.samplers.sampler import CONSTRAINTS
from bayesdf.inference.training import Training
from bayesdf.inference.training.divergence import posterior_on_divergence
from bayesdf.inference.training.history import History
from bayesdf.inference.training.loop import minimise
from bayesdf.inference.training.problem import Problem, prepare
from bayesdf.inference.training.progress import Clock
from bayesdf.inference.training.seeds import seeded
from bayesdf.models.detector import Detector


@dataclass(frozen=True, kw_only=True)
class DeepEnsemble(Training):
    """Deep ensemble.

    A draw is a member. It has all tensors in which members differ, so that each predicts exactly as it was trained:
    the sites, the other trained weights, and the running statistics of batch normalisation. Weights without a prior
    start at the detector's network. With ``freeze="all"`` members differ only by their sites.

    Parameters
    ----------
    members : int
        M above. Each member costs as much as one `bayesdf.MAP`.
    epochs, lr, batch_size, freeze, class_balanced, augment, views, patience, seed, device, progress, checkpoint
        As for `bayesdf.inference.training.Training`, for each member. The seeds of members count up from
        ``seed * members``. Every member has its own checkpoint.

    Examples
    --------
    >>> posterior = DeepEnsemble(members=5, epochs=10).fit(detector, data.train)  # doctest: +SKIP
    """

    members: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.members < 1:
            raise BayesdfError(f"DeepEnsemble: members is {self.members}, but must be at least 1")

    def fit(self, detector: Detector, train: Dataset[Any], validation: Dataset[Any] | None = None) -> Posterior:
        """Train the members, one after another.

        Returns
        -------
        Posterior
            With one draw for each member. Its network is the first member. ``sample_stats`` has ``loss``
            (member, step), the negative log density per image, which is NaN after a member's early stop.

        Raises
        ------
        BayesdfError
            As `bayesdf.SVI.fit`. A `Diverged` holds the members up to the one that failed, in its last good state.
        """
        clock = Clock()
        problem = prepare(detector, self, train, validation)
        original = {name: value.clone() for name, value in problem.network.state_dict().items()}
        found: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []  # sites and network of each
        histories: list[History] = []
        verdicts: list[Verdict] = []

        def keep(point: Point, history: History) -> None:
            load_values(problem.network, point.values())
            state = {name: value.clone() for name, value in problem.network.state_dict().items()}
            found.append((point.values(), state))
            histories.append(history)
            verdicts.append(point.verdict(history))

        def posterior() -> Posterior:
            sampler = StoredSampler(_differing(problem, found))
            problem.network.load_state_dict(found[0][1])
            stats = _together(verdicts).add_to(_stats(histories))
            return Posterior(problem.network, sampler, stats, root_attrs(self, detector, train, clock()))

        def last_good(point: Point, history: History) -> Posterior:
            keep(point, history)
            return posterior()

        for member in range(self.members):
            # Seeds of their own: ensembles of seeds 0 and 1 share no member.
            seed = self.seed * self.members + member
            own = replace(problem, settings=replace(self, seed=seed))
            problem.network.load_state_dict(original)
            with seeded(seed, problem.device):
                joint = Joint(detector, own)
                point = Point(joint, own, _prior_draw(joint, own))
                with posterior_on_divergence(partial(last_good, point)):
                    keep(point, minimise(own, point, phase=member, title=f"member {member + 1}"))
        return report_verdict(self, posterior(), problem)


@torch.no_grad()
def _prior_draw(joint: Joint, problem: Problem) -> dict[str, Tensor]:
    """All sites from their prior, in unconstrained space."""
    with pyro.poutine.block():
        trace = pyro.poutine.trace(partial(joint.model, network=problem.network)).get_trace(*problem.example)
    sites = dict(prune_subsample_sites(trace).iter_stochastic_nodes())
    return {
        name: biject_to(CONSTRAINTS[support]).inv(sites[name]["value"]).clone()
        for name, support in joint.support.items()
    }


def _differing(problem: Problem, found: list[tuple[dict[str, Tensor], dict[str, Tensor]]]) -> dict[str, Tensor]:
    """The sites, and all other tensors in which the networks differ: values (1, member, …)."""
    sites, first = found[0]
    own = state_names(problem.network)
    others = [
        name
        for name, value in first.items()
        if name in own
        and name not in sites
        and value.is_floating_point()  # counters of batches have no effect
        and not all(torch.equal(value, state[name]) for _, state in found[1:])
    ]
    members = [{**values, **{name: state[name] for name in others}} for values, state in found]
    return {name: torch.stack([member[name].cpu() for member in members])[None] for name in members[0]}


def _together(verdicts: list[Verdict]) -> Verdict:
    """The verdict on all members: that of the worst one, and how many have converged."""
    count = sum(verdict.converged for verdict in verdicts)
    worst = max(verdicts, key=lambda verdict: (not verdict.converged, verdict.figures.get("gain_nats", 0.0)))
    which = "all members have" if count == len(verdicts) else f"{count} of {len(verdicts)} members have"
    return Verdict(count == len(verdicts), f"{which} converged; of the worst, {worst.text}", worst.figures)


def _stats(histories: list[History]) -> xr.Dataset:
    """The histories of all members, side by side."""
    each = []
    for history in histories:
        stats = history.to_dataset("loss")
        best = stats.attrs.pop("best_epoch", None)
        if best is not None:
            stats["best_epoch"] = best
        each.append(stats.assign_coords({name: np.arange(size) for name, size in stats.sizes.items()}))
    return xr.concat(each, "member", join="outer").drop_vars(["step", "epoch"], errors="ignore")

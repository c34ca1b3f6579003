"""What happens when a loss is no number any more: what is to blame, and what is kept of the fit."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bayesdf.errors import BayesdfError
from bayesdf.inference.checkpoint import EpochState
from bayesdf.inference.history import History
from bayesdf.inference.objective import Objective
from bayesdf.inference.problem import Problem, set_modes

EXPLODED = 1e3
"""A loss has exploded when it is so many times as large as the hundred before, and as 1."""


class Diverged(BayesdfError):
    """The loss of a fit is no number any more, or has exploded.

    Attributes
    ----------
    history : History
        Up to the last good epoch.
    posterior : Posterior or None
        Made of the parameters after the last good epoch. SGMCMC makes it of the chains that were finished, or of the
        draws that the first chain had gathered by then.
    """

    def __init__(self, message: str, history: History) -> None:
        super().__init__(message)
        self.history = history
        self.posterior: Any = None


@contextmanager
def posterior_on_divergence(posterior: Callable[[History], Any]) -> Iterator[None]:
    """Give a `Diverged` that passes the posterior made of the last good state."""
    try:
        yield
    except Diverged as error:
        error.posterior = posterior(error.history)
        stats = error.posterior.sample_stats
        error.posterior.sample_stats = stats.assign_attrs(converged=0, verdict=f"NOT converged: {error}")
        raise


class UnusableValue(Exception):
    """What is wrong with a step."""


def check_value(value: float, name: str, history: History) -> None:
    """Raise `UnusableValue` where a value is not finite, or is a loss that has exploded."""
    if not math.isfinite(value):
        raise UnusableValue(f"the {name} is {value}")
    before = max(map(abs, history.loss[-100:]), default=math.inf)
    if name == "loss" and abs(value) > EXPLODED * max(1.0, before):
        raise UnusableValue(f"the {name} has exploded to {value:.3g} from {history.loss[-1]:.3g}")


def sum_of_weights(groups: list[dict[str, Any]]) -> float:
    """The sum of the absolute values of all parameters."""
    return sum(float(value.detach().abs().sum()) for group in groups for value in group["params"])


@dataclass
class LastGoodEpoch:
    """The state after the last epoch without an unusable value, and the number of steps up to there."""

    state: EpochState
    steps: int

    def restore(
        self,
        unusable: UnusableValue,
        problem: Problem,
        objective: Objective,
        groups: list[dict[str, Any]],
        history: History,
        epoch: int,
        inputs: tuple[Tensor, ...],
    ) -> Diverged:
        """Put everything back to where it was. Returns the error to raise."""
        step, cause = len(history.loss), _find_cause(problem, objective, inputs)
        self.state.restore(problem, groups)
        set_modes(problem, training=False)
        history.loss, history.nll, history.accuracy = (
            history.loss[: self.steps],
            history.nll[: self.state.epoch + 1],
            history.accuracy[: self.state.epoch + 1],
        )
        return Diverged(
            f"{type(problem.settings).__name__}: {unusable} at step {step} (epoch {epoch}), {cause}: lower lr (or "
            "init_scale, swag_lr, step_size, where the method has it), or check the images and the priors' scales; "
            "what was fitted before this epoch is in the error's `posterior`",
            history,
        )


def _find_cause(problem: Problem, objective: Objective, inputs: tuple[Tensor, ...]) -> str:
    """Whether images, a site, or weights without a prior are not finite; else the site with the largest number."""
    if not all(bool(part.isfinite().all()) for part in inputs if isinstance(part, Tensor)):
        return "where images of the batch (or their features) are not finite"
    sites = objective.sites()
    own = {id(value) for values in sites.values() for value in values}
    weights = {name: [value] for name, value in problem.module.named_parameters() if id(value) not in own}
    for what, named in (("site", sites), ("weight", weights)):
        for name, values in named.items():
            if not all(bool(value.detach().isfinite().all()) for value in values):
                return f"where {what} {name} is not finite"
    if not sites:
        return "with all weights finite"
    furthest = max(sites, key=lambda name: max(float(value.detach().abs().max()) for value in sites[name]))
    largest = max(float(value.detach().abs().max()) for value in sites[furthest])
    return f"with all weights finite (the largest number, {largest:.3g}, is of site {furthest})"

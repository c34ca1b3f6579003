"""How is the loss of many starts lowered in one batch? By L-BFGS with a memory and a step length for each start.

L-BFGS is algorithm 7.4 of Nocedal and Wright 2006. A start that has ended leaves the batch. A step is accepted if the
loss falls enough (Armijo). Near the minimum rounding hides how the loss falls. There a step is accepted if the slope
along it becomes flatter: the approximate Wolfe condition of Hager and Zhang 2005, "A new conjugate gradient method with
guaranteed descent and an efficient line search". Without this condition a search in float32 ends at L - min L up to ε
L. With it the search ends at about ε² L.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from bayesdf.errors import BayesdfError
from bayesdf.inversion.loss import Loss

STOPPED = ("floor", "plateau", "steps")
"""Why a start ended: as exact as asked for, nothing more to gain, out of steps."""
MEMORY = 10
"""Past steps from which L-BFGS estimates the curvature."""
PATIENCE = 6
"""Evaluations over which progress is judged."""
ROUNDING = float(torch.finfo(torch.float32).eps)
"""ε, the relative spacing of float32: losses that differ by less than about this share cannot be told apart."""


@dataclass
class _Search:
    """The starts that have not ended, a row each; `keep` drops the others."""

    row: Tensor
    images: Tensor
    latent: Tensor
    terms: Tensor
    loss: Tensor
    slope: Tensor
    made: Tensor
    direction: Tensor
    step: Tensor
    evaluations: Tensor
    progress: Tensor
    decrements: Tensor
    rejected: Tensor
    pairs: list[tuple[Tensor, Tensor, Tensor]]

    def keep(self, which: Tensor) -> "_Search":
        pairs = [(moved[which], slope_change[which], product[which]) for moved, slope_change, product in self.pairs]
        fields = {name: value[which] for name, value in vars(self).items() if isinstance(value, Tensor)}
        return _Search(**fields, pairs=pairs)


def _lbfgs_direction(slope: Tensor, pairs: list[tuple[Tensor, Tensor, Tensor]], metric: Tensor) -> Tensor:
    """Minus the slope times the inverse curvature estimated from the last steps (Nocedal and Wright, algorithm 7.4).

    `pairs` holds moves, changes of slope, and the reciprocal of their product. It is 0 for a row whose pair is not
    used.
    """
    direction, factors = slope.clone(), []
    for moved, slope_change, reciprocal in reversed(pairs):
        factor = reciprocal * (moved * direction).sum(1)
        direction -= factor[:, None] * slope_change
        factors.append(factor)
    direction = direction @ metric
    for (moved, slope_change, reciprocal), factor in zip(pairs, reversed(factors), strict=True):
        direction += (factor - reciprocal * (slope_change * direction).sum(1))[:, None] * moved
    return -direction


def descend(
    loss_of: Loss, metric: Tensor, images: Tensor, latent: Tensor, steps: int, tolerance: float, floor: float
) -> dict[str, Tensor]:
    """Lower the loss from every row of `latent` (B, latent_dim), each for its row of `images`, until each ends.

    Rows do not influence each other.

    Parameters
    ----------
    metric
        (latent_dim, latent_dim) the inverse curvature that L-BFGS starts from.
    steps, tolerance, floor
        As in `invert`.

    Returns
    -------
    dict
        `latent`, `terms`, `loss`, `made`, `evaluations` and `stopped` (an index of `STOPPED`), a row a start.
    """
    terms, loss, slope, made = loss_of(latent, images)
    if not loss.isfinite().all():
        raise BayesdfError(f"generator {loss_of.name}: decode makes NaN or infinite values of a start of the search")
    count = len(latent)
    ones = torch.ones(count)
    now = _Search(
        row=torch.arange(count),
        images=images,
        latent=latent,
        terms=terms,
        loss=loss,
        slope=slope,
        made=made,
        direction=-slope @ metric,
        step=ones,
        evaluations=torch.ones(count, dtype=torch.long),
        progress=torch.full((count, PATIENCE), torch.inf),
        decrements=torch.full((count, PATIENCE), torch.inf),
        rejected=torch.zeros(count, dtype=torch.long),
        pairs=[],
    )
    final = {
        "latent": latent.clone(),
        "terms": terms.clone(),
        "loss": loss.clone(),
        "made": made.clone(),
        "evaluations": torch.ones(count, dtype=torch.long),
        "stopped": torch.zeros(count, dtype=torch.long),
    }
    while True:
        low = now.terms[:, 0].sqrt() <= floor
        decrement = -(now.slope * now.direction).sum(1)
        idle = now.progress[:, 0] - now.loss <= tolerance * now.loss
        if tolerance < ROUNDING:  # So small a share is lost in the rounding of the loss; the decrement still tells.
            idle &= now.decrements[:, 0] <= decrement
        flat = idle | (now.rejected > 8) | (0.5 * decrement <= ROUNDING**2 * now.loss)
        spent = now.evaluations >= steps
        done = low | flat | spent
        if done.any():
            rows = now.row[done]
            for name in ("latent", "terms", "loss", "made", "evaluations"):
                final[name][rows] = getattr(now, name)[done]
            final["stopped"][rows] = torch.where(low, 0, torch.where(flat, 1, 2))[done]
            now = now.keep(~done)
            if not len(now.row):
                return final
            decrement = decrement[~done]
        trial = now.latent + now.step[:, None] * now.direction
        terms, loss, slope, made = loss_of(trial, now.images)
        expected = -now.step * decrement
        # Near the minimum rounding hides how the loss falls. There the slope along the step must fall instead.
        level = loss <= (1.0 + 8.0 * ROUNDING) * now.loss
        flatter = (slope * now.direction).sum(1).abs() <= 0.9 * decrement
        taken = (loss <= now.loss + 1e-4 * expected) | (level & flatter)
        now.evaluations += 1
        moved = torch.where(taken[:, None], trial - now.latent, 0.0)
        slope_change = torch.where(taken[:, None], slope - now.slope, 0.0)
        product = (moved * slope_change).sum(1)
        usable = taken & (product > 1e-10 * (moved.norm(dim=1) * slope_change.norm(dim=1)))
        reciprocal = torch.where(usable, 1.0 / torch.where(usable, product, 1.0), 0.0)
        slope_change = torch.where(usable[:, None], slope_change, 0.0)
        now.pairs = [*now.pairs, (moved, slope_change, reciprocal)][-MEMORY:]
        # The parabola through the loss here, its slope and the loss there is lowest at this share of the step.
        share = -expected / (2.0 * (loss - now.loss - expected))
        share = torch.where(share.isfinite(), share, 0.1).clamp(0.1, 0.5)
        now.progress = torch.cat([now.progress[:, 1:], now.loss[:, None]], 1)
        now.decrements = torch.cat([now.decrements[:, 1:], decrement[:, None]], 1)
        for name, value in {"latent": trial, "terms": terms, "loss": loss, "slope": slope, "made": made}.items():
            old = getattr(now, name)
            setattr(now, name, torch.where(taken.view(-1, *[1] * (old.dim() - 1)), value, old))
        now.rejected = torch.where(taken, 0, now.rejected + 1)
        now.step = torch.where(taken, 1.0, now.step * share)
        fresh = _lbfgs_direction(now.slope, now.pairs, metric)
        now.direction = torch.where(taken[:, None], fresh, now.direction)

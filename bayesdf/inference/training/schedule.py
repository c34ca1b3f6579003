"""How many steps does a search take, and how large are they?

The rate rises, stays, and falls to zero along a cosine (Hägele et al., "Scaling Laws and Compute-Optimal Training
Beyond Fixed Training Durations", 2024). Without a number of epochs, the rate stays until the objective is flat (see
`bayesdf.inference.training.flatness`), within a budget.
"""

import math
from typing import Any

from bayesdf.inference.training.flatness import Slope, measure_slope

WARM = 0.05
"""The share of the steps in which the rate rises, and the maximum of such steps."""
WARM_STEPS = 100
FALL = 0.3
"""The share of the steps in which the rate falls."""
BUDGET_EPOCHS, BUDGET_STEPS = 10, 6_000
"""Without a number of epochs, a search takes at most the larger one of these."""
LEAST_STEPS = 300
"""The objective cannot be called flat before this step."""
_AGAIN = 1.15  # flatness is checked again after this many times as many steps


class Schedule:
    """The steps of a search: a fixed number, or as many as its objective takes to be flat.

    Parameters
    ----------
    epochs
        None: as many as it takes until the objective is flat, within the budget.
    batches
        The number of steps in an epoch.
    images
        The number of images N. A loss per image times N is in nats.
    crossing
        The number of steps in which a parameter crosses its reach at the full rate.
    free
        The number of first steps in which the objective still changes (while the KL is annealed).
    """

    def __init__(self, epochs: int | None, batches: int, images: int, crossing: float = 0.0, free: int = 0) -> None:
        self.batches, self.images, self.crossing, self.free = batches, images, crossing, free
        self.epochs = budget(batches) if epochs is None else epochs
        self.open = epochs is None
        total = self.epochs * batches
        self.warm = max(1, min(WARM_STEPS, round(WARM * total)))
        self.fall = total - round(FALL * total)
        self.look = LEAST_STEPS

    @property
    def total(self) -> int:
        """The number of steps. While it is open, the maximum."""
        return self.epochs * self.batches

    def share(self, step: int) -> float:
        """The share of the full rate at a step."""
        if step < self.warm:
            return (step + 1) / self.warm
        if step < self.fall:
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - self.fall + 1) / (self.total - self.fall + 1)))

    def end_of_epoch(self, losses: list[float]) -> None:
        """Let the rate fall from here on if the objective is flat. Takes the losses of all steps so far."""
        step = len(losses)
        if not self.open or step < self.look or step >= self.fall:
            return
        self.look = math.ceil(_AGAIN * step)
        if self.slope(losses, step).flat:
            self.open, self.fall = False, step
            # What is left is the share of a whole that the rate takes to fall.
            self.epochs = math.ceil(step / (1 - FALL) / self.batches)

    def slope(self, losses: list[float], end: int | None = None) -> Slope:
        """The slope of the objective before the rate fell, over the second half of these steps."""
        end = min(self.fall, len(losses)) if end is None else end
        begin = max(self.warm, min(self.free, end))
        return measure_slope(losses, begin + (end - begin) // 2, end, self.batches, self.images, self.crossing)

    def state_dict(self) -> dict[str, Any]:
        """The decisions of `end_of_epoch`, for a checkpoint."""
        return {name: getattr(self, name) for name in ("epochs", "open", "fall", "look")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for name, value in state.items():
            setattr(self, name, value)


def budget(batches: int) -> int:
    """The most epochs that a search takes, if it ends by itself."""
    return max(BUDGET_EPOCHS, math.ceil(BUDGET_STEPS / batches))

"""How many steps does a search take, how large are they, and when is its objective flat?

The rate rises, stays, and falls to zero along a cosine (Hägele et al., "Scaling Laws and Compute-Optimal Training
Beyond Fixed Training Durations", 2024). While the rate stays, the objective of a search that has arrived has no slope.
A falling rate would itself cause a slope. The slope is measured over the second half of the part in which the rate
stays, in nats, against its noise:

    gain = slope · reach of the search,    error = standard error of the gain.

The reach of the search is the length of the measured part, or `CROSSINGS` times the steps in which a parameter crosses
its reach at this rate (see `bayesdf.inference.training.rates`), whichever is more. Without the second, anything would
be flat at a tiny rate. The objective is flat when ``gain + 2 error`` is at most

    limit = max(LEAST, SHARE_OF_IMAGE · images)  nats.

If the gain is a divergence of predictions, a gain of a hundredth of a nat an image means a mean change of probability
of at most 0.07, by Pinsker's inequality. This is so near the optimum of a convex problem. For networks it is a guide.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

WARM = 0.05
"""The share of the steps in which the rate rises, and the maximum of such steps."""
WARM_STEPS = 100
FALL = 0.3
"""The share of the steps in which the rate falls."""
BUDGET_EPOCHS, BUDGET_STEPS = 10, 6_000
"""Without a number of epochs, a search takes at most the larger one of these."""
LEAST_STEPS = 300
"""The objective cannot be called flat before this step."""
BLOCKS = 10
CROSSINGS = 5.0
SURE = 3.4
"""Student's t with `BLOCKS` - 2 degrees of freedom is larger in one of 200 cases."""
LEAST, SHARE_OF_IMAGE = 0.5, 0.01
_AGAIN = 1.15  # flatness is checked again after this many times as many steps


@dataclass(frozen=True)
class Slope:
    """An estimate of what the objective would still gain, in nats.

    Attributes
    ----------
    gain, error
        See the formula above. NaN if there were too few steps to measure them.
    limit
        The limit below which the objective counts as flat.
    steps
        The steps of the whole search.
    end_gain, end_error
        The fall over the last tenth of the steps, where the rate is near zero, and its error. What is left there, the
        fall of the rate could not remove.
    """

    gain: float
    error: float
    limit: float
    steps: int
    end_gain: float = 0.0
    end_error: float = 0.0

    @property
    def flat(self) -> bool:
        """Whether the remaining gain is shown to be small, and the objective does not rise. False for NaN."""
        return self.most <= self.limit and not self.rises

    @property
    def rises(self) -> bool:
        """Whether the objective is shown to go the wrong way."""
        return -self.gain - 2 * self.error > self.limit

    @property
    def most(self) -> float:
        """The largest gain, in nats, that is compatible with the noise."""
        return self.gain + 2 * self.error

    @property
    def settled(self) -> bool:
        """Whether the objective had stopped falling when the rate reached zero."""
        return not self.end_gain - SURE * self.end_error > self.limit


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
        """The slope of the objective over the second half of the steps before the rate fell."""
        end = min(self.fall, len(losses)) if end is None else end
        begin = max(self.warm, min(self.free, end))
        begin += (end - begin) // 2
        gain, error = self._gain(losses, begin, end)
        further = max(1.0, CROSSINGS * self.crossing / max(1, end - begin))
        limit = max(LEAST, SHARE_OF_IMAGE * self.images)
        tail = len(losses) - max(len(losses) // 10, min(len(losses), 2 * BLOCKS))
        last = self._gain(losses, max(tail, 0), len(losses)) if len(losses) > end else (0.0, 0.0)
        last = (0.0, 0.0) if math.isnan(last[0]) else last
        return Slope(gain * further, error * further, limit, len(losses), *last)

    def _gain(self, losses: list[float], begin: int, end: int) -> tuple[float, float]:
        """The fall of a line through the losses between two steps, in nats, and its standard error."""
        begin = min(end, math.ceil(begin / self.batches) * self.batches) if end - begin > self.batches else begin
        whole = (end - begin) // self.batches
        values = np.array(losses[begin:end], dtype=np.float64)
        if whole >= BLOCKS:  # every image is in every epoch, so that epochs differ by less than batches do
            values = values[: whole * self.batches].reshape(whole, self.batches).mean(1)
        if len(values) < BLOCKS:
            return math.nan, math.nan
        length = len(values) // BLOCKS
        blocks = values[len(values) % BLOCKS :].reshape(BLOCKS, length).mean(1) * self.images
        time = np.linspace(-0.5, 0.5, BLOCKS) * (BLOCKS - 1) / BLOCKS  # 1 is the whole part
        slope = float(time @ blocks / (time @ time))
        rest = blocks - blocks.mean() - slope * time
        return -slope, math.sqrt(float(rest @ rest) / (BLOCKS - 2) / float(time @ time))

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

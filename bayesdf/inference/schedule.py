"""How many steps does a search take, how large are they, and when is its objective flat?

The rate rises, stays, and falls to zero along a cosine (Hägele et al., "Scaling Laws and Compute-Optimal Training
Beyond Fixed Training Durations", 2024). While the rate stays, the objective of a search that has arrived has no slope.
A falling rate would make a slope of its own. The slope is measured over the second half of the part in which the rate
stays, in nats, against its noise:

    gain = slope · reach of the search,    error = standard error of the gain,

where the search reaches as far as the measured part, or as `CROSSINGS` times the reach of a parameter at this rate (see
`bayesdf.inference.rates`), whichever is more: at a tiny rate anything is flat. The objective is flat when ``gain + 2
error`` is at most

    limit = max(LEAST, SHARE_OF_IMAGE · images)  nats.

By Pinsker's inequality a gain of a hundredth of a nat an image goes with a mean change of probability of at most 0.07,
where the gain is a divergence of predictions, as it is near the optimum of a convex problem. Of networks it is a guide.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

WARM = 0.05
"""Share of the steps in which the rate rises, and most steps of it."""
WARM_STEPS = 100
FALL = 0.3
"""Share of the steps in which the rate falls."""
BUDGET_EPOCHS, BUDGET_STEPS = 10, 6_000
"""Without a number of epochs: the larger one of these is the most that a search takes."""
LEAST_STEPS = 300
"""Before the objective can be called flat."""
BLOCKS = 10
CROSSINGS = 5.0
LEAST, SHARE_OF_IMAGE = 0.5, 0.01
_AGAIN = 1.15  # the next look for flatness is when so many times as many steps are made


@dataclass(frozen=True)
class Slope:
    """What the objective would still gain, in nats, as far as can be told.

    Attributes
    ----------
    gain, error
        See the formula above; NaN where there were too few steps to measure them.
    limit
        What counts as flat.
    steps
        Of the search in all.
    end_gain, end_error
        The fall over the last tenth of the steps, where the rate is near zero: what is left there, the rate could not
        settle.
    """

    gain: float
    error: float
    limit: float
    steps: int
    end_gain: float = 0.0
    end_error: float = 0.0

    @property
    def flat(self) -> bool:
        """Whether what is left is shown to be little, and the objective does not rise; false for NaN."""
        return self.most <= self.limit and not self.rises

    @property
    def rises(self) -> bool:
        """Whether the objective is shown to go the wrong way."""
        return -self.gain - 2 * self.error > self.limit

    @property
    def most(self) -> float:
        """The most nats that may be left, as far as noise lets tell."""
        return self.gain + 2 * self.error

    @property
    def settled(self) -> bool:
        """Whether the objective had stopped to fall when the rate had."""
        return not self.end_gain - 2 * self.end_error > self.limit


class Schedule:
    """The steps of a search: a fixed number, or as many as its objective takes to be flat.

    Parameters
    ----------
    epochs
        None: until the objective is flat, within the budget.
    batches
        Steps of an epoch.
    images
        N, by which a loss per image becomes nats.
    crossing
        Steps in which a parameter crosses its reach at the full rate.
    free
        Steps before which the objective is another one (while the KL is annealed), given the most steps there may be.
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
        """Steps, the most there may be while that is open."""
        return self.epochs * self.batches

    def share(self, step: int) -> float:
        """Of the full rate, at a step."""
        if step < self.warm:
            return (step + 1) / self.warm
        if step < self.fall:
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - self.fall + 1) / (self.total - self.fall + 1)))

    def end_of_epoch(self, losses: list[float]) -> None:
        """Let the rate fall from here on where the objective is flat. Called with the losses of all steps so far."""
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
        begin += (end - begin) // 2
        gain, error = self._gain(losses, begin, end)
        further = max(1.0, CROSSINGS * self.crossing / max(1, end - begin))
        limit = max(LEAST, SHARE_OF_IMAGE * self.images)
        tail = len(losses) - max(len(losses) // 10, min(len(losses), 2 * BLOCKS))
        last = self._gain(losses, max(tail, 0), len(losses)) if len(losses) > end else (0.0, 0.0)
        last = (0.0, 0.0) if math.isnan(last[0]) else last
        return Slope(gain * further, error * further, limit, len(losses), *last)

    def _gain(self, losses: list[float], begin: int, end: int) -> tuple[float, float]:
        """How far a line through the losses falls between two steps, in nats, and its standard error."""
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
        """What `end_of_epoch` has decided, for a checkpoint."""
        return {name: getattr(self, name) for name in ("epochs", "open", "fall", "look")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        for name, value in state.items():
            setattr(self, name, value)


def budget(batches: int) -> int:
    """Epochs that a search takes at most, where it ends by itself."""
    return max(BUDGET_EPOCHS, math.ceil(BUDGET_STEPS / batches))

"""When is the objective of a search flat, and has it come to rest at the end?

While the rate stays, the objective of a search that has arrived has no slope. A falling rate would itself cause a
slope. The slope is measured over the second half of the part in which the rate stays, in nats, against its noise:

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

import numpy as np

BLOCKS = 10
"""Means of so many parts of the losses are what a line is fitted to."""
CROSSINGS = 5.0
SURE = 3.4
"""Student's t with `BLOCKS` - 2 degrees of freedom is larger in one of 200 cases."""
LEAST, SHARE_OF_IMAGE = 0.5, 0.01


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


def measure_slope(losses: list[float], begin: int, end: int, batches: int, images: int, crossing: float) -> Slope:
    """The slope of the losses between two steps, and their fall at the end of the search.

    Parameters
    ----------
    losses
        Of all steps, per image.
    begin, end
        The steps between which the rate stays and the slope is measured.
    batches
        Steps of an epoch.
    images
        N, by which a loss per image becomes nats.
    crossing
        Steps in which a parameter crosses its reach at the full rate.
    """
    gain, error = _gain(losses, begin, end, batches, images)
    further = max(1.0, CROSSINGS * crossing / max(1, end - begin))
    limit = max(LEAST, SHARE_OF_IMAGE * images)
    tail = len(losses) - max(len(losses) // 10, min(len(losses), 2 * BLOCKS))
    last = _gain(losses, max(tail, 0), len(losses), batches, images) if len(losses) > end else (0.0, 0.0)
    last = (0.0, 0.0) if math.isnan(last[0]) else last
    return Slope(gain * further, error * further, limit, len(losses), *last)


def _gain(losses: list[float], begin: int, end: int, batches: int, images: int) -> tuple[float, float]:
    """The fall of a line through the losses between two steps, in nats, and its standard error."""
    begin = min(end, math.ceil(begin / batches) * batches) if end - begin > batches else begin
    whole = (end - begin) // batches
    values = np.array(losses[begin:end], dtype=np.float64)
    if whole >= BLOCKS:  # every image is in every epoch, so that epochs differ by less than batches do
        values = values[: whole * batches].reshape(whole, batches).mean(1)
    if len(values) < BLOCKS:
        return math.nan, math.nan
    length = len(values) // BLOCKS
    blocks = values[len(values) % BLOCKS :].reshape(BLOCKS, length).mean(1) * images
    time = np.linspace(-0.5, 0.5, BLOCKS) * (BLOCKS - 1) / BLOCKS  # 1 is the whole part
    slope = float(time @ blocks / (time @ time))
    rest = blocks - blocks.mean() - slope * time
    return -slope, math.sqrt(float(rest @ rest) / (BLOCKS - 2) / float(time @ time))

"""Which of many differences are significant, all of them taken together?

Suppose that eleven differences are all 0. Then one or more of their 95 % intervals misses 0 far more often than one
time in twenty. Simultaneous intervals all hold at once with a probability of 95 %.

References
----------
1. Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 11 (jackknife, here over clusters).
2. Hothorn, Bretz and Westfall, "Simultaneous inference in general parametric models", Biometrical Journal 2008 (the
   largest of many t statistics).
3. Chernozhukov, Chetverikov and Kato, "Gaussian approximations and multiplier bootstrap for maxima of sums of
   high-dimensional random vectors", Annals of Statistics 2013 (its distribution from residuals times normals).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesdf.analysis.intervals import LEVEL
from bayesdf.analysis.people import cluster_numbers

RESAMPLES = 10_000
BLOCKS = 200
"""The jackknife leaves out one cluster at a time. More clusters than this are put into this many blocks at random."""


class Simultaneous(NamedTuple):
    """Figures with 95 % intervals that hold together, each (comparison,)."""

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @property
    def excludes_zero(self) -> NDArray[np.bool_]:
        """(comparison,) whether the interval does not contain 0."""
        return (self.low > 0.0) | (self.high < 0.0)


def simultaneous(
    statistics: Callable[[NDArray[np.int64]], ArrayLike], clusters: ArrayLike, *, seed: int = 0
) -> Simultaneous:
    """Intervals for many figures of the same images, which all hold at once with a probability of 95 %.

    Each is value ± c × standard error. Standard errors come from the jackknife over clusters. c is the 95 % point of
    the largest of the figures' t statistics, with their correlation over clusters. The degrees of freedom are the
    number of clusters minus one. With fewer than about ten clusters this is an approximation.

    Parameters
    ----------
    statistics
        Called with row numbers (row,). Returns the figures of these images: (comparison,).
    clusters
        (image,) which images belong together, usually the subject. An image without one ('', None, NaN) is a cluster of
        its own.
    seed
        The same seed gives the same intervals.

    Returns
    -------
    Simultaneous
        `low` and `high` are NaN with a single cluster.
    """
    given = np.asarray(clusters, dtype=object).ravel()
    number = cluster_numbers(given, len(given))
    rows = np.arange(len(given))
    value = np.asarray(statistics(rows), dtype=np.float64)
    rng = np.random.default_rng(seed)
    count = int(number.max()) + 1
    if count > BLOCKS:
        number, count = (rng.permutation(count) % BLOCKS)[number], BLOCKS
    if count < 2:
        nothing = np.full_like(value, np.nan)
        return Simultaneous(value, nothing, nothing)
    without = np.array([statistics(rows[number != one]) for one in range(count)], dtype=np.float64)
    residual = without - without.mean(0)
    length = np.sqrt((residual**2).sum(0))
    error = np.sqrt((count - 1) / count) * length
    # Figures that no cluster changes have no error and do not count for the largest statistic.
    varied = error > 1e-12 * np.maximum(np.abs(value), 1.0)
    direction = residual[:, varied] / length[varied]
    normal = rng.standard_normal((RESAMPLES, count)) @ direction
    spread = np.sqrt(rng.chisquare(count - 1, size=(RESAMPLES, 1)) / (count - 1))
    largest = np.abs(normal / spread).max(axis=1, initial=0.0)
    half = np.where(varied, np.quantile(largest, LEVEL) * error, 0.0)
    return Simultaneous(value, value - half, value + half)

"""How far may a figure measured on these people be from the figure on others?

Images of one person resemble each other, so the resampling unit is the person: whole clusters are drawn with
replacement. With fewer than about ten clusters percentile intervals are known to be somewhat too short. A share of
images of which each stands alone has `wilson`.

References
----------
1. Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (percentile intervals).
2. Field and Welsh, "Bootstrapping clustered data", JRSS B 2007 (resampling whole clusters).
3. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927 (shares).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from scipy.special import ndtri

from bayesdf.analysis._groups import groups
from bayesdf.errors import BayesdfError

LEVEL = 0.95


class Estimate(NamedTuple):
    """A figure with its 95 % interval; `low` and `high` are NaN where no interval can be had."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def cluster_bootstrap(
    statistic: Callable[..., float],
    arrays: Sequence[ArrayLike],
    clusters: ArrayLike,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """A statistic with a 95 % percentile interval from resampling whole clusters.

    Parameters
    ----------
    statistic
        Called with the arrays, or with the rows of a resample; returns one number.
    arrays
        Each with one row an image. Two sets of figures of the *same* images, handed over together, give a
        paired interval: `cluster_bootstrap(lambda a, b: a.mean() - b.mean(), (right_a, right_b), subject)`.
    clusters
        (image,): which images belong together, usually the subject; images without one ('', None, NaN) stand alone.
    resamples
        How many times the clusters are drawn with replacement.
    seed
        The same seed gives the same interval.

    Returns
    -------
    Estimate
        `value` is the statistic of the data as they are. `low` and `high` are NaN with a single cluster, or
        where the statistic is undefined (NaN) in more than half of the resamples; other undefined resamples
        are left out.

    Raises
    ------
    BayesdfError
        Arrays of different lengths or without rows.
    """
    rows = [np.asarray(array) for array in arrays]
    given = np.asarray(clusters, dtype=object).ravel()
    lengths = {len(array) for array in rows} | {len(given)}
    if len(lengths) != 1 or 0 in lengths:
        raise BayesdfError(f"a bootstrap needs arrays and clusters of one length above zero, got {sorted(lengths)}")
    value = float(statistic(*rows))
    number = groups(given, len(given))
    members = np.split(np.argsort(number, kind="stable"), np.cumsum(np.bincount(number))[:-1])
    if len(members) == 1:
        return Estimate(value, np.nan, np.nan)
    rng = np.random.default_rng(seed)
    results = np.empty(resamples)
    for index, chosen in enumerate(rng.integers(len(members), size=(resamples, len(members)))):
        picked = np.concatenate([members[c] for c in chosen])
        results[index] = statistic(*(array[picked] for array in rows))
    defined = results[~np.isnan(results)]
    if 2 * len(defined) < resamples:
        return Estimate(value, np.nan, np.nan)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(defined, (tail, 1 - tail))
    return Estimate(value, float(low), float(high))


def wilson(successes: float, trials: int) -> Estimate:
    """A share with its 95 % interval by Wilson's score, which holds for none and for all as well.

    Parameters
    ----------
    successes
        How many of the trials; a sum of rates, which need not be whole, will do.
    trials
        How many independent trials.

    Raises
    ------
    BayesdfError
        Without trials.
    """
    if trials < 1:
        raise BayesdfError(f"a share needs at least one trial, got {trials}")
    z = float(ndtri((1 + LEVEL) / 2))
    share = successes / trials
    middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    # At none and at all the interval ends there, which rounding misses by a hair.
    low = 0.0 if successes <= 0 else max(middle - half, 0.0)
    high = 1.0 if successes >= trials else min(middle + half, 1.0)
    return Estimate(float(share), float(low), float(high))


def to_dataset(estimates: Mapping[str, Estimate]) -> xr.Dataset:
    """Figures as a Dataset: one variable each over `estimate` = value, low, high."""
    return xr.Dataset(
        {name: ("estimate", np.array(estimate, dtype=np.float64)) for name, estimate in estimates.items()},
        coords={"estimate": list(Estimate._fields)},
    )


def flatten(metrics: xr.Dataset, prefix: str = "") -> dict[str, float]:
    """Figures under flat names, for JSON: `<prefix>accuracy`, and the same with `.low` and `.high`."""
    flat: dict[str, float] = {}
    for name, variable in metrics.data_vars.items():
        for field, value in zip(Estimate._fields, variable.values, strict=True):
            flat[f"{prefix}{name}" if field == "value" else f"{prefix}{name}.{field}"] = float(value)
    return flat


def estimate(metrics: xr.Dataset, name: str) -> Estimate:
    """One figure of a Dataset of figures."""
    return Estimate(*(float(value) for value in metrics[name].values))

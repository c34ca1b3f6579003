"""How well does a score rank fakes above photographs?"""

import numpy as np
from numpy.typing import NDArray

ROUNDING = 1e-12
"""Scores nearer than this, relative to their size, are equal."""

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


def auroc(label: Labels, log_probability: Array) -> float:
    """Area under the ROC curve, 0 … 1, of log-odds: they differ even where two probabilities both round to 1.

    With two classes, class 1 (fake) is the positive one. With more classes it is the mean of the areas of each class
    that is present against the rest. NaN where only one class is present.
    """
    return auroc_by_level(label, odds_levels(log_probability))


def odds_levels(log_probability: Array) -> Array:
    """Log-odds of each class against the rest as `levels`, from log-probabilities: both (image, class)."""
    if log_probability.shape[1] == 2:
        odds = log_probability - log_probability[:, ::-1]
    else:
        with np.errstate(divide="ignore"):
            odds = log_probability - np.log(-np.expm1(log_probability))
        odds = np.nan_to_num(odds, posinf=np.finfo(float).max)
    return np.stack([levels(column, smallest=1.0) for column in odds.T], axis=1)


def levels(score: Array, smallest: float = 0.0) -> Array:
    """Scores (image,) as whole numbers in the same order. Scores that differ only by rounding become equal.

    A detector that votes gives many images the same score, but may compute it by sums in another order.

    Parameters
    ----------
    score
        (image,)
    smallest
        Rounding is relative to the size of a score, or to this size where it is larger. A score near zero may be the
        difference of larger numbers; give their size.
    """
    order = np.argsort(score, kind="stable")
    ordered = score[order]
    higher = np.diff(ordered) > ROUNDING * np.maximum(np.abs(ordered[1:]), smallest)
    level = np.empty(len(score))
    level[order] = np.concatenate([[0], np.cumsum(higher)])
    return level


def auroc_by_level(label: Labels, level: Array) -> float:
    """`auroc` of `odds_levels` (image, class)."""
    present = np.unique(label)
    if len(present) < 2:
        return float("nan")
    if level.shape[1] == 2:
        return binary_auroc(label == 1, level[:, 1])
    return float(np.mean([binary_auroc(label == one, level[:, one]) for one in present]))


def binary_auroc(positive: NDArray[np.bool_], score: Array) -> float:
    """Area under the ROC curve by ranks, ties counting half (Mann and Whitney); NaN where either class is empty.

    It equals `sklearn.metrics.roc_auc_score`, without the checks of the input, which take most of a bootstrap's time.
    """
    from scipy.stats import rankdata

    count = int(positive.sum())
    others = len(positive) - count
    if not count or not others:
        return float("nan")
    return float((rankdata(score)[positive].sum() - count * (count + 1) / 2) / (count * others))

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


def row_ranks(score: Array) -> Array:
    """Ranks 1 … n within each row (row, item). Scores that are equal, or differ by rounding, share their mean rank.

    It equals `scipy.stats.rankdata` along the rows, where no scores differ only by rounding.
    """
    order = np.argsort(score, axis=1)
    ordered = np.take_along_axis(score, order, axis=1)
    higher = np.diff(ordered, axis=1) > ROUNDING * np.abs(ordered[:, 1:])
    place = np.broadcast_to(np.arange(score.shape[1]), score.shape)
    edge = np.ones((len(score), 1), dtype=bool)
    first = np.maximum.accumulate(np.where(np.hstack([edge, higher]), place, 0), axis=1)
    last = np.where(np.hstack([higher, edge]), place, score.shape[1])
    last = np.minimum.accumulate(last[:, ::-1], axis=1)[:, ::-1]
    ranks = np.empty(score.shape)
    np.put_along_axis(ranks, order, (first + last) / 2 + 1, axis=1)
    return ranks


def auroc_by_rank(positive: NDArray[np.bool_], ranks: Array, aside: NDArray[np.integer] | int = 0) -> Array:
    """`binary_auroc` of each row, from `row_ranks`: two (row, item) -> (row,).

    Parameters
    ----------
    aside
        (row,) how many items do not count. They have the lowest ranks.
    """
    count = positive.sum(axis=1)
    pairs = count * (positive.shape[1] - aside - count)
    above = (ranks * positive).sum(axis=1) - count * aside - count * (count + 1) / 2
    return np.divide(above, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)

"""Is the detector right as often as it claims to be?

Confidence calibration compares the probability of the predicted class (the top label) with how often that class is
right. A binary task is treated in the same way: confidence runs from 0.5 to 1, and a bin near 0.5 holds undecided
images of both classes. The expected calibration error (ECE) of the prediction is

    ECE = Σ_b w_b / Σ w · |accuracy_b - confidence_b|

All images have the same weight unless weights are given. A test set holds several fakes for each real photograph, so
the plain ECE is mostly that of the fakes. `balanced_weights` gives each class the same weight: the ECE is then that of
a test set with as many photographs as fakes.

References
----------
1. Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017 (ECE, 15 bins of equal
   width).
2. Nixon et al., "Measuring Calibration in Deep Learning", CVPR workshops 2019 (bins of equal mass).
3. Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 1950.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesdf.analysis.calibration_errors import classwise_calibration_error, smooth_calibration_error
from bayesdf.analysis.false_positives import false_positive_rate
from bayesdf.analysis.intervals import Estimate, accuracy_by_kind, cluster_bootstrap, to_dataset
from bayesdf.analysis.people import cluster_numbers, count_people, design
from bayesdf.analysis.predictions import (
    ROUNDED,
    SUM_ERROR,
    class_numbers,
    observed_labels,
    predictive_logits,
    ruled_out,
)
from bayesdf.analysis.tree import Predictions
from bayesdf.analysis.uncertainty import log_mean_probabilities
from bayesdf.errors import BayesdfError

ROUNDING = 1e-12
"""Scores nearer than this, relative to their size, are equal."""

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
Binning = Literal["width", "mass"]


def balanced_weights(label: Labels) -> Array:
    """Weights (image,) that sum to 1 and give every class present the same sum."""
    classes, index, count = np.unique(label, return_inverse=True, return_counts=True)
    return 1.0 / (len(classes) * count[index])


def reliability_table(
    probability: Array,
    label: Labels,
    *,
    bins: int = 15,
    binning: Binning = "width",
    weights: Array | None = None,
) -> pd.DataFrame:
    """Claimed confidence against accuracy, bin by bin.

    Parameters
    ----------
    probability
        (image, class), rows sum to 1.
    label
        True class, int (image,).
    bins
        How many bins.
    binning
        `width`: the range 0 … 1 in equal steps, as in [1]. `mass`: the same number of images in each bin, as in [2];
        equal confidences stay in one bin.
    weights
        (image,); None weighs all images alike.

    Returns
    -------
    DataFrame
        A row for each bin that holds an image: `low`, `high` (its edges), `count` (images), `weight` (its share; the
        shares sum to 1), `confidence` and `accuracy` (weighted means, 0 … 1), `gap` (accuracy - confidence, negative
        where the detector is overconfident).

    Raises
    ------
    BayesdfError
        Fewer than one bin, an unknown binning, arrays that do not fit each other, or rows that are not probabilities.
    """
    return pd.DataFrame(_reliability(probability, label, bins, binning, weights))


def _reliability(
    probability: Array, label: Labels, bins: int, binning: Binning, weights: Array | None
) -> dict[str, NDArray]:
    """The columns of a reliability table. A bootstrap needs thousands; DataFrames take too long."""
    probability, label = _checked(probability, label)
    if bins < 1:
        raise BayesdfError(f"bins={bins}: a reliability table needs at least one bin")
    confidence = probability.max(axis=1)
    right = (probability.argmax(axis=1) == label).astype(np.float64)
    weight = np.full(len(label), 1.0 / len(label)) if weights is None else weights / weights.sum()
    edges = _edges(confidence, bins, binning)
    which = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, len(edges) - 2)
    sizes = len(edges) - 1
    count = np.bincount(which, minlength=sizes)
    mass = np.bincount(which, weight, minlength=sizes)
    filled = (count > 0) & (mass > 0)
    claimed = np.bincount(which, weight * confidence, minlength=sizes)[filled] / mass[filled]
    observed = np.bincount(which, weight * right, minlength=sizes)[filled] / mass[filled]
    return {
        "low": edges[:-1][filled],
        "high": edges[1:][filled],
        "count": count[filled],
        "weight": mass[filled],
        "confidence": claimed,
        "accuracy": observed,
        "gap": observed - claimed,
    }


def expected_calibration_error(
    probability: Array,
    label: Labels,
    *,
    bins: int = 15,
    binning: Binning = "width",
    weights: Array | None = None,
) -> float:
    """ECE of the top label, 0 (calibrated) … 1; the arguments are those of `reliability_table`."""
    table = _reliability(probability, label, bins, binning, weights)
    return float((table["weight"] * np.abs(table["gap"])).sum())


def brier_score(probability: Array, label: Labels) -> float:
    """Mean squared distance of the probabilities from the truth, summed over classes: 0 … 2."""
    probability, label = _checked(probability, label)
    truth = np.eye(probability.shape[1])[label]
    return float(((probability - truth) ** 2).sum(axis=1).mean())


def negative_log_likelihood(log_probability: Array, label: Labels) -> float:
    """Mean of -log p(true class) in nats, from log-probabilities (image, class): 0 … ∞."""
    log_probability, label = _checked(log_probability, label, logarithms=True)
    return float(-np.take_along_axis(log_probability, label[:, None], axis=1).mean())


def accuracy(label: Labels, prediction: Labels) -> float:
    """Share of images whose predicted class is the true one, 0 … 1."""
    return float((label == prediction).mean())


def balanced_accuracy(label: Labels, prediction: Labels) -> float:
    """Mean over the classes present of the share of their images that are right, 0 … 1."""
    return float(((label == prediction) * balanced_weights(label)).sum())


def auroc(label: Labels, log_probability: Array) -> float:
    """Area under the ROC curve, 0 … 1, of log-odds: they differ even where two probabilities both round to 1.

    With two classes, class 1 (fake) is the positive one. With more classes it is the mean of the areas of each class
    that is present against the rest. NaN where only one class is present.
    """
    return _auroc_by_level(label, odds_levels(log_probability))


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


def _auroc_by_level(label: Labels, level: Array) -> float:
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


def evaluate(
    predictions: Predictions,
    *,
    bins: int = 15,
    binning: Binning = "width",
    only: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> xr.Dataset:
    """Accuracy and calibration of a detector, each figure with a 95 % interval over people.

    Parameters
    ----------
    predictions
        What `Posterior.predict` returns for labelled data. Intervals resample whole people (`constant_data/subject` and
        `constant_data/donor`), or images where there are no subjects. They keep the number of images of each source
        (`constant_data/source`).
    bins, binning
        For the calibration errors, see `reliability_table`.
    only
        Names of the figures wanted, such as ``["ece", "nll"]``; by default all.
    resamples, seed
        For the intervals, see `cluster_bootstrap`.

    Returns
    -------
    xr.Dataset
        Over `estimate` = value, low, high: `accuracy`, `balanced_accuracy`, `auroc`, `nll` (nats), `brier`, `ece`
        (images have equal weight), `ece_balanced` (classes have equal weight), `ece_adaptive` (bins of equal mass, as
        in [2]), `ece_classwise` and `ece_smooth` (see `bayesdf.analysis.calibration_errors`). With two classes also
        `fpr_at_95_tpr`: the share of real images called fake where at least 95 % of the fakes are found. Class 1 is the
        positive one, and images of equal scores are called fake together. Where there are fakes of both kinds, also
        `accuracy_manipulations` (of people) and `accuracy_new_faces` (of nobody). `nll` is infinite, without an
        interval, where all draws give the true class of an image a probability of exactly 0. Attributes: `images`,
        `clusters` (people, and images without a person), `people`, `bins`, `binning`.

    Raises
    ------
    BayesdfError
        No labels, or labels that do not fit the logits.
    """
    log_p, label = log_probability_and_label(predictions)
    probability, prediction = np.exp(log_p), log_p.argmax(axis=1)
    people = design(predictions, len(label))

    def ece(p: Array, y: Labels, weigh: Callable[[Labels], Array | None], binning: Binning = binning) -> float:
        return expected_calibration_error(p, y, bins=bins, binning=binning, weights=weigh(y))

    def bootstrap(statistic: Callable[..., float], *arrays: NDArray, share: Array | None = None) -> Estimate:
        return cluster_bootstrap(statistic, arrays, **people, share=share, resamples=resamples, seed=seed)

    def nll() -> Estimate:
        if np.take_along_axis(ruled_out(predictions), label[:, None], axis=1).any():
            return Estimate(np.inf, np.nan, np.nan)
        return bootstrap(negative_log_likelihood, log_p, label)

    figures: dict[str, Callable[[], Estimate]] = {
        "accuracy": lambda: bootstrap(accuracy, label, prediction, share=np.ones(len(label))),
        "balanced_accuracy": lambda: bootstrap(balanced_accuracy, label, prediction, share=balanced_weights(label)),
        "auroc": lambda: bootstrap(_auroc_by_level, label, odds_levels(log_p)),
        "nll": nll,
        "brier": lambda: bootstrap(brier_score, probability, label),
        "ece": lambda: bootstrap(lambda p, y: ece(p, y, lambda _: None), probability, label),
        "ece_balanced": lambda: bootstrap(lambda p, y: ece(p, y, balanced_weights), probability, label),
        "ece_adaptive": lambda: bootstrap(lambda p, y: ece(p, y, lambda _: None, "mass"), probability, label),
        "ece_classwise": lambda: bootstrap(partial(classwise_calibration_error, bins=bins), probability, label),
        "ece_smooth": lambda: bootstrap(smooth_calibration_error, probability, label),
    }
    if log_p.shape[1] == 2:
        level = odds_levels(log_p)[:, 1]
        figures["fpr_at_95_tpr"] = lambda: bootstrap(
            lambda y, score: false_positive_rate(y == 1, score), label, level, share=(label == 0).astype(float)
        )
    unknown = [name for name in only or [] if name not in figures]
    if unknown:
        raise BayesdfError(f"only: there is no figure {unknown[0]!r}; choose from {', '.join(figures)}")
    metrics = to_dataset({name: figures[name]() for name in figures if only is None or name in only})
    if only is None:
        metrics = metrics.assign(
            to_dataset(accuracy_by_kind(prediction == label, people, resamples=resamples, seed=seed))
        )
    return metrics.assign_attrs(
        images=len(label),
        clusters=len(np.unique(cluster_numbers(people["clusters"], len(label)))),
        people=count_people(people["clusters"], people["donors"]),
        bins=bins,
        binning=binning,
        calibration="top label",
    )


def reliability(
    predictions: Predictions, *, bins: int = 15, binning: Binning = "width", balanced: bool = False
) -> pd.DataFrame:
    """The reliability table of a whole tree of predictions.

    Parameters
    ----------
    predictions
        What `Posterior.predict` returns for labelled data.
    bins, binning
        See `reliability_table`.
    balanced
        Give each class the same weight, whatever its number of images.
    """
    log_p, label = log_probability_and_label(predictions)
    weights = balanced_weights(label) if balanced else None
    return reliability_table(np.exp(log_p), label, bins=bins, binning=binning, weights=weights)


def log_probability_and_label(predictions: Predictions) -> tuple[Array, Labels]:
    """Log of the mean probabilities (image, class), and the true classes (image,)."""
    logits = predictive_logits(predictions).values
    log_p = log_mean_probabilities(logits)
    return log_p, observed_labels(predictions, *log_p.shape)


def _edges(confidence: Array, bins: int, binning: str) -> Array:
    if binning == "width":
        return np.linspace(0.0, 1.0, bins + 1)
    if binning == "mass":
        edges = np.unique(np.quantile(confidence, np.linspace(0.0, 1.0, bins + 1)))
        return edges if len(edges) > 1 else np.array([0.0, 1.0])
    raise BayesdfError(f"unknown binning {binning!r}; use 'width' or 'mass'")


def _checked(probability: Array, label: Labels, logarithms: bool = False) -> tuple[Array, Labels]:
    probability, label = np.asarray(probability, dtype=np.float64), np.asarray(label)
    if probability.ndim != 2 or label.shape != probability.shape[:1] or not len(label):
        raise BayesdfError(
            f"probabilities of shape {probability.shape} and labels of shape {label.shape} do not fit; "
            "give (image, class) and (image,), with at least one image"
        )
    if logarithms and probability.max() > ROUNDED:
        raise BayesdfError(f"a log-probability is {probability.max():.4g}, above 0; give np.log(probability)")
    if not logarithms and not (probability.min() >= 0.0 and np.abs(probability.sum(axis=1) - 1.0).max() <= SUM_ERROR):
        raise BayesdfError(
            "rows of probabilities (image, class) do not lie in 0 … 1 and add to 1; take the softmax of logits, or "
            "give the whole tree to `evaluate` or `reliability`"
        )
    return probability, class_numbers(label, [str(number) for number in range(probability.shape[1])], "label")

"""How good is a detector on people it never saw? Every figure of detection, with an interval over people.

References
----------
1. Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 1950.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesdf.analysis.calibration_errors import classwise_calibration_error, smooth_calibration_error
from bayesdf.analysis.expected_calibration_error import (
    Array,
    Binning,
    Labels,
    balanced_weights,
    binned,
    binned_error,
    expected_calibration_error,
)
from bayesdf.analysis.false_positives import false_positive_rate
from bayesdf.analysis.intervals import Estimate, accuracy_by_kind, cluster_bootstrap, to_dataset
from bayesdf.analysis.people import cluster_numbers, count_people, design
from bayesdf.analysis.predictions import checked_probabilities, ruled_out
from bayesdf.analysis.roc import auroc_by_level, odds_levels
from bayesdf.analysis.tree import Predictions
from bayesdf.analysis.uncertainty import log_probability_and_label
from bayesdf.errors import BayesdfError


def brier_score(probability: Array, label: Labels) -> float:
    """Mean squared distance of the probabilities from the truth, summed over classes: 0 … 2."""
    probability, label = checked_probabilities(probability, label)
    truth = np.eye(probability.shape[1])[label]
    return float(((probability - truth) ** 2).sum(axis=1).mean())


def negative_log_likelihood(log_probability: Array, label: Labels) -> float:
    """Mean of -log p(true class) in nats, from log-probabilities (image, class): 0 … ∞."""
    log_probability, label = checked_probabilities(log_probability, label, logarithms=True)
    return float(-np.take_along_axis(log_probability, label[:, None], axis=1).mean())


def accuracy(label: Labels, prediction: Labels) -> float:
    """Share of images whose predicted class is the true one, 0 … 1."""
    return float((label == prediction).mean())


def balanced_accuracy(label: Labels, prediction: Labels) -> float:
    """Mean over the classes present of the share of their images that are right, 0 … 1."""
    return float(((label == prediction) * balanced_weights(label)).sum())


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
        (images have equal weight), `ece_balanced` (classes have equal weight), `ece_adaptive` (bins of equal
        mass), `ece_classwise` and `ece_smooth` (see `bayesdf.analysis.calibration_errors`). With two classes also
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

    def ece(weigh: Callable[[Labels], Array | None], binning: Binning) -> Estimate:
        if binning == "width":  # edges that do not depend on the resample
            which, gap = binned(probability, label, bins)
            return bootstrap(lambda w, g, y: binned_error(w, g, weigh(y)), which, gap, label)
        return bootstrap(
            lambda p, y: expected_calibration_error(p, y, bins=bins, binning=binning, weights=weigh(y)),
            probability,
            label,
        )

    def bootstrap(statistic: Callable[..., float], *arrays: NDArray, share: Array | None = None) -> Estimate:
        return cluster_bootstrap(statistic, arrays, **people, share=share, resamples=resamples, seed=seed)

    def nll() -> Estimate:
        if np.take_along_axis(ruled_out(predictions), label[:, None], axis=1).any():
            return Estimate(np.inf, np.nan, np.nan)
        return bootstrap(np.mean, -np.take_along_axis(log_p, label[:, None], axis=1)[:, 0])

    figures: dict[str, Callable[[], Estimate]] = {
        "accuracy": lambda: bootstrap(accuracy, label, prediction, share=np.ones(len(label))),
        "balanced_accuracy": lambda: bootstrap(balanced_accuracy, label, prediction, share=balanced_weights(label)),
        "auroc": lambda: bootstrap(auroc_by_level, label, odds_levels(log_p)),
        "nll": nll,
        "brier": lambda: bootstrap(brier_score, probability, label),
        "ece": lambda: ece(lambda _: None, binning),
        "ece_balanced": lambda: ece(balanced_weights, binning),
        "ece_adaptive": lambda: ece(lambda _: None, "mass"),
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

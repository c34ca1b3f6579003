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
"""

from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayesdf.analysis.predictions import checked_probabilities
from bayesdf.analysis.tree import Predictions
from bayesdf.analysis.uncertainty import log_probability_and_label
from bayesdf.errors import BayesdfError

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
    probability, label = checked_probabilities(probability, label)
    confidence = probability.max(axis=1)
    right = (probability.argmax(axis=1) == label).astype(np.float64)
    weight = np.full(len(label), 1.0 / len(label)) if weights is None else weights / weights.sum()
    edges = _edges(confidence, bins, binning)
    which = _bin_of(confidence, edges)
    sizes = len(edges) - 1
    count = np.bincount(which, minlength=sizes)
    mass = np.bincount(which, weight, minlength=sizes)
    filled = (count > 0) & (mass > 0)
    claimed = np.bincount(which, weight * confidence, minlength=sizes)[filled] / mass[filled]
    observed = np.bincount(which, weight * right, minlength=sizes)[filled] / mass[filled]
    columns = {
        "low": edges[:-1][filled],
        "high": edges[1:][filled],
        "count": count[filled],
        "weight": mass[filled],
        "confidence": claimed,
        "accuracy": observed,
        "gap": observed - claimed,
    }
    return pd.DataFrame(columns)


def expected_calibration_error(
    probability: Array,
    label: Labels,
    *,
    bins: int = 15,
    binning: Binning = "width",
    weights: Array | None = None,
) -> float:
    """ECE of the top label, 0 (calibrated) … 1; the arguments are those of `reliability_table`."""
    return binned_error(*binned(probability, label, bins, binning), weights)


def binned(
    probability: Array, label: Labels, bins: int = 15, binning: Binning = "width"
) -> tuple[NDArray[np.int64], Array]:
    """For each image its bin, and whether it is right (0 or 1) less its confidence: two (image,)."""
    probability, label = checked_probabilities(probability, label)
    confidence = probability.max(axis=1)
    return _bin_of(confidence, _edges(confidence, bins, binning)), (probability.argmax(axis=1) == label) - confidence


def binned_error(which: NDArray[np.int64], gap: Array, weights: Array | None = None) -> float:
    """`expected_calibration_error` of what `binned` returns: a bootstrap needs thousands."""
    weighted = gap / len(gap) if weights is None else gap * (weights / weights.sum())
    return float(np.abs(np.bincount(which, weighted)).sum())


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


def _bin_of(confidence: Array, edges: Array) -> NDArray[np.int64]:
    """The bin of each confidence. A bin holds its upper edge."""
    return np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, len(edges) - 2)


def _edges(confidence: Array, bins: int, binning: str) -> Array:
    if bins < 1:
        raise BayesdfError(f"bins={bins}: a reliability table needs at least one bin")
    if binning == "width":
        return np.linspace(0.0, 1.0, bins + 1)
    if binning == "mass":
        edges = np.unique(np.quantile(confidence, np.linspace(0.0, 1.0, bins + 1)))
        return edges if len(edges) > 1 else np.array([0.0, 1.0])
    raise BayesdfError(f"unknown binning {binning!r}; use 'width' or 'mass'")

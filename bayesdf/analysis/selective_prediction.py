"""How right is a detector about the images it is surest of?

A detector may decline to answer. It then answers only the images with the highest scores. Coverage is the share of
images that it answers. Risk is the share of wrong answers among them. With the images in falling order of score, the
risk at coverage k / n is

    r_k = 1/k Σ_{i <= k} wrong_i          AURC = 1/n Σ_{k = 1 … n} r_k

The area under the risk-coverage curve (AURC) is lower for a better detector. It is 0 where no answer is wrong, and the
error rate where all images have the same score. It rewards right answers, and a low score for wrong ones.

The score is the confidence (largest mean probability) unless another is asked for. Images of equal score have no order:
the curve is the mean over all their orders, so each has their mean error.

References
----------
1. Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks", NIPS 2017 (risk and coverage).
2. Geifman, Uziel and El-Yaniv, "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers", ICLR 2019 (AURC).
"""

from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayesdf.analysis.intervals import Estimate, cluster_bootstrap
from bayesdf.analysis.people import design
from bayesdf.analysis.predictions import image_logits, observed_labels
from bayesdf.analysis.roc import levels
from bayesdf.analysis.tree import Predictions
from bayesdf.analysis.uncertainty import entropies, log_mean_probabilities
from bayesdf.errors import BayesdfError

Array = NDArray[np.float64]
Score = Literal["confidence", "total", "aleatoric", "epistemic"]


def risk_coverage(predictions: Predictions, *, by: Score = "confidence") -> pd.DataFrame:
    """The risk at every coverage.

    Parameters
    ----------
    predictions
        What `Posterior.predict` returns for labelled data.
    by
        What the images are ordered by: `confidence`, highest first, or one of the uncertainties, lowest first.

    Returns
    -------
    DataFrame
        A row for each image: `coverage` (1/n … 1) and `risk` (0 … 1).

    Raises
    ------
    BayesdfError
        No labels, or an unknown score.
    """
    risk = risks(*_score_and_wrong(predictions, by))
    return pd.DataFrame({"coverage": np.arange(1, len(risk) + 1) / len(risk), "risk": risk})


def aurc(
    predictions: Predictions,
    *,
    by: Score = "confidence",
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """The area under the risk-coverage curve, 0 … 1 and lower for a better detector, with a 95 % interval over
    people.

    Parameters
    ----------
    predictions, by
        As for `risk_coverage`.
    resamples, seed
        For the interval, see `cluster_bootstrap`.
    """
    score, wrong = _score_and_wrong(predictions, by)

    def area(s: Array, w: Array) -> float:
        return float(risks(s, w).mean())

    return cluster_bootstrap(area, [score, wrong], **design(predictions, len(score)), resamples=resamples, seed=seed)


def risks(score: Array, wrong: Array) -> Array:
    """The risk among the first 1, 2, … n images in falling order of score; both arguments and result (image,)."""
    _, tie = np.unique(-score, return_inverse=True)
    share = np.bincount(tie, wrong) / np.bincount(tie)
    return share[np.sort(tie)].cumsum() / np.arange(1, len(score) + 1)


def _score_and_wrong(predictions: Predictions, by: str) -> tuple[Array, Array]:
    logits = image_logits(predictions).values
    # In logarithms: two probabilities that both round to one still differ.
    log_p = log_mean_probabilities(logits)
    if by == "confidence":
        score = log_p.max(axis=1)
    elif by in ("total", "aleatoric", "epistemic"):
        score = -getattr(entropies(logits), by)
    else:
        raise BayesdfError(f"unknown score {by!r}; use 'confidence', 'total', 'aleatoric' or 'epistemic'")
    wrong = log_p.argmax(axis=1) != observed_labels(predictions, *log_p.shape)
    return levels(score), wrong.astype(np.float64)

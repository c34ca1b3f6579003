"""How far are claimed probabilities from the shares that are right, measured class by class or without bins?

The expected calibration error (`bayesdf.analysis.expected_calibration_error`) depends on its bins, and looks at the
predicted class alone. Two other measures stand here:

- *Classwise ECE.* The probability of each class is compared with how often that class is the truth, over bins of that
  probability, and the errors of the classes are averaged [1, 2]:

      (1 / K) Σ_k Σ_b n_bk / N · |share of class k in bin b - mean probability of class k in bin b|

- *Smooth ECE.* The residuals (truth - probability) are smoothed over the probability by a Gaussian kernel of width σ
  that is reflected at 0 and 1. The error is the area under their absolute value [3, definitions 2 and 3]:

      smECE_σ = ∫ |1/N Σ_i (y_i - p_i) K_σ(t, p_i)| dt

  The width is the one that equals the error that it gives, smECE_σ = σ. smECE_σ falls as σ grows, so there is one such
  width. No bins are to be chosen, and the error changes little where predictions change little.

References
----------
1. Kull et al., "Beyond temperature scaling: Obtaining well-calibrated multi-class probabilities with Dirichlet
   calibration", NeurIPS 2019.
2. Nixon et al., "Measuring Calibration in Deep Learning", CVPR workshops 2019 (static calibration error).
3. Błasiok and Nakkiran, "Smooth ECE: Principled reliability diagrams via kernel smoothing", ICLR 2024.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

CELLS = 2048
"""Residuals are summed in so many cells of [0, 1] before they are smoothed."""
STEPS = 20
"""Halvings of the interval [0, 1] in which the width is searched: it is found to a millionth."""


def classwise_calibration_error(probability: Array, label: Labels, *, bins: int = 15) -> float:
    """The mean over classes of the calibration error of their probabilities, 0 (calibrated) … 1.

    With two classes this is the error of P(fake), over bins from 0 to 1.

    Parameters
    ----------
    probability
        (image, class), rows sum to 1.
    label
        True class, int (image,).
    bins
        How many bins of equal width. As in `reliability_table`, a bin holds its upper edge.
    """
    images, classes = probability.shape
    residual = -probability
    residual[np.arange(images), label] += 1.0
    which = np.clip(np.ceil(probability * bins).astype(np.int64) - 1, 0, bins - 1) + bins * np.arange(classes)
    gap = np.bincount(which.ravel(), residual.ravel(), minlength=bins * classes)
    return float(np.abs(gap).sum() / (images * classes))


def smooth_calibration_error(probability: Array, label: Labels) -> float:
    """Smooth ECE, 0 (calibrated) … 1.

    With two classes it is that of P(fake). With more it is that of the confidence: the probability of the predicted
    class, against whether that class is the truth. `relplot.smECE` [3] takes the same pairs.

    Parameters
    ----------
    probability, label
        As in `classwise_calibration_error`.
    """
    if probability.shape[1] == 2:
        return smooth_error_of_pairs(probability[:, 1], label == 1)
    return smooth_error_of_pairs(probability.max(axis=1), probability.argmax(axis=1) == label)


def smooth_error_of_pairs(probability: Array, happened: NDArray[np.bool_]) -> float:
    """Smooth ECE of the probabilities (image,) of events that happened or not (image,).

    The kernel is the heat kernel of [0, 1], so smoothing multiplies the cosine series of the residuals: the coefficient
    k by exp(-(π k σ)² / 2).
    """
    from scipy.fft import dct, idct

    place = np.clip(probability * CELLS - 0.5, 0.0, CELLS - 1.0)  # in cells, whose middles are whole numbers
    left = np.minimum(place.astype(np.int64), CELLS - 2)
    right_share, residual = place - left, happened - probability
    cells = np.bincount(left, residual * (1.0 - right_share), minlength=CELLS)
    cells += np.bincount(left + 1, residual * right_share, minlength=CELLS)
    series = dct(cells, norm="ortho") / len(residual)
    decay = -0.5 * (np.pi * np.arange(CELLS)) ** 2
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        width = 0.5 * (low + high)
        error = np.abs(idct(series * np.exp(decay * width**2), norm="ortho")).sum()
        low, high = (width, high) if error > width else (low, width)
    return 0.5 * (low + high)

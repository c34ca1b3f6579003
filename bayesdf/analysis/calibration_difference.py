"""Is one prediction of some images better calibrated than another prediction of the same images?

Both predictions are resampled together, so what both have in common does not widen the interval.
"""

from collections.abc import Callable

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesdf.analysis.expected_calibration_error import binned, binned_error
from bayesdf.analysis.intervals import Estimate, cluster_bootstrap, to_dataset
from bayesdf.analysis.people import design
from bayesdf.analysis.predictions import ruled_out
from bayesdf.analysis.tree import Predictions
from bayesdf.analysis.uncertainty import log_probability_and_label
from bayesdf.errors import BayesdfError


def compare_calibration(
    predictions: Predictions, against: Predictions, *, bins: int = 15, resamples: int = 1000, seed: int = 0
) -> xr.Dataset:
    """Calibration error and log loss of one prediction less those of another, with paired 95 % intervals over people.

    Parameters
    ----------
    predictions, against
        Labelled predictions of the same images in the same order, such as those after and before a recalibration.
    bins
        Of equal width, for the calibration error.
    resamples, seed
        See `cluster_bootstrap`. Whole people are drawn, as `evaluate` draws them.

    Returns
    -------
    xr.Dataset
        Over `estimate` = value, low, high: `ece_difference`, and `nll_difference` in nats. Negative is better than
        `against`. `nll_difference` is NaN where either log loss is infinite.

    Raises
    ------
    BayesdfError
        No labels, or predictions of other images.
    """
    (one, label), (other, known) = (log_probability_and_label(part) for part in (predictions, against))
    if one.shape != other.shape or (label != known).any():
        raise BayesdfError(
            f"the predictions are of different images: {len(label)} and {len(known)} of them, or other labels; make "
            "both from the same images in the same order"
        )
    people = design(predictions, len(label))

    def bootstrap(statistic: Callable[..., float], *arrays: NDArray) -> Estimate:
        return cluster_bootstrap(statistic, arrays, **people, resamples=resamples, seed=seed)

    (bin_one, gap_one), (bin_other, gap_other) = (binned(np.exp(log_p), label, bins) for log_p in (one, other))
    infinite = any(np.take_along_axis(ruled_out(part), label[:, None], axis=1).any() for part in (predictions, against))
    excess = np.take_along_axis(other - one, label[:, None], axis=1)[:, 0]
    difference = {
        "ece_difference": bootstrap(
            lambda a, g, b, h: binned_error(a, g) - binned_error(b, h), bin_one, gap_one, bin_other, gap_other
        ),
        "nll_difference": Estimate(np.nan, np.nan, np.nan) if infinite else bootstrap(np.mean, excess),
    }
    return to_dataset(difference)

"""Are the pixels of which the detector is unsure those where it is wrong?

The most uncertain pixels of an image are dropped first, and the mean error of those that are kept is followed. With the
P pixels of an image in rising order of uncertainty, and their errors e,

    kept(k) = 1/k Σ_{i <= k} e_i          AUSE = 1/P Σ_{k = 1 … P} (kept(k) - oracle(k))

The oracle drops the pixels of the largest errors first: no order does better, so AUSE >= 0 [1]. A map that knows
nothing keeps the mean error whatever is dropped. How much better than that the map is, is the area AURG [2]:

    AURG = 1/P Σ_{k = 1 … P} (kept(P) - kept(k))

It is negative where the map is worse than chance. Both areas are in the unit of the error. The authors of [1] divide
them by the mean error kept(P). Pixels of equal uncertainty have no order: each counts with their mean error, which is
the mean over all their orders. `bayesdf.analysis.aurc` is the same figure with images in the place of pixels.

References
----------
1. Ilg, Çiçek, Galesso, Klein, Makansi, Hutter and Brox, "Uncertainty Estimates and Multi-Hypotheses Networks for
   Optical Flow", ECCV 2018 (sparsification, oracle, AUSE).
2. Poggi, Aleotti, Tosi and Mattoccia, "On the Uncertainty of Self-Supervised Monocular Depth Estimation", CVPR 2020
   (area under the random gain, AURG).
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesdf.analysis.map_grid import (
    Array,
    Maps,
    blocks,
    each_quantity,
    find_known,
    flat,
    image_only,
    on_grid,
    refuse_other_images,
)
from bayesdf.analysis.roc import row_ranks
from bayesdf.errors import BayesdfError

SHARES = tuple(round(0.05 * step, 2) for step in range(20))
"""The curve is told where 0, 5, … 95 % of the pixels are dropped."""


def sparsification(uncertainty: Maps, error: xr.DataArray, *, shares: Sequence[float] = SHARES) -> xr.Dataset:
    """The error of the pixels that are kept when the most uncertain are dropped first, and its area from the oracle's.

    Parameters
    ----------
    uncertainty
        Maps as in `localisation`. On a coarser grid they are interpolated to the pixels of the error.
    error
        (image, y, x), 0 or more: how wrong the detector is at each pixel, such as `(probability - mask) ** 2`, or 1
        where it is wrong and 0 elsewhere. NaN throughout an image: not known.
    shares
        The shares of pixels dropped at which the curve is told, each at least 0 and below 1.

    Returns
    -------
    xr.Dataset
        Over (`image`, `quantity`), or over `image` for a single map: `ause` (0 or more) and `aurg`, over all numbers of
        pixels kept. With the further dimension `share`: `kept`. Over `image`: `error` (the mean), and with `share`:
        `oracle`. All are in the unit of the error, and NaN where the error is not known. Attribute: `unknown` (images).

    Raises
    ------
    BayesdfError
        Maps and errors of other images or sizes, values that are not finite, negative errors, or shares outside [0, 1).
    """
    drop = np.asarray(shares, dtype=np.float64)
    if drop.ndim != 1 or not len(drop) or not ((drop >= 0.0) & (drop < 1.0)).all():
        raise BayesdfError(f"shares={shares}: give shares of pixels to drop, each at least 0 and below 1")
    error, known = find_known(error, "error")
    wrong = flat(np.asarray(error.values, dtype=np.float64)[known])
    if wrong.min() < 0.0:
        raise BayesdfError(
            f"the smallest error is {wrong.min():.4g}; an error is 0 or more, such as abs(mask - probability)"
        )
    place = wrong.shape[1] - 1 - np.floor(drop * wrong.shape[1] + 1e-9).astype(np.int64)
    oracle, least = _curve(wrong, wrong, place)

    def filled(found: Array) -> Array:
        full = np.full((len(known), *found.shape[1:]), np.nan)
        full[known] = found
        return full

    def measure(one: xr.DataArray) -> xr.Dataset:
        refuse_other_images(one, error, "errors")
        kept, area = _curve(flat(on_grid(one.isel(image=np.flatnonzero(known)), error)), wrong, place)
        found = {"ause": np.maximum(area - least, 0.0), "aurg": wrong.mean(axis=1) - area}
        variables = {name: ("image", filled(values)) for name, values in found.items()}
        return xr.Dataset({"kept": (("image", "share"), filled(kept)), **variables}, coords=image_only(one))

    return (
        each_quantity(uncertainty, measure)
        .assign(error=("image", filled(wrong.mean(axis=1))), oracle=(("image", "share"), filled(oracle)))
        .assign_coords(share=drop)
        .assign_attrs(unknown=int((~known).sum()))
    )


def _curve(uncertainty: Array, error: Array, place: NDArray[np.int64]) -> tuple[Array, Array]:
    """Mean errors of the surest `place + 1` pixels (image, place), and their mean over all numbers kept (image,)."""
    parts = [_curve_of_block(uncertainty[rows], error[rows], place) for rows in blocks(len(error))]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _curve_of_block(uncertainty: Array, error: Array, place: NDArray[np.int64]) -> tuple[Array, Array]:
    images, pixels = error.shape
    # Twice the mean rank of a tie is a whole number, which no other tie of the image has.
    tie = (2 * row_ranks(uncertainty)).astype(np.int64) + 2 * (pixels + 1) * np.arange(images)[:, None]
    sums = np.bincount(tie.ravel(), error.ravel(), minlength=2 * (pixels + 1) * images)
    counts = np.bincount(tie.ravel(), minlength=len(sums))
    ordered = np.sort(tie, axis=1)
    kept = (sums / np.maximum(counts, 1))[ordered].cumsum(axis=1) / np.arange(1, pixels + 1)
    return kept[:, place], kept.mean(axis=1)

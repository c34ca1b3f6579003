"""Are the probabilities that a detector gives to pixels right, and does it find the pixels that were changed?

Each pixel is a prediction of two classes, untouched and changed. A dense detector gives the probability of the second.
Its calibration is that of `bayesdf.analysis.expected_calibration_error` with pixels in the place of images. Published
localisers tell F1, IoU and AUROC [1], which say nothing of it.

Pixels of one image are far from independent, and so are images of one person. Figures are of all pixels together, and
their intervals resample people.

References
----------
1. Guillaro, Cozzolino, Sud, Dufour and Verdoliva, "TruFor: Leveraging all-round clues for trustworthy image forgery
   detection and localization", CVPR 2023 (F1 at a fixed threshold, AUC of pixels).
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesdf.analysis.expected_calibration_error import binned, reliability_table
from bayesdf.analysis.intervals import Estimate, cluster_bootstrap, to_dataset
from bayesdf.analysis.map_grid import (
    ROUNDED,
    Array,
    blocks,
    find_maps,
    find_masks,
    flat,
    image_only,
    on_grid,
    refuse_other_images,
)
from bayesdf.analysis.people import count_people, design
from bayesdf.analysis.roc import binary_auroc
from bayesdf.errors import BayesdfError

LEVELS = 256
"""Intervals of the AUROC rest on so many levels of the probability. The AUROC itself is exact."""


def pixel_calibration(
    probability: xr.DataArray, masks: xr.DataArray, *, bins: int = 15, resamples: int = 1000, seed: int = 0
) -> xr.Dataset:
    """Calibration and quality of pixel probabilities over all pixels, each figure with a 95 % interval over people.

    Parameters
    ----------
    probability
        (image, y, x): the mean probability of each pixel to be changed, such as `maps["p_fake"]` of a dense detector.
        On a coarser grid it is interpolated to the pixels of the masks.
    masks
        (image, y, x) as in `localisation`. Images with an empty or a full mask count too; those without a known mask
        are left out.
    bins
        Of equal width, for the calibration errors.
    resamples, seed
        For the intervals, see `cluster_bootstrap`. The people are the coordinates `subject` and `donor` of the
        probability, the strata its `source`.

    Returns
    -------
    xr.Dataset
        Over `estimate` = value, low, high. `ece` (all pixels weigh alike), `ece_balanced` (changed pixels weigh as much
        as all others), `ece_classwise` (of the probability of each class, not of the called one alone), `brier` (0 … 2,
        summed over both classes), `auroc` (of all pixels together), `f1` and `iou` of the pixels called changed, whose
        probability is above 0.5. Where no pixel is changed or all are, `auroc` is NaN; where also none is called,
        `f1` and `iou` are. Attributes: `images`, `pixels`, `people`, `changed` (share of the pixels), `unknown_masks`,
        `bins`.

    Raises
    ------
    BayesdfError
        Probabilities and masks of other images or sizes, values outside 0 … 1, or no known mask.
    """
    p, changed, image, known = _pixels(probability, masks)
    images, pixels = p.shape
    tables = [_tables(p[rows], changed[rows], bins) for rows in blocks(images)]
    gap, residual, called, square = (np.concatenate(parts) for parts in zip(*tables, strict=True))
    people = design(image.coords.to_dataset(), images)

    def bootstrap(figure: Callable[..., float], *tables: Array) -> Estimate:
        """A figure of sums over images. Of a resample only the counts of its images are needed."""

        def statistic(rows: NDArray[np.int64]) -> float:
            weight = np.bincount(rows, minlength=images).astype(np.float64)
            return figure(*(np.tensordot(weight, table, 1) for table in tables))

        return cluster_bootstrap(statistic, [np.arange(images)], **people, resamples=resamples, seed=seed)

    total = images * pixels
    figures = {
        "ece": bootstrap(lambda g: float(np.abs(g.sum(axis=0)).sum() / total), gap),
        "ece_balanced": bootstrap(_balanced_error, gap, called),
        "ece_classwise": bootstrap(lambda r: float(np.abs(r).sum() / (2 * total)), residual),
        "brier": bootstrap(lambda s: float(s / total), square),
        "auroc": bootstrap(_area, _levels(p, changed))._replace(value=binary_auroc(changed.ravel(), p.ravel())),
        "f1": bootstrap(_f1, called),
        "iou": bootstrap(_iou, called),
    }
    return to_dataset(figures).assign_attrs(
        images=images,
        pixels=total,
        people=count_people(people["clusters"], people["donors"]),
        changed=float(changed.mean()),
        unknown_masks=int((~known).sum()),
        bins=bins,
    )


def pixel_scores(probability: xr.DataArray, masks: xr.DataArray) -> xr.Dataset:
    """F1, IoU and Brier score of the pixels of each image; its AUROC is that of `localisation`.

    Parameters
    ----------
    probability, masks
        As for `pixel_calibration`.

    Returns
    -------
    xr.Dataset
        Over `image`: `f1` and `iou` (0 … 1) of the pixels called changed, NaN where the mask is empty; `brier` (0 … 2).
        All are NaN where the mask is not known. Attribute: `unknown_masks` (images).
    """
    p, changed, _, known = _pixels(probability, masks)
    called = np.concatenate([_tables(p[rows], changed[rows], 1)[2] for rows in blocks(len(p))])
    there = called[:, 1].sum(axis=1) > 0
    found = {
        "f1": np.where(there, [_f1(one) for one in called], np.nan),
        "iou": np.where(there, [_iou(one) for one in called], np.nan),
        "brier": 2.0 * ((p - changed) ** 2).mean(axis=1),
    }
    full = {name: np.full(len(known), np.nan) for name in found}
    for name, values in found.items():
        full[name][known] = values
    return xr.Dataset(
        {name: ("image", values) for name, values in full.items()},
        coords=image_only(probability),
        attrs={"unknown_masks": int((~known).sum())},
    )


def pixel_reliability(probability: xr.DataArray, masks: xr.DataArray, *, bins: int = 15) -> pd.DataFrame:
    """`reliability_table` of all pixels: claimed confidence against the share that is right, bin by bin.

    Parameters
    ----------
    probability, masks, bins
        As for `pixel_calibration`. `count` is of pixels.
    """
    p, changed, _, _ = _pixels(probability, masks)
    return reliability_table(_both(p.ravel()), changed.ravel().astype(np.int64), bins=bins)


def _pixels(
    probability: xr.DataArray, masks: xr.DataArray
) -> tuple[Array, NDArray[np.bool_], xr.DataArray, NDArray[np.bool_]]:
    """Probabilities and changed pixels (image, pixel) of the images of known masks, their map, and which these are."""
    found = find_maps(probability)
    if not isinstance(found, xr.DataArray):
        raise BayesdfError("pixel probabilities are one map (image, y, x); give maps['p_fake'] of a dense detector")
    changed, known = find_masks(masks)
    refuse_other_images(found, changed)
    image = found.isel(image=np.flatnonzero(known))
    p = flat(on_grid(image, changed))
    if p.min() < -ROUNDED or p.max() > 1.0 + ROUNDED:
        raise BayesdfError(
            f"pixel probabilities run from {p.min():.4g} to {p.max():.4g}; give P(changed), 0 … 1, and no logits or "
            "gradients"
        )
    return np.clip(p, 0.0, 1.0), flat(changed.values[known]), image, known


def _both(p: Array) -> Array:
    """P(untouched) and P(changed) of each pixel: (pixel, class)."""
    return np.stack([1.0 - p, p], axis=-1)


def _tables(p: Array, changed: NDArray[np.bool_], bins: int) -> tuple[Array, Array, Array, Array]:
    """Sums over the pixels of each image, from which all figures follow.

    The gap of the called class in each bin by true class (image, class, bin), the residual of each class in each bin of
    its own probability (image, class, bin), pixels by true and called class (image, class, class), and the squared
    error (image,).
    """
    images, pixels = p.shape
    probability, label = _both(p.ravel()), changed.ravel().astype(np.int64)
    image = np.repeat(np.arange(images), pixels)

    def sums(number: NDArray[np.int64], size: int, weights: Array | None = None) -> Array:
        found = np.bincount(2 * size * image + number, weights, minlength=2 * size * images)
        return found.astype(np.float64).reshape(images, 2, size)

    which, gap = binned(probability, label, bins)
    residual = np.zeros((images, 2, bins))
    for one in (0, 1):
        own = np.clip(np.ceil(probability[:, one] * bins).astype(np.int64) - 1, 0, bins - 1)
        residual += sums(bins * one + own, bins, (label == one) - probability[:, one])
    called = sums(2 * label + (p.ravel() > 0.5), 2)
    return sums(bins * label + which, bins, gap), residual, called, 2.0 * ((p - changed) ** 2).sum(axis=1)


def _levels(p: Array, changed: NDArray[np.bool_]) -> Array:
    """Pixels by true class and level of the probability: (image, class, level). A level holds equally many pixels."""
    edges = np.unique(np.quantile(p, np.linspace(0.0, 1.0, LEVELS + 1)[1:-1]))
    found = [
        np.bincount(np.searchsorted(edges, one) + LEVELS * truth, minlength=2 * LEVELS).reshape(2, LEVELS)
        for one, truth in zip(p, changed, strict=True)
    ]
    return np.array(found, dtype=np.float64)


def _area(level: Array) -> float:
    """AUROC from the pixels of each class at each level (class, level)."""
    untouched, changed = level
    pairs = untouched.sum() * changed.sum()
    below = np.cumsum(untouched) - untouched / 2
    return float((below * changed).sum() / pairs) if pairs else float("nan")


def _balanced_error(gap: Array, called: Array) -> float:
    count = called.sum(axis=1)
    weight = (count > 0) / (np.maximum(count, 1.0) * (count > 0).sum())
    return float(np.abs(weight @ gap).sum())


def _f1(called: Array) -> float:
    wrong = called[0, 1] + called[1, 0]
    return float(2 * called[1, 1] / (2 * called[1, 1] + wrong)) if called[1, 1] + wrong else float("nan")


def _iou(called: Array) -> float:
    union = called[0, 1] + called[1].sum()
    return float(called[1, 1] / union) if union else float("nan")

"""What are the logits and the true labels of the images, as arrays fit to be analysed?"""

from collections.abc import Hashable

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesdf.analysis.tree import (
    FROM_SCORES,
    PLACES,
    Predictions,
    find_logits,
    image_coords,
    known_places,
    listed,
    name_of_image,
)
from bayesdf.errors import BayesdfError

REAL = "real"
"""The source of photographs, as `bayesdf.data` names it."""

ROUNDED = 1e-3
"""Rows of probabilities, of half precision or written with few digits, add to 1 within this."""

SUM_ERROR = 0.01
"""How far from 1 the sum of given probabilities may be, since they may have been written with few digits."""

CERTAIN = 1000.0
"""A logit of -inf is replaced by one that lies this far below the others: exp(-1000) is exactly 0 in float64."""


def predictive_logits(predictions: Predictions) -> xr.DataArray:
    """The logits of every draw, one chain after another: float64 (draw, image, class).

    Those of a dense detector, which predicts each location of an image, are (draw, image, y, x, class).

    What the predictions know of each image (`path`, `source`, `subject`, `donor`, `video`, `split`, `label`, `group`)
    becomes coordinates of `image`. A logit of -inf is a probability of exactly 0. It becomes a number at least
    `CERTAIN` below the largest of its row. Its probability is still exactly 0, and all numbers are finite.

    Raises
    ------
    BayesdfError
        No logits, wrong dimensions, no draws, no images, fewer than two classes, a logit that is not finite,
        probabilities in the place of logits, or labels, sources, … that contradict each other or do not fit the images.
    """
    logits = _laid_out(find_logits(predictions))
    chains, draws, *rest = logits.shape
    values = np.asarray(logits.values, dtype=np.float64).reshape(chains * draws, *rest)
    values = _finite(values, logits)
    _refuse_probabilities(values)
    dims = tuple(str(name) for name in logits.dims[2:])
    coords = {name: logits.coords[name] for name in dims if name in logits.coords}
    flat = xr.DataArray(values, dims=("draw", *dims), coords=coords, name="logits")
    return flat.assign_coords(image_coords(predictions))


def image_logits(predictions: Predictions) -> xr.DataArray:
    """The logits of every draw, of whole images: float64 (draw, image, class). See `predictive_logits`.

    Raises
    ------
    BayesdfError
        The predictions are of locations. Also as `predictive_logits`.
    """
    logits = predictive_logits(predictions)
    if PLACES[0] in logits.dims:
        raise BayesdfError(
            "the predictions are of a dense detector, for each location (y, x) of an image, but this is a figure of "
            "whole images: decompose(predictions) gives the uncertainty of each location, and pixel_calibration says "
            "how well it is calibrated"
        )
    return logits


def ruled_out(predictions: Predictions) -> NDArray[np.bool_]:
    """The classes of each image to which every draw gives a probability of exactly 0: bool (image, class)."""
    values = _laid_out(find_logits(predictions)).values
    return np.asarray(np.isneginf(values).all(axis=(0, 1)))


def observed_labels(predictions: Predictions, images: int, classes: int) -> NDArray[np.int64]:
    """The true class of each image: int64 (image,), each in 0 … classes - 1.

    Labels may be integers, whole floats, booleans (True is class 1), or names from the coordinate `class` of the
    logits.

    Raises
    ------
    BayesdfError
        The predictions have no labels, or they do not fit the logits.
    """
    found = image_coords(predictions)
    if "label" not in found:
        raise BayesdfError(_no_labels(predictions))
    logits = find_logits(predictions)
    names = [str(name) for name in logits.coords["class"].values] if "class" in logits.coords else []
    return class_numbers(found["label"][1], names or [str(number) for number in range(classes)], "label")


def class_numbers(given: object, classes: list[str], what: str) -> NDArray[np.int64]:
    """Labels as numbers of classes: int64 (image,), from integers, whole floats, booleans or names of `classes`.

    Raises
    ------
    BayesdfError
        A label is missing, or is not one of the classes.
    """
    label = np.asarray(given)
    if label.dtype.kind in "OUST":
        number: dict[Hashable, int] = {name: index for index, name in enumerate(classes)}
        numbers = [number.get(value) if isinstance(value, str) else value for value in label.tolist()]
        unknown = [value for value, one in zip(label.tolist(), numbers, strict=True) if one is None]
        if unknown:
            raise BayesdfError(
                f"{what} holds {unknown[0]!r}, which is none of the classes {', '.join(classes)}; give their names, or "
                f"numbers from 0 to {len(classes) - 1}"
            )
        try:
            label = np.asarray(numbers, dtype=np.float64)
        except (TypeError, ValueError):
            raise BayesdfError(f"{what} must hold integers from 0 to {len(classes) - 1}, one an image") from None
    bad = np.ones(label.shape, dtype=bool)
    if label.dtype.kind in "biuf":
        bad = ~((label == np.round(label)) & (label >= 0) & (label < len(classes)))
    if bad.any():
        raise BayesdfError(
            f"{what} must hold integers from 0 to {len(classes) - 1}, one an image, and holds {label[bad][0]} at image "
            f"{int(np.flatnonzero(bad)[0])} ({int(bad.sum())} such labels); leave images without a label out"
        )
    return label.astype(np.int64)


def _laid_out(logits: xr.DataArray) -> xr.DataArray:
    """(chain, draw, image, class), or with y and x before the class; none of them empty."""
    if "chain" not in logits.dims:
        logits = logits.expand_dims("chain")
    logits = logits.transpose("chain", "draw", "image", *(name for name in PLACES if name in logits.dims), "class")
    chains, draws, images, *locations, classes = logits.shape
    if chains * draws == 0:
        raise BayesdfError("logits hold zero draws; predict with draws=1 or more")
    if images == 0:
        raise BayesdfError("logits hold zero images; predict a data set that is not empty")
    if 0 in locations:
        raise BayesdfError("logits hold zero locations; predict images that are not empty")
    if classes < 2:
        raise BayesdfError(
            f"logits hold {classes} class; a detector needs two or more: one score an image goes through {FROM_SCORES}"
        )
    if logits.dtype.kind not in "fiu":
        raise BayesdfError(f"logits have dtype {logits.dtype}; give real numbers")
    return logits


def _finite(values: NDArray[np.float64], logits: xr.DataArray) -> NDArray[np.float64]:
    """The values, with -inf replaced by a number far below the rest of its row; refuses rows without a softmax."""
    if np.isfinite(values).all():
        return values
    largest = values.max(axis=-1, keepdims=True)
    broken = ~np.isfinite(largest[..., 0])
    if not broken.any():
        lowest = np.where(np.isneginf(values), 0.0, values - largest).min()
        return np.where(np.isneginf(values), largest - max(CERTAIN, -2.0 * lowest), values)
    draw, image = np.argwhere(broken)[0][:2]
    images = np.unique(np.argwhere(broken)[:, 1])
    raise BayesdfError(
        f"{len(images)} images have logits that are not finite, first image "
        f"{name_of_image(logits, image)} at draw {draw}: the image holds NaN, or the fit diverged (then "
        "lower its learning rate, or the scale of its priors)"
    )


def _refuse_probabilities(values: NDArray[np.float64]) -> None:
    if values[0, 0].min() < 0.0 or values[0, 0].max() > 1.0:  # for most logits the first image tells
        return
    if values.min() >= 0.0 and values.max() <= 1.0 and np.abs(values.sum(axis=-1) - 1.0).max() <= ROUNDED:
        raise BayesdfError(
            "the logits are probabilities (every row lies in 0 … 1 and adds to 1), of which a softmax would be taken "
            "once more: bring them in with bdf.analysis.from_scores(scores, kind='probability'), or take the softmax "
            "off the end of the network"
        )


def _no_labels(predictions: Predictions) -> str:
    """The message for predictions without labels. It names a variable that may have been meant as the label."""
    line = "the predictions hold no true labels; put them at observed_data/label (image)"
    for place, known in known_places(predictions):
        for name in ("label", "labels", "y", "target", "targets", "truth"):
            if name in known.variables:
                return f"{line}: {place} has {name!r} of dimensions {listed(known[name].dims)}"
    if isinstance(predictions, xr.DataTree):
        return line
    return f"{line} of the tree, which is to be passed whole, or give the logits a coordinate 'label' (image)"


def checked_probabilities(
    probability: NDArray[np.float64], label: NDArray[np.int64], logarithms: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities (image, class) and labels (image,) that fit each other, or their logarithms; else an error."""
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

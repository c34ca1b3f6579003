"""Where in a DataTree do the numbers lie, and are they fit to be analysed?

Public functions of this layer take the whole tree that `Posterior.predict` returns and find the group they
need here. What is no such tree is refused here, with one line that says what to do instead.
"""

from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import TypedDict

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayesdf.errors import BayesdfError

Predictions = xr.DataTree | xr.Dataset | xr.DataArray
"""A tree with a `posterior_predictive` group, a Dataset with `logits`, or the logits themselves."""

REAL = "real"
"""The source of photographs, as `bayesdf.data` names it."""

IMAGE_COORDS = ("path", "source", "subject", "donor", "video", "split", "label", "group")

PREDICTIVE = ("posterior_predictive", "prior_predictive")
"""Groups that may hold the logits; the first that is there does."""

ROUNDED = 1e-3
"""Rows of probabilities, of half precision or written with few digits, add to 1 within this."""

SUM_ERROR = 0.01
"""How far from 1 what is said to be probabilities of the classes, written with few digits, may add up."""

CERTAIN = 1000.0
"""What a logit of -inf lies below the others for computing: exp(-1000) is exactly 0 in float64."""


def predictive_logits(predictions: Predictions) -> xr.DataArray:
    """The logits of every draw, chains laid end to end: float64 (draw, image, class).

    Where the predictions know them, `path`, `source`, `subject`, `donor`, `video`, `split`, `label` and `group` of each
    image come along as coordinates of `image`. A logit of -inf, which is a probability of exactly 0, becomes a number
    at least `CERTAIN` below the largest of its row: its probability is exactly 0 still, and all else is finite.

    Raises
    ------
    BayesdfError
        No logits, wrong dimensions, no draws, no images, fewer than two classes, a logit that is not finite,
        probabilities in the place of logits, or labels, sources, … that contradict each other or do not fit the images.
    """
    logits = _laid_out(find_logits(predictions))
    chains, draws, images, classes = logits.shape
    values = np.asarray(logits.values, dtype=np.float64).reshape(chains * draws, images, classes)
    values = _finite(values, logits)
    _refuse_probabilities(values)
    coords = {name: logits.coords[name] for name in ("image", "class") if name in logits.coords}
    flat = xr.DataArray(values, dims=("draw", "image", "class"), coords=coords, name="logits")
    return flat.assign_coords(image_coords(predictions))


def ruled_out(predictions: Predictions) -> NDArray[np.bool_]:
    """The classes of each image to which every draw gives a probability of exactly 0: bool (image, class)."""
    values = _laid_out(find_logits(predictions)).values
    return np.asarray(np.isneginf(values).all(axis=(0, 1)))


def image_coords(predictions: Predictions) -> dict[str, tuple[str, NDArray]]:
    """What the predictions know of each image (`IMAGE_COORDS`), ready for `assign_coords`.

    Looked for in `observed_data`, in `constant_data`, beside the logits and at the root of a tree, as variables or as
    coordinates; a Dataset need not hold logits.

    Raises
    ------
    BayesdfError
        Two places contradict each other, or a place lists other images than the logits do, or another number of them.
    """
    images: xr.Dataset | xr.DataArray
    if isinstance(predictions, xr.Dataset) and "logits" not in predictions:
        images = predictions
    else:
        images = find_logits(predictions)
    found: dict[str, tuple[str, NDArray]] = {}
    first: dict[str, str] = {}
    for place, known in _places(predictions):
        present = [name for name in IMAGE_COORDS if name in known.variables and known[name].dims == ("image",)]
        if present:
            _refuse_other_images(place, present[0], known, images)
        for name in present:
            values = known[name].values
            if name in found:
                _refuse_contradiction(name, (first[name], found[name][1]), (place, values), images)
            else:
                found[name], first[name] = ("image", values), place
    return found


def observed_labels(predictions: Predictions, images: int, classes: int) -> NDArray[np.int64]:
    """The true class of each image: int64 (image,), each in 0 … classes - 1.

    Labels may be integers, whole floats, booleans (True is class 1), or the names that the coordinate `class` of the
    logits gives.

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
        A label is missing, or is no class.
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


def mistaken(given: object, wanted: str) -> BayesdfError:
    """The error for what is no predictions, no features, …: what it is, and what to do with it.

    Parameters
    ----------
    given
        What a function was called with.
    wanted
        What it takes, and where that comes from, as in "the DataTree of Posterior.predict".
    """
    kind = type(given).__name__
    if isinstance(given, np.ndarray):
        what = f"an array of shape {given.shape}"
    elif isinstance(given, xr.Dataset):
        what = f"a Dataset of {_listed(given.data_vars)}"
    elif isinstance(given, xr.DataArray):
        what = f"a DataArray {_listed(given.dims)}"
    elif isinstance(given, xr.DataTree):
        what = f"a DataTree of {_listed(given.children)}"
    else:
        what = f"a {kind}"
    return BayesdfError(f"{what} was given where {wanted} is expected")


class Design(TypedDict):
    """How images come about, as `cluster_bootstrap` takes it: each (image,), or None where the tree says nothing."""

    clusters: NDArray
    donors: NDArray | None
    strata: NDArray | None


def design(predictions: Predictions, images: int) -> Design:
    """Who is in each image (`subject`, `donor`), and the sources, of which a study fixes how many images there are.

    Intervals follow it: ``cluster_bootstrap(statistic, arrays, **design(tree, images))``.
    """
    found = {name: values for name, (_, values) in image_coords(predictions).items()}
    subject = found.get("subject")
    for name in ("subject", "donor", "source"):
        if name in found and len(found[name]) != images:
            raise BayesdfError(f"{len(found[name])} values of {name!r} for {images} images; give one an image")
    return Design(
        clusters=np.full(images, "") if subject is None else subject,
        donors=None if subject is None else found.get("donor"),
        strata=found.get("source"),
    )


def select(people: Design, images: NDArray) -> Design:
    """The design of some of the images: a mask, or rows."""
    donors, strata = people["donors"], people["strata"]
    return Design(
        clusters=people["clusters"][images],
        donors=None if donors is None else donors[images],
        strata=None if strata is None else strata[images],
    )


def count_people(clusters: ArrayLike, donors: ArrayLike | None = None) -> int:
    """How many people there are, as subjects or donors; images of nobody count none."""
    named = np.asarray(clusters, dtype=object).ravel()
    if donors is not None:
        named = np.concatenate([named, np.asarray(donors, dtype=object).ravel()])
    return len(set(named[~missing(named)]))


def kinds(subjects: ArrayLike, sources: ArrayLike | None) -> dict[str, NDArray[np.bool_]]:
    """Which images are manipulations (fakes with a person in them) and which new faces (fakes of nobody): (image,).

    Empty unless there are both.
    """
    if sources is None:
        return {}
    fake = np.asarray(sources).astype(str) != REAL
    nobody = missing(subjects)
    found = {"manipulations": fake & ~nobody, "new_faces": fake & nobody}
    return found if all(own.any() for own in found.values()) else {}


def missing(values: ArrayLike) -> NDArray[np.bool_]:
    """Which of the values name nothing: '', None, NaN."""
    return np.array([value is None or value == "" or value != value for value in np.asarray(values, object).ravel()])


def groups(subjects: object, images: int) -> NDArray:
    """A group number for each image: one a subject; images without a subject ('', None, NaN) stand alone.

    Returns
    -------
    int64 (image,), numbered from 0 in the order of first appearance.
    """
    if subjects is None:
        return np.arange(images, dtype=np.int64)
    values = np.asarray(subjects, dtype=object).ravel()
    if len(values) != images:
        raise BayesdfError(f"{len(values)} subjects given for {images} images; give one an image")
    numbers: dict[Hashable, int] = {}
    result = np.empty(images, dtype=np.int64)
    for index, (value, nobody) in enumerate(zip(values, missing(values), strict=True)):
        result[index] = numbers.setdefault(("image", index) if nobody else ("subject", value), len(numbers))
    return result


def find_logits(predictions: Predictions) -> xr.DataArray:
    """The logits as they stand in a tree, a Dataset or by themselves; their dimensions hold `image`.

    Raises
    ------
    BayesdfError
        There are none: one line says what to do with what was given instead.
    """
    logits = _stored_logits(predictions)
    needed = {"draw", "image", "class"}
    present = {str(dim) for dim in logits.dims}
    if not needed <= present or not present <= needed | {"chain"}:
        if present == {"image", "class"}:
            hint = "one prediction an image is one draw: logits.expand_dims('draw')"
        elif "class" not in present and "image" in present:
            hint = f"P(fake) or log-odds, without a dimension 'class', go through {FROM_SCORES}"
        else:
            hint = "name them (chain, draw, image, class), as with logits.rename(...)"
        raise BayesdfError(f"logits have dimensions {_listed(logits.dims)}; {hint}")
    return logits


FROM_SCORES = "bdf.analysis.from_scores(scores, kind=...)"


def _stored_logits(predictions: object) -> xr.DataArray:
    if isinstance(predictions, xr.DataArray):
        return predictions
    if isinstance(predictions, xr.Dataset):
        if "logits" in predictions:
            return predictions["logits"]
        if {"total", "aleatoric", "epistemic"} <= set(predictions.data_vars):
            raise BayesdfError("this is what decompose returned, not 'logits'; pass the predictions themselves")
        raise BayesdfError(
            f"the data set holds {_listed(predictions.data_vars)}, not 'logits'; pass what Posterior.predict returned"
        )
    if isinstance(predictions, xr.DataTree):
        for group in PREDICTIVE:
            if group in predictions.children:
                dataset = predictions.children[group].to_dataset()
                if "logits" in dataset:
                    return dataset["logits"]
                raise BayesdfError(f"{group} holds {_listed(dataset.data_vars)}, not 'logits'; predict first")
        if "logits" in predictions.data_vars:
            return predictions.to_dataset()["logits"]
        below = [name for name, child in predictions.children.items() if "posterior_predictive" in child.children]
        if below:
            hint = f"it is a whole run: pass one method's tree, such as tree[{below[0]!r}]"
        elif "variational" in predictions.children or "posterior" in predictions.children:
            hint = "it is a posterior's: predict with it first"
        else:
            hint = "pass what Posterior.predict returned"
        raise BayesdfError(
            f"the tree holds no group 'posterior_predictive' (it has {_listed(predictions.children)}); {hint}"
        )
    raise BayesdfError(f"{mistaken(predictions, 'the DataTree of Posterior.predict')}; {_way_out(predictions)}")


def _way_out(given: object) -> str:
    """What to do with predictions that are no tree."""
    kind = type(given).__name__
    if isinstance(given, str | Path):
        return "open the run first: bdf.open_run(path)['svi']"
    if kind == "InferenceData":
        return "convert it: idata.to_datatree()"
    if hasattr(given, "predict"):
        return "call its predict(data) first"
    array = (
        "array"
        if isinstance(given, np.ndarray)
        else "tensor.numpy(force=True)"
        if kind == "Tensor"
        else "np.array(...)"
    )
    dims = ("chain", "draw", "image", "class") if getattr(given, "ndim", 3) == 4 else ("draw", "image", "class")
    return (
        f"if these are logits, give xr.DataArray({array}, dims={dims}); if they are probabilities, "
        f"log-odds or votes, {FROM_SCORES}"
    )


def _laid_out(logits: xr.DataArray) -> xr.DataArray:
    """(chain, draw, image, class), none of them empty."""
    if "chain" not in logits.dims:
        logits = logits.expand_dims("chain")
    logits = logits.transpose("chain", "draw", "image", "class")
    chains, draws, images, classes = logits.shape
    if chains * draws == 0:
        raise BayesdfError("logits hold zero draws; predict with draws=1 or more")
    if images == 0:
        raise BayesdfError("logits hold zero images; predict a data set that is not empty")
    if classes < 2:
        raise BayesdfError(
            f"logits hold {classes} class; a detector needs two or more: one score an image goes through {FROM_SCORES}"
        )
    if logits.dtype.kind not in "fiu":
        raise BayesdfError(f"logits have dtype {logits.dtype}; give real numbers")
    return logits


def _finite(values: NDArray[np.float64], logits: xr.DataArray) -> NDArray[np.float64]:
    """The values, those of -inf far below the rest of their row; refuses rows that have no softmax."""
    if np.isfinite(values).all():
        return values
    largest = values.max(axis=-1, keepdims=True)
    broken = ~np.isfinite(largest[..., 0])
    if not broken.any():
        lowest = np.where(np.isneginf(values), 0.0, values - largest).min()
        return np.where(np.isneginf(values), largest - max(CERTAIN, -2.0 * lowest), values)
    draw, image = np.argwhere(broken)[0]
    raise BayesdfError(
        f"{int(broken.any(axis=0).sum())} images have logits that are not finite, first image "
        f"{_name_of(logits, image)} at draw {draw}: the image holds NaN, or the fit diverged (then "
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


def _places(predictions: Predictions) -> Iterator[tuple[str, xr.Dataset]]:
    """Where the labels, sources, … of the images may stand, by name."""
    if isinstance(predictions, xr.DataArray):
        yield "the logits' coordinates", predictions.coords.to_dataset()
    elif isinstance(predictions, xr.Dataset):
        yield "the data set", predictions
    else:
        for group in ("observed_data", "constant_data", *PREDICTIVE):
            if group in predictions.children:
                yield group, predictions.children[group].to_dataset()
        yield "the root of the tree", predictions.to_dataset()


def _refuse_other_images(place: str, name: str, known: xr.Dataset, images: xr.Dataset | xr.DataArray) -> None:
    """`known` must list the images that the logits are of, in their order."""
    if known.sizes["image"] != images.sizes["image"]:
        raise BayesdfError(
            f"{name} in {place} has {known.sizes['image']} values, the logits hold {images.sizes['image']} images; "
            "give one an image"
        )
    if "image" not in known.coords or "image" not in images.coords:
        return
    here, there = known.coords["image"].values, images.coords["image"].values
    if not np.array_equal(here, there):
        ordered = "in another order" if sorted(map(str, here)) == sorted(map(str, there)) else "under other names"
        raise BayesdfError(
            f"{place} lists the images {ordered} than the logits do (coordinate 'image'); give both the same, as with "
            "known.sel(image=logits.image)"
        )


def _refuse_contradiction(
    name: str, one: tuple[str, NDArray], other: tuple[str, NDArray], images: xr.Dataset | xr.DataArray
) -> None:
    a, b = np.asarray(one[1], dtype=object), np.asarray(other[1], dtype=object)
    unequal = np.flatnonzero((a != b) & ~(missing(a) & missing(b)))
    if len(unequal):
        image = unequal[0]
        raise BayesdfError(
            f"{name} in {one[0]} and in {other[0]} contradict each other at {len(unequal)} images (first image "
            f"{_name_of(images, image)}: {a[image]} and {b[image]}); keep the right one"
        )


def _no_labels(predictions: Predictions) -> str:
    """The line for predictions without labels, which looks for a slip of the pen."""
    line = "the predictions hold no true labels; put them at observed_data/label (image)"
    for place, known in _places(predictions):
        for name in ("label", "labels", "y", "target", "targets", "truth"):
            if name in known.variables:
                return f"{line}: {place} has {name!r} of dimensions {_listed(known[name].dims)}"
    if isinstance(predictions, xr.DataTree):
        return line
    return f"{line} of the tree, which is to be passed whole, or give the logits a coordinate 'label' (image)"


def _name_of(images: xr.Dataset | xr.DataArray, image: int) -> object:
    return images.coords["image"].values[image] if "image" in images.coords else image


def _listed(names: object) -> str:
    return ", ".join(str(name) for name in names) or "nothing"  # type: ignore[attr-defined]

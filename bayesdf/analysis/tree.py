"""Where in a DataTree are the logits, and what does it know of each image?

Public functions of this layer take the whole tree that `Posterior.predict` returns and find its parts here. Anything
else is refused here, with one line that says what to do instead.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayesdf.errors import BayesdfError

Predictions = xr.DataTree | xr.Dataset | xr.DataArray
"""A tree with a `posterior_predictive` group, a Dataset with `logits`, or the logits themselves."""

IMAGE_COORDS = ("path", "source", "subject", "donor", "video", "split", "label", "group")

PLACES = ("y", "x")
"""The dimensions of the locations of an image, in predictions of a dense detector."""

PREDICTIVE = ("posterior_predictive", "prior_predictive")
"""The groups that may hold the logits. The first that exists is taken."""

FROM_SCORES = "bdf.analysis.from_scores(scores, kind=...)"


def find_logits(predictions: Predictions) -> xr.DataArray:
    """The logits as they are stored in a tree or a Dataset, or as they were given.

    Raises
    ------
    BayesdfError
        There are no logits, or they lack a dimension. One line says what to do with what was given instead.
    """
    logits = _stored_logits(predictions)
    needed = {"draw", "image", "class"}
    present = {str(dim) for dim in logits.dims}
    if not needed <= present or present - needed - {"chain"} not in (set(), set(PLACES)):
        if present == {"image", "class"}:
            hint = "one prediction an image is one draw: logits.expand_dims('draw')"
        elif "class" not in present and "image" in present:
            hint = f"P(fake) or log-odds, without a dimension 'class', go through {FROM_SCORES}"
        else:
            hint = "name them (chain, draw, image, class), as with logits.rename(...)"
        raise BayesdfError(f"logits have dimensions {listed(logits.dims)}; {hint}")
    return logits


def image_coords(predictions: Predictions) -> dict[str, tuple[str, NDArray]]:
    """What the predictions know of each image (`IMAGE_COORDS`), ready for `assign_coords`.

    They are looked for in `observed_data`, in `constant_data`, beside the logits and at the root of a tree, as
    variables or as coordinates. A Dataset need not hold logits.

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
    for place, known in known_places(predictions):
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


def is_missing(values: ArrayLike) -> NDArray[np.bool_]:
    """Which of the values are '', None or NaN: bool, one for each value."""
    return np.array([value is None or value == "" or value != value for value in np.asarray(values, object).ravel()])


def wrong_input(given: object, wanted: str) -> BayesdfError:
    """The error for an argument of a wrong type. It says what was given and what is expected.

    Parameters
    ----------
    given
        What a function was called with.
    wanted
        What the function takes, and where that comes from, as in "the DataTree of Posterior.predict".
    """
    kind = type(given).__name__
    if isinstance(given, np.ndarray):
        what = f"an array of shape {given.shape}"
    elif isinstance(given, xr.Dataset):
        what = f"a Dataset of {listed(given.data_vars)}"
    elif isinstance(given, xr.DataArray):
        what = f"a DataArray {listed(given.dims)}"
    elif isinstance(given, xr.DataTree):
        what = f"a DataTree of {listed(given.children)}"
    else:
        what = f"a {kind}"
    return BayesdfError(f"{what} was given where {wanted} is expected")


def _stored_logits(predictions: object) -> xr.DataArray:
    if isinstance(predictions, xr.DataArray):
        return predictions
    if isinstance(predictions, xr.Dataset):
        if "logits" in predictions:
            return predictions["logits"]
        if {"total", "aleatoric", "epistemic"} <= set(predictions.data_vars):
            raise BayesdfError("this is what decompose returned, not 'logits'; pass the predictions themselves")
        raise BayesdfError(
            f"the data set holds {listed(predictions.data_vars)}, not 'logits'; pass what Posterior.predict returned"
        )
    if isinstance(predictions, xr.DataTree):
        for group in PREDICTIVE:
            if group in predictions.children:
                dataset = predictions.children[group].to_dataset()
                if "logits" in dataset:
                    return dataset["logits"]
                raise BayesdfError(f"{group} holds {listed(dataset.data_vars)}, not 'logits'; predict first")
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
            f"the tree holds no group 'posterior_predictive' (it has {listed(predictions.children)}); {hint}"
        )
    raise BayesdfError(f"{wrong_input(predictions, 'the DataTree of Posterior.predict')}; {_way_out(predictions)}")


def _way_out(given: object) -> str:
    """What to do with predictions that are not a tree."""
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


def known_places(predictions: Predictions) -> Iterator[tuple[str, xr.Dataset]]:
    """The places that may hold the labels, sources, … of the images, each with its name for a message."""
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
    """Refuse `known` unless it lists the images of the logits in the same order."""
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
    unequal = np.flatnonzero((a != b) & ~(is_missing(a) & is_missing(b)))
    if len(unequal):
        image = unequal[0]
        raise BayesdfError(
            f"{name} in {one[0]} and in {other[0]} contradict each other at {len(unequal)} images (first image "
            f"{name_of_image(images, image)}: {a[image]} and {b[image]}); keep the right one"
        )


def name_of_image(images: xr.Dataset | xr.DataArray, image: int) -> object:
    return images.coords["image"].values[image] if "image" in images.coords else image


def listed(names: object) -> str:
    return ", ".join(str(name) for name in names) or "nothing"  # type: ignore[attr-defined]

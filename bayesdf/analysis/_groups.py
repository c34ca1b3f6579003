"""Where in a DataTree do the numbers lie, and are they fit to be analysed?

Public functions of this layer take the whole tree that `Posterior.predict` returns and find the group they
need here.
"""

from collections.abc import Hashable
from typing import TypedDict

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayesdf.errors import BayesdfError

Predictions = xr.DataTree | xr.Dataset | xr.DataArray
"""A tree with a `posterior_predictive` group, a Dataset with `logits`, or the logits themselves."""

REAL = "real"
"""The source of photographs, as `bayesdf.data` names it."""

IMAGE_COORDS = ("path", "source", "subject", "donor", "video", "split", "label")


def predictive_logits(predictions: Predictions) -> xr.DataArray:
    """The logits of every draw, chains laid end to end: float64 (draw, image, class).

    Where the tree knows them, `path`, `source`, `subject`, `donor`, `video`, `split` and `label` of each image
    come along as coordinates of `image`.

    Raises
    ------
    BayesdfError
        No logits, wrong dimensions, no draws, no images, fewer than two classes, or a logit that is not
        finite.
    """
    logits = _find_logits(predictions)
    needed = {"draw", "image", "class"}
    present = {str(dim) for dim in logits.dims}
    if not needed <= present or not present <= needed | {"chain"}:
        raise BayesdfError(f"logits have dimensions {_listed(logits.dims)}; name them (chain, draw, image, class)")
    if "chain" not in logits.dims:
        logits = logits.expand_dims("chain")
    logits = logits.transpose("chain", "draw", "image", "class")
    chains, draws, images, classes = logits.shape
    if chains * draws == 0:
        raise BayesdfError("logits hold zero draws; predict with draws=1 or more")
    if images == 0:
        raise BayesdfError("logits hold zero images; predict a data set that is not empty")
    if classes < 2:
        raise BayesdfError(f"logits hold {classes} class; a detector needs two or more")
    values = np.asarray(logits.values, dtype=np.float64).reshape(chains * draws, images, classes)
    _refuse_non_finite(values, logits)
    coords = {name: logits.coords[name] for name in ("image", "class") if name in logits.coords}
    flat = xr.DataArray(values, dims=("draw", "image", "class"), coords=coords, name="logits")
    return flat.assign_coords(image_coords(predictions))


def image_coords(predictions: Predictions) -> dict[str, tuple[str, NDArray]]:
    """What the tree knows of each image (`IMAGE_COORDS`), ready for `assign_coords`."""
    found: dict[str, tuple[str, NDArray]] = {}
    if not isinstance(predictions, xr.DataTree):
        return {
            name: ("image", predictions.coords[name].values)
            for name in IMAGE_COORDS
            if name in predictions.coords and predictions.coords[name].dims == ("image",)
        }
    for group in ("constant_data", "observed_data"):
        if group not in predictions.children:
            continue
        dataset = predictions.children[group].to_dataset()
        for name in IMAGE_COORDS:
            if name in dataset and dataset[name].dims == ("image",):
                found[name] = ("image", dataset[name].values)
    return found


def observed_labels(predictions: Predictions, images: int, classes: int) -> NDArray[np.int64]:
    """The true class of each image: int64 (image,), each in 0 … classes - 1.

    Raises
    ------
    BayesdfError
        The tree has no labels, or they do not fit the logits.
    """
    found = image_coords(predictions)
    if "label" not in found:
        raise BayesdfError("the predictions hold no true labels; put them at observed_data/label (image)")
    label = np.asarray(found["label"][1])
    if label.shape != (images,):
        raise BayesdfError(f"observed_data/label has shape {label.shape}, the logits hold {images} images")
    if not np.issubdtype(label.dtype, np.integer) or label.min() < 0 or label.max() >= classes:
        raise BayesdfError(f"observed_data/label must hold integers from 0 to {classes - 1}, one an image")
    return label.astype(np.int64)


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


def _find_logits(predictions: Predictions) -> xr.DataArray:
    if isinstance(predictions, xr.DataArray):
        return predictions
    if isinstance(predictions, xr.Dataset):
        if "logits" not in predictions:
            raise BayesdfError(f"the data set holds {_listed(predictions.data_vars)}, not 'logits'; predict first")
        return predictions["logits"]
    if isinstance(predictions, xr.DataTree):
        if "posterior_predictive" in predictions.children:
            dataset = predictions.children["posterior_predictive"].to_dataset()
            if "logits" in dataset:
                return dataset["logits"]
            raise BayesdfError(f"posterior_predictive holds {_listed(dataset.data_vars)}, not 'logits'; predict first")
        below = [name for name, child in predictions.children.items() if "posterior_predictive" in child.children]
        hint = (
            f"pass one method's tree, such as tree[{below[0]!r}]" if below else "pass what Posterior.predict returned"
        )
        raise BayesdfError(
            f"the tree holds no group 'posterior_predictive' (it has {_listed(predictions.children)}); {hint}"
        )
    raise BayesdfError(f"predictions are a {type(predictions).__name__}; pass the DataTree of Posterior.predict")


def _refuse_non_finite(values: NDArray[np.float64], logits: xr.DataArray) -> None:
    finite = np.isfinite(values)
    if finite.all():
        return
    draw, image, _ = np.argwhere(~finite)[0]
    name = logits.coords["image"].values[image] if "image" in logits.coords else image
    raise BayesdfError(
        f"{int((~finite).any(axis=(0, 2)).sum())} images have logits that are not finite, first image {name} "
        f"at draw {draw}; the fit diverged: lower its learning rate or the scale of its priors"
    )


def _listed(names: object) -> str:
    return ", ".join(str(name) for name in names) or "nothing"  # type: ignore[attr-defined]

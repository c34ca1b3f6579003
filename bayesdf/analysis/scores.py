"""How do the scores of other detectors become the tree that every function of this layer takes?

Each detector counts as a draw. Where detectors disagree about an image, the decomposition calls it epistemic. The user
says what the numbers are. They are never guessed: a P(fake) of 0.7, log-odds of 0.7 and a logit of 0.7 mean different
things.

Scores become log-probabilities, ``log p`` of each class. These are logits, since a softmax leaves them as they are. A
probability of exactly 0 becomes a logit of -inf, and a probability of exactly 1 becomes 0:

- Probabilities, entropies and variances are exact. With votes alone the aleatoric uncertainty is 0, and the epistemic
  and the total uncertainty are the entropy of the shares of votes.
- The log loss is infinite where all detectors rule out the true class.
- Margins (in `scalars` and `profile`) replace a logit of -inf by one that lies `CERTAIN` = 1000 below the others.
- `fit_scaling` refuses them, since no scale changes them. `rescale` leaves them as they are.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayesdf.analysis.predictions import REAL, ROUNDED, SUM_ERROR, class_numbers
from bayesdf.analysis.score_table import columns_of_images, scores_of_array, scores_of_table, warn_if_transposed
from bayesdf.analysis.tree import wrong_input
from bayesdf.errors import BayesdfError, BayesdfWarning

Array = NDArray[np.float64]

Kind = Literal["probability", "log-odds", "vote"]

REAL_OR_FAKE = [REAL, "fake"]


def from_scores(
    scores: ArrayLike | Mapping[str, ArrayLike] | pd.DataFrame,
    *,
    kind: Kind,
    labels: ArrayLike | str | None = None,
    sources: ArrayLike | str | None = None,
    subjects: ArrayLike | str | None = None,
    groups: ArrayLike | str | None = None,
    detectors: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    missing: Literal["refuse", "leave out"] = "refuse",
) -> xr.DataTree:
    """Scores that other detectors gave, as a tree for `decompose`, `evaluate`, `scalars` and all the others.

    Parameters
    ----------
    scores
        Real against fake: a table or an array (image, detector) with a column for each detector or draw. Higher is more
        fake. An array (image,) is one detector, and a mapping of columns is a table. Several classes: an array (draw,
        image, class) of probabilities or votes.

        The columns `path`, `source`, `subject`, `donor`, `video`, `split`, `label` and `group` of a table are what
        their names say. A table's index gives the names of the images, unless it repeats one.
    kind
        What the scores are. `probability`: P(fake), 0 … 1, or probabilities of the classes, which add to 1 within 0.01.
        `log-odds`: ``log(P(fake) / P(real))`` in nats, ±inf where the detector is certain; real against fake only.
        `vote`: 1 for fake, 0 for real, or a single 1 among the classes.
    labels
        The true class of each image (image,): 0 is real and 1 is fake, or numbers or names of `classes`. Or the name of
        a column of the table.
    sources, subjects
        Who made each image (`real`, or a generator), and who is in it. Intervals resample subjects. Or the names of
        columns.
    groups
        The kind of each image, such as its data set or compression. Results have it as the coordinate `group`, as in
        ``decompose(tree).groupby("group").mean()``. Or the name of a column.
    detectors
        Which columns of a table are scores (by default all but those above), or the names of the columns of an array.
    classes
        Names of the classes, by default real and fake, or 0, 1, …. With two classes, scores (image, detector) are those
        of the second.
    missing
        What to do with images that lack a score (NaN, None) because a detector failed. `refuse` raises an error that
        names them. `leave out` keeps the images that all detectors scored, and warns. The rows of the other images are
        in the group `left_out`, and the share of scored images is the attribute `coverage`.

    Returns
    -------
    xr.DataTree
        `posterior_predictive/logits` float64 (chain, draw, image, class), with the coordinate `detector` (draw) where
        detectors have names; `observed_data/label` (image); `constant_data` (image). Attributes: `scores` (the kind),
        `coverage` (0 … 1), `certain` (how many scores are exactly 0 or 1).

    Raises
    ------
    BayesdfError
        There are no scores, a score is missing, or scores cannot be of this kind. Labels do not fit the images, the
        classes or the sources. A column does not hold numbers. Unless `detectors` names the columns: one of several
        columns holds whole numbers (it looks like labels); one has a different value for each image (it looks like
        names of images); a name differs from those above only in capitals; or all columns add to 1 (they look like
        classes).

    Warns
    -----
    BayesdfWarning
        All log-odds lie in 0 … 1, as probabilities do. Some probabilities, but not all, are exactly 0 or 1, as rounded
        ones are. Images are left out. An array has more than ten columns for each row: it may be (detector, image).

    Notes
    -----
    Scores of detectors are comparable only if they were calibrated in the same way. `fit_scaling` and `rescale` treat
    all draws alike. So calibrate each detector by itself first, on images that are not judged.

    Examples
    --------
    >>> table = pd.DataFrame({"cnn": [0.9, 0.2, 0.6], "vit": [0.8, 0.1, 0.1], "label": [1, 0, 0]})
    >>> tree = from_scores(table, kind="probability")
    >>> tree["posterior_predictive/logits"].dims, tree["observed_data/label"].values.tolist()
    (('chain', 'draw', 'image', 'class'), [1, 0, 0])
    >>> from bayesdf.analysis import decompose
    >>> decompose(tree)["epistemic"].round(3).values.tolist()
    [0.01, 0.01, 0.148]
    """
    if kind not in get_args(Kind):
        raise BayesdfError(f"kind is {kind!r}; say what the scores are: {', '.join(map(repr, get_args(Kind)))}")
    if missing not in ("refuse", "leave out"):
        raise BayesdfError(f"missing is {missing!r}; use 'refuse' or 'leave out'")
    if isinstance(scores, Mapping) and not isinstance(scores, xr.Dataset | xr.DataTree):
        scores = pd.DataFrame(scores)
    if isinstance(scores, pd.Series):
        scores = scores.to_frame("score" if scores.name is None else scores.name)
    array = isinstance(scores, list | tuple) or getattr(scores, "ndim", 0) > 0
    if not array or isinstance(scores, xr.DataArray):
        raise wrong_input(scores, "a table (pandas) or an array (numpy) of scores")
    given = {"label": labels, "source": sources, "subject": subjects, "group": groups}
    known, taken = columns_of_images(scores, given)
    names = [str(name) for name in ([detectors] if isinstance(detectors, str) else detectors or [])]
    if isinstance(scores, pd.DataFrame):
        values, columns, images = scores_of_table(scores, names, taken, kind)
    else:
        values, columns, images = scores_of_array(scores, names)
    if values.size == 0:
        raise BayesdfError(f"scores have shape {np.shape(scores)}; give at least one image and one detector")
    for name, column in known.items():
        if column.shape != images.shape:
            raise BayesdfError(
                f"{name} has shape {column.shape}, the scores are of {len(images)} images (shape {np.shape(scores)}); "
                "give one value an image"
            )
    if kind == "probability" and values.ndim == 2 and not names:
        _refuse_columns_of_classes(values)

    if not known and not isinstance(scores, pd.DataFrame) and values.ndim == 2 and not names:
        warn_if_transposed(*values.shape)
    missed = np.asarray(np.isnan(values.reshape(*values.shape[:2], -1)).any(axis=-1))  # (draw, image)
    if missed.any():
        _report_missing(missed, columns, images, missing)
    scored = ~missed.any(axis=0)
    left_out = xr.Dataset(
        {name: ("image", column[~scored]) for name, column in known.items()}, {"image": images[~scored]}
    )
    values, images = values[:, scored], images[scored]
    known = {name: column[scored] for name, column in known.items()}

    place = _Places(columns, images)
    log_p, certain = _several_classes(values, kind, place) if values.ndim == 3 else _real_or_fake(values, kind, place)
    class_names = _class_names(classes, log_p.shape[-1])
    if values.ndim == 2 and class_names == REAL_OR_FAKE[::-1]:
        raise BayesdfError(
            "classes are fake, real, but scores (image, detector) are of fake, the second: turn them round"
        )
    if "label" in known:
        known["label"] = class_numbers(known["label"], class_names, "label")
        if class_names == REAL_OR_FAKE and "source" in known:
            _refuse_labels_against_sources(known["label"], known["source"], images)

    coords = {"chain": [0], "draw": np.arange(len(log_p)), "image": images, "class": class_names}
    predictive = xr.Dataset({"logits": (("chain", "draw", "image", "class"), log_p[None])}, coords)
    if columns:
        predictive = predictive.assign_coords(detector=("draw", np.array(columns, dtype=np.str_)))
    dataset = xr.Dataset({name: ("image", column) for name, column in known.items()}, {"image": images})
    label = [name for name in ("label",) if name in known]
    tree = {
        "/": xr.Dataset(attrs={"scores": kind, "coverage": float(scored.mean()), "certain": certain}),
        "posterior_predictive": predictive,
        "observed_data": dataset[label],
        "constant_data": dataset.drop_vars(label),
    }
    return xr.DataTree.from_dict(tree if scored.all() else tree | {"left_out": left_out})


class _Places(NamedTuple):
    """The names of the columns (an array may have none) and of the images of scores."""

    columns: list[str]
    images: NDArray

    def first(self, bad: NDArray[np.bool_]) -> str:
        """The place of the first of these bad scores (draw, image) or (draw, image, class), for a message."""
        draw, image = np.argwhere(bad)[0][:2]
        column = repr(self.columns[draw]) if self.columns else draw
        return f"image {self.images[image]}, column {column}"


def _refuse_columns_of_classes(values: Array) -> None:
    """Refuse columns (draw, image) that add to 1 for every image: they are not detectors but the classes of one."""
    if len(values) > 1 and np.abs(values.sum(axis=0) - 1.0).max() <= ROUNDED:
        classes = len(values)
        way = "scores[:, 1], the column of P(fake)" if classes == 2 else "scores[None], an array (draw, image, class)"
        raise BayesdfError(
            f"the {classes} columns add to 1 for every image, as the classes of one detector do: give {way}; if each "
            "is a detector, name them: detectors=[...]"
        )


def _report_missing(missed: NDArray[np.bool_], columns: list[str], images: NDArray, missing: str) -> None:
    """Say which images (draw, image) lack a score: in a warning where they may be left out, else in an error."""
    count = int(missed.any(axis=0).sum())
    line = f"{count} of {len(images)} images lack a score (first: {_Places(columns, images).first(missed)})"
    if count == len(images):
        raise BayesdfError(f"{line}, so none is left: leave a detector out, by detectors=[...] or of the array")
    if missing == "refuse":
        raise BayesdfError(f"{line}: leave these images out with missing='leave out', or leave a detector out")
    share = 1.0 - count / len(images)
    warnings.warn(f"{line} and are left out: coverage {share:.3f}", BayesdfWarning, stacklevel=3)


def _real_or_fake(values: Array, kind: str, place: _Places) -> tuple[Array, int]:
    """Log-probabilities of real and fake (draw, image, 2), and how many scores are exactly certain."""
    if kind == "log-odds":
        if values.size > 1 and values.min() >= 0.0 and values.max() <= 1.0:
            warnings.warn(
                "all log-odds lie between 0 and 1, as probabilities do: if they are probabilities, say "
                "kind='probability'",
                BayesdfWarning,
                stacklevel=3,
            )
        odds, certain = values, int(np.isinf(values).sum())
        return np.stack([-np.logaddexp(0.0, odds), -np.logaddexp(0.0, -odds)], axis=-1), certain
    _refuse_outside(values, kind, place)
    with np.errstate(divide="ignore"):
        log_p = np.stack([np.log1p(-values), np.log(values)], axis=-1)
    return log_p, _count_certain(values, kind)


def _several_classes(values: Array, kind: str, place: _Places) -> tuple[Array, int]:
    """Log-probabilities (draw, image, class), and how many scores are exactly certain."""
    if kind == "log-odds":
        raise BayesdfError(
            "log-odds are of real against fake, (image, detector); of several classes give probabilities, or, if these "
            "are logits, pass xr.DataArray(scores, dims=('draw', 'image', 'class')) to decompose and the others"
        )
    if values.shape[-1] < 2:
        raise BayesdfError(f"scores have shape {values.shape}, with a single class; give P(fake) as (image, detector)")
    _refuse_outside(values, kind, place)
    total = values.sum(axis=-1)
    wrong = np.abs(total - 1.0) > SUM_ERROR
    if wrong.any():
        raise BayesdfError(
            f"{int(wrong.sum())} rows of {kind} scores do not add to 1 over the classes (first: {place.first(wrong)}: "
            f"{total[wrong][0]:.4g}); give (draw, image, class)"
        )
    with np.errstate(divide="ignore"):
        log_p = np.log(values) - np.log(total)[..., None]
    return log_p, _count_certain(values, kind)


def _refuse_outside(values: Array, kind: str, place: _Places) -> None:
    bad = ~np.isin(values, (0.0, 1.0)) if kind == "vote" else ~((values >= 0.0) & (values <= 1.0))
    if not bad.any():
        return
    expected, hint = "between 0 and 1", "divide percentages by 100, or say kind='log-odds'"
    if kind == "vote":
        expected, hint = "0 or 1", "say kind='probability' for shares, or kind='log-odds'"
    raise BayesdfError(
        f"{int(bad.sum())} of {bad.size} scores are not {expected} as a {kind} is (first: {values[bad][0]:.6g} of "
        f"{place.first(bad)}); {hint}"
    )


def _count_certain(values: Array, kind: str) -> int:
    """How many scores are exactly 0 or 1; warns of probabilities that look rounded."""
    certain = int(np.isin(values, (0.0, 1.0)).sum())
    if kind == "probability" and 0 < certain < values.size:
        warnings.warn(
            f"{certain} of {values.size} probabilities are exactly 0 or 1 and are taken to be sure, with an infinite "
            "log loss where they are wrong: if they were rounded, give log-odds, or clip them first",
            BayesdfWarning,
            stacklevel=4,
        )
    return certain


def _class_names(classes: Sequence[str] | None, count: int) -> list[str]:
    if classes is None:
        return list(REAL_OR_FAKE) if count == 2 else [str(number) for number in range(count)]
    names = [str(name) for name in classes]
    if len(names) != count or len(set(names)) != count:
        raise BayesdfError(f"classes are {', '.join(names)}, but the scores are of {count}; name each of them once")
    return names


def _refuse_labels_against_sources(label: NDArray[np.int64], source: NDArray, images: NDArray) -> None:
    """Refuse labels that contradict the sources: images of the source `real` have label 0, and no others have it."""
    real = source.astype(str) == REAL
    wrong = (label == 0) != real
    if real.any() and wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise BayesdfError(
            f"{int(wrong.sum())} of {len(label)} labels contradict the sources (first: image {images[first]} of source "
            f"{str(source[first])!r} has label {label[first]}); 0 is real and 1 is fake"
        )

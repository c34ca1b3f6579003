"""How often is the right source named, and how much more often than from other features?

Comparisons are paired: both attributions judge the same images, and intervals resample people.
"""

import warnings
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesdf.analysis.intervals import Estimate, accuracy_by_kind, cluster_bootstrap, estimate, to_dataset
from bayesdf.analysis.people import Design, cluster_numbers, count_people, design
from bayesdf.analysis.tree import wrong_input
from bayesdf.errors import BayesdfError, BayesdfWarning

Array = NDArray[np.float64]

Integers = NDArray[np.int64]

_SAME = "make both from the same images in the same order"


def score(attribution: xr.Dataset, *, resamples: int = 1000, seed: int = 0) -> xr.Dataset:
    """How often the right source is named, with 95 % intervals over people.

    Parameters
    ----------
    attribution
        From `attribute` or `from_probability`.
    resamples, seed
        See `cluster_bootstrap`.

    Returns
    -------
    xr.Dataset
        Over `estimate` = value, low, high: `accuracy`, `balanced_accuracy` (mean over sources of the share of
        their images that are right), `macro_f1`; where there are fakes of both kinds, `accuracy_manipulations` (of
        people) and `accuracy_new_faces` (of nobody). Attributes: `chance` (1 / number of sources), `majority` (share of
        the most frequent source), `images`, `clusters` (people, and images that stand alone), `people`.
    """
    _refuse_other_than_attributions(attribution)
    truth, prediction = _codes(attribution)
    count = attribution.sizes["source"]
    people = _design(attribution)

    def bootstrap(statistic: Callable[[NDArray], float], share: NDArray | None = None) -> Estimate:
        def of(t: Integers, p: Integers) -> float:
            return statistic(np.bincount(t * count + p, minlength=count**2).reshape(count, count))

        return cluster_bootstrap(of, (truth, prediction), **people, share=share, resamples=resamples, seed=seed)

    metrics = to_dataset(
        {
            "accuracy": bootstrap(_accuracy, np.ones(len(truth))),
            "balanced_accuracy": bootstrap(_balanced_accuracy, 1.0 / np.bincount(truth)[truth]),
            "macro_f1": bootstrap(_macro_f1),
            **accuracy_by_kind(truth == prediction, people, resamples=resamples, seed=seed),
        }
    )
    return metrics.assign_attrs(
        chance=1.0 / count,
        majority=float(np.bincount(truth).max() / len(truth)),
        images=len(truth),
        clusters=len(np.unique(attribution["cluster"].values)),
        people=count_people(people["clusters"], people["donors"]),
    )


def confusion(attribution: xr.Dataset) -> pd.DataFrame:
    """Counts of images: a row for each true source, a column for each named source."""
    _refuse_other_than_attributions(attribution)
    truth, prediction = _codes(attribution)
    names = [str(name) for name in attribution["source"].values]
    counts = np.bincount(truth * len(names) + prediction, minlength=len(names) ** 2).reshape(len(names), -1)
    return pd.DataFrame(counts, index=pd.Index(names, name="true source"), columns=pd.Index(names, name="named source"))


def compare(attribution: xr.Dataset, against: xr.Dataset, *, resamples: int = 1000, seed: int = 0) -> xr.Dataset:
    """Accuracy of one attribution against that of another of the same images, with paired 95 % intervals.

    Returns
    -------
    xr.Dataset
        Over `estimate` = value, low, high: `accuracy_ratio` (NaN where the other is never right) and
        `accuracy_difference`.

    Raises
    ------
    BayesdfError
        The two do not judge the same images in the same order. This is told by `path`, `image`, truth and subjects.

    Warns
    -----
    BayesdfWarning
        Neither `path` nor `image` is known of both. Then nothing says whether the images are the same.
    """
    _refuse_other_than_attributions(attribution, against)
    _refuse_other_images(attribution, against)
    pair = tuple((one["truth"] == one["prediction"]).values.astype(np.float64) for one in (attribution, against))
    people = _design(attribution)

    def ratio(a: Array, b: Array) -> float:
        return float(a.mean() / b.mean()) if b.any() else float("nan")

    def difference(a: Array, b: Array) -> float:
        return float(a.mean() - b.mean())

    return to_dataset(
        {
            "accuracy_ratio": cluster_bootstrap(ratio, pair, **people, resamples=resamples, seed=seed),
            "accuracy_difference": cluster_bootstrap(difference, pair, **people, resamples=resamples, seed=seed),
        }
    )


def summarise(
    attributions: Mapping[str, xr.Dataset], *, against: str, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """A table with a row for each feature set: its figures, and its accuracy against that of one of the sets.

    Parameters
    ----------
    attributions
        Name of a feature set -> what `attribute` or `from_probability` gave for it, all of the same images.
    against
        The name of the set to compare with, usually the mean probability alone.

    Returns
    -------
    DataFrame
        Indexed by `features`; columns `accuracy`, `accuracy.low`, `accuracy.high`, and so on for
        `balanced_accuracy`, `macro_f1`, `accuracy_ratio`, `accuracy_difference`, then `chance` and
        `majority`.
    """
    if against not in attributions:
        raise BayesdfError(f"no feature set {against!r} to compare with; the sets are {', '.join(attributions)}")
    rows = {}
    for name, attribution in attributions.items():
        figures = score(attribution, resamples=resamples, seed=seed)
        ratios = compare(attribution, attributions[against], resamples=resamples, seed=seed)
        row: dict[str, float] = {}
        for part in (figures, ratios):
            for metric in part.data_vars:
                value, low, high = estimate(part, str(metric))
                row |= {str(metric): value, f"{metric}.low": low, f"{metric}.high": high}
        rows[name] = row | {"chance": figures.attrs["chance"], "majority": figures.attrs["majority"]}
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index.name = "features"
    return table


def _design(attribution: xr.Dataset) -> Design:
    """The design for intervals: the people as far as they are known, and the number of images of each source."""
    people = design(attribution, attribution.sizes["image"])
    clusters = people["clusters"] if "subject" in attribution.coords else attribution["cluster"].values
    return Design(clusters=clusters, donors=people["donors"], strata=attribution["truth"].values)


def _refuse_other_images(attribution: xr.Dataset, against: xr.Dataset) -> None:
    """Refuse to compare attributions of other images, or of the same images in another order."""
    names = [name for name in ("path", "image") if all(name in one.coords for one in (attribution, against))]
    # A path is the better name: images of two selections may be numbered alike.
    for name in [*names[:1], "truth", "cluster"]:
        one, other = (part[name].values for part in (attribution, against))
        if name == "cluster":  # its numbers depend on what else was given, so only who is with whom is compared
            one, other = (cluster_numbers(values, len(values)) for values in (one, other))
        if one.shape != other.shape:
            raise BayesdfError(f"the attributions judge different images, {len(one)} and {len(other)}; {_SAME}")
        apart = np.flatnonzero(one != other)
        if len(apart):
            first = apart[0]
            raise BayesdfError(
                f"the attributions judge different images: at row {first} the {name} is {str(one[first])!r} in one and "
                f"{str(other[first])!r} in the other ({len(apart)} such rows); {_SAME}"
            )
    if not names:
        warnings.warn(
            "nothing says whether the attributions judge the same images: give the features of both a coordinate "
            "`path` or `image`, or a table an index that names the images",
            BayesdfWarning,
            stacklevel=3,
        )


def _refuse_other_than_attributions(*given: object) -> None:
    for one in given:
        if not isinstance(one, xr.Dataset) or not {"truth", "prediction", "cluster"} <= set(map(str, one.variables)):
            raise BayesdfError(
                f"{wrong_input(one, 'an attribution')}; give what attribute or from_probability returned"
            )


def _codes(attribution: xr.Dataset) -> tuple[Integers, Integers]:
    names = attribution["source"].values
    return np.searchsorted(names, attribution["truth"].values), np.searchsorted(names, attribution["prediction"].values)


def _accuracy(counts: NDArray) -> float:
    return float(np.trace(counts) / counts.sum())


def _balanced_accuracy(counts: NDArray) -> float:
    """Mean recall of the sources that are there."""
    there = counts.sum(axis=1) > 0
    return float((np.diag(counts)[there] / counts.sum(axis=1)[there]).mean())


def _macro_f1(counts: NDArray) -> float:
    """Mean F1 of the sources that are there or are named."""
    both = counts.sum(axis=0) + counts.sum(axis=1)
    return float((2 * np.diag(counts)[both > 0] / both[both > 0]).mean())

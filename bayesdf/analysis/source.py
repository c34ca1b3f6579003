"""Can the generator of a fake be told from the detector's uncertainty about it?

A classifier learns sources from features of images and judges people it never saw: folds are made of
subjects, and every image is judged by the classifier fitted without its subject. The same procedure, with the
same candidates and the same folds, serves uncertainty features and their controls (chance, mean probability,
penultimate features), so that a comparison is one of features, not of classifiers. Comparisons are paired:
both sets judge the same images, and intervals resample people.
"""

import warnings
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from bayesdf.analysis._groups import SUM_ERROR, Design, count_people, design, groups, missing, mistaken
from bayesdf.analysis.intervals import Estimate, accuracy_by_kind, cluster_bootstrap, estimate, to_dataset
from bayesdf.errors import BayesdfError, BayesdfWarning

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

INNER_FOLDS = 3
_SAME = "make both from the same images in the same order"


def candidates(features: int, seed: int = 0) -> dict[str, Pipeline]:
    """The classifiers among which inner cross-validation chooses, by name; the first wins ties.

    `discriminant` (linear, one Ledoit-Wolf covariance for all sources: good with many correlated features),
    `logistic` (linear, no such assumption) and `kernel logistic` (Gaussian kernel by 200 Nyström landmarks:
    smooth curved boundaries). All on standardised features, all fitted in hundredths of a second.
    """
    return {
        "discriminant": make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")),
        "logistic": make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500)),
        "kernel logistic": make_pipeline(
            StandardScaler(),
            Nystroem(gamma=0.15 / features, n_components=200, random_state=seed),
            LogisticRegression(C=10.0, max_iter=500),
        ),
    }


def attribute(
    features: xr.DataArray | pd.DataFrame,
    sources: ArrayLike | None = None,
    subjects: ArrayLike | None = None,
    *,
    donors: ArrayLike | None = None,
    circles: ArrayLike | None = None,
    fit_only: ArrayLike | None = None,
    folds: int = 6,
    seed: int = 0,
) -> xr.Dataset:
    """Probability of each source for each image, from a classifier that never saw the people in the image.

    Parameters
    ----------
    features
        (image, feature), as `scalars`, `profile`, `mean_probability` or `combine` return; or penultimate
        features, an image a row. Select the images first: `features[features.source != "real"]` for fakes
        alone.
    sources
        Source of each image; by default the features' coordinate `source`.
    subjects
        Subject of each image; by default the coordinate `subject`. Images without one ('', None, NaN) are
        each their own group, as all are where there is no such coordinate.
    donors
        The second person of each image, who counts in intervals (`cluster_bootstrap`); by default the coordinate
        `donor`.
    circles
        (image,) who must not be parted: images of a circle are judged by a classifier fitted on none of them. By
        default the subjects; where images mix people (a swapped face has a donor), what links them, as
        `bayesdf.data.circles` finds it.
    fit_only
        (image,) of bool: images that help to fit but are not judged, such as those of validation subjects.
        Where such an image belongs to a judged circle, it is left out of that circle's fit.
    folds
        Groups of circles judged in turn; no more than there are circles.
    seed
        Of the folds and the classifiers. The same seed gives the same result.

    Returns
    -------
    xr.Dataset
        Over the judged images: `probability` (image, source) from the fold that left the image out,
        `prediction` and `truth` (names), `fold` (int). Coordinates: `source` (sorted names), `cluster`
        (image), `subject` and `donor` where they are known, and those of the features. Attributes: `classifiers`,
        what inner cross-validation chose in each fold, and `fitted`, on how many images.

    Raises
    ------
    BayesdfError
        Features that are not finite, one source only, a source with one image or one subject only, fewer than
        two subjects, or arguments of different lengths.

    Notes
    -----
    In each fold, cross-validation over the circles left for fitting chooses among `candidates` by accuracy.
    """
    values, coords = _values(features)
    images = len(values)
    truth = _names(_given_or_coord(sources, features, "source"), images)
    people = _people(features, images, subject=subjects, donor=donors)
    group = groups(people["subject"][1] if "subject" in people else None, images)
    helper = np.zeros(images, dtype=bool) if fit_only is None else np.asarray(fit_only, dtype=bool)
    if helper.shape != (images,):
        raise BayesdfError(f"fit_only has shape {helper.shape}; give one bool for each of the {images} images")
    judged = ~helper
    circle = group if circles is None else groups(circles, images)
    names, code = np.unique(truth, return_inverse=True)
    _refuse_unlearnable(names, code, circle, judged)

    fold = np.full(images, -1)
    fold[judged] = _fold_numbers(code[judged], circle[judged], folds, seed)
    probability = np.zeros((images, len(names)))
    chosen: list[str] = []
    fitted: list[int] = []
    for number in range(fold.max() + 1):
        test = fold == number
        fit = ~test & ~np.isin(circle, circle[test])
        lacking = set(code[test]) - set(code[fit])
        if lacking:
            raise BayesdfError(
                f"fold {number} leaves no image of source {str(names[min(lacking)])!r} to fit on; "
                f"raise folds above {folds} or give that source more subjects"
            )
        choice = _choose(values[fit], code[fit], circle[fit], seed)
        chosen.append(choice)
        fitted.append(int(fit.sum()))
        probability[test] = _fit_predict(
            candidates(values.shape[1], seed)[choice], values[fit], code[fit], values[test], len(names)
        )
    result = _attribution(probability[judged], names, truth[judged], group[judged])
    kept = {key: (dims, array[judged]) for key, (dims, array) in {**coords, **people}.items()}
    result = result.assign_coords(kept).assign(fold=("image", fold[judged]))
    return result.assign_attrs(
        classifiers=chosen,
        fitted=fitted,
        features=values.shape[1],
        fitted_only=int(helper.sum()),
        folds=int(fold.max() + 1),
    )


def from_probability(
    probability: xr.DataArray | pd.DataFrame,
    sources: ArrayLike | None = None,
    subjects: ArrayLike | None = None,
    donors: ArrayLike | None = None,
) -> xr.Dataset:
    """Stand a classifier's own probabilities beside those of `attribute`: the ceiling of a study.

    Parameters
    ----------
    probability
        Rows sum to 1; the columns, or the coordinate `source` of the second dimension, name the sources.
    sources, subjects, donors
        Of each image. A DataArray may hold them as coordinates `truth`, `subject` and `donor`.

    Returns
    -------
    xr.Dataset
        As `attribute` returns, without folds.
    """
    if not isinstance(probability, xr.DataArray | pd.DataFrame) or probability.ndim != 2:
        table = "pd.DataFrame(array, columns=sources)"
        raise BayesdfError(f"{mistaken(probability, 'a table of probabilities (image, source)')}; give {table}")
    frame = probability if isinstance(probability, pd.DataFrame) else pd.DataFrame(probability.to_pandas())
    total = frame.to_numpy(dtype=np.float64).sum(axis=1)
    if frame.to_numpy().min() < 0.0 or np.abs(total - 1.0).max() > SUM_ERROR:
        raise BayesdfError("rows of probabilities (image, source) do not lie in 0 … 1 and add to 1; give probabilities")
    images = len(frame)
    names = np.array([str(name) for name in frame.columns])
    truth = _names(_given_or_coord(sources, probability, "truth"), images)
    unknown = sorted(set(truth) - set(names))
    if unknown:
        raise BayesdfError(
            f"source {str(unknown[0])!r} has no column of probabilities; the columns are {', '.join(names)}"
        )
    people = _people(probability, images, subject=subjects, donor=donors)
    group = groups(people["subject"][1] if "subject" in people else None, images)
    order = np.argsort(names)
    known = _images(probability)
    return _attribution(frame.to_numpy(dtype=np.float64)[:, order], names[order], truth, group).assign_coords(
        {**known, **people}
    )


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

    def bootstrap(statistic: Callable[[NDArray], float]) -> Estimate:
        def of(t: Integers, p: Integers) -> float:
            return statistic(np.bincount(t * count + p, minlength=count**2).reshape(count, count))

        return cluster_bootstrap(of, (truth, prediction), **people, resamples=resamples, seed=seed)

    metrics = to_dataset(
        {
            "accuracy": bootstrap(_accuracy),
            "balanced_accuracy": bootstrap(_balanced_accuracy),
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
    """Counts of images: a row a true source, a column a named one."""
    _refuse_other_than_attributions(attribution)
    truth, prediction = _codes(attribution)
    names = [str(name) for name in attribution["source"].values]
    counts = np.bincount(truth * len(names) + prediction, minlength=len(names) ** 2).reshape(len(names), -1)
    return pd.DataFrame(counts, index=pd.Index(names, name="true source"), columns=pd.Index(names, name="named source"))


def compare(attribution: xr.Dataset, against: xr.Dataset, *, resamples: int = 1000, seed: int = 0) -> xr.Dataset:
    """Accuracy of one attribution over that of another of the same images, with paired 95 % intervals.

    Returns
    -------
    xr.Dataset
        Over `estimate` = value, low, high: `accuracy_ratio` (NaN where the other is never right) and
        `accuracy_difference`.

    Raises
    ------
    BayesdfError
        The two do not judge the same images in the same order, by their `path`, their `image`, their truth or their
        subjects.

    Warns
    -----
    BayesdfWarning
        Neither `path` nor `image` is known of both, so that nothing says whether the images are the same.
    """
    _refuse_other_than_attributions(attribution, against)
    _refuse_others(attribution, against)
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
    """One row a feature set: its figures, and its accuracy over that of one of them.

    Parameters
    ----------
    attributions
        Name of a feature set -> what `attribute` or `from_probability` gave for it, all of the same images.
    against
        The name of the set that the others are measured by, usually the mean probability alone.

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


def _choose(values: Array, code: Integers, group: Integers, seed: int) -> str:
    """The candidate with the best accuracy on subjects left out in turn; the first with one subject only."""
    options = candidates(values.shape[1], seed)
    first = next(iter(options))
    if len(np.unique(group)) < 2:
        return first
    fold = _fold_numbers(code, group, INNER_FOLDS, seed)
    right = dict.fromkeys(options, 0)
    for number in range(fold.max() + 1):
        test = fold == number
        if len(np.unique(code[~test])) < 2:
            continue
        for name, classifier in options.items():
            probability = _fit_predict(classifier, values[~test], code[~test], values[test], code.max() + 1)
            right[name] += int((probability.argmax(axis=1) == code[test]).sum())
    return max(right, key=right.__getitem__)


# Matrices this small are slower on many threads than on one, by a factor of thirty where cores are busy.
@threadpool_limits.wrap(limits=1)
def _fit_predict(classifier: Pipeline, fit: Array, code: Integers, test: Array, sources: int) -> Array:
    model = clone(classifier)
    if "nystroem" in model.named_steps:
        model.set_params(nystroem__n_components=min(200, len(fit)))
    with warnings.catch_warnings():
        # Constant features and unconverged fits of a losing candidate are no news to the reader of a result.
        warnings.simplefilter("ignore")
        model.fit(fit, code)
        found = model.predict_proba(test)
    probability = np.zeros((len(test), sources))
    probability[:, model.classes_] = found
    return probability


def _fold_numbers(code: Integers, group: Integers, folds: int, seed: int) -> Integers:
    """Fold of each image: subjects stay whole, sources spread evenly."""
    folds = min(folds, len(np.unique(group)), int(np.bincount(code).max()))
    if folds < 2:
        raise BayesdfError(f"folds={folds}: judging unseen subjects takes two folds and two subjects or more")
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    fold = np.full(len(code), -1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a source with fewer images than folds is judged all the same
        for number, (_, test) in enumerate(splitter.split(code[:, None], code, group)):
            fold[test] = number
    return np.unique(fold, return_inverse=True)[1].astype(np.int64)


def _attribution(probability: Array, names: NDArray, truth: NDArray, group: Integers) -> xr.Dataset:
    return xr.Dataset(
        {
            "probability": (("image", "source"), probability),
            "prediction": ("image", names[probability.argmax(axis=1)]),
            "truth": ("image", truth),
        },
        coords={"source": names, "cluster": ("image", group)},
    )


def _design(attribution: xr.Dataset) -> Design:
    """Of intervals: people as they are known, and as many images of each source."""
    people = design(attribution, attribution.sizes["image"])
    clusters = people["clusters"] if "subject" in attribution.coords else attribution["cluster"].values
    return Design(clusters=clusters, donors=people["donors"], strata=attribution["truth"].values)


def _refuse_others(attribution: xr.Dataset, against: xr.Dataset) -> None:
    """Only answers about the same images, in the same order, can be compared."""
    names = [name for name in ("path", "image") if all(name in one.coords for one in (attribution, against))]
    # A path is the better name: images of two selections may be numbered alike.
    for name in [*names[:1], "truth", "cluster"]:
        one, other = (part[name].values for part in (attribution, against))
        if name == "cluster":  # by who is with whom: numbers depend on what else was given
            one, other = (groups(values, len(values)) for values in (one, other))
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


def _images(features: xr.DataArray | pd.DataFrame) -> dict[str, tuple[str, NDArray]]:
    """Which images these are: `path` and `image`, as far as they are known; row numbers name none."""
    if isinstance(features, pd.DataFrame):
        rows = isinstance(features.index, pd.RangeIndex)
        return {} if rows else {"image": ("image", features.index.to_numpy())}
    dim = features.dims[0]
    return {
        name: ("image", features.coords[name].values)
        for name in ("path", "image")
        if name in features.coords and features.coords[name].dims == (dim,)
    }


def _people(
    features: xr.DataArray | pd.DataFrame, images: int, **given: ArrayLike | None
) -> dict[str, tuple[str, NDArray]]:
    """`subject` and `donor` of each image as coordinates, '' for nobody, where they are given or known."""
    found = {}
    for name, values in given.items():
        values = _given_or_coord(values, features, name, required=False)
        if values is not None:
            groups(values, images)  # refuses another number of them
            named = np.asarray(values, dtype=object).ravel()
            found[name] = ("image", np.where(missing(named), "", named.astype(str)))
    return found


def _values(features: xr.DataArray | pd.DataFrame) -> tuple[Array, dict[str, tuple[str, NDArray]]]:
    """Features as a finite matrix, and those coordinates of their images that the result does not use."""
    if not isinstance(features, xr.DataArray | pd.DataFrame):
        table = "pd.DataFrame(array)" if isinstance(features, np.ndarray) else "scalars(predictions)"
        raise BayesdfError(
            f"{mistaken(features, 'a family of features (image, feature)')}; give attribute({table}, ...)"
        )
    if isinstance(features, pd.DataFrame):
        values, names = features.to_numpy(dtype=np.float64), [str(name) for name in features.columns]
        images: NDArray = features.index.to_numpy()
        coords = _images(features)
    else:
        if features.ndim != 2 or features.dims[0] != "image":
            raise BayesdfError(f"features have dimensions {features.dims}; give (image, feature)")
        values = np.asarray(features.values, dtype=np.float64)
        second = features.dims[1]
        names = [str(name) for name in features.coords[second].values] if second in features.coords else []
        names = names or [str(index) for index in range(values.shape[1])]
        images = features.coords["image"].values if "image" in features.coords else np.arange(len(values))
        coords = {
            str(name): ("image", coord.values)
            for name, coord in features.coords.items()
            if coord.dims == ("image",) and name not in ("source", "cluster")
        }
    if not values.size:
        raise BayesdfError(f"features have shape {values.shape}; attribution needs images and features")
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        row, column = bad[0]
        raise BayesdfError(
            f"feature {names[column]!r} of image {images[row]} is {values[row, column]} "
            f"({len(bad)} such figures in all); leave out images whose prediction failed, or mend the feature"
        )
    return values, coords


def _given_or_coord(
    given: ArrayLike | None, features: xr.DataArray | pd.DataFrame, name: str, required: bool = True
) -> ArrayLike | None:
    if given is not None:
        return given
    if isinstance(features, xr.DataArray) and name in features.coords:
        return features.coords[name].values
    if required:
        raise BayesdfError(f"the {name} of each image is unknown; pass it, or give the features a coordinate {name!r}")
    return None


def _names(sources: ArrayLike | None, images: int) -> NDArray:
    names = np.array([str(name) for name in np.asarray(sources, dtype=object).ravel()])
    if len(names) != images:
        raise BayesdfError(f"{len(names)} sources given for {images} images; give one an image")
    return names


def _refuse_unlearnable(names: NDArray, code: Integers, group: Integers, judged: NDArray[np.bool_]) -> None:
    if not judged.any():
        raise BayesdfError("fit_only covers every image; leave some to be judged")
    if len(names) < 2:
        raise BayesdfError(f"all images come from source {str(names[0])!r}; attribution needs two sources or more")
    for index, name in enumerate(map(str, names)):
        own = code == index
        if own.sum() < 2:
            raise BayesdfError(f"source {name!r} has a single image; give it more, or leave the source out")
        if (own & judged).any() and len(np.unique(group[own])) < 2:
            raise BayesdfError(
                f"source {name!r} shows a single subject, so no fit can leave that subject out and know it; "
                "give it more subjects, or leave the source out"
            )


def _refuse_other_than_attributions(*given: object) -> None:
    for one in given:
        if not isinstance(one, xr.Dataset) or not {"truth", "prediction", "cluster"} <= set(map(str, one.variables)):
            raise BayesdfError(f"{mistaken(one, 'an attribution')}; give what attribute or from_probability returned")


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

"""Can the generator of a fake be told from the detector's uncertainty about it?

A classifier learns sources from features of images. It judges people it never saw: folds are made of subjects, and
every image is judged by the classifier fitted without its subject. The same procedure serves uncertainty features and
their controls (chance, mean probability, penultimate features).
"""

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayesdf.analysis.people import cluster_numbers
from bayesdf.analysis.predictions import SUM_ERROR
from bayesdf.analysis.source_classifiers import candidates, choose_classifier, fit_predict, fold_numbers
from bayesdf.analysis.tree import is_missing, wrong_input
from bayesdf.errors import BayesdfError

Array = NDArray[np.float64]

Integers = NDArray[np.int64]


def attribute(
    features: xr.DataArray | pd.DataFrame,
    sources: ArrayLike | None = None,
    subjects: ArrayLike | None = None,
    *,
    donors: ArrayLike | None = None,
    subject_groups: ArrayLike | None = None,
    fit_only: ArrayLike | None = None,
    folds: int = 6,
    seed: int = 0,
) -> xr.Dataset:
    """Probability of each source for each image, from a classifier that never saw the people in the image.

    Parameters
    ----------
    features
        (image, feature), as `scalars`, `profile`, `mean_probability` or `combine` return; or penultimate
        features, an image a row. Select the images first, such as the fakes alone:
        `features[features.source != "real"]`.
    sources
        Source of each image; by default the features' coordinate `source`.
    subjects
        Subject of each image; by default the coordinate `subject`. An image without one ('', None, NaN) is a cluster of
        its own. So is every image where there is no such coordinate.
    donors
        The second person of each image; by default the coordinate `donor`. Intervals count this person too
        (`cluster_bootstrap`).
    subject_groups
        (image,) a name or number of the group of linked people in each image, as `bayesdf.data.subject_groups` finds
        it. The images of a group are judged by a classifier that was fitted on none of them. By default each subject is
        a group. Give groups where images show two people (a swapped face has a donor).
    fit_only
        (image,) of bool: images that help to fit but are not judged, such as those of validation subjects. Such an
        image is left out of the fit that judges its own group.
    folds
        How many folds of whole groups are judged in turn; at most as many as there are groups.
    seed
        Of the folds and the classifiers. The same seed gives the same result.

    Returns
    -------
    xr.Dataset
        Over the judged images: `probability` (image, source) from the fold that left the image out,
        `prediction` and `truth` (names), `fold` (int). Coordinates: `source` (sorted names), `cluster` (image),
        `subject` and `donor` where they are known, and those of the features. Attributes: `classifiers` (what inner
        cross-validation chose in each fold) and `fitted` (on how many images each was fitted).

    Raises
    ------
    BayesdfError
        Features that are not finite, one source only, a source with one image or one subject only, fewer than
        two subjects, or arguments of different lengths.

    Notes
    -----
    In each fold, cross-validation over the groups left for fitting chooses among the candidates of
    `bayesdf.analysis.source_classifiers` by accuracy.
    """
    values, coords = _values(features)
    images = len(values)
    truth = _names(_given_or_coord(sources, features, "source"), images)
    people = _people(features, images, subject=subjects, donor=donors)
    cluster = cluster_numbers(people["subject"][1] if "subject" in people else None, images)
    helper = np.zeros(images, dtype=bool) if fit_only is None else np.asarray(fit_only, dtype=bool)
    if helper.shape != (images,):
        raise BayesdfError(f"fit_only has shape {helper.shape}; give one bool for each of the {images} images")
    judged = ~helper
    group = cluster if subject_groups is None else cluster_numbers(subject_groups, images)
    names, code = np.unique(truth, return_inverse=True)
    _refuse_unlearnable(names, code, group, judged)

    fold = np.full(images, -1)
    fold[judged] = fold_numbers(code[judged], group[judged], folds, seed)
    probability = np.zeros((images, len(names)))
    chosen: list[str] = []
    fitted: list[int] = []
    for number in range(fold.max() + 1):
        test = fold == number
        fit = ~test & ~np.isin(group, group[test])
        lacking = set(code[test]) - set(code[fit])
        if lacking:
            raise BayesdfError(
                f"fold {number} leaves no image of source {str(names[min(lacking)])!r} to fit on; "
                f"raise folds above {folds} or give that source more subjects"
            )
        choice = choose_classifier(values[fit], code[fit], group[fit], seed)
        chosen.append(choice)
        fitted.append(int(fit.sum()))
        probability[test] = fit_predict(
            candidates(values.shape[1], seed)[choice], values[fit], code[fit], values[test], len(names)
        )
    result = _attribution(probability[judged], names, truth[judged], cluster[judged])
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
    """A classifier's own probabilities, in the form that `attribute` returns: the ceiling of a study.

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
        raise BayesdfError(f"{wrong_input(probability, 'a table of probabilities (image, source)')}; give {table}")
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
    cluster = cluster_numbers(people["subject"][1] if "subject" in people else None, images)
    order = np.argsort(names)
    known = _images(probability)
    return _attribution(frame.to_numpy(dtype=np.float64)[:, order], names[order], truth, cluster).assign_coords(
        {**known, **people}
    )


def _attribution(probability: Array, names: NDArray, truth: NDArray, cluster: Integers) -> xr.Dataset:
    return xr.Dataset(
        {
            "probability": (("image", "source"), probability),
            "prediction": ("image", names[probability.argmax(axis=1)]),
            "truth": ("image", truth),
        },
        coords={"source": names, "cluster": ("image", cluster)},
    )


def _images(features: xr.DataArray | pd.DataFrame) -> dict[str, tuple[str, NDArray]]:
    """The names of the images (`path`, `image`) where they are known. Row numbers are no names."""
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
            cluster_numbers(values, images)  # refuses another number of them
            named = np.asarray(values, dtype=object).ravel()
            found[name] = ("image", np.where(is_missing(named), "", named.astype(str)))
    return found


def _values(features: xr.DataArray | pd.DataFrame) -> tuple[Array, dict[str, tuple[str, NDArray]]]:
    """Features as a finite matrix, and the coordinates of their images, without those that the result makes itself."""
    if not isinstance(features, xr.DataArray | pd.DataFrame):
        table = "pd.DataFrame(array)" if isinstance(features, np.ndarray) else "scalars(predictions)"
        raise BayesdfError(
            f"{wrong_input(features, 'a family of features (image, feature)')}; give attribute({table}, ...)"
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

"""How probable is it that an image is fake, where the mean prediction of the draws says so much?

`fit_scaling` makes every draw surer or less sure. The mean of draws that disagree is less sure than the draws, and
detectors trained elsewhere may disagree in any way. So scaling draws can make the mean prediction worse. Here the mean
prediction itself is mapped to the share of fakes among held-out images of that prediction. With m the log-odds of the
mean probability p:

- `platt`: ``slope · m + intercept`` are the new log-odds [1].
- `beta`: ``a log p - b log(1 - p) + c`` are the new log-odds, with a and b not below 0 [2]. It holds Platt's map
  (a = b), and can leave a calibrated detector as it is, which Platt's map of probabilities cannot.
- `isotonic`: the non-decreasing map that fits the held-out labels best [3], linear between them.
- `venn-abers`: two isotonic fits for each image, one with each label (`bayesdf.analysis.venn_abers`) [4].

All images have equal weight. So the new probabilities hold where fakes are as frequent as among the held-out images.

The draws keep their disagreement: all draws of an image are shifted by one number of log-odds, such that their mean has
the new probability. The profile of the image and the spread of its log-odds stay exactly as they were.

References
----------
1. Platt, "Probabilistic outputs for support vector machines", 1999 (with its targets: n fakes count as a share of
   (n + 1) / (n + 2), so that classes which separate give finite parameters; `beta` has them too).
2. Kull, Silva Filho and Flach, "Beta calibration", AISTATS 2017.
3. Zadrozny and Elkan, "Transforming classifier scores into accurate multiclass probability estimates", KDD 2002.
4. Vovk and Petej, "Venn-Abers predictors", UAI 2014.
"""

import warnings
from typing import Literal, get_args

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayesdf.analysis.people import cluster_numbers, design
from bayesdf.analysis.predictions import image_logits, observed_labels
from bayesdf.analysis.recalibration import fit_scaling, replace_logits, rescale
from bayesdf.analysis.source_classifiers import fold_numbers
from bayesdf.analysis.tree import find_logits, is_missing, wrong_input
from bayesdf.analysis.uncertainty import log_mean_probabilities
from bayesdf.analysis.venn_abers import venn_abers_bounds, venn_abers_probability
from bayesdf.errors import BayesdfError

Array = NDArray[np.float64]

Method = Literal["platt", "beta", "isotonic", "venn-abers"]
METHODS: tuple[str, ...] = get_args(Method)

LARGEST = 30.0
"""Log-odds of the mean prediction are taken to be at most so large: a probability of 1e-13."""
STEPS = 60
"""Halvings of the interval in which the shift of an image's draws is searched."""


def fit_recalibration(held_out: xr.DataTree, *, method: Method = "beta") -> xr.Dataset:
    """The map from the mean prediction to a probability, as fits the labels of held-out images.

    Parameters
    ----------
    held_out
        What `Posterior.predict` or `from_scores` returns for real and fake images that are not to be judged.
    method
        See the head of this module.

    Returns
    -------
    xr.Dataset
        `platt`: `slope` and `intercept`. `beta`: `a`, `b`, `c`. `isotonic`: `log_odds` and `probability` (knot).
        `venn-abers`: `log_odds`, `lower` and `upper` (knot). Attributes: `method`, `images`.

    Raises
    ------
    BayesdfError
        An unknown method, a task other than real against fake, no labels, or no image of one of the classes.
    """
    if method not in METHODS:
        raise BayesdfError(f"method is {method!r}; choose from {', '.join(map(repr, METHODS))}")
    odds = mean_log_odds(held_out)
    label = observed_labels(held_out, len(odds), 2)
    if len(np.unique(label)) < 2:
        raise BayesdfError("recalibration needs held-out images of both classes, real and fake")
    odds = np.clip(odds, -LARGEST, LARGEST)
    fit = {"platt": _platt, "beta": _beta, "isotonic": _isotonic, "venn-abers": _venn_abers}[method]
    return fit(odds, label).assign_attrs(method=method, images=len(label))


def recalibrate(predictions: xr.DataTree, recalibration: xr.Dataset, *, keep_draws: bool = True) -> xr.DataTree:
    """Predictions whose mean is mapped as `fit_recalibration` found.

    Parameters
    ----------
    predictions
        What `Posterior.predict` or `from_scores` returns.
    keep_draws
        True: the draws of each image are shifted by one number, so that they disagree as before. False: a single draw
        holds the new probability. Votes, and other draws that are exactly certain, cannot be shifted: give False.

    Returns
    -------
    xr.DataTree
        As given, with other logits and without the group ``log_likelihood``. Every function of `bayesdf.analysis` takes
        it.

    Raises
    ------
    BayesdfError
        The predictions are not a tree of real against fake, the recalibration is not from `fit_recalibration`, or
        draws are to be kept and a draw gives a class a probability of exactly 0.
    """
    if not isinstance(recalibration, xr.Dataset) or recalibration.attrs.get("method") not in METHODS:
        raise wrong_input(recalibration, "the Dataset of fit_recalibration")
    odds = np.clip(mean_log_odds(predictions), -LARGEST, LARGEST)
    return with_mean_log_odds(predictions, _mapped(recalibration, odds), keep_draws=keep_draws)


def cross_fit_recalibration(
    predictions: xr.DataTree,
    subject_groups: ArrayLike | None = None,
    *,
    method: Method | Literal["scaling"] = "beta",
    folds: int = 5,
    seed: int = 0,
    keep_draws: bool = True,
) -> xr.DataTree:
    """Predictions in which each image is recalibrated by a map that was fitted on other people.

    Parameters
    ----------
    predictions
        Labelled predictions of all people.
    subject_groups
        (image,) the group of linked people in each image, as in `attribute`. By default each subject is a group, and an
        image without one is a group of its own.
    method
        That of `fit_recalibration`, or `scaling`: `fit_scaling` and `rescale`, for comparison.
    folds
        How many folds of whole groups; at most as many as there are groups.
    seed
        Of the folds.
    keep_draws
        As in `recalibrate`.

    Returns
    -------
    xr.DataTree
        As `recalibrate` returns, with the group `recalibration`: `fold` (image), and the attributes `method` and
        `folds`.

    Raises
    ------
    BayesdfError
        As `fit_recalibration`, `recalibrate` and `fit_scaling`. Or images show two people and no groups are given, or
        one fold holds all images of a class.
    """
    logits = find_logits(predictions)
    images = logits.sizes["image"]
    label = observed_labels(predictions, images, logits.sizes["class"])
    group = cluster_numbers(_groups(predictions, images) if subject_groups is None else subject_groups, images)
    fold = fold_numbers(label, group, folds, seed)
    parts, rows = [], []
    for number in range(fold.max() + 1):
        judged = np.flatnonzero(fold == number)
        if len(np.unique(label[fold != number])) < len(np.unique(label)):
            raise BayesdfError(
                "all images of a class show people of one group, so no map can be fitted on others: give that class "
                "more people"
            )
        held_out, own = (_part(logits, label, chosen) for chosen in (np.flatnonzero(fold != number), judged))
        if method == "scaling":
            changed = rescale(own, fit_scaling(held_out))
        else:
            changed = recalibrate(own, fit_recalibration(held_out, method=method), keep_draws=keep_draws)
        parts.append(find_logits(changed))
        rows.append(judged)
    together = xr.concat(parts, "image").isel(image=np.argsort(np.concatenate(rows)))
    coords = {"image": logits["image"]} if "image" in logits.coords else None
    note = xr.Dataset({"fold": ("image", fold)}, coords, {"method": method, "folds": int(fold.max() + 1)})
    result = replace_logits(predictions, together)
    result["recalibration"] = xr.DataTree(note)
    return result


def mean_log_odds(predictions: xr.DataTree) -> Array:
    """Log-odds of the mean probability of fake: (image,). Refuses a task other than real against fake."""
    values = image_logits(predictions).values
    if values.shape[-1] != 2:
        raise BayesdfError(
            f"the predictions are of {values.shape[-1]} classes; the mean prediction is recalibrated for two, real and "
            "fake: fit_scaling takes more"
        )
    log_p = log_mean_probabilities(values)
    return np.asarray(log_p[:, 1] - log_p[:, 0])


def with_mean_log_odds(predictions: xr.DataTree, odds: Array, *, keep_draws: bool = True) -> xr.DataTree:
    """Predictions whose mean probability of fake has these log-odds (image,). See `recalibrate`."""
    logits = find_logits(predictions)
    if not keep_draws:
        one = logits.isel({name: [0] for name in ("chain", "draw") if name in logits.dims})
        one = one.drop_vars([name for name, coord in one.coords.items() if "draw" in coord.dims and name != "draw"])
        halves = xr.DataArray(np.stack([-0.5 * odds, 0.5 * odds], axis=-1), dims=("image", "class"))
        return replace_logits(predictions, xr.zeros_like(one, dtype=np.float64) + halves)
    certain = int(np.isneginf(logits.values).sum())
    if certain:
        raise BayesdfError(
            f"{certain} probabilities are exactly 0, which no shift changes, so the draws cannot be kept: give "
            "keep_draws=False, or log-odds instead of votes or rounded probabilities"
        )
    values = image_logits(predictions).values
    shift = _shift_of_draws(values[..., 1] - values[..., 0], odds)
    halves = xr.DataArray(np.stack([-0.5 * shift, 0.5 * shift], axis=-1), dims=("image", "class"))
    return replace_logits(predictions, logits + halves)


def _shift_of_draws(margin: Array, odds: Array) -> Array:
    """What to add to the margins (draw, image) so that the mean probability has the log-odds (image,)."""
    from scipy.special import logsumexp

    low, high = odds - margin.max(axis=0), odds - margin.min(axis=0)
    for _ in range(STEPS):
        middle = 0.5 * (low + high)
        moved = margin + middle
        found = logsumexp(-np.logaddexp(0.0, -moved), axis=0) - logsumexp(-np.logaddexp(0.0, moved), axis=0)
        low, high = np.where(found < odds, middle, low), np.where(found < odds, high, middle)
    return np.asarray(0.5 * (low + high))


def _groups(predictions: xr.DataTree, images: int) -> NDArray:
    """The subject of each image, unless a second person links subjects: then groups must be given."""
    people = design(predictions, images)
    if people["donors"] is not None and not is_missing(people["donors"]).all():
        raise BayesdfError(
            "some images show two people (donor), so people are linked: give subject_groups, as "
            "bayesdf.data.subject_groups finds them"
        )
    return people["clusters"]


def _part(logits: xr.DataArray, label: NDArray[np.int64], rows: NDArray[np.int64]) -> xr.DataTree:
    """The logits and labels of some images, as a tree."""
    plain = logits.drop_vars([name for name, coord in logits.coords.items() if name == "label" and coord.dims])
    chosen = plain.isel(image=rows).rename("logits")
    known = xr.Dataset({"label": ("image", label[rows])})
    return xr.DataTree.from_dict({"posterior_predictive": chosen.to_dataset(), "observed_data": known})


def _platt(odds: Array, label: NDArray[np.int64]) -> xr.Dataset:
    (slope,), intercept = _logistic(odds[:, None], label)
    if slope < 0.0:  # a map that falls is refused
        slope, intercept = 0.0, _constant(label)
    return xr.Dataset({"slope": slope, "intercept": intercept})


def _beta(odds: Array, label: NDArray[np.int64]) -> xr.Dataset:
    terms = _beta_terms(odds)
    weights, constant = _logistic(terms, label)
    if weights.min() < 0.0:  # a map that falls is refused: the other term alone, or else a constant
        kept = int(weights.argmax())
        (alone,), constant = _logistic(terms[:, [kept]], label)
        weights = np.where(np.arange(2) == kept, alone, 0.0)
        if alone < 0.0:
            weights, constant = np.zeros(2), _constant(label)
    return xr.Dataset({"a": weights[0], "b": weights[1], "c": constant})


def _isotonic(odds: Array, label: NDArray[np.int64]) -> xr.Dataset:
    from sklearn.isotonic import IsotonicRegression

    # A share of 0 of n images does not show that there is none: probabilities stay off 0 and 1.
    least = 1.0 / (len(label) + 2)
    found = IsotonicRegression(y_min=least, y_max=1.0 - least).fit(odds, label)
    return xr.Dataset({"log_odds": ("knot", found.X_thresholds_), "probability": ("knot", found.y_thresholds_)})


def _venn_abers(odds: Array, label: NDArray[np.int64]) -> xr.Dataset:
    knots, lower, upper = venn_abers_bounds(odds, label == 1)
    return xr.Dataset({"log_odds": ("knot", knots), "lower": ("knot", lower), "upper": ("knot", upper)})


def _mapped(recalibration: xr.Dataset, odds: Array) -> Array:
    """The new log-odds (image,)."""
    from scipy.special import logit

    found = {str(name): np.asarray(variable.values) for name, variable in recalibration.variables.items()}
    method = recalibration.attrs["method"]
    if method == "platt":
        return np.asarray(found["slope"] * odds + found["intercept"])
    if method == "beta":
        return np.asarray(_beta_terms(odds) @ [found["a"], found["b"]] + found["c"])
    if method == "isotonic":
        return np.asarray(logit(np.interp(odds, found["log_odds"], found["probability"])))
    return np.asarray(logit(venn_abers_probability(odds, found["log_odds"], found["lower"], found["upper"])))


def _beta_terms(odds: Array) -> Array:
    """log p and -log(1 - p): (image, 2)."""
    return np.stack([-np.logaddexp(0.0, -odds), np.logaddexp(0.0, odds)], axis=1)


def _targets(label: NDArray[np.int64]) -> Array:
    """Platt's targets: a little less than 1 for fakes, a little more than 0 for real images."""
    fakes = int(label.sum())
    return np.where(label == 1, (fakes + 1) / (fakes + 2), 1 / (len(label) - fakes + 2))


def _constant(label: NDArray[np.int64]) -> float:
    """The log-odds of fake where the prediction says nothing."""
    share = float(_targets(label).mean())
    return float(np.log(share / (1.0 - share)))


def _logistic(terms: Array, label: NDArray[np.int64]) -> tuple[Array, float]:
    """Weights and constant of a logistic regression without a penalty, on Platt's targets."""
    from sklearn.linear_model import LogisticRegression

    target = _targets(label)
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-8, max_iter=200)
    both = np.repeat([1, 0], len(label))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few different scores: the two terms are collinear, and any solution serves
        model.fit(np.concatenate([terms, terms]), both, sample_weight=np.concatenate([target, 1.0 - target]))
    return np.asarray(model.coef_[0]), float(model.intercept_[0])

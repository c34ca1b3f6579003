"""What does the spread of an image's predictive draws say about it?

Three families, each a DataArray (image, feature) for `bayesdf.analysis.attribute`:

- `scalars`: figures of the uncertainty of an image;
- `profile`: which draws of the posterior dissent about the image, and which way;
- `mean_probability`: the control, all that a detector without uncertainty would have said.

The *margin* of an image in a draw is the log-odds logit(fake) - logit(real). With more than two classes it is the
log-odds of the class predicted for the image against all the rest. A confident detector's probabilities all lie very
near 0 or 1, and the generators differ in these small distances. So everything is computed in float64 from logits, never
from probabilities. Figures that spread over orders of magnitude are given as logarithms.

Draw s is the same function for every image. This gives a profile its meaning:
`profile[i, s] = margin[i, s] - mean over draws`. Its mean over draws is zero for every image, so it does not hold the
mean margin. Its mean square is the epistemic variance of the margin. For a detector that is linear in its random
weights, it is a random projection of the image's features, weighted by the posterior's disagreement.

`FEATURES` maps each name to its meaning and to whether it is a function of the mean probability alone.
"""

from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesdf.analysis.predictions import image_logits
from bayesdf.analysis.tree import Predictions, wrong_input
from bayesdf.analysis.uncertainty import entropies, log_mean_probabilities, variances
from bayesdf.errors import BayesdfError

Array = NDArray[np.float64]

SMALLEST = 1e-300
"""Stands for zero before a logarithm."""

ROUNDING = 1e-13
"""Draws that differ by less than this share of their mean are equal: the rest is rounding."""


class Feature(NamedTuple):
    """What a feature means, and whether the mean probability alone already tells it."""

    meaning: str
    mean_probability_alone: bool


FEATURES: dict[str, Feature] = {
    "log_total": Feature("log of the total uncertainty: entropy of the mean prediction, nats", True),
    "log_aleatoric": Feature("log of the aleatoric uncertainty: mean entropy of the draws, nats", False),
    "log_epistemic": Feature("log of the epistemic uncertainty: mutual information, nats", False),
    "logit_epistemic_share": Feature("log of epistemic over aleatoric uncertainty", False),
    "log_aleatoric_variance": Feature("log of the mean over draws of p(1 - p), summed over classes", False),
    "log_epistemic_variance": Feature("log of the variance over draws of p, summed over classes", False),
    "log_margin_sd": Feature("log of the margin's standard deviation over draws", False),
    "margin_skewness": Feature("skewness of the margin's draws: the direction of dissent", False),
    "margin_kurtosis": Feature("excess kurtosis of the margin's draws: whether a few dissent strongly", False),
    "log_margin_range_50": Feature("log of the distance between the margin's quartiles", False),
    "log_margin_range_90": Feature("log of the distance between the margin's 5 % and 95 % quantiles", False),
    "margin_tail_balance": Feature("log of the upper over the lower part of that, split at the median", False),
    "disagreement": Feature("share of draws whose most probable class is not the majority's", False),
    "profile": Feature("margin in one draw less the mean margin over draws", False),
    "mean_log_odds": Feature("log-odds of the mean probability of a class", True),
}


def scalars(predictions: Predictions) -> xr.DataArray:
    """Uncertainty of each image in thirteen figures.

    None is the mean probability. Only `log_total` (the entropy of the mean prediction) is a function of it alone.

    ==========================  ============================================================================
    `log_total`                 log of the total uncertainty (nats)
    `log_aleatoric`             log of the aleatoric uncertainty (nats)
    `log_epistemic`             log of the epistemic uncertainty (nats)
    `logit_epistemic_share`     log of epistemic over aleatoric: log-odds of the epistemic share
    `log_aleatoric_variance`    log of the mean over draws of p(1 - p), summed over classes
    `log_epistemic_variance`    log of the variance over draws of p, summed over classes
    `log_margin_sd`             log of the margin's standard deviation over draws
    `margin_skewness`           skewness of the margin's draws (0 where they do not vary)
    `margin_kurtosis`           excess kurtosis of the margin's draws (0 where they do not vary)
    `log_margin_range_50`       log of the distance between the margin's quartiles
    `log_margin_range_90`       log of the distance between the margin's 5 % and 95 % quantiles
    `margin_tail_balance`       log of (95 % quantile - median) / (median - 5 % quantile)
    `disagreement`              share of draws that predict another class than the majority of draws
    ==========================  ============================================================================

    The total variance is left out: with two classes it is a function of the total entropy.

    Parameters
    ----------
    predictions
        What `Posterior.predict` returns, with two draws or more.

    Returns
    -------
    xr.DataArray
        float64 (image, feature), finite.

    Raises
    ------
    BayesdfError
        Fewer than two draws: a single one has no spread.
    """
    logits = _several_draws(predictions)
    values = logits.values
    entropy, variance, margin = entropies(values), variances(values), margins(values)
    q05, q25, q50, q75, q95 = np.quantile(margin, (0.05, 0.25, 0.5, 0.75, 0.95), axis=0)
    standard = _standardised(margin)
    columns = {
        "log_total": _log(entropy.total),
        "log_aleatoric": _log(entropy.aleatoric),
        "log_epistemic": _log(entropy.epistemic),
        "logit_epistemic_share": _log(entropy.epistemic) - _log(entropy.aleatoric),
        "log_aleatoric_variance": _log(variance.aleatoric.sum(axis=-1)),
        "log_epistemic_variance": _log(variance.epistemic.sum(axis=-1)),
        "log_margin_sd": _log(margin.std(axis=0)),
        "margin_skewness": (standard**3).mean(axis=0),
        "margin_kurtosis": np.where(standard.any(axis=0), (standard**4).mean(axis=0) - 3.0, 0.0),
        "log_margin_range_50": _log(q75 - q25),
        "log_margin_range_90": _log(q95 - q05),
        "margin_tail_balance": _log(q95 - q50) - _log(q50 - q05),
        "disagreement": _disagreement(values),
    }
    return _features(np.stack(list(columns.values()), axis=1), list(columns), logits, "scalars")


def profile(predictions: Predictions, *, standardise: bool = False) -> xr.DataArray:
    """Which draws dissent about each image: the margin in each draw minus the image's mean margin over draws.

    Parameters
    ----------
    predictions
        What `Posterior.predict` returns, with two draws or more. Every image must have been predicted with
        the same draws in the same order.
    standardise
        Divide by the image's standard deviation over draws. The profile then says which draws dissent, not how much.

    Returns
    -------
    xr.DataArray
        float64 (image, feature): `draw_0`, `draw_1`, …. With more than two classes: `draw_0:<class>`, …, the deviation
        of each class's logit from the mean over classes, in each draw. Sums to zero over draws.

    Raises
    ------
    BayesdfError
        Fewer than two draws.
    """
    logits = _several_draws(predictions)
    values = logits.values
    draws, _, classes = values.shape
    if classes == 2:
        signal = (values[..., 1] - values[..., 0])[..., None]
        names = [f"draw_{draw}" for draw in range(draws)]
    else:
        signal = values - values.mean(axis=-1, keepdims=True)
        names = [f"draw_{draw}:{name}" for draw in range(draws) for name in _class_names(logits)]
    deviation = signal - signal.mean(axis=0)
    if standardise:
        sd = np.sqrt((deviation**2).mean(axis=(0, 2), keepdims=True))
        deviation = np.divide(deviation, sd, out=np.zeros_like(deviation), where=sd > 0)
    by_image = np.moveaxis(deviation, 1, 0).reshape(deviation.shape[1], -1)
    return _features(by_image, names, logits, "profile")


def mean_probability(predictions: Predictions) -> xr.DataArray:
    """The control: log-odds of the mean probability, which contain no uncertainty.

    Returns
    -------
    xr.DataArray
        float64 (image, feature). With two classes the one feature `mean_log_odds:<second class>` (fake). With more,
        one feature for each class.
    """
    from scipy.special import logsumexp

    logits = image_logits(predictions)
    log_p = log_mean_probabilities(logits.values)
    names = _class_names(logits)
    chosen = [1] if len(names) == 2 else list(range(len(names)))
    odds = [log_p[:, one] - logsumexp(np.delete(log_p, one, axis=1), axis=1) for one in chosen]
    return _features(
        np.stack(odds, axis=1), [f"mean_log_odds:{names[one]}" for one in chosen], logits, "mean_probability"
    )


def beyond_mean_probability(family: xr.DataArray) -> xr.DataArray:
    """The features of a family that are not functions of the mean probability alone, which is the control."""
    own = [name for name in family["feature"].values if not describe_feature(str(name)).mean_probability_alone]
    return family.sel(feature=own)


def combine(*families: xr.DataArray) -> xr.DataArray:
    """Several families of the same images side by side: (image, feature).

    Raises
    ------
    BayesdfError
        The families hold different numbers of images, or none is given.
    """
    for family in families:
        if not isinstance(family, xr.DataArray) or "image" not in family.dims:
            raise BayesdfError(
                f"{wrong_input(family, 'a family of features (image, feature)')}; take scalars(predictions)"
            )
    counts = {family.sizes["image"] for family in families}
    if len(counts) != 1:
        raise BayesdfError(f"features of {sorted(counts)} images cannot stand side by side; take them from one tree")
    joined = xr.concat([family.reset_coords(drop=True) for family in families], dim="feature", coords="minimal")
    name = "+".join(str(family.name) for family in families)
    return joined.assign_coords({k: v for k, v in families[0].coords.items() if v.dims == ("image",)}).rename(name)


def margins(logits: Array) -> Array:
    """Log-odds in each draw: (draw, image, class) -> (draw, image).

    Two classes: of the second against the first. More classes: of the class predicted on average against the rest.
    """
    from scipy.special import logsumexp

    if logits.shape[-1] == 2:
        return logits[..., 1] - logits[..., 0]
    predicted = log_mean_probabilities(logits).argmax(axis=-1)[None, :, None]
    chosen = np.take_along_axis(logits, np.broadcast_to(predicted, (*logits.shape[:2], 1)), axis=-1)
    rest = logits.copy()
    np.put_along_axis(rest, np.broadcast_to(predicted, chosen.shape), -np.inf, axis=-1)
    return chosen[..., 0] - logsumexp(rest, axis=-1)


def describe_feature(name: str) -> Feature:
    """Meaning of a feature by the name it has in a DataArray (`draw_3` and `mean_log_odds:fake` included)."""
    stem = "profile" if name.startswith("draw_") else name.split(":")[0]
    if stem not in FEATURES:
        raise BayesdfError(f"unknown feature {name!r}; known: {', '.join(FEATURES)}")
    return FEATURES[stem]


def _several_draws(predictions: Predictions) -> xr.DataArray:
    logits = image_logits(predictions)
    if logits.sizes["draw"] < 2:
        raise BayesdfError("a single draw has no spread, and so no uncertainty features; predict with draws=2 or more")
    return logits


def _features(values: Array, names: list[str], logits: xr.DataArray, name: str) -> xr.DataArray:
    coords = {key: coord for key, coord in logits.coords.items() if coord.dims == ("image",)}
    return xr.DataArray(values, dims=("image", "feature"), coords={**coords, "feature": names}, name=name)


def _class_names(logits: xr.DataArray) -> list[str]:
    return [
        str(name) for name in (logits.coords["class"].values if "class" in logits.coords else range(logits.shape[2]))
    ]


def _log(values: Array) -> Array:
    return np.log(np.maximum(values, SMALLEST))


def _standardised(margin: Array) -> Array:
    mean, sd = margin.mean(axis=0), margin.std(axis=0)
    deviation = margin - mean
    return np.divide(deviation, sd, out=np.zeros_like(deviation), where=sd > ROUNDING * np.abs(mean))


def _disagreement(logits: Array) -> Array:
    votes = np.stack([(logits.argmax(axis=-1) == one).mean(axis=0) for one in range(logits.shape[-1])])
    return 1.0 - votes.max(axis=0)

"""How sure is the detector, and why is it unsure?

Total uncertainty is the entropy of the mean prediction. It is a sum of two parts. Aleatoric: every draw of the
posterior finds the image ambiguous (the data). Epistemic: the draws disagree (the detector has not seen enough).

    H[E_s p_s]  =  E_s H[p_s]  +  E_s KL(p_s || E_s p_s)
      total         aleatoric       epistemic (mutual information of class and weights)

By the law of total variance, for each class c:

    p̄(1 - p̄)   =  E_s p_s(1 - p_s)  +  Var_s p_s

The draws of a confident detector lie very near 0 or 1. There `total - aleatoric` would be nothing but rounding. So
everything here is computed from log-probabilities as sums of non-negative terms. Figures as small as 1e-30 are still
accurate.

References
----------
1. Houlsby, Huszár, Ghahramani, Lengyel, "Bayesian Active Learning for Classification and Preference
   Learning", 2011, arXiv:1112.5745 (the mutual information, BALD).
2. Depeweg, Hernández-Lobato, Doshi-Velez, Udluft, "Decomposition of Uncertainty in Bayesian Deep Learning for
   Efficient and Risk-sensitive Learning", ICML 2018 (the names for its parts).
3. Kwon, Won, Kim, Paik, "Uncertainty quantification using Bayesian neural networks in classification", 2018
   (the variance forms), after Kendall and Gal, "What Uncertainties Do We Need in Bayesian Deep Learning?",
   NIPS 2017.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesdf.analysis.predictions import image_logits, observed_labels, predictive_logits
from bayesdf.analysis.tree import Predictions
from bayesdf.errors import BayesdfError

Array = NDArray[np.float64]

ROUNDING = 8 * np.finfo(np.float64).eps
"""Log-probabilities nearer than this, relative to their size, are equal."""


class Entropies(NamedTuple):
    """Total, aleatoric and epistemic uncertainty in nats, each float64 (image,), or (image, y, x)."""

    total: Array
    aleatoric: Array
    epistemic: Array


class Variances(NamedTuple):
    """Total, aleatoric and epistemic variance of the class indicator, each float64 (image, …, class)."""

    total: Array
    aleatoric: Array
    epistemic: Array


def log_probabilities(logits: Array) -> Array:
    """Log-softmax over the last axis. It is exact for the leading class even where its probability rounds to one."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    others = np.exp(shifted)
    np.put_along_axis(others, shifted.argmax(axis=-1)[..., None], 0.0, axis=-1)
    return shifted - np.log1p(others.sum(axis=-1, keepdims=True))


def log_mean_probabilities(logits: Array) -> Array:
    """Log of the mean probability over draws: (draw, image, …, class) -> (image, …, class), at most 0."""
    from scipy.special import logsumexp

    log_p = log_probabilities(logits)
    log_mean = np.minimum(logsumexp(log_p, axis=0) - np.log(len(logits)), 0.0)
    rest = _complement(np.exp(log_p)).mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):  # in the branch that is not taken
        return np.where(rest < 0.5, np.log1p(-rest), log_mean)


def entropies(logits: Array) -> Entropies:
    """Entropy of the mean prediction and its two parts.

    Parameters
    ----------
    logits
        float64 (draw, image, class), or (draw, image, y, x, class).

    Returns
    -------
    Entropies
        In nats; 0 <= each <= log(class), and total = aleatoric + epistemic exactly.
    """
    log_p = log_probabilities(logits)
    log_mean = log_mean_probabilities(logits)
    ceiling = np.log(logits.shape[-1])
    aleatoric = -(np.exp(log_p) * log_p).sum(axis=-1).mean(axis=0)
    epistemic = _divergence(log_p, log_mean).mean(axis=0)
    aleatoric = np.clip(aleatoric, 0.0, ceiling) + 0.0  # nothing is 0.0 and not -0.0
    epistemic = np.clip(epistemic, 0.0, ceiling - aleatoric)
    return Entropies(aleatoric + epistemic, aleatoric, epistemic)


def variances(logits: Array) -> Variances:
    """Variance of each class indicator under the mean prediction and its two parts.

    Parameters
    ----------
    logits
        float64 (draw, image, class), or (draw, image, y, x, class).

    Returns
    -------
    Variances
        Dimensionless; 0 <= each <= 1/4, and total = aleatoric + epistemic exactly. With two classes both classes have
        the same variances.
    """
    p = np.exp(log_probabilities(logits))
    rest = _complement(p)
    mean, mean_rest = p.mean(axis=0), rest.mean(axis=0)
    aleatoric = (p * rest).mean(axis=0)
    deviation = np.where(mean > 0.5, rest - mean_rest, p - mean)
    epistemic = (deviation**2).mean(axis=0)
    return Variances(aleatoric + epistemic, aleatoric, epistemic)


def decompose(predictions: Predictions | Iterator[xr.DataArray] | list[xr.DataArray]) -> xr.Dataset:
    """Uncertainty of each image's prediction, and its parts.

    Parameters
    ----------
    predictions
        What `Posterior.predict` returns: a tree with `posterior_predictive/logits` (chain, draw, image, class). Or a
        Dataset with `logits`, or the logits as a DataArray. Chains count as more draws. Or what `Posterior.stream`
        yields, or a list of it: the pieces are read one after another and not kept in memory.

    Returns
    -------
    xr.Dataset
        Over `image`: `total`, `aleatoric`, `epistemic` (nats, 0 … log C), `confidence` (largest mean probability,
        1/C … 1), `prediction` (its class, int64). Over (`image`, `class`): `probability` (mean over draws),
        `total_variance`, `aleatoric_variance`, `epistemic_variance` (0 … 1/4). Predictions of a dense detector give
        (`image`, `y`, `x`), and (`image`, `y`, `x`, `class`). Source, subject, split and path of the images become
        coordinates where the tree has them.

    Raises
    ------
    BayesdfError
        No logits, no draws, logits that are not finite, or probabilities in their place (see
        `bayesdf.analysis.from_scores`).

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> two_draws = np.array([[[4.0, 0.0]], [[0.0, 4.0]]])     # each is sure, and they contradict each other
    >>> parts = decompose(xr.DataArray(two_draws, dims=("draw", "image", "class")))
    >>> [round(float(parts[name][0]), 3) for name in ("total", "aleatoric", "epistemic")]
    [0.693, 0.09, 0.603]
    """
    if isinstance(predictions, list) and predictions and all(isinstance(one, xr.DataArray) for one in predictions):
        return decompose(iter(predictions))  # a list of what `stream` yields
    if isinstance(predictions, xr.DataTree | xr.Dataset | xr.DataArray | list) or not isinstance(predictions, Iterator):
        logits = predictive_logits(predictions)  # type: ignore[arg-type]
        return _described(_summary(logits.values), logits)
    parts: list[xr.Dataset] = []
    so_far: tuple[_Summary, xr.DataArray] | None = None
    for piece in predictions:
        logits = predictive_logits(piece)
        summary = _summary(logits.values)
        if so_far is not None and np.array_equal(so_far[1]["image"].values, logits["image"].values):
            so_far = so_far[0].merged(summary), logits
            continue
        if so_far is not None:
            parts.append(_described(*so_far))
        so_far = summary, logits
    if so_far is None:
        raise BayesdfError("no pieces of predictions came; predict a data set that is not empty")
    return xr.concat([*parts, _described(*so_far)], "image")


@dataclass(frozen=True)
class _Summary:
    """Sufficient figures of some draws. Those of two sets of draws merge exactly into those of both."""

    draws: int
    log_mean: Array
    """Log of the mean probability (image, …, class)."""
    rest: Array
    """One minus the mean probability, without cancellation."""
    aleatoric: Array
    epistemic: Array
    aleatoric_variance: Array
    epistemic_variance: Array

    def merged(self, other: "_Summary") -> "_Summary":
        """The summary of both sets of draws: the mean of what is within each, plus what is between the two."""
        draws = self.draws + other.draws
        parts = ((self.draws / draws, self), (other.draws / draws, other))

        def mean(of: Callable[[_Summary], Array]) -> Array:
            return parts[0][0] * of(parts[0][1]) + parts[1][0] * of(parts[1][1])

        rest = mean(lambda part: part.rest)
        log_sum = np.logaddexp(*(np.log(share) + part.log_mean for share, part in parts))
        with np.errstate(divide="ignore", invalid="ignore"):  # in the branch that is not taken
            log_mean = np.where(rest < 0.5, np.log1p(-rest), np.minimum(log_sum, 0.0))
        between = sum(share * _divergence(part.log_mean, log_mean) for share, part in parts)
        apart = np.where(rest < 0.5, other.rest - self.rest, np.exp(self.log_mean) - np.exp(other.log_mean))
        return _Summary(
            draws,
            log_mean,
            rest,
            mean(lambda part: part.aleatoric),
            mean(lambda part: part.epistemic) + between,
            mean(lambda part: part.aleatoric_variance),
            mean(lambda part: part.epistemic_variance) + parts[0][0] * parts[1][0] * apart**2,
        )


def _summary(logits: Array) -> _Summary:
    entropy, variance = entropies(logits), variances(logits)
    rest = _complement(np.exp(log_probabilities(logits))).mean(axis=0)
    return _Summary(
        len(logits),
        log_mean_probabilities(logits),
        rest,
        entropy.aleatoric,
        entropy.epistemic,
        variance.aleatoric,
        variance.epistemic,
    )


def _described(summary: _Summary, logits: xr.DataArray) -> xr.Dataset:
    """As `decompose` returns it, with the coordinates of the logits."""
    probability = np.exp(summary.log_mean)
    both = tuple(name for name in logits.dims if name != "draw")
    image = both[:-1]
    nats = {"units": "nats"}
    total = summary.aleatoric + summary.epistemic
    total_variance = summary.aleatoric_variance + summary.epistemic_variance
    coords = {name: coord for name, coord in logits.coords.items() if "draw" not in coord.dims}
    return xr.Dataset(
        {
            "total": (image, total, {"long_name": "predictive entropy", **nats}),
            "aleatoric": (image, summary.aleatoric, {"long_name": "expected entropy", **nats}),
            "epistemic": (image, summary.epistemic, {"long_name": "mutual information", **nats}),
            "confidence": (image, probability.max(axis=-1), {"long_name": "largest mean probability"}),
            "prediction": (
                image,
                probability.argmax(axis=-1),
                {"long_name": "class of largest mean probability"},
            ),
            "probability": (both, probability, {"long_name": "mean probability"}),
            "total_variance": (both, total_variance, {"long_name": "p(1 - p) of the mean probability p"}),
            "aleatoric_variance": (both, summary.aleatoric_variance, {"long_name": "mean over draws of p(1 - p)"}),
            "epistemic_variance": (both, summary.epistemic_variance, {"long_name": "variance over draws of p"}),
        },
        coords=coords,
    )


def _divergence(log_p: Array, log_mean: Array) -> Array:
    """KL(p || p̄) over the last axis, without cancellation."""
    ratio = log_p - log_mean
    ratio[np.abs(ratio) < ROUNDING * (1.0 - log_mean)] = 0.0
    return (np.exp(log_mean) * _bregman(ratio)).sum(axis=-1)


def _bregman(d: Array) -> Array:
    """d·exp(d) - exp(d) + 1 for d = log p_s - log p̄: what a class adds to KL(p_s || p̄), over p̄; >= 0.

    The plain KL terms p_s·d have either sign and cancel; adding p̄ - p_s to each changes no sum over classes.
    """
    series = d**2 * (1 / 2 + d * (1 / 3 + d * (1 / 8 + d * (1 / 30 + d / 144))))
    return np.where(np.abs(d) < 1e-2, series, d * np.exp(d) - np.expm1(d))


def _complement(p: Array) -> Array:
    """1 - p for each class, as the sum of the others: (…, class) -> (…, class), without cancellation."""
    return p @ (1.0 - np.eye(p.shape[-1]))


def log_probability_and_label(predictions: Predictions) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Log of the mean probabilities (image, class), and the true classes (image,)."""
    logits = image_logits(predictions).values
    log_p = log_mean_probabilities(logits)
    return log_p, observed_labels(predictions, *log_p.shape)

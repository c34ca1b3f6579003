"""What is the distribution of evidence for each source, given few calibration images?

Let z (feature) be the scaled evidence of an image of source s, a feature being term t of candidate c:

    z ~ Student-t(freedom, location_s, D_s C D_s),  D_s = diag(width_s)
    location_sct = level_ct + common_st + [s = c] gain_ct + deviation_sct
    log width_sct = width_t + [s = c] own_width_t + noise
    C ~ inverse-Wishart around R, one of a few patterns of correlation.

R has the same correlation between all features, more within a candidate, and more within a term. It supplies what a few
images cannot tell about 24 x 24 correlations. If errors that rise together were taken as independent, they would count
several times. The strength and the choice of R are drawn too.

All priors are proper, so two images of a source are enough for a posterior, though a wide one. It is sampled by Gibbs
sampling. Student's t is a normal whose precision is a gamma variable (Geweke 1993). Widths move by Metropolis steps.
Everything else has a conditional distribution of a known kind (Gelman et al. 2013, "Bayesian data analysis", chapters
11, 12 and 15). In each draw the location and C are integrated out, so that few draws give a smooth mean. A draw holds
the mean of the location's conditional distribution, and a scale matrix that includes its covariance. C makes tails
heavier, most with few images. 1 / freedom is the sum over both causes of heavy tails, which is exact for either alone.

Images of one person or of one picture are not independent. Each counts as one over their number, so that all images of
one cluster of a source weigh as one image.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

WARMUP = 150
"""Sweeps before the first draw is kept."""
THINNING = 4
"""Sweeps from one kept draw to the next."""
FREEDOMS = 2.0 + np.geomspace(0.5, 100.0, 24)
"""Degrees of freedom to choose from."""
SHARED = (0.0, 0.2, 0.4, 0.6, 0.75, 0.9)
"""Correlations between all features to choose from."""
BLOCKS = ((0.0, 0.0), (0.3, 0.0), (0.6, 0.0), (0.0, 0.3), (0.0, 0.6), (0.3, 0.3), (0.9, 0.0), (0.0, 0.9))
"""Pairs to choose from: of the rest of each variance, the shares common to a candidate and to a term."""
STRENGTHS = (3.0, 10.0, 30.0, 100.0, 300.0)
"""Numbers of images that the pattern counts for, to choose from."""
SPREADS = {"common": 1.0, "deviation": 0.5, "gain": 0.5, "width": 0.5}
"""Scales of the half-t priors (3 degrees of freedom) of standard deviations."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Draws:
    """Draws of the parameters of each source; those of an unseen source come last.

    Attributes
    ----------
    location
        (draw, source, feature).
    scale
        (draw, source, feature, feature), lower triangular.
    freedom
        (draw,).
    """

    location: Array
    scale: Array
    freedom: Array


@dataclass
class _State:
    """State of the chain; shapes are (source, candidate, term) unless stated."""

    location: Array
    log_width: Array
    precision: Array  # (feature, feature), the inverse of C
    pattern: list[int]  # which of `SHARED`, `BLOCKS` and `STRENGTHS`
    freedom: float
    mean: Array  # of `location`, given the hierarchy
    width_mean: Array  # of `log_width`
    covariance: Array = field(init=False)  # (feature, feature), scale of C's predictive Student's t
    covariance_freedom: float = field(init=False)
    level: Array = field(init=False)  # (candidate, term)
    width: Array = field(init=False)  # (term,)
    spreads: dict[str, Array] = field(init=False)  # (term,) each
    moderators: dict[str, Array] = field(init=False)  # (term,) each


def sample(
    table: Array, code: NDArray[np.int64], weight: Array, own: NDArray[np.bool_], draws: int, rng: np.random.Generator
) -> Draws:
    """Draws from the posterior.

    Parameters
    ----------
    table
        (image, candidate, term), scaled so that a feature's mean and deviation are about 0 and 1.
    code
        (image,) number of each image's source.
    weight
        (image,) weight of each image, above 0 and at most 1; 1 for an independent one.
    own
        (source, candidate) whether a source is that candidate.
    """
    sources, (_, candidates, terms) = len(own), table.shape
    features = candidates * terms
    values = table.reshape(len(table), features)
    member = np.equal.outer(np.arange(sources), code)
    design, which = _design(own)
    patterns = _patterns(candidates, terms)
    state = _start(table, member, own)
    kept: list[tuple[Array, Array, float]] = []
    for sweep in range(WARMUP + THINNING * draws):
        inverse_width = np.exp(-state.log_width).reshape(sources, features)
        residual = (values - state.location.reshape(sources, features)[code]) * inverse_width[code]
        distance = ((residual @ state.precision) * residual).sum(1)
        state.freedom = _draw_freedom(distance, weight, features, rng)
        certainty = weight * rng.gamma((state.freedom + features) / 2, 2.0 / (state.freedom + distance))
        _draw_precision(state, (residual * certainty[:, None]).T @ residual, weight.sum(), patterns, rng)
        total = member @ certainty
        mean, covariance = _location(values, member * certainty, total, inverse_width, state)
        state.location = mean + np.einsum("sfg,sg->sf", np.linalg.cholesky(covariance), rng.standard_normal(mean.shape))
        gap = values - state.location[code]
        scatter = np.stack([(gap[one] * certainty[one, None]).T @ gap[one] for one in member])
        state.location = state.location.reshape(sources, candidates, terms)
        _move_widths(state, scatter, member @ weight, rng)
        _draw_hierarchy(state, own, design, which, rng)
        if sweep >= WARMUP and (sweep - WARMUP) % THINNING == 0:
            kept.append(_collect(mean, covariance, 1.0 / inverse_width, state, rng))
    location, scale, freedom = zip(*kept, strict=True)
    return Draws(np.stack(location), np.linalg.cholesky(np.stack(scale)), np.array(freedom))


def _start(table: Array, member: NDArray[np.bool_], own: NDArray[np.bool_]) -> _State:
    """Start at the sources' means, halfway to the mean of all, and one width for all."""
    _, candidates, terms = table.shape
    count = member.sum(1)[:, None, None]
    mean = np.einsum("si,ict->sct", member, table) / count
    deviation = np.sqrt(((table - mean[member.argmax(0)]) ** 2).mean((0, 1))) + 0.1
    state = _State(
        location=0.5 * mean,
        log_width=np.log(np.broadcast_to(deviation, mean.shape)).copy(),
        precision=np.eye(candidates * terms),
        pattern=[3, 0, 1],
        freedom=10.0,
        mean=np.zeros_like(mean),
        width_mean=np.zeros_like(mean),
    )
    state.level, state.width = np.zeros((candidates, terms)), np.log(deviation)
    state.spreads = {name: np.full(terms, 0.3) for name in SPREADS}
    state.moderators = {name: np.ones(terms) for name in SPREADS}
    return state


def _draw_freedom(distance: Array, weight: Array, features: int, rng: np.random.Generator) -> float:
    """Draw from the conditional on `FREEDOMS`, gamma variables integrated out; prior: gamma(2, 0.1) of freedom - 2."""
    nu = FREEDOMS[:, None]
    density = gammaln((nu + features) / 2) - gammaln(nu / 2) - features / 2 * np.log(nu)
    density = density - (nu + features) / 2 * np.log1p(distance / nu)
    excess = FREEDOMS - 2.0
    # The values are equally spaced in the logarithm, so the density has one power more.
    log_p = density @ weight + 2.0 * np.log(excess) - 0.1 * excess
    p = np.exp(log_p - log_p.max())
    return float(rng.choice(FREEDOMS, p=p / p.sum()))


def _patterns(candidates: int, terms: int) -> Array:
    """Correlations (shared, blocks, feature, feature)."""
    c, t = np.divmod(np.arange(candidates * terms), terms)
    one, same_c, same_t = np.eye(len(c)), np.equal.outer(c, c), np.equal.outer(t, t)
    blocks = [a * same_c + b * same_t + (1.0 - a - b) * one for a, b in BLOCKS]
    return np.array([[shared + (1.0 - shared) * block for block in blocks] for shared in SHARED])


def _draw_precision(state: _State, scatter: Array, images: float, patterns: Array, rng: np.random.Generator) -> None:
    """The inverse of C; before it the pattern and its strength, one index after another, C integrated out."""
    size = len(scatter)
    strengths = np.array(STRENGTHS)
    for which in range(3):
        index: list[int | slice] = list(state.pattern)
        index[which] = slice(None)
        pattern = patterns[tuple(index[:2])].reshape(-1, size, size)
        strength = np.atleast_1d(strengths[index[2]])
        prior = strength[:, None, None] * pattern
        freedom = size + 1.0 + strength
        log_p = freedom / 2 * np.linalg.slogdet(prior)[1]
        log_p = log_p - (freedom + images) / 2 * np.linalg.slogdet(prior + scatter)[1]
        log_p = log_p + _log_gamma((freedom + images) / 2, size) - _log_gamma(freedom / 2, size)
        p = np.exp(log_p - log_p.max())
        state.pattern[which] = int(rng.choice(len(p), p=p / p.sum()))
    shared, block, number = state.pattern
    whole = STRENGTHS[number] * patterns[shared, block] + scatter
    state.precision = _wishart(size + 1.0 + STRENGTHS[number] + images, np.linalg.inv(whole), rng)
    state.covariance_freedom = 2.0 + STRENGTHS[number] + images
    state.covariance = whole / state.covariance_freedom


def _log_gamma(a: Array, size: int) -> Array:
    """Logarithm of the multivariate gamma function, up to a constant."""
    return gammaln(a[..., None] - np.arange(size) / 2).sum(-1)


def _wishart(freedom: float, scale: Array, rng: np.random.Generator) -> Array:
    """Bartlett's decomposition; mean freedom * scale."""
    size = len(scale)
    factor = np.tril(rng.standard_normal((size, size)), -1)
    factor[np.diag_indices(size)] = np.sqrt(rng.chisquare(freedom - np.arange(size)))
    root = np.linalg.cholesky((scale + scale.T) / 2) @ factor
    return root @ root.T


def _location(values: Array, share: Array, total: Array, inverse_width: Array, state: _State) -> tuple[Array, Array]:
    """Mean (source, feature) and covariance (source, feature, feature) of the locations, all else given."""
    sources, features = inverse_width.shape
    candidates = state.mean.shape[1]
    own_precision = inverse_width[:, :, None] * state.precision * inverse_width[:, None, :]
    prior_precision = np.tile(state.spreads["deviation"] ** -2, candidates)
    covariance = np.linalg.inv(total[:, None, None] * own_precision + np.diag(prior_precision))
    covariance = (covariance + covariance.transpose(0, 2, 1)) / 2
    pull = np.einsum("sfg,sg->sf", own_precision, share @ values)
    mean = np.einsum("sfg,sg->sf", covariance, pull + prior_precision * state.mean.reshape(sources, features))
    return mean, covariance


def _move_widths(state: _State, scatter: Array, images: Array, rng: np.random.Generator) -> None:
    """A Metropolis step for every width, for all sources at once: given C they are independent."""
    sources, candidates, terms = state.log_width.shape
    features = candidates * terms
    log_width = state.log_width.reshape(sources, features)
    centre = state.width_mean.reshape(sources, features)
    prior = np.tile(state.spreads["width"] ** -2, candidates)
    bilinear = state.precision * scatter
    inverse = np.exp(-log_width)
    pull = np.einsum("sfg,sg->sf", bilinear, inverse)
    step = 2.4 / np.sqrt(2.0 * images[:, None] + prior)
    proposal = log_width + step * rng.standard_normal(log_width.shape)
    luck = np.log(rng.uniform(size=log_width.shape))
    for f in range(features):
        old, new = inverse[:, f], np.exp(-proposal[:, f])
        rest = pull[:, f] - bilinear[:, f, f] * old
        gain = -0.5 * bilinear[:, f, f] * (new**2 - old**2) - rest * (new - old)
        gain -= images * (proposal[:, f] - log_width[:, f])
        gain -= 0.5 * prior[f] * ((proposal[:, f] - centre[:, f]) ** 2 - (log_width[:, f] - centre[:, f]) ** 2)
        taken = np.where(luck[:, f] < gain, new - old, 0.0)
        log_width[:, f] = np.where(luck[:, f] < gain, proposal[:, f], log_width[:, f])
        inverse[:, f] += taken
        pull += bilinear[:, :, f] * taken[:, None]


def _design(own: NDArray[np.bool_]) -> tuple[Array, NDArray[np.str_]]:
    """Design matrix of a location (source, candidate): level, common part, mean gain and each candidate's gain.

    Returns
    -------
    (source * candidate, coefficient), and the name of each coefficient.
    """
    sources, candidates = own.shape
    s, c = np.divmod(np.arange(own.size), candidates)
    ours = own.ravel()[:, None]
    parts = {
        "level": c[:, None] == np.arange(candidates),
        "common": s[:, None] == np.arange(sources),
        "mean gain": ours,
        "gain": ours & (c[:, None] == np.arange(candidates)),
    }
    names = [name for name, part in parts.items() for _ in range(part.shape[1])]
    return np.concatenate(list(parts.values()), 1).astype(np.float64), np.array(names)


def _draw_hierarchy(
    state: _State, own: NDArray[np.bool_], design: Array, which: NDArray[np.str_], rng: np.random.Generator
) -> None:
    """Draw what the sources' locations and widths have in common, and their spreads."""
    sources, candidates, terms = state.location.shape
    prior = np.empty((terms, len(which)))
    for name in np.unique(which):
        fixed = {"level": 1.0, "mean gain": 2.0}
        prior[:, which == name] = (np.full(terms, fixed[name]) if name in fixed else state.spreads[name])[:, None] ** -2
    flat = state.location.reshape(sources * candidates, terms).T
    coefficient = _regress(design, flat, prior, state.spreads["deviation"] ** -2, rng)
    fitted = coefficient @ design.T
    state.mean = fitted.T.reshape(sources, candidates, terms)
    state.level = coefficient[:, which == "level"].T
    _draw_spread(state, "common", coefficient[:, which == "common"], rng)
    if own.any():
        _draw_spread(state, "gain", coefficient[:, which == "gain"][:, own.any(0)], rng)
    _draw_spread(state, "deviation", flat - fitted, rng)
    widths = state.log_width.reshape(sources * candidates, terms).T
    columns = np.stack([np.ones(own.size), own.ravel()], 1).astype(np.float64)
    # Priors, deviation 1: the logarithm of a width around -1, the difference of a candidate's own width around 0.
    coefficient = _regress(columns, widths + 1.0, np.ones((terms, 2)), state.spreads["width"] ** -2, rng)
    fitted = coefficient @ columns.T - 1.0
    state.width = coefficient[:, 0] - 1.0
    state.width_mean = fitted.T.reshape(sources, candidates, terms)
    _draw_spread(state, "width", widths - fitted, rng)


def _regress(design: Array, values: Array, prior: Array, noise: Array, rng: np.random.Generator) -> Array:
    """Coefficients (term, coefficient) of normal regressions, from their conditional distribution.

    Parameters
    ----------
    values
        (term, row).
    prior, noise
        Precisions (term, coefficient) and (term,).
    """
    inverse = noise[:, None, None] * (design.T @ design) + prior[:, :, None] * np.eye(design.shape[1])
    factor = np.linalg.cholesky(inverse)
    normal = rng.standard_normal(prior.shape)
    mean = np.linalg.solve(inverse, noise[:, None, None] * (values @ design)[..., None])[..., 0]
    return np.asarray(mean + np.linalg.solve(factor.transpose(0, 2, 1), normal[..., None])[..., 0], dtype=np.float64)


def _draw_spread(state: _State, name: str, values: Array, rng: np.random.Generator) -> None:
    """The deviation (term,) of values (term, n) around 0; half-t as in Wand et al. 2011, a mixture of gammas."""
    n = values.shape[1]
    shape, rate = (3.0 + n) / 2, 3.0 / state.moderators[name] + (values**2).sum(1) / 2
    state.spreads[name] = np.sqrt(np.maximum(rate / rng.gamma(shape, size=len(values)), 1e-8))
    rate = 3.0 / state.spreads[name] ** 2 + SPREADS[name] ** -2
    state.moderators[name] = rate / rng.gamma(2.0, size=len(values))


def _collect(
    mean: Array, covariance: Array, width: Array, state: _State, rng: np.random.Generator
) -> tuple[Array, Array, float]:
    """Location and scale matrix of every source and, last, of an unseen one; locations are integrated out.

    The widths of the unseen source are drawn, as for a source that is not a candidate.
    """
    candidates, terms = state.level.shape
    unseen = state.width + state.spreads["width"] * rng.standard_normal((candidates, terms))
    width = np.concatenate([width, np.exp(unseen).reshape(1, -1)])
    common = np.tile(np.eye(terms), (candidates, candidates)) * np.tile(state.spreads["common"], candidates) ** 2
    apart = common + np.diag(np.tile(state.spreads["deviation"], candidates) ** 2)
    scale = width[:, :, None] * state.covariance * width[:, None, :] + np.concatenate([covariance, apart[None]])
    return (
        np.concatenate([mean, state.level.reshape(1, -1)]),
        (scale + scale.transpose(0, 2, 1)) / 2,
        1.0 / (1.0 / state.freedom + 1.0 / state.covariance_freedom),
    )

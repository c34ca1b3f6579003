"""How are the distributions of evidence learnt from calibration images? The checks and scaling around the sampler."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayesdf.errors import BayesdfError, BayesdfWarning
from bayesdf.inversion.attribution import NONE, Attribution, evidence_values
from bayesdf.inversion.evidence_model import sample

ENOUGH = 10
"""`fit_attribution` warns if a source has fewer independent calibration images."""


def fit_attribution(
    evidence: xr.DataArray,
    sources: ArrayLike | None = None,
    *,
    prior: Mapping[str, float] | None = None,
    none: float = 0.1,
    draws: int = 256,
    seed: int = 0,
) -> Attribution:
    """Learn the distribution of evidence for each source.

    Parameters
    ----------
    evidence
        (image, candidate, term) of calibration images, as `evidence` returns it. Use images that the generators were
        not trained on: photographs from the training are explained too well. Compress and resize them in the same way
        as the images to be judged.
    sources
        Who made each image; by default the coordinate `source`. Photographs are `real`. A source need not be a
        candidate: fakes that cannot be inverted may be included.
    prior
        Probability of each source before any evidence, without `none of these`; equal by default.
    none
        Prior probability of `none of these`.
    draws
        Draws from the posterior over parameters, to average over. With two images of a source and 24 features, 64 are
        too few.
    seed
        At least 0. The same seed gives the same result, in whatever order candidates and images are given.

    Raises
    ------
    BayesdfError
        Evidence of other dimensions or not finite, names that are missing or of another number, a source with a single
        image, fewer than two sources, prior probabilities that are not probabilities.

    Warns
    -----
    BayesdfWarning
        A source has fewer than `ENOUGH` independent images. Its answers are cautious, but rest on the priors.

    Notes
    -----
    A coordinate `subject` says which images of a source are not independent: those of one person, or altered copies of
    one picture. Together they weigh as one image.
    """
    if sources is None:
        if "source" not in evidence.coords:
            raise BayesdfError(
                "the source of each image is unknown; pass it, or give the evidence a coordinate 'source'"
            )
        sources = evidence["source"].values
    labels = np.array([str(name) for name in np.asarray(sources, dtype=object).ravel()])
    for axis in ("candidate", "term"):
        if axis not in evidence.coords:
            raise BayesdfError(f"evidence has no coordinate {axis!r} with the names of its {axis}s")
    candidates = tuple(sorted(map(str, evidence["candidate"].values)))
    terms = tuple(map(str, evidence["term"].values))
    values = evidence_values(evidence, candidates, terms)
    if len(labels) != len(values):
        raise BayesdfError(f"{len(labels)} sources given for {len(values)} images; give one an image")
    names, code, count = np.unique(labels, return_inverse=True, return_counts=True)
    if NONE in names:
        raise BayesdfError(f"source {NONE!r} is the answer for sources that are not known; leave its images out")
    if len(names) < 2:
        raise BayesdfError(f"all images come from source {str(names[0])!r}; attribution needs two sources or more")
    if count.min() < 2:
        raise BayesdfError(f"source {str(names[count.argmin()])!r} has a single image; give it more, or leave it out")
    if draws < 1 or seed < 0:
        raise BayesdfError(f"draws={draws}, seed={seed}: give at least one draw, and a seed of at least 0")
    known = _prior([str(name) for name in names], prior, none)
    weight = _weights(code, list(evidence["subject"].values) if "subject" in evidence.coords else None)
    independent = np.bincount(code, weight)
    if independent.min() < ENOUGH - 0.5:
        few = [f"{name} {count:.0f}" for name, count in zip(names, independent, strict=True) if count < ENOUGH - 0.5]
        warnings.warn(
            f"few independent calibration images ({', '.join(few)}): answers rest on the priors; give {ENOUGH} or more "
            "of each source",
            BayesdfWarning,
            stacklevel=2,
        )
    location, scale, freedom = _posterior(values, code, weight, [str(name) for name in names], candidates, draws, seed)
    order = np.argsort([*names, NONE])
    return Attribution(
        candidates,
        terms,
        tuple(str([*names, NONE][index]) for index in order),
        known[order],
        location[:, order],
        scale[:, order],
        freedom,
    )


def _prior(names: list[str], prior: Mapping[str, float] | None, none: float) -> NDArray[np.float64]:
    """(source + 1,) with `none of these` last."""
    if not 0.0 <= none < 1.0:
        raise BayesdfError(f"none={none}: give a probability of at least 0 and below 1")
    given = dict.fromkeys(names, 1.0) if prior is None else dict(prior)
    if set(given) != set(names):
        raise BayesdfError(f"prior names {sorted(given)}, but the sources are {names}")
    weights = np.array([given[name] for name in names], dtype=np.float64)
    if not np.isfinite(weights).all() or weights.min() < 0.0 or weights.sum() <= 0.0:
        raise BayesdfError(f"prior {given}: give probabilities, not all of them 0")
    return np.append(weights / weights.sum() * (1.0 - none), none)


def _weights(code: NDArray[np.int64], subjects: Sequence[object] | None) -> NDArray[np.float64]:
    """(image,) one over the number of images of the same source and subject; 1 for an image without a subject."""
    if subjects is None:
        return np.ones(len(code))
    known = [str(name) if name == name and name not in (None, "") else row for row, name in enumerate(subjects)]
    clusters = list(zip(code.tolist(), known, strict=True))
    count = Counter(clusters)
    return np.array([1.0 / count[cluster] for cluster in clusters])


def _posterior(
    values: NDArray[np.float64],
    code: NDArray[np.int64],
    weight: NDArray[np.float64],
    names: list[str],
    candidates: tuple[str, ...],
    draws: int,
    seed: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Draws of location, scale and freedom of every source and, last, of an unseen one."""
    # Sorted, so that the order in which images are given does not matter.
    order = np.lexsort([*values.T[::-1], code])
    table = values[order].reshape(len(values), len(candidates), -1)
    share = weight[order, None, None] / (weight.sum() * len(candidates))
    centre = (share * table).sum((0, 1))
    spread = np.maximum(np.sqrt((share * (table - centre) ** 2).sum((0, 1))), 1e-6)
    own = np.array([[source == candidate for candidate in candidates] for source in names])
    found = sample((table - centre) / spread, code[order], weight[order], own, draws, np.random.default_rng(seed))
    stretch = np.tile(spread, len(candidates))
    location = found.location * stretch + np.tile(centre, len(candidates))
    return location, found.scale * stretch[:, None], found.freedom

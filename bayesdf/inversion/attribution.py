"""Who made this picture, given how nearly each generator can make it again?

Evidence of an image is a table: for every candidate generator the logarithms of the errors that `invert` left and of
the energy of the entropy it found. How evidence falls out for images of a source is learnt from calibration images
whose source is known, and the answer is Bayes' rule over the sources, `none of these` among them:

    p(s | e, calibration) ∝ p(s) E[p(e | s, θ)],  the mean over θ ~ p(θ | calibration).

For one source, evidence is multivariate Student-t: errors of all candidates rise together when a picture is disturbed,
so that independent errors would count the same news again and again, and tails are heavy, since some searches fail. The
parameters θ of the sources are drawn from a common hierarchy: the mean of candidate c's term t over images of source s
is a level of (c, t), plus what s has in common over all candidates, plus, where s is c itself, the gain of explaining
one's own, plus a deviation of its own. `none of these` is a source from the same hierarchy that no one has seen and
that is no candidate. Nothing is plugged in: means, widths and correlations are averaged over their posterior
(`bayesdf.inversion.evidence_model`), so that few calibration images give cautious answers.

Zhang et al. 2020, "On attribution of deepfakes" (arXiv 2008.09194), attribute by the smallest error; the hierarchy is
the usual one of partial pooling (Gelman et al. 2013, "Bayesian data analysis", chapter 5).
"""

import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln, logsumexp

from bayesdf.errors import BayesdfError, BayesdfWarning
from bayesdf.inversion.evidence_model import sample
from bayesdf.inversion.invert import FLOOR, TERMS, Inversion
from bayesdf.store import open_tree, write_tree

NONE = "none of these"
ENOUGH = 10
"""Independent calibration images of a source below which `fit` warns."""


def evidence(inversions: Mapping[str, Inversion], **coordinates: ArrayLike) -> xr.DataArray:
    """What inversion by each candidate tells of each image.

    Parameters
    ----------
    inversions
        Name of a candidate -> its `Inversion` of the same images.
    coordinates
        (image,) of the images, such as `source` (who made it) and `subject`.

    Returns
    -------
    xr.DataArray
        (image, candidate, term), natural logarithms of the errors `pixel`, `gradient`, `perceptual`, softly bounded
        below by what rounding to 8 bits leaves, and of the `energy`, bounded at a thousandth.

    Raises
    ------
    BayesdfError
        No inversions, or of different numbers of images.
    """
    if not inversions:
        raise BayesdfError("no inversions given; evidence takes one for each candidate")
    lengths = {name: len(inversion) for name, inversion in inversions.items()}
    if len(set(lengths.values())) > 1:
        raise BayesdfError(f"inversions of different images: {lengths}; invert the same images by every candidate")
    columns = [
        [0.5 * np.log(getattr(one, term) ** 2 + FLOOR**2) for term in TERMS[:-1]] + [np.log(one.energy + 1e-3)]
        for one in inversions.values()
    ]
    return xr.DataArray(
        np.moveaxis(np.array(columns), -1, 0),
        dims=("image", "candidate", "term"),
        coords={"candidate": list(inversions), "term": list(TERMS)}
        | {name: ("image", np.asarray(value)) for name, value in coordinates.items()},
    )


@dataclass(frozen=True)
class Attribution:
    """p(evidence | source) for every source and draw of the parameters; `fit` makes one.

    Attributes
    ----------
    candidates, terms
        Of the evidence, in the order of its features: a term of each candidate, then the next candidate.
    sources
        Sorted names; `none of these` is one.
    prior
        (source,) probabilities before any evidence.
    location
        (draw, source, feature) means of the evidence.
    scale
        (draw, source, feature, feature) lower triangular factors of the scale matrices.
    freedom
        (draw,) degrees of freedom of Student's t.
    """

    candidates: tuple[str, ...]
    terms: tuple[str, ...]
    sources: tuple[str, ...]
    prior: NDArray[np.float64]
    location: NDArray[np.float64]
    scale: NDArray[np.float64]
    freedom: NDArray[np.float64]

    def log_likelihood(self, evidence: xr.DataArray) -> xr.DataArray:
        """Logarithm of the density of each image's evidence under each source, parameters integrated out.

        Returns
        -------
        xr.DataArray
            (image, source) in nats.

        Raises
        ------
        BayesdfError
            Evidence that lacks a candidate or a term, or is not finite.
        """
        values = _values(evidence, self.candidates, self.terms)
        size, nu = values.shape[1], self.freedom[:, None]
        inverse = np.linalg.inv(self.scale)
        constant = gammaln((nu + size) / 2) - gammaln(nu / 2) - size / 2 * np.log(nu * np.pi)
        constant = constant - np.log(np.diagonal(self.scale, axis1=2, axis2=3)).sum(-1)
        parts = []
        for rows in np.array_split(values, -(-len(values) // 32)):
            distance = ((inverse @ (rows.T - self.location[..., None])) ** 2).sum(2)
            density = constant[..., None] - (nu + size)[..., None] / 2 * np.log1p(distance / nu[..., None])
            parts.append(logsumexp(density, axis=0).T - np.log(len(density)))
        return xr.DataArray(np.concatenate(parts), dims=("image", "source"), coords={"source": list(self.sources)})

    def probability(self, evidence: xr.DataArray) -> xr.Dataset:
        """p(source | evidence) of each image.

        Parameters
        ----------
        evidence
            (image, candidate, term), as `evidence` returns it. With a coordinate `source` the truth is noted; sources
            that were not calibrated count as `none of these`. A coordinate `subject` becomes the cluster.

        Returns
        -------
        xr.Dataset
            As `bayesdf.analysis.attribute` returns it: `probability` (image, source), rows summing to 1, `prediction`
            and, where known, `truth` (names), and the coordinate `cluster` (image).
        """
        with np.errstate(divide="ignore"):
            joint = self.log_likelihood(evidence) + np.log(self.prior)
        likelihood = np.exp(joint.values - joint.values.max(1, keepdims=True))
        probability = likelihood / likelihood.sum(1, keepdims=True)
        names = np.array(self.sources)
        images = evidence.sizes["image"]
        cluster = evidence["subject"].values if "subject" in evidence.coords else np.arange(images)
        result = xr.Dataset(
            {
                "probability": (("image", "source"), probability),
                "prediction": ("image", names[probability.argmax(1)]),
            },
            coords={"source": names, "cluster": ("image", cluster)},
        )
        if "source" in evidence.coords:
            truth = [name if name in self.sources else NONE for name in map(str, evidence["source"].values)]
            result = result.assign(truth=("image", np.array(truth)))
        return result

    def digest(self) -> str:
        """SHA-256 of names and numbers."""
        digest = hashlib.sha256(repr((self.candidates, self.terms, self.sources)).encode())
        for part in (self.prior, self.location, self.scale, self.freedom):
            digest.update(np.ascontiguousarray(part, dtype="<f8").tobytes())
        return digest.hexdigest()

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
        """Write it to a Zarr store; `load_attribution` reads it."""
        dataset = xr.Dataset(
            {
                "prior": ("source", self.prior),
                "location": (("draw", "source", "feature"), self.location),
                "scale": (("draw", "source", "feature", "other_feature"), self.scale),
                "freedom": ("draw", self.freedom),
            },
            coords={"source": list(self.sources), "candidate": list(self.candidates), "term": list(self.terms)},
            attrs={"sha256": self.digest()},
        )
        return write_tree(xr.DataTree.from_dict({"/attribution_model": dataset}), path, overwrite)


def load_attribution(path: str | os.PathLike[str]) -> Attribution:
    """Read what `Attribution.save` wrote.

    Raises
    ------
    BayesdfError
        The store is missing, damaged, or of something else.
    """
    tree = open_tree(path)
    try:
        kept = tree["/attribution_model"].to_dataset()
        names = {key: tuple(map(str, kept[key].values)) for key in ("candidate", "term", "source")}
        arrays = {key: kept[key].values.astype(np.float64) for key in ("prior", "location", "scale", "freedom")}
    except KeyError as error:
        raise BayesdfError(f"{path} holds no attribution model (it lacks {error})") from None
    found = Attribution(names["candidate"], names["term"], names["source"], **arrays)
    if kept.attrs.get("sha256") != found.digest():
        raise BayesdfError(f"{path} is damaged: its numbers are not those that were saved; make it again")
    return found


def fit(
    evidence: xr.DataArray,
    sources: ArrayLike | None = None,
    *,
    prior: Mapping[str, float] | None = None,
    none: float = 0.1,
    draws: int = 256,
    seed: int = 0,
) -> Attribution:
    """Learn how evidence falls out for each source.

    Parameters
    ----------
    evidence
        (image, candidate, term) of calibration images, as `evidence` returns it: best images that the generators were
        not trained on (photographs that they were trained on are explained too well), treated (compressed, resized) as
        those to be judged.
    sources
        Who made each image; by default the coordinate `source`. Photographs are `real`. Sources that are no candidates
        are welcome, such as fakes that cannot be inverted.
    prior
        Probability of each source before any evidence, `none of these` left out; equal ones by default.
    none
        Prior probability of `none of these`.
    draws
        Of the posterior over parameters, to average over. With two images of a source and 24 features, 64 are too few.
    seed
        At least 0. The same seed gives the same result, whatever the order of candidates and of images.

    Raises
    ------
    BayesdfError
        Evidence of other dimensions or not finite, names missing or of another number, a source with a single image,
        fewer than two sources, probabilities that are none.

    Warns
    -----
    BayesdfWarning
        A source has fewer than `ENOUGH` independent images. Its answers are cautious, as they should be, but they rest
        on the priors.

    Notes
    -----
    A coordinate `subject` tells which images of a source are not independent: those of one person, or altered copies of
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
    values = _values(evidence, candidates, terms)
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


def _values(evidence: xr.DataArray, candidates: tuple[str, ...], terms: tuple[str, ...]) -> NDArray[np.float64]:
    """Evidence as (image, feature), finite."""
    if set(evidence.dims) != {"image", "candidate", "term"} or not evidence.size:
        raise BayesdfError(f"evidence has dimensions {dict(evidence.sizes)}; give (image, candidate, term)")
    for axis, wanted in (("candidate", candidates), ("term", terms)):
        there = [str(name) for name in evidence[axis].values]
        if len(set(there)) < len(there):
            raise BayesdfError(f"evidence names a {axis} twice: {there}")
        lacking = [name for name in wanted if name not in there]
        if lacking:
            raise BayesdfError(f"evidence lacks {axis} {lacking[0]!r}; it has {', '.join(there)}")
    table = evidence.transpose("image", "candidate", "term").sel(candidate=list(candidates), term=list(terms)).values
    bad = np.argwhere(~np.isfinite(table))
    if len(bad):
        image, c, t = bad[0]
        raise BayesdfError(f"evidence of image {image} by {candidates[c]} is {table[image, c, t]} ({terms[t]})")
    return table.reshape(len(table), -1).astype(np.float64)


def _weights(code: NDArray[np.int64], subjects: Sequence[object] | None) -> NDArray[np.float64]:
    """(image,) one over the number of images of the same source and subject; those without a subject stand alone."""
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
    """Draws of location, scale and freedom of every source and, last, of one unseen."""
    # In an order of their own, so that the order in which images are given does not matter.
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

"""Who made this picture, given how nearly each generator can make it again?

The evidence of an image is a table. For every candidate generator it holds the logarithms of the errors that `invert`
left and of the energy of the latent that it found. Calibration images of known source teach the distribution of
evidence for each source. The answer is Bayes' rule over the sources and `none of these`:

    p(s | e, calibration) ∝ p(s) E[p(e | s, θ)],  the mean over θ ~ p(θ | calibration).

For one source, evidence is multivariate Student-t. Its errors are correlated: when a picture is disturbed, the errors
of all candidates rise together, and independent errors would count the same information several times. Its tails are
heavy, since some searches fail. The parameters θ of the sources are drawn from a common hierarchy. The mean of
candidate c's term t over images of source s is a sum: a level of (c, t), a part that s has in common over all
candidates, a gain if s is c itself (a generator explains its own images better), and a deviation. `none of these` is an
unseen source from the same hierarchy that is no candidate. Means, widths and correlations are averaged over their
posterior (`bayesdf.inversion.evidence_model`), so that few calibration images give cautious answers.

Zhang et al. 2020, "On attribution of deepfakes" (arXiv 2008.09194), attribute by the smallest error; the hierarchy is
the usual one of partial pooling (Gelman et al. 2013, "Bayesian data analysis", chapter 5).
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln, logsumexp

from bayesdf.data import common_path_grey
from bayesdf.errors import BayesdfError
from bayesdf.generators import GENERATORS, Generator
from bayesdf.inversion.loss import FLOOR, TERMS
from bayesdf.inversion.search import Inversion, invert
from bayesdf.inversion.transforms import forgiving
from bayesdf.store import open_tree, write_tree

NONE = "none of these"
STEPS = 20
"""Most evaluations of a generator for a picture when its source is asked for."""
FORGIVING = True
"""Whether inversion may also zoom, shift, tone and blur what a generator makes when a source is asked for."""


def evidence(inversions: Mapping[str, Inversion], **coordinates: ArrayLike) -> xr.DataArray:
    """The evidence about each image from its inversion by each candidate.

    Parameters
    ----------
    inversions
        Name of a candidate -> its `Inversion` of the same images.
    coordinates
        (image,) of the images, such as `source` (who made it) and `subject`.

    Returns
    -------
    xr.DataArray
        (image, candidate, term), natural logarithms of the errors `pixel`, `gradient` and `perceptual`, softly bounded
        below by the error of rounding to 8 bits, and of the `energy`, bounded below by a thousandth.

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
    """p(evidence | source) for every source and draw of the parameters; `fit_attribution` makes one.

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
        values = evidence_values(evidence, self.candidates, self.terms)
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
            (image, candidate, term), as `evidence` returns it. A coordinate `source` becomes `truth`; sources that were
            not calibrated become `none of these`. A coordinate `subject` becomes `cluster`.

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


def attribute(
    images: NDArray[np.floating],
    attribution: Attribution,
    *,
    candidates: Mapping[str, Generator] | None = None,
    steps: int = STEPS,
    forgive: bool = FORGIVING,
    seed: int = 0,
) -> xr.Dataset:
    """Who made these pictures? Answered for your own pictures, with the attribution that a run has calibrated.

        model = load_attribution("runs/inversion/attribution.zarr")
        answer = attribute(pictures, model)["probability"].to_pandas()

    Parameters
    ----------
    images
        (N, H, W) grey or (N, H, W, 3) colour values in [0, 1], faces aligned as the embedded photographs are. They are
        prepared as the calibration pictures were: crop, resize, 8 bits, JPEG.
    attribution
        From `fit_attribution`; `attribution.zarr` in a run's folder.
    candidates
        Generators by name; those of `GENERATORS` by default.
    steps, forgive, seed
        As in the run that calibrated it.

    Returns
    -------
    xr.Dataset
        `probability` (image, source), `none of these` among the sources, and `prediction`.

    Raises
    ------
    BayesdfError
        Images of another shape, not floats in [0, 1], or a candidate that is not at hand.
    """
    pictures = np.asarray(images)
    if pictures.ndim not in (3, 4) or not len(pictures) or (pictures.ndim == 4 and pictures.shape[-1] != 3):
        raise BayesdfError(f"images have shape {pictures.shape}; give grey (N, H, W) or colour (N, H, W, 3)")
    if pictures.dtype.kind not in "f" or not pictures.size:
        raise BayesdfError(f"images are {pictures.dtype} of shape {pictures.shape}; give values as floats in [0, 1]")
    for row, picture in enumerate(pictures):
        if not np.isfinite(picture).all() or picture.min() < 0.0 or picture.max() > 1.0:
            raise BayesdfError(f"image {row} has values that are not finite or not in [0, 1]")
    known = GENERATORS if candidates is None else candidates
    lacking = [name for name in attribution.candidates if name not in known]
    if lacking:
        raise BayesdfError(f"the attribution was calibrated with generator {lacking[0]!r}, which is not at hand")
    ready = common_path_grey(pictures)
    searched = {name: forgiving(known[name]) if forgive else known[name] for name in attribution.candidates}
    found = {name: invert(ready, generator, steps=steps, seed=seed) for name, generator in searched.items()}
    return attribution.probability(evidence(found))


def evidence_values(evidence: xr.DataArray, candidates: tuple[str, ...], terms: tuple[str, ...]) -> NDArray[np.float64]:
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

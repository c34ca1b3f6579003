"""Who made your pictures?"""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesdf.data import common_path_grey
from bayesdf.errors import BayesdfError
from bayesdf.experiments.inversion.plan import Plan
from bayesdf.generators import GENERATORS, Generator
from bayesdf.inversion.attribution import Attribution, evidence
from bayesdf.inversion.invert import invert
from bayesdf.inversion.perturb import forgiving


def attribute(
    images: NDArray[np.floating],
    attribution: Attribution,
    *,
    candidates: Mapping[str, Generator] | None = None,
    steps: int = Plan.steps,
    forgive: bool = Plan.forgiving,
    seed: int = 0,
) -> xr.Dataset:
    """Who made these pictures? For your own, with the attribution that a run has calibrated.

        model = load_attribution("runs/inversion/attribution.zarr")
        answer = attribute(pictures, model)["probability"].to_pandas()

    Parameters
    ----------
    images
        (N, H, W) grey or (N, H, W, 3) colour values in [0, 1], faces aligned as the embedded photographs are. They take
        the path that calibration pictures took: crop, resize, 8 bits, JPEG.
    attribution
        From `bayesdf.inversion.attribution.fit`; `attribution.zarr` in a run's folder.
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

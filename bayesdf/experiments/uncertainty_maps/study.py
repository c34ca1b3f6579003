"""From settings to DataTrees: each question about the maps is a cell."""

import hashlib
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr

import bayesdf.data as data
from bayesdf._version import __version__
from bayesdf.cli import console
from bayesdf.errors import BayesdfError, BayesdfWarning
from bayesdf.experiments import warm_start
from bayesdf.experiments.experiment import Cell, Study
from bayesdf.experiments.quick import thin
from bayesdf.experiments.source_attribution.study import enough_generators
from bayesdf.experiments.uncertainty_maps import conveyance, dense, faithfulness, localisation, sanity, source
from bayesdf.experiments.uncertainty_maps.halves import NO_HALVES, pairs
from bayesdf.experiments.uncertainty_maps.page import present
from bayesdf.experiments.uncertainty_maps.setting import Setting, digest_of, of_main_job
from bayesdf.models import located
from bayesdf.report.methods import METHODS

CELLS: Mapping[str, tuple[str, Callable[[Setting], xr.DataTree]]] = {
    "localisation": ("maps by all methods, and the pixels that were changed", localisation.work),
    "faithfulness": ("what becomes of the uncertainty when marked pixels go", faithfulness.work),
    "sanity": ("maps of networks with random weights", sanity.work),
    "conveyance": ("patches of a kind that was never seen", conveyance.work),
    "dense": ("a detector of changed pixels", dense.work),
    "source": ("regions, and the source from maps and regions", source.work),
}
"""The questions, each with what is said on the screen and the function that answers it."""


def study(
    *,
    data_: str,
    detector: str,
    method: str,
    posteriors: Path | None,
    images: int,
    draws: int,
    epochs: int | None,
    warm_epochs: int,
    size: int,
    seed: int,
    device: str,
    skip_unreadable: float,
    split: str,
    fractions: tuple[float, float, float] | None,
    regions: str,
    quick: bool,
) -> Study:
    """Declare the study: load the images, and a cell for each question.

    Raises
    ------
    BayesdfError
        The images cannot be read, or no test image has a known mask of changed pixels.
    """
    settings = {
        "bayesdf": __version__,
        "data": data_,
        "detector": detector,
        "method": method,
        "images": images,
        "draws": draws,
        "epochs": epochs,
        "warm_epochs": warm_epochs,
        "size": size,
        "seed": seed,
        "skip_unreadable": skip_unreadable,
        "split": split,
        "regions": regions,
        "quick": quick,
    }
    console.print(f"images: {data_}", markup=False, highlight=False)
    collection = data.load(data_, "binary", size=size, fractions=fractions, seed=seed, skip_unreadable=skip_unreadable)
    if quick:
        (collection,) = thin(collection)
    console.print(f"    {data.describe_people(collection.manifest)}", markup=False, highlight=False, soft_wrap=True)
    _refuse_without_masks(collection)
    enough_generators([collection])
    located(warm_start.build_untrained(detector, collection), images=collection.train[0][0][None])  # or says why not
    setting = Setting(
        collection=collection,
        detector=detector,
        method=method,
        images=images,
        draws=draws,
        epochs=epochs,
        warm_epochs=warm_epochs,
        seed=seed,
        device=device,
        template=regions == "template",
        quick=quick,
    )
    borrowed = None if posteriors is None else of_main_job(posteriors, method, detector, collection)
    if borrowed is not None:
        setting.fitted[method] = borrowed
    setting.region_masks(collection.test)  # finds missing landmarks before the work
    if not all(pairs(part, part) for part in (collection.val, collection.test)):
        warnings.warn(NO_HALVES, BayesdfWarning, stacklevel=1)

    def cell(name: str) -> Cell:
        title, work = CELLS[name]
        return Cell(name, title, lambda folder: work(setting.within(folder)))

    return Study(
        name="uncertainty_maps",
        settings=settings,
        follows={
            "posterior": "" if borrowed is None else digest_of(borrowed),
            "fingerprint": collection.fingerprint,
            "masks": _digest(collection),
            "weights": warm_start.digest(detector, collection),
        },
        cells=[cell(name) for name in CELLS],
        present=partial(present, collection=collection, settings={**settings, "method": METHODS[method]}),
        attrs={"posteriors": str(posteriors or ""), "device": device, "data_fingerprint": collection.fingerprint},
    )


def _refuse_without_masks(collection: data.Collection) -> None:
    """Refuse data of which it is not known which pixels were changed."""
    for split in data.SPLITS:
        known = (getattr(collection, split).manifest["mask"] == "part").sum()
        if known < 2:
            raise BayesdfError(
                f"{known} {split} images have a mask of changed pixels, and this study needs them: put <name>_mask.png "
                "beside fakes of which a part was changed, or a folder `masks` (docs/data.md)"
            )


def _digest(collection: data.Collection) -> str:
    """What identifies the masks: the fingerprint of the images leaves them out."""
    digest = hashlib.sha256("".join(collection.manifest["mask"]).encode())
    return hashlib.sha256(digest.digest() + np.ascontiguousarray(collection.masks).tobytes()).hexdigest()[:16]

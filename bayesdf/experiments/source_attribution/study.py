"""From settings to DataTrees: one posterior by one method is a cell."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

import bayesdf.analysis as analysis
import bayesdf.data as data
from bayesdf._version import __version__
from bayesdf.cli import console
from bayesdf.errors import BayesdfError
from bayesdf.experiments import warm_start
from bayesdf.experiments.experiment import Cell, Study
from bayesdf.experiments.posteriors import draws_per_chain, load_finished
from bayesdf.experiments.quick import thin
from bayesdf.experiments.source_attribution.methods import FACTORIES, LAST_LAYER, UNTIL_FLAT, method
from bayesdf.experiments.source_attribution.page import present
from bayesdf.experiments.source_attribution.tables import CONTROL, RAW
from bayesdf.inference import MCDropout, Posterior
from bayesdf.models import Detector
from bayesdf.report.methods import METHODS


def study(
    *,
    data_: str,
    detector: str,
    methods: Sequence[str],
    draws: int,
    epochs: int | None,
    warm_epochs: int,
    size: int,
    seed: int,
    device: str,
    skip_unreadable: float,
    split: str,
    fractions: tuple[float, float, float] | None,
    quick: bool,
) -> Study:
    """Declare the study: load the images, and a cell a method.

    Parameters
    ----------
    methods
        Names of `FACTORIES`.
    fractions
        The shares of `split` as numbers.
    others
        As on the command line.

    Raises
    ------
    BayesdfError
        The images cannot be read, or are not enough to name sources and to judge that.
    """
    settings = {
        "bayesdf": __version__,
        "data": data_,
        "detector": detector,
        "epochs": epochs,
        "warm_epochs": warm_epochs,
        "size": size,
        "seed": seed,
        "skip_unreadable": skip_unreadable,
        "split": split,
        "quick": quick,
    }
    console.print(f"images: {data_}", markup=False, highlight=False)
    collection = data.load(data_, "binary", size=size, fractions=fractions, seed=seed, skip_unreadable=skip_unreadable)
    if quick:
        collection = thin(collection)
    console.print(f"    {data.describe_people(collection.manifest)}", markup=False, highlight=False, soft_wrap=True)
    _enough_generators(collection)
    # Not the methods asked for, nor the device: what is finished serves another choice of these.
    recipes = {
        name: method(name, epochs=epochs, seed=seed, device="auto", quick=quick).settings() for name in FACTORIES
    }

    def work(name: str, folder: Path) -> xr.DataTree:
        posterior = _posterior(name, detector, collection, folder, settings, device)
        return judge(posterior, collection, draws, seed, device)

    attrs = {"draws": draws, "method": ",".join(methods), "device": device}
    shown = {**settings, **attrs, "epochs": UNTIL_FLAT if epochs is None else epochs}
    return Study(
        name="source_attribution",
        settings=settings,
        follows={
            "fingerprint": collection.fingerprint,
            "start": warm_start.digest(detector, collection),
            "methods": recipes,
        },
        cells=[
            Cell(name, f"{METHODS[name]}: posterior, {draws} draws an image", partial(work, name), {"draws": draws})
            for name in methods
        ],
        present=partial(present, collection=collection, settings=shown),
        attrs={
            **attrs,
            "data_fingerprint": collection.fingerprint,
            "cautions": data.people_cautions(collection.manifest),
        },
    )


def judge(posterior: Posterior, collection: data.Collection, draws: int, seed: int, device: str) -> xr.DataTree:
    """Predict, recalibrate, decompose and attribute: everything the study says of one posterior.

    Logits are scaled and shifted as fits the validation people, since a detector is surer of the people it was trained
    on than of strangers. Sources are named by classifiers fitted on the validation people and on the test people of
    other subject groups: nobody in a judged image, as subject or donor, was seen by the detector or by the classifier.

    Returns
    -------
    xr.DataTree
        What `Posterior.predict` returns for the test people, its logits recalibrated, and the groups `recalibration`,
        `uncertainty`, `metrics`, `metrics/raw` (before recalibration) and `attribution/<feature set>`.
    """
    parts = [collection.val, collection.test]
    each = draws_per_chain(posterior, draws)
    trees = [posterior.predict(part, each, seed, device=device, penultimate=True) for part in parts]
    scaling = analysis.fit_scaling(trees[0])
    raw = analysis.evaluate(trees[-1], only=RAW, seed=seed)
    trees = [analysis.rescale(tree, scaling) for tree in trees]
    predictions = trees[-1].drop_nodes("features")
    features = {
        "uncertainty": _of_fakes(trees, lambda tree: analysis.combine(_scalars(tree), analysis.profile(tree))),
        "uncertainty_scalars": _of_fakes(trees, _scalars),
        "mean_probability": _of_fakes(trees, analysis.mean_probability),
        "penultimate_features": _of_fakes(trees, _penultimate),
    }
    together = linked([part.manifest for part in parts])
    attributions = {
        name: analysis.attribute(part, subject_groups=together, fit_only=part["split"].values != "test", seed=seed)
        for name, part in features.items()
    }
    summary = analysis.summarise(attributions, against=CONTROL, seed=seed)
    groups = {
        **{node.path: node.to_dataset(inherit=False) for node in predictions.subtree},
        "/recalibration": scaling,
        "/uncertainty": analysis.decompose(predictions),
        "/metrics": analysis.evaluate(predictions, seed=seed),
        "/metrics/raw": raw,
        "/attribution": xr.Dataset.from_dataframe(summary),
        **{f"/attribution/{name}": part for name, part in attributions.items()},
    }
    return xr.DataTree.from_dict(groups)


def linked(manifests: Sequence[pd.DataFrame]) -> pd.Series:
    """Who must not be parted among the fakes, in all parts together: names by part would meet by chance."""
    manifest = pd.concat(manifests, ignore_index=True)
    return data.subject_groups(manifest)[manifest["source"] != data.REAL]


def _scalars(tree: xr.DataTree) -> xr.DataArray:
    """The scalars, without those that are functions of the mean probability alone: that is the control."""
    return analysis.beyond_mean_probability(analysis.scalars(tree))


def _penultimate(tree: xr.DataTree) -> xr.DataArray:
    """The ceiling: what the network itself makes of each image."""
    known = analysis.mean_probability(tree).coords
    coords = {name: coord for name, coord in known.items() if coord.dims == ("image",)}
    return xr.DataArray(tree["features/penultimate"].values, coords, ("image", "feature"))


def _of_fakes(trees: list[xr.DataTree], features: Callable[[xr.DataTree], xr.DataArray]) -> xr.DataArray:
    parts = [features(tree) for tree in trees]
    return xr.concat([part[(part["source"] != data.REAL).values] for part in parts], "image")


def _posterior(
    name: str,
    detector: str,
    collection: data.Collection,
    folder: Path,
    settings: Mapping[str, Any],
    device: str,
) -> Posterior:
    """The posterior by one method; from the folder where a stopped run left it."""
    path = folder / "posteriors" / f"{name}.zarr"
    posterior = load_finished(path)
    if posterior is not None:
        return posterior
    network = warm_start.start(
        detector,
        collection,
        keep=folder / "warm_start.safetensors",
        epochs=settings["warm_epochs"],
        seed=settings["seed"],
        device=device,
    )
    checkpoint = folder / "posteriors" / f"{name}.pt"
    fitting = method(
        name,
        epochs=settings["epochs"],
        seed=settings["seed"],
        device=device,
        checkpoint=checkpoint,
        quick=settings["quick"],
    )
    # Dropout goes on training weights, so it stops at its best epoch. SVI does not: stopped before the ELBO is at its
    # height, a posterior is as wide as it happened to start.
    validation = collection.val if isinstance(fitting, MCDropout) else None
    priors = warm_start.default_priors(detector, network, last_layer=name in LAST_LAYER)
    posterior = fitting.fit(Detector(network, priors), collection.train, validation)  # type: ignore[attr-defined]
    posterior.save(path)
    fitting.forget()
    return posterior


def _enough_generators(collection: data.Collection) -> None:
    generators = sorted(set(collection.manifest["source"]) - {data.REAL})
    if len(generators) < 2:
        raise BayesdfError(
            f"naming a source takes at least two generators, and {collection.name} has {', '.join(generators)}: add a "
            "folder with another generator's images"
        )
    for generator in generators:
        judged = collection.test.manifest[collection.test.manifest["source"] == generator]
        if data.subject_groups(judged).nunique() < 2:
            raise BayesdfError(
                f"the test people hold one subject of {generator}, and judging takes two or more: add images of other "
                "subjects, or give the test a larger share (--split 0.4,0.2,0.4)"
            )

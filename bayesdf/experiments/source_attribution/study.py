"""From settings to DataTrees: one posterior by one method on one fold is a cell."""

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from torch import nn

import bayesdf.analysis as analysis
import bayesdf.data as data
from bayesdf._version import __version__
from bayesdf.cli import console
from bayesdf.errors import BayesdfError, BayesdfWarning
from bayesdf.experiments import warm_start
from bayesdf.experiments.experiment import Cell, Study
from bayesdf.experiments.posteriors import draws_per_chain, fit_or_find
from bayesdf.experiments.quick import thin
from bayesdf.experiments.source_attribution.feature_sets import feature_sets
from bayesdf.experiments.source_attribution.folds import cell_name, collect, fold_seed
from bayesdf.experiments.source_attribution.methods import FACTORIES, UNTIL_FLAT, method
from bayesdf.experiments.source_attribution.page import present
from bayesdf.inference import Posterior, matched_noise, uncertainty_maps
from bayesdf.models import located
from bayesdf.report.methods import METHODS

MAPPED = 6
"""Images of each fold of which maps are made."""


def study(
    *,
    data_: str,
    detector: str,
    start: warm_start.Learnt,
    sites: warm_start.Sites,
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
    folds: int,
    quick: bool,
) -> Study:
    """Declare the study: load the images of every fold, and a cell for each method and fold.

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
        "start": start,
        "sites": sites,
        "epochs": epochs,
        "warm_epochs": warm_epochs,
        "size": size,
        "seed": seed,
        "skip_unreadable": skip_unreadable,
        "split": split,
        "folds": folds,
        "quick": quick,
    }
    console.print(f"images: {data_}", markup=False, highlight=False)
    given = {"size": size, "fractions": fractions, "seed": seed, "skip_unreadable": skip_unreadable, "folds": folds}
    collections = _load(data_, folds, quick, given)
    first = collections[0]
    console.print(f"    {data.describe_people(first.manifest)}", markup=False, highlight=False, soft_wrap=True)
    if folds > 1:
        console.print(f"    {_describe_folds(collections)}", highlight=False, soft_wrap=True)
    enough_generators(collections)
    _say_where_starts_are_missing(detector, collections, start)
    # Not the methods asked for, nor the device: what is finished serves another choice of these.
    recipes = {
        name: method(name, epochs=epochs, seed=seed, device="auto", quick=quick).settings() for name in FACTORIES
    }

    def work(name: str, fold: int, folder: Path) -> xr.DataTree:
        own_seed, collection = fold_seed(seed, fold), collections[fold]
        network = warm_start.start(
            detector,
            collection,
            start,
            keep=folder / f"{cell_name('warm_start', fold, folds)}.safetensors",
            epochs=warm_epochs,
            seed=own_seed,
            device=device,
        )
        posterior = fit_or_find(
            name,
            network,
            detector,
            collection,
            folder / "posteriors" / f"{cell_name(name, fold, folds)}.zarr",
            sites=sites,
            epochs=epochs,
            seed=own_seed,
            device=device,
            quick=quick,
        )
        untrained = warm_start.build_untrained(detector, collection, seed=own_seed)
        return judge(posterior, control_posteriors(posterior, network, untrained), collection, draws, own_seed, device)

    def cell(name: str, fold: int) -> Cell:
        of = f", fold {fold}" if folds > 1 else ""
        title = f"{METHODS[name]}{of}: posterior, {draws} draws an image"
        return Cell(cell_name(name, fold, folds), title, partial(work, name, fold), {"draws": draws})

    attrs = {"draws": draws, "method": ",".join(methods), "device": device}
    shown = {**settings, **attrs, "epochs": UNTIL_FLAT if epochs is None else epochs}
    fingerprints = [collection.fingerprint for collection in collections]
    starts = [warm_start.digest(detector, collection, start) for collection in collections]
    return Study(
        name="source_attribution",
        settings=settings,
        follows={
            "fingerprint": fingerprints if folds > 1 else fingerprints[0],
            "weights": starts if folds > 1 else starts[0],
            "methods": recipes,
        },
        cells=[cell(name, fold) for name in methods for fold in range(folds)],
        collect=partial(collect, seed=seed),
        present=partial(present, collections=collections, settings=shown),
        attrs={
            **attrs,
            "data_fingerprint": fingerprints if folds > 1 else fingerprints[0],
            "cautions": data.people_cautions(first.manifest),
        },
    )


def judge(
    posterior: Posterior,
    controls: Mapping[str, Posterior],
    collection: data.Collection,
    draws: int,
    seed: int,
    device: str,
) -> xr.DataTree:
    """Predict, recalibrate, decompose and attribute: what the study says of one posterior, image by image.

    Figures over people are made of all folds together (`bayesdf.experiments.source_attribution.folds`).

    Logits are scaled and shifted as fits the validation people, since a detector is surer of the people it was trained
    on than of strangers. Sources are named by classifiers fitted on the validation people and on the test people of
    other subject groups: nobody in a judged image, as subject or donor, was seen by the detector or by the classifier.
    The controls go through the same steps with as many draws.

    Parameters
    ----------
    controls
        `noise` and `untrained`, from `control_posteriors`.

    Returns
    -------
    xr.DataTree
        What `Posterior.predict` returns for the test people, its logits recalibrated, and the groups `recalibration`,
        `uncertainty`, `maps` of the most uncertain images, `attribution/<feature set>`, `raw` with the logits before
        recalibration, and
        `control/<name>` with the logits of each control.
    """
    raw, own, scaling = predicted(posterior, collection, draws, seed, device, penultimate=True)
    total = own[-1]["posterior_predictive/logits"].sizes
    number = total["chain"] * total["draw"]
    others = {name: predicted(control, collection, number, seed, device)[1] for name, control in controls.items()}
    features = feature_sets(own, others["noise"], others["untrained"], seed)
    together = linked([part.manifest for part in (collection.val, collection.test)])
    attributions = {
        name: analysis.attribute(part, subject_groups=together, fit_only=part["split"].values != "test", seed=seed)
        for name, part in features.items()
    }
    predictions = own[-1].drop_nodes("features")
    uncertainty = analysis.decompose(predictions)
    groups = {
        **{node.path: node.to_dataset(inherit=False) for node in predictions.subtree},
        "/recalibration": scaling,
        "/uncertainty": uncertainty,
        "/maps": maps_of_most_uncertain(posterior, collection.test, uncertainty, draws, seed, device),
        **{f"/attribution/{name}": part for name, part in attributions.items()},
    }
    kept = {"raw": raw, **{f"control/{name}": trees[-1] for name, trees in others.items()}}
    for name, tree in kept.items():
        groups[f"/{name}/posterior_predictive"] = tree["posterior_predictive"].to_dataset()
    return xr.DataTree.from_dict(groups)


def maps_of_most_uncertain(
    posterior: Posterior, images: data.ImageDataset, uncertainty: xr.Dataset, draws: int, seed: int, device: str
) -> xr.Dataset:
    """Maps of the images of largest epistemic uncertainty (image, y, x), in the order of the data set.

    They are the evidence of locations, where the network has a linear classifier after pooling, and gradients
    otherwise: the attribute `method` says which.
    """
    order = np.argsort(-uncertainty["epistemic"].values, kind="stable")
    chosen = np.zeros(len(images), bool)
    chosen[order[:MAPPED]] = True
    given = (posterior, images.take(chosen))
    each = draws_per_chain(posterior, draws)
    try:
        located(posterior.network, images=images[0][0][None])
        method = "evidence"
    except BayesdfError:
        method = "gradient"
    tree = uncertainty_maps(*given, method, each, seed, device=device)
    maps = tree["maps"].to_dataset()
    maps = maps.drop_vars([name for name in maps.coords if name not in ("image", "y", "x", "source", "path")])
    return maps.assign_coords(image=np.flatnonzero(chosen))


def predicted(
    posterior: Posterior, collection: data.Collection, draws: int, seed: int, device: str, *, penultimate: bool = False
) -> tuple[xr.DataTree, list[xr.DataTree], xr.Dataset]:
    """Predictions for the test people as they are; for validation and test, recalibrated to the former; and by what."""
    each = draws_per_chain(posterior, draws)
    parts = (collection.val, collection.test)
    trees = [posterior.predict(part, each, seed, device=device, penultimate=penultimate) for part in parts]
    scaling = analysis.fit_scaling(trees[0])
    return trees[-1], [analysis.rescale(tree, scaling) for tree in trees], scaling


def control_posteriors(posterior: Posterior, start: nn.Module, untrained: nn.Module) -> dict[str, Posterior]:
    """The controls without inference: noise of the posterior's size around the start and an untrained network."""
    return {"noise": matched_noise(posterior, start), "untrained": matched_noise(posterior, untrained)}


def linked(manifests: Sequence[pd.DataFrame]) -> pd.Series:
    """Who must not be parted among the fakes, in all parts together: names by part would meet by chance."""
    manifest = pd.concat(manifests, ignore_index=True)
    return data.subject_groups(manifest)[manifest["source"] != data.REAL]


def _load(data_: str, folds: int, quick: bool, given: Mapping[str, Any]) -> list[data.Collection]:
    """The images of each fold. What is wrong with the files is said once."""
    collections = []
    for fold in range(folds):
        with warnings.catch_warnings():
            if fold:
                warnings.simplefilter("ignore", BayesdfWarning)
            collections.append(data.load(data_, "binary", fold=fold, **given))
    return thin(*collections) if quick else collections


def _describe_folds(collections: Sequence[data.Collection]) -> str:
    """How many people each fold judges."""
    counts = [collection.test.manifest["subject"].replace("", None).nunique() for collection in collections]
    return f"{len(counts)} folds, which judge {', '.join(map(str, counts[:-1]))} and {counts[-1]} people"


def _say_where_starts_are_missing(
    detector: str, collections: Sequence[data.Collection], start: warm_start.Learnt
) -> None:
    """Warn of folds whose start is trained within the run, where that of another fold comes with the package."""
    ships = [warm_start.ships(detector, collection, start) for collection in collections]
    missing = [str(fold) for fold, there in enumerate(ships) if not there]
    if missing and any(ships):
        warnings.warn(
            f"no weights of {detector} ship for fold {', '.join(missing)}, so this run trains them in another "
            f"way than those that ship: `python -m bayesdf.experiments.warm_start {detector} --fold {missing[0]}` "
            "makes them alike",
            BayesdfWarning,
            stacklevel=2,
        )


def enough_generators(collections: Sequence[data.Collection]) -> None:
    generators = sorted(set(collections[0].manifest["source"]) - {data.REAL})
    if len(generators) < 2:
        raise BayesdfError(
            f"naming a source takes at least two generators, and {collections[0].name} has {', '.join(generators)}: "
            "add a folder with another generator's images"
        )
    for collection, generator in product(collections, generators):
        judged = collection.test.manifest[collection.test.manifest["source"] == generator]
        if data.subject_groups(judged).nunique() < 2:
            raise BayesdfError(
                f"the test people hold one subject of {generator}, and judging takes two or more: add images of other "
                f"subjects, or {_more_test_people(collection.fold, len(collections))}"
            )


def _more_test_people(fold: int, folds: int) -> str:
    """What to do for more people in the test."""
    if folds > 1:
        return f"ask for fewer folds (--folds; this is fold {fold} of {folds})"
    return "give the test a larger share (--split 0.4,0.2,0.4)"

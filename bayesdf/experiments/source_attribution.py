"""Which generator made a fake, told from a binary detector's uncertainty alone?

    python -m bayesdf.experiments.source_attribution

A detector learns real against fake. Its posterior draws are then asked about people it never saw: how good and how well
calibrated is it, is it unsure because an image is ambiguous or because the draws disagree, and does that uncertainty
tell the generator? The posterior is of real against fake alone; the weights that it starts from have learnt the sources
of training people's pictures (`warm_start`). The question is that of Kose, Rhodes, Ciftci and Demir, "Is It Certainly a
Deepfake?" (2025).
"""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
import xarray as xr
from rich.markup import escape

import bayesdf.analysis as analysis
import bayesdf.data as data
from bayesdf._version import __version__
from bayesdf.cli import console, run_cli
from bayesdf.errors import BayesdfError, BayesdfWarning
from bayesdf.experiments import options, warm_start
from bayesdf.experiments.run import (
    announce,
    finished,
    per_chain,
    refuse_used,
    workspace,
    write_figures,
    write_metrics,
    write_tables,
)
from bayesdf.inference import NUTS, SGMCMC, SVI, SWAG, DeepEnsemble, Laplace, MCDropout, Posterior
from bayesdf.inference.training import Training
from bayesdf.models import Detector
from bayesdf.report import source_attribution as presentation
from bayesdf.store import TREE, write_tree

VERSIONS = ("bayesdf", "python", "torch", "pyro", "xarray")


FACTORIES: dict[str, Callable[..., Training]] = {
    # Scales start wide and move fast, so that they arrive at the optimum of the ELBO within a few epochs.
    "svi": lambda **common: SVI(guide="normal", init_scale=1.0, scale_lr=0.05, **common),
    "svi_lowrank": lambda **common: SVI(guide="lowrank", init_scale=1.0, scale_lr=0.05, **common),
    "mc_dropout": lambda **common: MCDropout(rate=0.2, lr=2e-4, **common),
    "concrete_dropout": lambda **common: MCDropout(rate=0.2, lr=2e-4, concrete=True, **common),
    "deep_ensemble": DeepEnsemble,
    "swag": SWAG,
    "laplace_full": lambda **common: Laplace(structure="full", **common),
    "laplace_kron": lambda **common: Laplace(structure="kron", **common),
    "sgld": lambda **common: SGMCMC(dynamics="sgld", **common),
    "sghmc": SGMCMC,
    "nuts": NUTS,
}
"""A method by its name on the command line, as this study uses it. MAP is none: a single draw has no uncertainty."""
METHODS = {name: presentation.METHODS[name] for name in FACTORIES}
"""Methods of this study as they are called in text."""
VALIDATED = ("mc_dropout", "concrete_dropout")
"""Methods that train the whole last stage: they stop at the best validated epoch, not when the objective is flat."""
VALIDATED_EPOCHS = 5
"""Epochs of these unless --epochs says otherwise."""
UNTIL_FLAT = f"until the objective is flat; {VALIDATED_EPOCHS} for {' and '.join(VALIDATED)}"
"""What --epochs is by default, in words."""
DEFAULT = ("svi", "mc_dropout")
LAST_LAYER = ("laplace_full", "laplace_kron", "nuts")
"""Methods whose priors are over the classifier alone: Laplace takes no more, NUTS would take hours."""


def method(name: str, *, epochs: int | None = None, seed: int, device: str, checkpoint: Path | None = None) -> Training:
    """An inference method by its name on the command line.

    Parameters
    ----------
    epochs
        Passes over the training images. None: until the objective is flat, or `VALIDATED_EPOCHS` where the method is
        one of `VALIDATED`.
    """
    if epochs is None and name in VALIDATED:
        epochs = VALIDATED_EPOCHS
    common: dict[str, Any] = {
        "epochs": epochs,
        "freeze": "prefix",
        "augment": data.augment,
        "views": 2,
        "seed": seed,
        "device": device,
        "checkpoint": checkpoint,
    }
    return FACTORIES[name](**common)


def main(
    data_: options.Data = "embedded",
    detector: options.Network = "resnet18",
    methods: Annotated[
        str, typer.Option("--method", help=f"Inference methods, separated by commas: {', '.join(METHODS)}.")
    ] = ",".join(DEFAULT),
    draws: options.Draws = 50,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Passes over the training images for each posterior. By default "
            f"{UNTIL_FLAT}, which keep the epoch that validates best.",
            show_default=False,
        ),
    ] = None,
    warm_epochs: options.WarmEpochs = 30,
    size: options.Size = 64,
    out: Annotated[Path, typer.Option(help="Folder of the run; must be new or empty.")] = Path(
        "runs/source_attribution"
    ),
    seed: Annotated[
        int, typer.Option(help="Seed of everything random. The same seed gives the same run.", min=0, max=2**32 - 1)
    ] = 0,
    device: options.Device = "auto",
    skip_unreadable: options.SkipUnreadable = 0.0,
    split: options.Split = "",
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="A quick look: one epoch, at most two warm epochs and ten draws, whatever the other options say. Its "
            "figures mean little.",
        ),
    ] = False,
) -> None:
    """Tell the generator of a fake from a detector's uncertainty about it.

    Trains a Bayesian detector of real against fake, predicts people it never saw with posterior draws, splits the
    uncertainty into aleatoric and epistemic, and names the source of each fake from that uncertainty, beside controls.

    The run folder holds run.zarr (all draws and results, for xarray), metrics.json, tables/, figures/ and report.html.
    A run that was stopped goes on where it was when the same command is given again.
    """
    names = _with_uncertainty(methods)
    options.check(draws, epochs, warm_epochs, size, detector, device)
    fractions = options.fractions(split)
    if quick:
        if epochs not in (None, 1):
            warnings.warn(f"--quick overrides --epochs {epochs}: one epoch", BayesdfWarning, stacklevel=1)
        epochs, warm_epochs, draws = 1, min(warm_epochs, 2), min(draws, 10)
        console.print(f"a quick look: one epoch, {draws} draws; its figures mean little")
    started = time.monotonic()
    out = out.resolve()
    refuse_used(out)
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
    }
    console.print(f"[bold]1/4[/] images: {escape(data_)}")
    collection = data.load(data_, "binary", size=size, fractions=fractions, seed=seed, skip_unreadable=skip_unreadable)
    console.print(f"    {data.describe_people(collection.manifest)}", markup=False, highlight=False, soft_wrap=True)
    _enough_generators(collection)
    # Not the methods asked for, nor the device: what is finished serves another choice of these.
    recipe = {name: method(name, epochs=epochs, seed=seed, device="auto").settings() for name in METHODS}
    begun = {"fingerprint": collection.fingerprint, "start": warm_start.digest(detector, collection), "methods": recipe}
    with workspace(out, settings, begun) as folder:
        posteriors = {}
        for name in names:
            console.print(f"[bold]2/4[/] posterior by {METHODS[name]}")
            posteriors[name] = _posterior(name, detector, collection, folder, settings, device)
        console.print(f"[bold]3/4[/] {draws} draws for each of {len(collection.val) + len(collection.test)} images")
        results = {name: study(posterior, collection, draws, seed, device) for name, posterior in posteriors.items()}
        console.print("[bold]4/4[/] tables, figures, report")
        settings |= {"draws": draws, "method": ",".join(names), "device": device, "quick": quick}
        seconds = time.monotonic() - started
        _write(folder, results, collection, settings, seconds)
    rows = ((label, *cells) for label, cells in presentation.headline(results).items())
    columns = ("", *(METHODS[name] for name in results))
    people = presentation.people(results)
    title = f"People the detector never saw (95 % intervals over {people} people)"
    announce(title, columns, rows, out, time.monotonic() - started)
    if people < presentation.FEW:
        warnings.warn(presentation.few(people), BayesdfWarning, stacklevel=1)


def study(posterior: Posterior, collection: data.Collection, draws: int, seed: int, device: str) -> xr.DataTree:
    """Predict, recalibrate, decompose and attribute: everything the study says of one posterior.

    Logits are scaled and shifted as fits the validation people, since a detector is surer of the people it was trained
    on than of strangers. Sources are named by classifiers fitted on the validation people and on the test people of
    other subject groups: nobody in a judged image, as subject or donor, was seen by the detector or by the classifier.

    Returns
    -------
    xr.DataTree
        What `Posterior.predict` returns for the test people, its logits recalibrated, and the groups `recalibration`,
        `uncertainty`, `metrics` and `attribution/<feature set>`.
    """
    parts = [collection.val, collection.test]
    each = per_chain(posterior, draws)
    trees = [posterior.predict(part, each, seed, device=device, penultimate=True) for part in parts]
    scaling = analysis.fit_scaling(trees[0])
    trees = [analysis.rescale(tree, scaling) for tree in trees]
    predictions = trees[-1].drop_nodes("features")
    features = {
        "uncertainty": _of_fakes(trees, lambda tree: analysis.combine(_scalars(tree), analysis.profile(tree))),
        "uncertainty_scalars": _of_fakes(trees, _scalars),
        "mean_probability": _of_fakes(trees, analysis.mean_probability),
        "penultimate_features": _of_fakes(trees, _penultimate),
    }
    linked = _linked([part.manifest for part in parts])
    attributions = {
        name: analysis.attribute(part, subject_groups=linked, fit_only=part["split"].values != "test", seed=seed)
        for name, part in features.items()
    }
    summary = analysis.summarise(attributions, against=presentation.CONTROL, seed=seed)
    groups = {
        **{node.path: node.to_dataset(inherit=False) for node in predictions.subtree},
        "/recalibration": scaling,
        "/uncertainty": analysis.decompose(predictions),
        "/metrics": analysis.evaluate(predictions, seed=seed),
        "/attribution": xr.Dataset.from_dataframe(summary),
        **{f"/attribution/{name}": part for name, part in attributions.items()},
    }
    return xr.DataTree.from_dict(groups)


def _linked(manifests: Sequence[pd.DataFrame]) -> pd.Series:
    """Who must not be parted among the fakes, in all parts together: names by part would meet by chance."""
    manifest = pd.concat(manifests, ignore_index=True)
    return data.subject_groups(manifest)[manifest["source"] != data.REAL]


def _scalars(tree: xr.DataTree) -> xr.DataArray:
    """The scalars, without those that are functions of the mean probability alone: that is the control."""
    scalars = analysis.scalars(tree)
    own = [
        name for name in scalars["feature"].values if not analysis.describe_feature(str(name)).mean_probability_alone
    ]
    return scalars.sel(feature=own)


def _penultimate(tree: xr.DataTree) -> xr.DataArray:
    """The ceiling: what the network itself makes of each image."""
    known = analysis.mean_probability(tree).coords
    coords = {name: coord for name, coord in known.items() if coord.dims == ("image",)}
    return xr.DataArray(tree["features/penultimate"].values, coords, ("image", "feature"))


def _of_fakes(trees: list[xr.DataTree], features: Callable[[xr.DataTree], xr.DataArray]) -> xr.DataArray:
    parts = [features(tree) for tree in trees]
    return xr.concat([part[(part["source"] != data.REAL).values] for part in parts], "image")


def _with_uncertainty(given: str) -> list[str]:
    """The methods given; MAP is refused."""
    if "map" in (name.strip() for name in given.split(",")):
        raise BayesdfError(
            "--method map: MAP has a single draw, so there is no uncertainty to read; choose from " + ", ".join(METHODS)
        )
    return options.known_methods(given, METHODS)


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
    posterior = finished(path)
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
    fitting = method(name, epochs=settings["epochs"], seed=settings["seed"], device=device, checkpoint=checkpoint)
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


def _write(
    folder: Path,
    results: Mapping[str, xr.DataTree],
    collection: data.Collection,
    settings: Mapping[str, Any],
    seconds: float,
) -> None:
    """The run's files, from the results of each method."""
    attrs = {"experiment": "source_attribution", **{key: str(value) for key, value in settings.items()}}
    tree = xr.DataTree.from_dict({name: result for name, result in results.items()})
    versions = {key: value for key, value in next(iter(results.values())).attrs.items() if key in VERSIONS}
    tree.attrs = {**versions, **attrs, "data_fingerprint": collection.fingerprint, "seconds": round(seconds, 1)}
    write_tree(tree, folder / TREE, overwrite=True)
    rows = list(range(len(collection.test)))
    images = np.stack([image.permute(1, 2, 0).numpy() for image, _ in collection.test.__getitems__(rows)])
    figures = presentation.figures(results, images, collection.test.manifest)
    tables = presentation.tables(results, collection.manifest)
    write_metrics(folder, presentation.metrics(results))
    write_tables(folder, tables)
    pictures = write_figures(folder, figures)
    presentation.page(
        folder / "report.html",
        results,
        pictures,
        tables,
        settings if settings["epochs"] is not None else {**settings, "epochs": UNTIL_FLAT},
        _notes(collection, settings),
        collection.credit,
    )


def _notes(collection: data.Collection, settings: Mapping[str, Any]) -> list[str]:
    """What a reader must know of the images and of the start, to judge the figures."""
    notes = [
        f"{data.describe_people(collection.manifest)}. Train, validation and test share no person. Every image, real "
        "or fake, went through the same crop, resize, 8-bit and JPEG steps before anything was learnt from it."
    ]
    if collection.name == "embedded":
        notes.append(
            "The photographs are 400 pictures of 40 people; nine generators made as many fakes each. Five draw new "
            "faces, of nobody, and were trained on the 30 people of training and validation; four work on the "
            "photographs, and the two of these that have a network were trained on all 40 people, as a forger's would "
            "be on his victims. The second person of a swap comes from the same split, and within the test from the "
            "same group of three or four people."
        )
    notes.append(
        "All logits were multiplied by one number and shifted by another before anything else was computed from them, "
        "as makes the validation people's images most probable (`recalibration` in run.zarr): a detector is surer of "
        "the people it was trained on than of strangers. `posteriors/` holds the posteriors as fitted."
    )
    if warm_start.ships(str(settings["detector"]), collection):
        notes.append(
            "The network started from weights trained beforehand on the training people alone (a warm start, which "
            "comes with the package), to tell their sources, photographs being one. No validation or test person was "
            "seen by those weights."
        )
    else:
        notes.append(
            "The network was trained from scratch on the training split, to tell the sources, before the posteriors of "
            "real against fake were fitted."
        )
    notes.append(
        "SVI's posterior is over the classifier's weights and the gains and shifts of the normalisation before it, "
        "those with priors centred on the start; MC dropout's is over masks of the channels of the last stage. All "
        "weights before the first of these stay as they were."
    )
    return notes


if __name__ == "__main__":
    run_cli(main)

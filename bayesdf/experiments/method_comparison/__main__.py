"""The command line: `python -m bayesdf.experiments.method_comparison`."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
import xarray as xr
from rich.markup import escape

import bayesdf.data as data
from bayesdf._version import __version__
from bayesdf.cli import console, run_cli
from bayesdf.errors import BayesdfError
from bayesdf.experiments import options, warm_start
from bayesdf.experiments.method_comparison.methods import FACTORIES, PRIOR_SCALE, Budget, method
from bayesdf.experiments.method_comparison.study import fitted, judged
from bayesdf.experiments.run import announce, refuse_used, workspace, write_figures, write_metrics, write_tables
from bayesdf.report import method_comparison as presentation
from bayesdf.report.method_comparison.names import posteriors
from bayesdf.store import TREE, write_tree

VERSIONS = ("bayesdf", "python", "torch", "pyro", "xarray")


def main(
    data_: options.Data = "embedded",
    detector: options.Network = "resnet10t",
    methods: Annotated[
        str, typer.Option("--method", help=f"Inference methods, separated by commas: {', '.join(FACTORIES)}.")
    ] = ",".join(FACTORIES),
    left_out: Annotated[
        str, typer.Option("--left-out", help="The generator that the detector never sees before it is judged on it.")
    ] = "diffusion",
    draws: options.Draws = 50,
    epochs: Annotated[int, typer.Option(help="Passes over the training images for each fit.")] = 100,
    seeds: Annotated[
        int, typer.Option(help="Fits by each method, with seeds that follow one another; 1 gives no intervals.")
    ] = 3,
    warm_epochs: options.WarmEpochs = 30,
    size: options.Size = 64,
    out: Annotated[Path, typer.Option(help="Folder of the run; must be new or empty.")] = Path(
        "runs/method_comparison"
    ),
    seed: Annotated[
        int, typer.Option(help="The first seed, and that of the start. The same seed gives the same run.", min=0)
    ] = 0,
    device: options.Device = "auto",
    skip_unreadable: options.SkipUnreadable = 0.0,
    split: options.Split = "",
    quick: Annotated[
        bool,
        typer.Option("--quick", help="A quick look: one epoch, two seeds, ten draws. Its figures mean little."),
    ] = False,
) -> None:
    """Compare ways to a detector's posterior: quality, doubt about a generator never seen, and cost.

    Every method starts from the same point estimate, has the same priors over the classifier and sees the same training
    images, without one generator. It is judged on people it never saw and on that generator's images.

    The run folder holds run.zarr (draws and results by method and seed, for xarray), posteriors/, metrics.json,
    tables/, figures/ and report.html. A run that was stopped goes on where it was when the same command is given again.
    """
    names = sorted(options.known_methods(methods, FACTORIES), key=list(FACTORIES).index)
    options.check(draws, epochs, warm_epochs, size, detector, device)
    if not 1 <= seeds <= 100:
        raise BayesdfError(f"--seeds {seeds}: give at least 1 (2 or more for intervals), and at most 100")
    fractions = options.fractions(split)
    if quick:
        console.print("a quick look: one epoch, two seeds, ten draws at most, whatever the options say")
        epochs, warm_epochs, draws, seeds = min(epochs, 1), min(warm_epochs, 2), min(draws, 10), min(seeds, 2)
    if seeds == 1:
        console.print("one seed: there will be no intervals over seeds, only those over people")
    started = time.monotonic()
    out = out.resolve()
    refuse_used(out)
    console.print(f"[bold]1/4[/] images: {escape(data_)}, without {escape(left_out)}")
    collection = data.load(data_, "binary", size=size, fractions=fractions, seed=seed, skip_unreadable=skip_unreadable)
    console.print(f"    {data.describe_people(collection.manifest)}", markup=False, highlight=False, soft_wrap=True)
    rest, unseen = data.leave_out(collection, left_out)
    budget = Budget(epochs, draws, quick)
    settings = {
        "bayesdf": __version__,
        "data": data_,
        "detector": detector,
        "left_out": left_out,
        **asdict(budget),
        "warm_epochs": warm_epochs,
        "size": size,
        "seed": seed,
        "skip_unreadable": skip_unreadable,
        "split": split,
    }
    # Not the methods asked for, nor how many seeds or the device: what is finished serves another choice of these.
    blank, image = warm_start.blank(detector, rest), rest.train[0][0][None]
    recipes = {name: method(name, blank, image, budget, seed=seed, device="auto").settings() for name in FACTORIES}
    begun = {
        "fingerprint": collection.fingerprint,
        "start": warm_start.digest(detector, rest),
        "prior_scale": PRIOR_SCALE,
        "methods": recipes,
    }
    with workspace(out, settings, begun) as folder:
        console.print("[bold]2/4[/] the point estimate that all start from")
        network = warm_start.start(
            detector, rest, keep=folder / "warm_start.safetensors", epochs=warm_epochs, seed=seed, device=device
        )
        results: dict[str, xr.DataTree] = {}
        work = [(name, one) for one in range(seed, seed + seeds) for name in names]
        for number, (name, one) in enumerate(work, 1):
            console.print(f"[bold]3/4[/] {presentation.METHODS[name]}, seed {one} ({number} of {len(work)})")
            posterior = fitted(name, one, network, rest.train, budget, folder, device)
            results[f"{name}/{one}"] = judged(posterior, rest.test, unseen, budget, one, device)
        console.print("[bold]4/4[/] tables, figures, report")
        tree = xr.DataTree.from_dict({path: results[path] for path in sorted(results, key=_place)})
        settings |= {"seeds": seeds, "method": ",".join(names), "device": device}
        seconds = time.monotonic() - started
        tables = _write(folder, tree, rest, unseen, settings, seconds)
    rows = ((label, *cells) for label, cells in presentation.headline(tables["comparison"]).items())
    title = f"People and a generator ({left_out}) the detector never saw (mean over {seeds} seed{'s' * (seeds > 1)})"
    announce(title, presentation.HEADLINE, rows, out, time.monotonic() - started)


def _place(path: str) -> tuple[int, int]:
    """Where `<method>/<seed>` stands in a run: methods in their order, seeds by number."""
    name, one = path.split("/")
    return list(FACTORIES).index(name), int(one)


def _write(
    folder: Path,
    tree: xr.DataTree,
    rest: data.Collection,
    unseen: data.ImageDataset,
    settings: Mapping[str, Any],
    seconds: float,
) -> dict[str, pd.DataFrame]:
    """The run's files; returns the tables."""
    versions = {key: value for key, value in next(posteriors(tree))[2].attrs.items() if key in VERSIONS}
    attrs = {key: str(value) for key, value in settings.items()}
    own = {"experiment": "method_comparison", **attrs, "data_fingerprint": rest.fingerprint}
    tree.attrs = {**versions, **own, "seconds": round(seconds, 1)}
    write_tree(tree, folder / TREE, overwrite=True)
    tables = presentation.tables(tree, rest.manifest, unseen.manifest)
    figures = presentation.figures(tree, tables, str(settings["left_out"]))
    write_metrics(folder, presentation.metrics(tree, tables))
    write_tables(folder, tables)
    pictures = write_figures(folder, figures)
    notes = _notes(rest, settings)
    presentation.page(folder / "report.html", tree, pictures, tables, settings, notes, rest.credit)
    return tables


def _notes(rest: data.Collection, settings: Mapping[str, Any]) -> list[str]:
    """What a reader must know of the images and of the start, to judge the figures."""
    start = (
        "weights that come with the package, trained beforehand on the training people alone and without "
        if warm_start.ships(str(settings["detector"]), rest)
        else "weights trained in this run on the training people alone and without "
    )
    return [
        f"{data.describe_people(rest.manifest)}. Train, validation and test share no person. Every image, real "
        "or fake, went through the same crop, resize, 8-bit and JPEG steps before anything was learnt from it.",
        f"Every fit starts from the same network: {start}{settings['left_out']}. All of it but the classifier stays as "
        f"it is. Where a method takes priors, each weight and bias of the classifier is normal around 0 with deviation "
        f"{PRIOR_SCALE}. Every method sees the same training images, not augmented, both classes weighing alike, and "
        "no validation image.",
        "Logits are judged as the methods give them, without recalibration: whether a method's doubt fits strangers is "
        "one of the things compared.",
    ]


if __name__ == "__main__":
    run_cli(main)

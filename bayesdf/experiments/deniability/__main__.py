"""The command line: `python -m bayesdf.experiments.deniability`."""

import shutil
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
import xarray as xr

from bayesdf._version import __version__
from bayesdf.cli import console, run_cli
from bayesdf.errors import BayesdfError
from bayesdf.experiments.deniability.pictures import weights_digest
from bayesdf.experiments.deniability.study import study
from bayesdf.experiments.run import announce, refuse_used, workspace, write_figures, write_metrics, write_tables
from bayesdf.faces import CREDIT
from bayesdf.generators import GENERATORS, Generator
from bayesdf.report import deniability as presentation
from bayesdf.report.deniability import Results
from bayesdf.store import TREE, write_tree

RIVALS = ("vae", "dcgan")
VERSIONS = {"bayesdf": __version__, "torch": torch.__version__, "xarray": xr.__version__}


def main(
    generator: Annotated[str, typer.Option(help="The accused: a generator that can be inverted.")] = "dcgan",
    samples: Annotated[int, typer.Option(help="Samples in the developer's ledger; 50 to 100000.")] = 2000,
    images: Annotated[int, typer.Option(help="Accused images of each attack; 4 to 100.")] = 50,
    steps: Annotated[int, typer.Option(help="Most evaluations of the generator for one inversion.")] = 100,
    out: Annotated[Path, typer.Option(help="Folder of the run; must be new or empty.")] = Path("runs/deniability"),
    seed: Annotated[int, typer.Option(help="Seed of everything random, the toy secret too.", min=0, max=2**32 - 1)] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="A quick look: 200 samples, 8 images. Its figures mean little.")
    ] = False,
) -> None:
    """Frame an innocent developer, and let a guilty one deny; count how often each succeeds.

    The run folder holds run.zarr (all distances and verdicts), metrics.json, tables/, figures/, report.html, and
    ledger/ with what a developer publishes or hands over. A run that was stopped goes on where it was when the same
    command is given again.
    """
    accused = _accused(generator)
    for name, value, low, high in (
        ("samples", samples, 50, 100_000),
        ("images", images, 4, 100),
        ("steps", steps, 1, 10_000),
    ):
        if not low <= value <= high:
            raise BayesdfError(f"--{name} {value}: give {low} to {high}")
    if quick:
        samples, images, steps = min(samples, 200), min(images, 8), min(steps, 40)
    started = time.monotonic()
    out = out.resolve()
    refuse_used(out)
    rival = GENERATORS[next(name for name in RIVALS if name != generator)]
    settings = {
        "bayesdf": __version__,
        "generator": generator,
        "weights": weights_digest(accused),
        "rival": rival.name,
        "samples": samples,
        "images": images,
        "steps": steps,
        "seed": seed,
    }
    with workspace(out, settings, {"rival_weights": weights_digest(rival)}) as folder:
        results = study(folder, accused, rival, samples=samples, images=images, steps=steps, seed=seed)
        console.print("[bold]6/6[/] tables, figures, report")
        _write(folder, results, settings | {"quick": quick}, time.monotonic() - started)
    console.print(presentation.answer(results), markup=False, highlight=False, soft_wrap=True)
    columns = ("", "inversion convicts", "ledger says made")
    rows, seconds = presentation.verdicts(results), time.monotonic() - started
    announce("Share of images (95 % intervals over people, or samples)", columns, rows, out, seconds)


def _accused(name: str) -> Generator:
    able = ", ".join(key for key, generator in GENERATORS.items() if generator.invertible)
    if name not in GENERATORS:
        raise BayesdfError(f"unknown generator {name!r}: choose from {able}")
    if not GENERATORS[name].invertible:
        raise BayesdfError(
            f"generator {name} cannot be inverted, so nobody is accused by inversion: choose from {able}"
        )
    return GENERATORS[name]


def _write(folder: Path, results: Results, settings: dict[str, Any], seconds: float) -> None:
    """The run's files. Inversions were kept for a second try only."""
    frames = {
        "accused": results.accused,
        "copied": results.copied,
        "fresh": results.fresh,
        "guilty": results.guilty,
        "growth": results.growth,
        "cheats": results.cheats,
        "calibration/genuine": results.genuine,
        "calibration/innocents": results.innocents,
    }
    groups = {f"/{name}": xr.Dataset.from_dataframe(part.rename_axis("image")) for name, part in frames.items()}
    axes = ("image", "y", "x")
    for name, part in (("published", results.published), ("wanted", results.targets)):
        groups["/accused"][name] = (axes, (part * 255.0).round().astype(np.uint8))
    tree = xr.DataTree.from_dict(groups)
    named = {key: str(value) for key, value in settings.items()}
    measured = {key: results.facts[key] for key in ("threshold", "error", "energy")}
    tree.attrs = {**VERSIONS, **named, **measured, "experiment": "deniability", "seconds": round(seconds, 1)}
    write_tree(tree, folder / TREE, overwrite=True)
    figures, tables = presentation.figures(results), presentation.tables(results)
    write_metrics(folder, presentation.metrics(results))
    write_tables(folder, tables)
    pictures = write_figures(folder, figures)
    presentation.page(folder / "report.html", results, pictures, tables, settings, CREDIT)
    shutil.rmtree(folder / "inversions", ignore_errors=True)


if __name__ == "__main__":
    run_cli(main)

"""The command line: `python -m bayesdf.experiments.inversion`."""

import hashlib
import importlib.resources
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
import xarray as xr

from bayesdf._version import __version__
from bayesdf.cli import run_cli
from bayesdf.errors import BayesdfError
from bayesdf.experiments.inversion.plan import Plan
from bayesdf.experiments.inversion.study import study
from bayesdf.experiments.inversion.work import WORK
from bayesdf.experiments.run import announce, refuse_used, workspace, write_figures, write_metrics, write_tables
from bayesdf.generators import GENERATORS
from bayesdf.report import inversion as presentation
from bayesdf.store import TREE, write_tree

QUICK = "vae,dcgan,flow"
"""Candidates of a quick look that names none: those that are inverted soonest."""


def main(
    images: Annotated[
        int, typer.Option(help="Pictures of each source to judge, 4 to 1000 (photographs: 50 at most).")
    ] = Plan.images,
    candidates: Annotated[
        str,
        typer.Option(help="Generators to invert, separated by commas; all that can be by default. Two or more."),
    ] = "",
    steps: Annotated[int, typer.Option(help="Most evaluations of a generator for a picture, 2 to 10000.")] = Plan.steps,
    forgive: Annotated[
        bool,
        typer.Option(
            "--forgiving/--strict",
            help="Whether the search may also zoom, shift, tone and blur what a generator makes, to undo what happened "
            "to a picture on its way.",
        ),
    ] = Plan.forgiving,
    out: Annotated[Path, typer.Option(help="Folder of the run; must be new or empty.")] = Path("runs/inversion"),
    seed: Annotated[
        int, typer.Option(help="Seed of everything random. The same seed gives the same run.", min=0, max=2**32 - 1)
    ] = 0,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="A look in about three minutes on one core: few pictures, few steps, and three candidates "
            f"({QUICK}) unless you name some. Its figures mean little.",
        ),
    ] = False,
) -> None:
    """Attribute pictures to generators by inverting them, beside a classifier, under perturbations and attacks.

    Sources are photographs, the candidates, and the generators that cannot be inverted. A generator that can be but is
    no candidate is left out altogether.

    The run folder holds run.zarr (evidence, probabilities, all results, for xarray), attribution.zarr (the calibrated
    attribution, for your own pictures), metrics.json, tables/, figures/ and report.html. A run that was stopped goes on
    where it was when the same command is given again.
    """
    chosen = _known_candidates(candidates or (QUICK if quick else ""))
    if not 4 <= images <= 1000:
        raise BayesdfError(f"--images {images}: give 4 to 1000")
    if not 2 <= steps <= 10000:
        raise BayesdfError(f"--steps {steps}: give 2 to 10000")
    plan = Plan(
        images=images,
        calibration=max(4, round(1.2 * images)),
        train=8 * images,
        disturbed=max(1, 3 * images // 8),
        steps=steps,
        forgiving=forgive,
        seed=seed,
    )
    if quick:
        plan = replace(
            plan, images=3, calibration=3, train=12, disturbed=1, strengths=1, budgets=(8.0,), rounds=1, epochs=2
        )
        plan = replace(plan, steps=min(steps, 8))
    started = time.monotonic()
    out = out.resolve()
    refuse_used(out)
    sources = {name: generator for name, generator in GENERATORS.items() if name in chosen or not generator.invertible}
    settings = {"bayesdf": __version__, "candidates": ",".join(chosen), **asdict(plan), "weights": _weights()}
    options = {name: settings[name] for name in ("bayesdf", "candidates", "images", "steps", "forgiving", "seed")}
    follows = {name: value for name, value in settings.items() if name not in options}
    with workspace(out, options, follows) as folder:
        tree = study(folder, sources, {name: GENERATORS[name] for name in chosen}, plan)
        seconds = time.monotonic() - started
        _write(folder, tree, settings | {"quick": quick}, seconds)
        shutil.rmtree(folder / WORK, ignore_errors=True)
    rows = ((label, *cells) for label, cells in presentation.headline(tree).items())
    columns = ("", "candidates' samples", "all sources")
    announce("Sources named rightly (95 % intervals)", columns, rows, out, time.monotonic() - started)


def _known_candidates(text: str) -> list[str]:
    able = [name for name, generator in GENERATORS.items() if generator.invertible]
    names = [name.strip() for name in text.split(",") if name.strip()] if text else able
    for name in names:
        if name not in GENERATORS:
            raise BayesdfError(f"unknown generator {name!r}: choose candidates from {', '.join(able)}")
        if name not in able:
            raise BayesdfError(f"generator {name!r} cannot be inverted: choose candidates from {', '.join(able)}")
    names = list(dict.fromkeys(names))
    if len(names) < 2:
        raise BayesdfError(f"--candidates {text!r}: attribution takes two candidates or more, of {', '.join(able)}")
    return names


def _weights() -> str:
    """Fingerprint of the generators' weights: pictures made with others are not those of this run."""
    digest = hashlib.sha256()
    folder = importlib.resources.files("bayesdf.generators").joinpath("weights")
    for file in sorted(folder.iterdir(), key=lambda item: item.name):
        if file.name.endswith(".safetensors"):
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _write(folder: Path, tree: xr.DataTree, settings: Mapping[str, Any], seconds: float) -> None:
    attrs = {
        key: json.dumps(value) if isinstance(value, list | tuple) else str(value) for key, value in settings.items()
    }
    tree.attrs = {"experiment": "inversion", **attrs, "torch": torch.__version__, "seconds": round(seconds, 1)}
    write_tree(tree, folder / TREE, overwrite=True)
    tables = presentation.tables(tree)
    figures = presentation.figures(tree, tables)
    write_metrics(folder, presentation.metrics(tree, tables))
    write_tables(folder, tables)
    pictures = write_figures(folder, figures)
    presentation.page(folder / "report.html", tree, pictures, tables, settings)


if __name__ == "__main__":
    run_cli(main)

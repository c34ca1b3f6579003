"""The command line: `python -m bayesdf.experiments.inversion`."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from bayesdf.cli import run_cli
from bayesdf.errors import BayesdfError
from bayesdf.experiments.experiment import conduct
from bayesdf.experiments.inversion.plan import Plan
from bayesdf.experiments.inversion.study import study
from bayesdf.generators import GENERATORS

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
    sources = {name: generator for name, generator in GENERATORS.items() if name in chosen or not generator.invertible}
    inverted = {name: GENERATORS[name] for name in chosen}
    conduct(partial(study, sources=sources, candidates=inverted, plan=plan, quick=quick), out)


def _known_candidates(text: str) -> list[str]:
    """The candidates given, each once; all that can be inverted where none are."""
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


if __name__ == "__main__":
    run_cli(main)

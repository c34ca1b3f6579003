"""The command line: `python -m bayesdf.experiments.deniability`."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from bayesdf.cli import run_cli
from bayesdf.errors import BayesdfError
from bayesdf.experiments.deniability.study import study
from bayesdf.experiments.experiment import conduct
from bayesdf.generators import GENERATORS, Generator

RIVALS = ("vae", "dcgan")
"""Whose images are passed off as the accused's: the first of these that is not accused itself."""


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
    rival = GENERATORS[next(name for name in RIVALS if name != generator)]
    declare = partial(
        study, accused=accused, rival=rival, samples=samples, images=images, steps=steps, seed=seed, quick=quick
    )
    conduct(declare, out)


def _accused(name: str) -> Generator:
    """The generator of this name; one that cannot be inverted is refused."""
    able = ", ".join(key for key, generator in GENERATORS.items() if generator.invertible)
    if name not in GENERATORS:
        raise BayesdfError(f"unknown generator {name!r}: choose from {able}")
    if not GENERATORS[name].invertible:
        raise BayesdfError(
            f"generator {name} cannot be inverted, so nobody is accused by inversion: choose from {able}"
        )
    return GENERATORS[name]


if __name__ == "__main__":
    run_cli(main)

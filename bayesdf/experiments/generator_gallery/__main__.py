"""The command line: `python -m bayesdf.experiments.generator_gallery`."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from bayesdf.cli import run_cli
from bayesdf.errors import BayesdfError
from bayesdf.experiments.experiment import conduct
from bayesdf.experiments.generator_gallery.study import study

LEAST = 40
"""Samples of each generator: fewer give no distance worth the name."""


def main(
    images: Annotated[int, typer.Option(help=f"Samples of each generator; {LEAST} to 2000.")] = 300,
    out: Annotated[Path, typer.Option(help="Folder of the run; must be new or empty.")] = Path(
        "runs/generator_gallery"
    ),
    seed: Annotated[int, typer.Option(help="Seed of all samples.", min=0, max=2**32 - 1)] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help=f"A quick look: {LEAST} samples of each generator. Its figures mean little.")
    ] = False,
) -> None:
    """Draw the generators' samples and measure their distance to photographs of people held out.

    The run folder holds run.zarr (distances and samples, for xarray), metrics.json, tables/, figures/ and report.html.
    """
    if not LEAST <= images <= 2000:
        raise BayesdfError(f"--images {images}: give {LEAST} to 2000")
    conduct(partial(study, images=LEAST if quick else images, seed=seed, quick=quick), out)


if __name__ == "__main__":
    run_cli(main)

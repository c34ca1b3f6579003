"""The command line: `python -m bayesdf.experiments.generator_gallery`."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from bayesdf.cli import run_cli
from bayesdf.errors import BayesdfError
from bayesdf.experiments.experiment import conduct
from bayesdf.experiments.generator_gallery.study import study


def main(
    images: Annotated[int, typer.Option(help="Samples of each generator; 40 to 2000.")] = 300,
    out: Annotated[Path, typer.Option(help="Folder of the run; must be new or empty.")] = Path("runs/gallery"),
    seed: Annotated[int, typer.Option(help="Seed of all samples.", min=0, max=2**32 - 1)] = 0,
) -> None:
    """Draw the generators' samples and measure their distance to photographs of people held out.

    The run folder holds run.zarr (distances and samples, for xarray), metrics.json, tables/, figures/ and report.html.
    """
    if not 40 <= images <= 2000:
        raise BayesdfError(f"--images {images}: give 40 to 2000")
    conduct(partial(study, images=images, seed=seed), out)


if __name__ == "__main__":
    run_cli(main)

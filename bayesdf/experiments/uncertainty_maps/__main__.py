"""The command line: `python -m bayesdf.experiments.uncertainty_maps`."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from bayesdf.cli import console, run_cli
from bayesdf.errors import BayesdfError
from bayesdf.experiments import options
from bayesdf.experiments.experiment import conduct
from bayesdf.experiments.source_attribution.methods import FACTORIES
from bayesdf.experiments.uncertainty_maps.study import study

LEAST = 2
"""Images of each source and split: fewer show nothing."""


def main(
    data_: options.Data = "embedded",
    detector: options.Network = "resnet10t_half",
    method: Annotated[str, typer.Option(help=f"Inference method, one of {', '.join(FACTORIES)}.")] = "svi",
    posteriors: Annotated[
        Path | None,
        typer.Option(
            help="A run of source_attribution on the same data, whose posterior is taken. Without it, or where it has "
            "none by this method, the posterior is fitted anew.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        int, typer.Option(help="Test images of each source whose maps are made by all methods.", min=LEAST)
    ] = 20,
    draws: options.Draws = 50,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Passes over the training images. By default until the objective is flat.", show_default=False
        ),
    ] = None,
    warm_epochs: options.WarmEpochs = 30,
    size: options.Size = 64,
    out: Annotated[Path, typer.Option(help="Folder of the run; must be new or empty.")] = Path("runs/uncertainty_maps"),
    seed: Annotated[
        int, typer.Option(help="Seed of everything random. The same seed gives the same run.", min=0, max=2**32 - 1)
    ] = 0,
    device: options.Device = "auto",
    skip_unreadable: options.SkipUnreadable = 0.0,
    split: options.Split = "",
    regions: Annotated[
        str,
        typer.Option(
            help="Where regions of the face come from: auto (landmarks of the images where there are any, the template "
            "for the embedded data) or template (the faces are aligned as those of the embedded data)."
        ),
    ] = "auto",
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="A quick look: one epoch, ten draws, at most 800 images, four of each source. Its figures "
            "mean little.",
        ),
    ] = False,
) -> None:
    """Show where in the picture a detector is unsure, and test whether the place is true.

    Maps of P(fake) and of each uncertainty are made by six methods, measured against the pixels that generators
    changed, and set beside rivals. A dense detector learns the changed pixels. The source of each fake is named from
    maps and regions.

    The run folder holds run.zarr (maps and scores), posteriors/, metrics.json, tables/, figures/ and report.html. A run
    that was stopped goes on where it was when the same command is given again.
    """
    options.check(draws, epochs, warm_epochs, size, detector, device)
    (chosen,) = options.known_methods(method, FACTORIES)[:1]
    if "," in method:
        raise BayesdfError(f"--method {method}: this experiment takes one method")
    fractions = options.fractions(split)
    if regions not in ("auto", "template"):
        raise BayesdfError(f"--regions {regions}: choose auto or template")
    if quick:
        epochs, warm_epochs, draws, images = 1, min(warm_epochs, 2), min(draws, 10), min(images, 4)
        console.print(
            f"a quick look: one epoch, {draws} draws, {images} images of each source; its figures mean little"
        )
    declare = partial(
        study,
        data_=data_,
        detector=detector,
        method=chosen,
        posteriors=posteriors,
        images=images,
        draws=draws,
        epochs=epochs,
        warm_epochs=warm_epochs,
        size=size,
        seed=seed,
        device=device,
        skip_unreadable=skip_unreadable,
        split=split,
        fractions=fractions,
        regions=regions,
        quick=quick,
    )
    conduct(declare, out)


if __name__ == "__main__":
    run_cli(main)

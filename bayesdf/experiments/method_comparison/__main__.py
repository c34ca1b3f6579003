"""The command line: `python -m bayesdf.experiments.method_comparison`."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from bayesdf.cli import console, run_cli
from bayesdf.errors import BayesdfError
from bayesdf.experiments import options
from bayesdf.experiments.experiment import conduct
from bayesdf.experiments.method_comparison.methods import FACTORIES
from bayesdf.experiments.method_comparison.study import study


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
        int,
        typer.Option(help="The first seed, and the start's. The same seed gives the same run.", min=0, max=2**31),
    ] = 0,
    device: options.Device = "auto",
    skip_unreadable: options.SkipUnreadable = 0.0,
    split: options.Split = "",
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="A quick look: one epoch, two seeds, ten draws, at most 800 images, short chains and small ensembles. "
            "Its figures mean little.",
        ),
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
    declare = partial(
        study,
        data_=data_,
        detector=detector,
        methods=names,
        left_out=left_out,
        draws=draws,
        epochs=epochs,
        seeds=seeds,
        warm_epochs=warm_epochs,
        size=size,
        seed=seed,
        device=device,
        skip_unreadable=skip_unreadable,
        split=split,
        fractions=fractions,
        quick=quick,
    )
    conduct(declare, out)


if __name__ == "__main__":
    run_cli(main)

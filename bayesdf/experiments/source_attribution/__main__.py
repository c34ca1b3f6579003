"""The command line: `python -m bayesdf.experiments.source_attribution`."""

import warnings
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from bayesdf.cli import console, run_cli
from bayesdf.data.splits import MOST_FOLDS
from bayesdf.errors import BayesdfError, BayesdfWarning
from bayesdf.experiments import options, warm_start
from bayesdf.experiments.experiment import conduct
from bayesdf.experiments.source_attribution.methods import DEFAULT, FACTORIES, UNTIL_FLAT
from bayesdf.experiments.source_attribution.score_file import KINDS
from bayesdf.experiments.source_attribution.score_study import score_study
from bayesdf.experiments.source_attribution.study import study

SCORES = "A table of scores in place of images and network"
OF_SCORES = ("--kind", "--detectors", "--missing")
OF_BOTH = ("--out", "--seed")


def main(
    data_: options.Data = "embedded",
    detector: options.Network = "resnet10t_half",
    start: options.Start = "blind",
    sites: Annotated[
        str,
        typer.Option(
            help=f"Which weights are random: {', '.join(warm_start.SITES)}; each holds those before it. Laplace and "
            "NUTS take the classifier alone, and dropout has masks of its own."
        ),
    ] = "normalisation",
    methods: Annotated[
        str, typer.Option("--method", help=f"Inference methods, separated by commas: {', '.join(FACTORIES)}.")
    ] = ",".join(DEFAULT),
    draws: options.Draws = 50,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Passes over the training images for each posterior. By default "
            f"{UNTIL_FLAT}. Dropout then keeps the epoch that validates best.",
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
    folds: Annotated[
        int,
        typer.Option(
            help="Folds of a cross-fit, 1 to 10: each has a detector of its own, and judges people whom no other fold "
            "judges. 1: the first fold alone. The embedded data has four, which judge all 40 people. The third share "
            "of --split has no meaning then."
        ),
    ] = 1,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="A quick look: one epoch, at most two warm epochs, ten draws, at most 800 images, short chains and "
            "small ensembles, whatever the other options say. Its figures mean little.",
        ),
    ] = False,
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="A table of scores (CSV) to study in place of images, without a network: a row an image, a column a "
            "detector, and the columns label (0 real, 1 fake), source and subject; path, donor, video and group where "
            "wanted.",
            rich_help_panel=SCORES,
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            help=f"What the scores are: {', '.join(KINDS)}. Higher is more fake. Needed, since it is never guessed.",
            show_default=False,
            rich_help_panel=SCORES,
        ),
    ] = None,
    detectors: Annotated[
        str,
        typer.Option(
            help="The columns of scores, separated by commas. By default all that do not describe the image.",
            rich_help_panel=SCORES,
        ),
    ] = "",
    missing: Annotated[
        str,
        typer.Option(
            help="What to do with images that some detector has no score for: refuse, or `leave out`.",
            rich_help_panel=SCORES,
        ),
    ] = "refuse",
    context: typer.Context = None,  # type: ignore[assignment]  # typer gives it; None where this is called as a function
) -> None:
    """Tell the generator of a fake from a detector's uncertainty about it.

    Trains a Bayesian detector of real against fake, predicts people it never saw with posterior draws, splits the
    uncertainty into aleatoric and epistemic, and names the source of each fake from that uncertainty, beside controls.

    With --predictions, the detectors of a table of scores take the place of posterior draws.

    The run folder holds run.zarr (all draws and results, for xarray), metrics.json, tables/, figures/ and report.html.
    A run that was stopped goes on where it was when the same command is given again.
    """
    _refuse_options_of_another_study(_given(context), predictions)
    if predictions is not None:
        if kind is None:
            raise BayesdfError(f"--predictions needs --kind: say what the scores are, one of {', '.join(KINDS)}")
        names = [name.strip() for name in detectors.split(",") if name.strip()]
        conduct(
            partial(score_study, predictions=predictions, kind=kind, detectors=names, missing=missing, seed=seed), out
        )
        return
    chosen = _with_uncertainty(methods)
    options.check(draws, epochs, warm_epochs, size, detector, device)
    fractions = options.fractions(split)
    learnt = warm_start.known_start(start)
    if sites not in warm_start.SITES:
        raise BayesdfError(f"--sites {sites}: choose from {', '.join(warm_start.SITES)}")
    if not 1 <= folds <= MOST_FOLDS:
        raise BayesdfError(f"--folds {folds}: give 1 to {MOST_FOLDS}")
    if quick:
        if epochs not in (None, 1):
            warnings.warn(f"--quick overrides --epochs {epochs}: one epoch", BayesdfWarning, stacklevel=1)
        epochs, warm_epochs, draws = 1, min(warm_epochs, 2), min(draws, 10)
        console.print(f"a quick look: one epoch, {draws} draws; its figures mean little")
    declare = partial(
        study,
        data_=data_,
        detector=detector,
        start=learnt,
        sites=sites,  # type: ignore[arg-type]
        methods=chosen,
        draws=draws,
        epochs=epochs,
        warm_epochs=warm_epochs,
        size=size,
        seed=seed,
        device=device,
        skip_unreadable=skip_unreadable,
        split=split,
        fractions=fractions,
        folds=folds,
        quick=quick,
    )
    conduct(declare, out)


def _given(context: typer.Context | None) -> set[str]:
    """The options that stand on the command line; none where there is no command line."""
    if context is None:
        return set()
    sources = {one.opts[0]: context.get_parameter_source(str(one.name)) for one in context.command.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def _refuse_options_of_another_study(given: set[str], predictions: Path | None) -> None:
    """Refuse what is said of a network beside a table of scores, and what is said of scores without one."""
    if predictions is None:
        alone = [name for name in OF_SCORES if name in given]
        if alone:
            raise BayesdfError(f"{alone[0]} is of a table of scores: give --predictions scores.csv too")
        return
    others = sorted(given - {"--predictions", *OF_SCORES, *OF_BOTH})
    if others:
        raise BayesdfError(
            f"{', '.join(others)} with --predictions: a table of scores needs no images and no network; leave that out"
        )


def _with_uncertainty(given: str) -> list[str]:
    """The methods given; MAP is refused."""
    if "map" in (name.strip() for name in given.split(",")):
        raise BayesdfError(
            "--method map: MAP has a single draw, so there is no uncertainty to read; choose from "
            + ", ".join(FACTORIES)
        )
    return options.known_methods(given, FACTORIES)


if __name__ == "__main__":
    run_cli(main)

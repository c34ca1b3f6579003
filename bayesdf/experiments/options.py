"""What the command lines of studies of a detector share: options, and what their values must be."""

import math
from collections.abc import Iterable
from typing import Annotated

import torch
import typer

from bayesdf.errors import BayesdfError
from bayesdf.inference.prediction.predictor import resolve_device
from bayesdf.models import build

Data = Annotated[
    str,
    typer.Option(
        "--data",
        help="`embedded`, or a folder <root>/<source>/** with the photographs in <root>/real and the images of each of "
        "two or more generators in a folder of its name. Who is in an image is read from the names, or from a table "
        "<root>/subjects.csv (columns path, subject; donor, video, split where wanted).",
    ),
]
Split = Annotated[
    str,
    typer.Option(
        "--split",
        help="Shares of train, val and test by which people are dealt, such as 0.5,0.2,0.3. By default 0.6,0.15,0.25, "
        "with two people of every source in the test where it has five.",
    ),
]
Network = Annotated[
    str,
    typer.Option(
        help="Network: resnet10t_half, resnet18, xception, efficientnet, mobilenet, or any name of torchvision or timm."
    ),
]
Start = Annotated[
    str,
    typer.Option(
        "--start",
        help="What the weights that posteriors start from have learnt: blind (real against fake; no source was named "
        "to them) or sources (who made each image; ships for resnet18).",
    ),
]
Draws = Annotated[int, typer.Option(help="Posterior draws for each image; 2 to 1000.")]
WarmEpochs = Annotated[
    int,
    typer.Option(help="Passes for the point estimate the posteriors start from, where none ships (your own data)."),
]
Size = Annotated[int, typer.Option(help="Side in pixels to which every image is cropped and resized.")]
Device = Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu or cuda.")]
SkipUnreadable = Annotated[float, typer.Option(help="Share of unreadable images that may be left out, 0 to 1.")]


def check(draws: int, epochs: int | None, warm_epochs: int, size: int, detector: str, device: str) -> None:
    """Refuse, in one line, what no study can be made with, before any work."""
    if not 2 <= draws <= 1000:
        raise BayesdfError(f"--draws {draws}: uncertainty needs at least 2 draws, and 1000 are plenty")
    if (epochs is not None and epochs < 1) or warm_epochs < 0:
        raise BayesdfError("--epochs must be at least 1, --warm-epochs at least 0")
    if size > 1024:
        raise BayesdfError(f"--size {size}: give at most 1024 pixels")
    try:
        resolve_device(device)
    except BayesdfError:
        here = ", ".join(["auto", "cpu", *(["cuda"] if torch.cuda.is_available() else [])])
        raise BayesdfError(f"--device {device}: there is no such device here; choose from {here}") from None
    try:
        with torch.random.fork_rng([]):
            build(detector, 2)
    except BayesdfError as error:
        raise BayesdfError(f"--detector {detector}: {error}") from None


def fractions(split: str) -> tuple[float, float, float] | None:
    """The three shares of `--split`; None where it is empty."""
    if not split.strip():
        return None
    try:
        train, val, test = (float(share) for share in split.split(","))
    except ValueError:
        raise BayesdfError(
            f"--split {split!r}: give three numbers with commas between, such as 0.6,0.15,0.25"
        ) from None
    total = train + val + test
    positive = min(train, val, test) > 0 and math.isfinite(total)
    if not positive or abs(total - 1) > 1e-6:
        instead = ",".join(f"{share / total:.4g}" for share in (train, val, test)) if positive else "0.6,0.15,0.25"
        raise BayesdfError(f"--split {split!r}: give three positive numbers that add up to 1, such as {instead}")
    return train, val, test


def known_methods(given: str, known: Iterable[str]) -> list[str]:
    """The names between commas, each once, in the order given; all must be known."""
    known = list(known)
    names = [name.strip() for name in given.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise BayesdfError(f"unknown method {name!r}: choose from {', '.join(known)}")
    if not names:
        raise BayesdfError(f"--method is empty: choose from {', '.join(known)}")
    return list(dict.fromkeys(names))

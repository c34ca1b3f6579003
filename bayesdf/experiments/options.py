"""What the command lines of studies of a detector share: options, and what their values must be."""

from collections.abc import Iterable
from typing import Annotated

import typer

from bayesdf.errors import BayesdfError

Data = Annotated[
    str,
    typer.Option(
        "--data",
        help="`embedded`, or a folder <root>/<source>/** with the photographs in <root>/real and each "
        "generator's images in a folder of its name.",
    ),
]
Network = Annotated[
    str,
    typer.Option(help="Network: resnet18, xception, efficientnet, mobilenet, or any name of torchvision or timm."),
]
Draws = Annotated[int, typer.Option(help="Posterior draws for each image; 2 to 1000.")]
WarmEpochs = Annotated[
    int,
    typer.Option(help="Passes for the point estimate the posteriors start from, where none ships (your own data)."),
]
Size = Annotated[int, typer.Option(help="Side in pixels to which every image is cropped and resized.")]
Device = Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu or cuda.")]
SkipUnreadable = Annotated[float, typer.Option(help="Share of unreadable images that may be left out, 0 to 1.")]


def check(draws: int, epochs: int, warm_epochs: int, size: int) -> None:
    """Refuse, in one line, numbers that no study can be made with."""
    if not 2 <= draws <= 1000:
        raise BayesdfError(f"--draws {draws}: uncertainty needs at least 2 draws, and 1000 are plenty")
    if epochs < 1 or warm_epochs < 0:
        raise BayesdfError("--epochs must be at least 1, --warm-epochs at least 0")
    if size > 1024:
        raise BayesdfError(f"--size {size}: give at most 1024 pixels")


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

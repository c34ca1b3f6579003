"""Where in an image are the logits of a dense network? The dimensions and coordinates of what it predicts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from bayesdf.errors import BayesdfError

PLACES = ("y", "x")
"""The dimensions of locations."""


def places(logits: Any) -> tuple[str, ...]:
    """The dimensions of locations of logits (draw, image, …, class): none, or `PLACES`."""
    return PLACES[: logits.ndim - 3]


def centres(sides: Sequence[int], cells: Sequence[int]) -> dict[str, np.ndarray]:
    """The coordinates of `PLACES`: the centres of equal cells that cover an image, in pixels. The first pixel has 0.

    >>> centres((64, 64), (4, 2))["y"].tolist()
    [7.5, 23.5, 39.5, 55.5]
    """
    return {
        name: (np.arange(count) + 0.5) * (side / count) - 0.5
        for name, side, count in zip(PLACES, sides, cells, strict=False)
    }


def log_likelihood(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of each label, in nats: logits (draw, image, …, class) and labels (image, …) to (draw, image, …).

    Raises
    ------
    BayesdfError
        The labels are not on the grid of the logits, or are no classes.
    """
    classes = logits.shape[-1]
    if labels.shape != logits.shape[1:-1]:
        raise BayesdfError(grid_mismatch(labels.shape, logits.shape[1:-1]))
    if labels.min() < 0 or labels.max() >= classes:
        raise BayesdfError(f"labels run from {labels.min()} to {labels.max()}, but the posterior tells {classes} apart")
    log_p = torch.from_numpy(logits).log_softmax(-1).numpy()
    return np.take_along_axis(log_p, labels[None, ..., None], -1)[..., 0]


def grid_mismatch(labels: Sequence[int], logits: Sequence[int]) -> str:
    """The line for labels (N, …) that do not have the shape of the logits (N, …) without the class."""
    given, wanted = tuple(labels[1:]), tuple(logits[1:])
    if not wanted:
        return (
            f"labels are on a grid of {_times(given)}, but the network tells one class an image: give one label an "
            "image, or make the network dense (bayesdf.models.dense_head, bayesdf.models.located)"
        )
    square = f", as bayesdf.data.pixel_labels(dataset, {wanted[0]}) does" if len(set(wanted)) == 1 else ""
    found = f"are on a grid of {_times(given)}" if given else "are one an image"
    return (
        f"labels {found}, but the network's logits are on a grid of {_times(wanted)}: give labels "
        f"(N, {', '.join(map(str, wanted))}){square}"
    )


def _times(grid: Sequence[int]) -> str:
    return " x ".join(map(str, grid))

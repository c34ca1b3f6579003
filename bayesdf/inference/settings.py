"""The settings that every method has."""

import glob
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from bayesdf.errors import BayesdfError
from bayesdf.inference.checks import check_numbers

Augment = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True, kw_only=True)
class Training:
    """Settings of the loop, which every method has; the methods' classes extend it with their own.

    Parameters
    ----------
    epochs : int, optional
        Passes over the training images. Default: until the objective is flat, and at most ten passes or 6,000 steps,
        whichever is more (see `bayesdf.inference.schedule`).
    lr : float, optional
        Highest learning rate of Adam; it rises over the first twentieth of the steps, stays, and falls to zero along a
        cosine over the last 30 %. Default: for each parameter a fiftieth of how far it may have to go (see
        `bayesdf.inference.rates`).
    batch_size : int
        Images a step; batches of an epoch differ by one image at most.
    freeze : None, "prefix" or "all"
        What happens to weights without a prior. None: all are trained, together with the sites. ``prefix``: those
        before the first random operation stay as they are, and where nothing is augmented (or `views` are kept) they
        run only once (a view); those after are trained; batch normalisation keeps its running statistics everywhere, so
        that the loss is of the function that predicts. ``all``: only the sites are trained.
    class_balanced : bool
        Raise each image's likelihood to the power ``N / (K n_class)``. The powers average 1, so the data weighs
        against the prior as before.
    augment : callable, optional
        ``(images, torch.Generator) -> images`` on each batch of (B, 3, H, W), on the CPU.
    views : int, optional
        With `augment` and `freeze`: how many versions of each training image there are. Their features are computed
        once and kept, in memory or, beyond a gigabyte, in a temporary file, and epochs take turns with them. Default:
        every epoch sees new versions.
    patience : int, optional
        Stop after so many epochs without a lower validation NLL. With validation data the best epoch is restored in
        any case.
    seed, device, progress
        Seed of everything random (the caller's generators are left alone); ``auto``, ``cpu`` or ``cuda``; a bar.
    checkpoint : path, optional
        File in which every finished epoch is noted (methods of several phases write others beside it). The same call
        goes on from it, to the same posterior as if it had never been stopped; when all is done, the same call returns
        at once. `forget` deletes it, when the posterior is saved.
    """

    epochs: int | None = None
    lr: float | None = None
    batch_size: int = 32
    freeze: Literal["prefix", "all"] | None = None
    class_balanced: bool = True
    augment: Augment | None = None
    views: int | None = None
    patience: int | None = None
    seed: int = 0
    device: str = "auto"
    progress: bool = True
    checkpoint: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        check_numbers(self)
        who = type(self).__name__
        if self.epochs is not None and self.epochs < 0:
            raise BayesdfError(f"{who}: epochs is {self.epochs}, but must be at least 0, or None")
        if self.lr is not None and not self.lr > 0:
            raise BayesdfError(f"{who}: lr is {self.lr}, but must be above 0, or None")
        if self.batch_size < 1:
            raise BayesdfError(f"{who}: batch_size is {self.batch_size}, but must be at least 1")
        if self.freeze not in (None, "prefix", "all"):
            raise BayesdfError(f"{who}: freeze is {self.freeze!r}, but must be None, 'prefix' or 'all'")
        if self.views is not None and (self.views < 1 or self.freeze is None):
            raise BayesdfError(
                f"{who}: views is {self.views} with freeze {self.freeze!r}: give at least 1, with freeze 'prefix' or "
                "'all', or None"
            )
        if self.views is not None and self.augment is None:
            raise BayesdfError(f"{who}: views is {self.views}, but nothing is augmented: give augment too")
        if self.patience is not None and self.patience < 1:
            raise BayesdfError(f"{who}: patience is {self.patience}, but must be at least 1 epoch, or None")
        if self.seed < 0:
            raise BayesdfError(f"{who}: seed is {self.seed}, but must be at least 0")

    def forget(self) -> None:
        """Delete what `checkpoint` noted."""
        if self.checkpoint is not None:
            path = Path(self.checkpoint)
            path.unlink(missing_ok=True)
            for phase in path.parent.glob(f"{glob.escape(path.name)}.*"):
                if phase.suffix[1:].isdigit() and phase.is_file():
                    phase.unlink()

    def settings(self) -> dict[str, Any]:
        """All settings that the result depends on, as JSON knows them; functions and classes by name."""
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "checkpoint"}
        return {name: value if _is_json(value) else name_of(value) for name, value in values.items()}


def _is_json(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | list | tuple)


def name_of(value: Any) -> str:
    if isinstance(value, partial):
        options = ", ".join(f"{name}={option!r}" for name, option in value.keywords.items())
        return f"{name_of(value.func)}({options})"
    return getattr(value, "__qualname__", None) or type(value).__qualname__

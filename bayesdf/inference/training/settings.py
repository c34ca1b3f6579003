"""The settings that every method has, and their checks."""

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
from bayesdf.inference.training.checks import check_numbers

Augment = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True, kw_only=True)
class Training:
    """Settings of the training loop. Every method has them, and adds its own in a subclass.

    Parameters
    ----------
    epochs : int, optional
        Passes over the training images. Default: until the objective is flat, and at most ten passes or 6,000 steps,
        whichever is more (see `bayesdf.inference.training.schedule`).
    lr : float, optional
        Highest learning rate of Adam. The rate rises over the first twentieth of the steps, stays, and falls to zero
        along a cosine over the last 30 %. Default: for each parameter a fiftieth of how far it may have to go (see
        `bayesdf.inference.training.rates`).
    batch_size : int
        Images in a step. Batches of an epoch differ by one image at most.
    freeze : None, "prefix" or "all"
        What happens to weights without a prior. None: all are trained, together with the sites. ``prefix``: weights
        before the first random operation stay as they are, and the others are trained. The frozen part runs once, or
        once for each of the `views`, unless images are augmented anew in every epoch. Batch normalisation keeps its
        running statistics everywhere, so that the loss is of the function that predicts. ``all``: only the sites are
        trained.
    class_balanced : bool
        Raise each image's likelihood to the power ``N / (K n_class)``. The powers average 1, so the data weighs
        against the prior as before.
    augment : callable, optional
        ``(images, torch.Generator) -> images`` on each batch of (B, 3, H, W), on the CPU.
    views : int, optional
        With `augment` and `freeze`: how many versions of each training image there are. Their features are computed
        once. They are kept in memory or, beyond a gigabyte, in a temporary file. Epochs take turns with the versions.
        Default: every epoch sees new versions.
    patience : int, optional
        Stop after this many epochs without a lower validation NLL. With validation data the best epoch is restored in
        any case.
    seed, device, progress
        The seed of everything random (the caller's generators are left alone); ``auto``, ``cpu`` or ``cuda``; whether
        to show a progress bar.
    checkpoint : path, optional
        File to which the state is written after every epoch. Methods of several phases write more files beside it. If
        the fit is stopped, the same call continues from the file, and the posterior is the same as without the stop.
        After the fit is finished, the same call returns at once. `forget` deletes the files, when the posterior is
        saved.
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
        if not 0 <= self.seed < 2**63:
            raise BayesdfError(f"{who}: seed is {self.seed}, but must be at least 0 and below 2^63")

    def forget(self) -> None:
        """Delete the files of `checkpoint`."""
        if self.checkpoint is not None:
            path = Path(self.checkpoint)
            path.unlink(missing_ok=True)
            for phase in path.parent.glob(f"{glob.escape(path.name)}.*"):
                if phase.suffix[1:].isdigit() and phase.is_file():
                    phase.unlink()

    def settings(self) -> dict[str, Any]:
        """All settings that the result depends on, as JSON values. Functions and classes are given by name."""
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "checkpoint"}
        return {name: value if _is_json(value) else name_of(value) for name, value in values.items()}


def _is_json(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | list | tuple)


def name_of(value: Any) -> str:
    """The name of a function or class, with its options where it is a ``functools.partial``."""
    if isinstance(value, partial):
        options = ", ".join(f"{name}={option!r}" for name, option in value.keywords.items())
        return f"{name_of(value.func)}({options})"
    return getattr(value, "__qualname__", None) or type(value).__qualname__

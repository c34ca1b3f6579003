"""Check what a fit is given before anything is computed. Each mistake gets a message of one line."""

import os
import types
import typing
from collections.abc import Iterator
from dataclasses import fields
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from bayesdf.errors import BayesdfError
from bayesdf.inference.training.labels import check_item
from bayesdf.models.detector import Detector

LOOKED_AT = 64
"""The number of evenly spaced images that are checked before a fit, where checking all would read all data."""
_TENSOR_ROWS = 1024


def check_call(detector: Any, train: Any, validation: Any) -> None:
    """Refuse what is not a detector, and data that is not a torch data set or holds images that are not finite.

    Raises
    ------
    BayesdfError
        The first argument is not a `Detector`. Data is None, a loader, a folder, three data sets at once, or has no
        length. An image holds NaN or infinite values (all images of a ``TensorDataset`` are checked, and `LOOKED_AT` of
        other data sets).
    """
    if not isinstance(detector, Detector):
        what = f"a network ({type(detector).__name__})" if isinstance(detector, nn.Module) else type(detector).__name__
        raise BayesdfError(
            f"fit was given {what} where a Detector is expected: give the network priors first, as in "
            "bayesdf.Detector(network, {'fc': bayesdf.models.priors.normal(0.1)})"
        )
    _check_data(train, "training")
    _check_finite(train, "training")
    if validation is not None:
        _check_data(validation, "validation")
        _check_finite(validation, "validation")


def check_numbers(settings: Any) -> None:
    """Refuse settings of a dataclass that are annotated as numbers, and are not.

    Raises
    ------
    BayesdfError
        Names the setting, and says what it must be.
    """
    who = type(settings).__name__
    for item in fields(settings):
        union = isinstance(item.type, types.UnionType)
        kinds = set(typing.get_args(item.type)) if union else {item.type}
        value = getattr(settings, item.name)
        if not kinds <= {int, float, type(None)} or (value is None and type(None) in kinds):
            continue
        wanted: type = Real if float in kinds else Integral
        if not isinstance(value, wanted) or isinstance(value, bool):
            expected = "a number" if float in kinds else "a whole number"
            also = ", or None" if type(None) in kinds else ""
            raise BayesdfError(f"{who}: {item.name} is {value!r}, but must be {expected}{also}")


@torch.no_grad()
def pixel_range(dataset: Dataset[Any]) -> tuple[float, float] | None:
    """The smallest and the largest value in `LOOKED_AT` images, as a network takes them (bytes divided by 255).

    None if there are no such images, or a value is not finite.
    """
    low, high = float("inf"), float("-inf")
    for _, image in _some_images(dataset):
        values = image / 255.0 if image.dtype == torch.uint8 else image
        if not values.numel() or not bool(values.isfinite().all()):
            return None
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    return (low, high) if low <= high else None


def _check_data(data: Any, what: str) -> None:
    kind = type(data).__name__
    if data is None:
        raise BayesdfError(f"the {what} data is None: pass a torch data set of (image, label)")
    if isinstance(data, DataLoader):
        raise BayesdfError(f"the {what} data is a {kind}, but fits make batches of their own: pass its .dataset")
    if isinstance(data, str | os.PathLike):
        raise BayesdfError(
            f"the {what} data is a path ({os.fspath(data)}): read it first, as in bayesdf.data.load(path).train"
        )
    if hasattr(data, "train") and hasattr(data, "test"):
        raise BayesdfError(f"a {kind} is three data sets: pass one of its parts, as in data.train")
    if not hasattr(data, "__len__") or not hasattr(data, "__getitem__"):
        raise BayesdfError(
            f"the {what} data is of type {kind}, which has no length and no items: pass a torch data set of "
            "(image, label)"
        )


def _check_finite(data: Any, what: str) -> None:
    """Name the first images that are not finite."""
    if not len(data):
        return
    if type(data) is TensorDataset:
        tensor = data.tensors[0]
        if not tensor.is_floating_point():
            return
        finite = torch.cat([part.reshape(len(part), -1).isfinite().all(1) for part in tensor.split(_TENSOR_ROWS)])
        broken = (~finite).nonzero()[:, 0].tolist()
    else:
        broken = [
            index for index, image in _some_images(data) if image.is_floating_point() and not image.isfinite().all()
        ]
    if broken:
        names = ", ".join(map(str, broken[:5])) + (", …" if len(broken) > 5 else "")
        raise BayesdfError(
            f"{len(broken)} {what} image{'s' * (len(broken) > 1)} hold{'s' * (len(broken) == 1)} NaN or infinite "
            f"values (index {names}): leave them out, or read them again"
        )


def _some_images(data: Any) -> Iterator[tuple[int, Tensor]]:
    """Evenly spaced images and their indices. The caller's random state is left alone."""
    size = len(data)
    for index in torch.linspace(0, size - 1, min(size, LOOKED_AT)).long().tolist():
        with torch.random.fork_rng([]):
            item = data[index]
        check_item(item)
        image = item[0]
        if isinstance(image, np.ndarray) and image.dtype.kind in "fu":
            image = torch.from_numpy(np.array(image))
        if isinstance(image, Tensor) and not image.is_complex():
            yield index, image

"""What is the class of each image, or of each location of it? All labels are read here, and nothing is guessed.

A label that is misread spoils a fit without any message. For example, labels (N, 1) would be compared with logits
(N, C) for every pair of images.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from bayesdf.errors import BayesdfError


def class_numbers(labels: Any) -> Tensor:
    """Labels as class numbers.

    Parameters
    ----------
    labels : Tensor, array or sequence
        (N,) or (N, 1), or (N, h, w) for a label at each location: integers, booleans, or floats that are whole numbers.

    Returns
    -------
    Tensor (N,) or (N, h, w), int64

    Raises
    ------
    BayesdfError
        The labels have another shape (one-hot vectors, masks with channels), or are not whole numbers (probabilities,
        NaN).
    """
    try:
        values = labels if isinstance(labels, Tensor) else torch.as_tensor(np.array(labels))
    except (TypeError, ValueError):
        raise BayesdfError(
            f"labels are {type(labels).__name__} of {_kind(labels)}, but must be class numbers 0, 1, …: number the "
            "classes"
        ) from None
    if values.dim() == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.dim() not in (1, 3):
        channel = values.dim() == 4 and values.shape[1] == 1
        hint = "take labels.argmax(1)" if values.dim() in (2, 4) else "give one class number an image or a location"
        raise BayesdfError(
            f"labels have shape {tuple(values.shape)}, but must be class numbers of shape (N,), or (N, h, w) of "
            f"locations: {'take labels[:, 0]' if channel else hint}"
        )
    if values.is_complex():
        raise BayesdfError("labels are complex numbers, but must be class numbers 0, 1, …: number the classes")
    if values.is_floating_point() and not bool((values == values.round()).all()):
        odd = float(values[values != values.round()][0])
        raise BayesdfError(
            f"labels are floats such as {odd:.3g}, but must be class numbers 0, 1, …: soft labels are not supported; "
            "round them, or take the more probable class"
        )
    return values.to(torch.int64)


def all_labels(dataset: Dataset[Any]) -> Tensor:
    """Every label, (N,) or (N, h, w), from the data set's ``labels``, its manifest, its tensors, or one pass over it.

    Raises
    ------
    BayesdfError
        The items are not pairs of an image and a class number, or there are not as many labels as images.
    """
    size = len(dataset)  # type: ignore[arg-type]
    if size == 0:
        return torch.zeros(0, dtype=torch.int64)
    check_item(dataset[0])
    labels = getattr(dataset, "labels", None)
    if labels is None and "label" in getattr(getattr(dataset, "manifest", None), "columns", ()):
        column = dataset.manifest["label"].to_numpy()  # type: ignore[attr-defined]
        labels = column if column.dtype.kind in "biu" else None
    if labels is None and isinstance(dataset, torch.utils.data.TensorDataset):
        labels = dataset.tensors[1]
    if labels is None:
        labels = torch.stack([_one(dataset[index][1], index) for index in range(size)])
    found = class_numbers(labels)
    if len(found) != size:
        raise BayesdfError(f"the data set has {size} images and {len(found)} labels: it needs one an image")
    return found.cpu().clone()


def class_names(dataset: Dataset[Any], labels: Tensor) -> list[str]:
    """The names of the classes: the data set's ``classes``, else the numbers from 0 to the largest label.

    Raises
    ------
    BayesdfError
        A label is no class, or there are no names, several labels, and none is 0.
    """
    named = list(getattr(dataset, "classes", None) or [])
    least, most = int(labels.min()), int(labels.max())
    classes = named or [str(index) for index in range(most + 1)]
    if least >= 0 and most < len(classes) and (named or least == 0 or least == most):
        return classes
    line = f"labels run from {least} to {most}" + (f" for {len(classes)} classes" if named else "")
    if least < 0 and set(labels.flatten().tolist()) == {least, most} and most > 0:
        way = f"map {least} to 0 and {most} to 1, as in (labels > 0).long()"
    elif least >= 1 and (not named or most - least < len(classes)):
        other = "" if named else ", or give the data set `classes`, the names of all"
        way = f"subtract {least}{other}"
    else:
        way = f"they must run from 0 to {max(len(classes) - 1, 1)}"
    raise BayesdfError(f"{line}, but classes are numbered from 0: {way}")


def check_item(item: Any) -> None:
    """Refuse an item of a data set that is no pair (image, label)."""
    if isinstance(item, Mapping):
        raise BayesdfError(
            f"an item of the data set is a dict ({', '.join(map(str, item))}), but must be a pair (image, label): wrap "
            "the data set in one that returns such pairs"
        )
    if not isinstance(item, Sequence):
        raise BayesdfError(
            f"an item of the data set is a {type(item).__name__}, but must be a pair (image, label): fitting needs a "
            "label for each image"
        )
    if len(item) != 2:
        raise BayesdfError(
            f"an item of the data set has {len(item)} parts, but must be a pair (image, label): wrap the data set in "
            "one that returns such pairs"
        )


def _one(label: Any, index: int) -> Tensor:
    try:
        value = torch.as_tensor(label)
    except (TypeError, ValueError, RuntimeError):
        raise BayesdfError(
            f"the label of image {index} is {label!r}, but must be a class number 0, 1, …: number the classes"
        ) from None
    return value


def _kind(labels: Any) -> str:
    first = next(iter(labels), None) if hasattr(labels, "__iter__") else labels
    return type(first).__name__

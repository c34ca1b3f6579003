"""The images and labels of a data set, a batch at a time, as networks take them."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset, default_collate

from bayesdf.errors import BayesdfError
from bayesdf.inference.training.labels import check_item, class_numbers


def batches(
    dataset: Dataset[Any],
    batch_size: int,
    device: torch.device,
    order: Tensor | None = None,
    augment: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (B, 3, H, W), float32, and labels (B,) or (B, h, w) on the device, in the given order.

    Without an order images come as they stand. Bytes become floats in [0, 1]. Batches differ in size by at most one, so
    that none is too small for batch normalisation.
    """
    if order is None:
        order = torch.arange(len(dataset))  # type: ignore[arg-type]
    count = max(1, -(-len(order) // batch_size))
    parts = [part for part in order.cpu().long().tensor_split(count) if len(part)]
    read: Iterable[Any]
    if type(dataset) is TensorDataset:  # can be read a batch at once; DataLoader would ask for one image after another
        read = ([tensor[part.to(tensor.device)].contiguous() for tensor in dataset.tensors] for part in parts)
    else:
        # A generator of its own: DataLoader would take its base seed from torch's global state.
        sampler = [part.tolist() for part in parts]
        read = DataLoader(dataset, batch_sampler=sampler, generator=torch.Generator(), collate_fn=_collate)
    for images, labels in read:
        images = _float(images)
        if augment is not None:
            images = augment(images)
        if images.dim() == 4:
            images = images.to(device, memory_format=torch.channels_last)
        yield images.to(device), class_numbers(labels).to(device)


def _float(images: Any) -> Tensor:
    """Images as networks take them: float32, bytes divided by 255."""
    if not isinstance(images, Tensor) or not (images.is_floating_point() or images.dtype == torch.uint8):
        what = f"tensors of {images.dtype}" if isinstance(images, Tensor) else f"of type {type(images).__name__}"
        raise BayesdfError(f"images are {what}, but must be float tensors with values in [0, 1], or uint8")
    if images.dtype == torch.uint8:
        return images.float() / 255.0
    colours = images.dim() == 4 and images.shape[1] == 3 and images.shape[2] * images.shape[3] > 1
    if colours and len(images) and float(images.max()) > 2 and bool((images == images.round()).all()):
        raise BayesdfError(
            f"images are whole numbers up to {float(images.max()):g} in floats, but must lie in [0, 1]: divide them by "
            "255, or give them as uint8"
        )
    return images.to(torch.float32)


def _collate(items: list[Any]) -> Any:
    """A batch of pairs of an image and a label."""
    shapes = set()
    for item in items:
        check_item(item)
        if not isinstance(item[0], Tensor | np.ndarray):
            raise BayesdfError(f"an image is a {type(item[0]).__name__}, but must be a tensor (3, H, W)")
        shapes.add(tuple(item[0].shape))
    if len(shapes) > 1:
        raise BayesdfError(f"images have different shapes ({', '.join(map(str, sorted(shapes)))}): bring them to one")
    return default_collate(items)

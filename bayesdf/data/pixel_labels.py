"""Which cells of each image were changed? Labels of locations for a dense detector, from the masks of the fakes."""

import hashlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from bayesdf.data.dataset import ImageDataset
from bayesdf.errors import BayesdfError

CLASSES = ("untouched", "changed")


class PixelLabels(Dataset[tuple[Tensor, Tensor]]):
    """Pairs of an image, as the data set behind it gives it, and labels of its cells, int64 (grid, grid).

    Attributes
    ----------
    labels
        int64 tensor (N, grid, grid).
    classes
        `untouched` (0) and `changed` (1).
    manifest
        The rows of the images whose masks are known.
    fingerprint
        What identifies images and labels together, as hexadecimal digits.
    """

    def __init__(self, dataset: ImageDataset, rows: Tensor, labels: Tensor) -> None:
        self.dataset, self.labels = dataset, labels
        self.classes = list(CLASSES)
        self._rows = rows.tolist()
        self.manifest = dataset.manifest.iloc[self._rows].reset_index(drop=True)
        self.manifest.attrs.update(dataset.manifest.attrs)
        digest = hashlib.sha256(f"{dataset.fingerprint} {self._rows}".encode())
        digest.update(labels.to(torch.uint8).numpy().tobytes())
        self.fingerprint = digest.hexdigest()[:16]

    def __repr__(self) -> str:
        return f"PixelLabels({len(self)} images, {self.labels.shape[-1]} x {self.labels.shape[-1]} cells)"

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.dataset[self._rows[index]][0], self.labels[index]

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, Tensor]]:
        items = self.dataset.__getitems__([self._rows[index] for index in indices])
        return [(image, self.labels[index]) for (image, _), index in zip(items, indices, strict=True)]


def pixel_labels(dataset: ImageDataset, grid: int) -> PixelLabels:
    """The images with a label for each cell of a grid: was more than half of the cell changed?

    Parameters
    ----------
    dataset
        Images with `masks`, as `bayesdf.data.load(...).train`. Images whose mask is not known are left out.
    grid
        Cells along each side, from 1 to the images' side in pixels. It is that of the logits of a dense network. The
        bounds of cells are rounded outwards to whole pixels if `grid` does not divide the side.

    Returns
    -------
    PixelLabels
        A torch data set of (image float32 (3, H, W), label int64 (grid, grid)). The label is 1 if the mean of the mask
        over the cell is above 0.5, else 0.

    Raises
    ------
    BayesdfError
        The data has no masks, no mask is known, or the grid is finer than the images.

    Examples
    --------
    >>> train = pixel_labels(bayesdf.data.load(task="binary").train, 16)  # doctest: +SKIP
    """
    masks: Any = getattr(dataset, "masks", None)
    if not isinstance(masks, Tensor):
        split = ": pass one of its parts, as in data.train" if hasattr(dataset, "train") else ""
        raise BayesdfError(f"a {type(dataset).__name__} has no masks, of which pixel_labels makes labels{split}")
    side = min(masks.shape[1:])
    if isinstance(grid, bool) or not isinstance(grid, int) or not 1 <= grid <= side:
        raise BayesdfError(f"pixel_labels: grid is {grid!r}, but must be a whole number from 1 to {side}, the pixels")
    known = (~masks.flatten(1).isnan().any(1)).nonzero()[:, 0]
    if not len(known):
        raise BayesdfError(
            f"pixel_labels: of none of the {len(masks)} images is it known which pixels were changed: give masks, as "
            "<name>_mask.png beside each fake"
        )
    share = F.adaptive_avg_pool2d(masks[known], grid)
    return PixelLabels(dataset, known, (share > 0.5).long())

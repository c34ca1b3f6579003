"""Images with labels, as torch wants them."""

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import Dataset

from bayesdf.data.image_cache import Images
from bayesdf.data.manifest import REAL, SPLITS, Task, check_manifest, class_names, labels
from bayesdf.data.masks import Masks, check_masks, kinds, no_masks, rows_of, unpack
from bayesdf.errors import BayesdfError


class ImageDataset(Dataset[tuple[Tensor, Tensor]]):
    """Pairs of an image, float32 (3, H, W) in [0, 1], and its label, int64.

    Attributes
    ----------
    images
        uint8 (M, H, W, 3), those of all splits.
    manifest
        A row an image, with the column `label`.
    labels
        int64 tensor (N,).
    classes
        The names of the labels.
    task
        `binary`, `multiclass` or `source`.
    fingerprint
        What identifies images and labels together, as hexadecimal digits. Masks have no part in it.
    """

    def __init__(
        self, images: Images, rows: np.ndarray, manifest: pd.DataFrame, task: Task, names: list[str], partial: Masks
    ) -> None:
        self.images = images
        self._rows = rows
        self._partial = partial
        self.manifest = manifest.reset_index(drop=True)
        self.task = task
        self.classes = names
        self.labels = torch.from_numpy(self.manifest["label"].to_numpy(np.int64).copy())
        digest = hashlib.sha256(np.ascontiguousarray(images[rows]).tobytes())
        digest.update(self.manifest.drop(columns="mask").to_csv(index=False).encode())
        self.fingerprint = digest.hexdigest()[:16]

    def __repr__(self) -> str:
        counts = self.labels.bincount(minlength=len(self.classes)).tolist()
        parts = ", ".join(f"{name} {count}" for name, count in zip(self.classes, counts, strict=True))
        return f"ImageDataset({_image_and_people_counts(self.manifest)}; {parts})"

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def masks(self) -> Tensor:
        """Which pixels were changed: float32 (N, H, W) in [0, 1], NaN throughout where it is not known.

        Photographs are 0. New faces are 1. The column `mask` of the manifest says it in a word. The tensor is made
        anew at each access.
        """
        return torch.from_numpy(unpack(self._partial, self.manifest["mask"]))

    def take(self, chosen: ArrayLike) -> "ImageDataset":
        """Some of the images, with their labels, rows of the manifest and masks.

        Parameters
        ----------
        chosen
            bool (N,): the images for which it is true, in their order. Or whole numbers: the rows of the images, from
            0, in the order in which they are wanted.

        Raises
        ------
        BayesdfError
            `chosen` is neither, has another length, or names a row that does not exist or the same row twice.
        """
        rows = _chosen_rows(chosen, len(self))
        masks = rows_of(self._partial, self.manifest, rows)
        return ImageDataset(self.images, self._rows[rows], self.manifest.iloc[rows], self.task, self.classes, masks)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pixels = np.array(self.images[self._rows[index]])
        return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255.0, self.labels[index]

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, Tensor]]:
        pixels = torch.from_numpy(np.array(self.images[self._rows[indices]]))
        return list(zip(pixels.permute(0, 3, 1, 2).float() / 255.0, self.labels[indices], strict=True))


@dataclass(frozen=True)
class Collection:
    """A data set ready for a task: three splits that share no person, and the manifest of all images.

    Attributes
    ----------
    masks
        uint8 (P, H, W), a mask for each image of which the manifest's column `mask` says `part`, in its order.
    without
        Generators that `leave_out` took away.
    fold
        Which of the folds of a cross-fit this is, from 0.
    """

    train: ImageDataset
    val: ImageDataset
    test: ImageDataset
    manifest: pd.DataFrame
    task: Task
    classes: list[str]
    name: str
    credit: str
    fingerprint: str
    masks: Masks
    without: tuple[str, ...] = ()
    fold: int = 0

    def __repr__(self) -> str:
        parts = ", ".join(f"{name} {len(getattr(self, name))}" for name in SPLITS)
        which = f"; without {', '.join(self.without)}" if self.without else ""
        which += f"; fold {self.fold}" if self.fold else ""
        return (
            f"Collection({self.name}, {self.task}: {_image_and_people_counts(self.manifest)}; {parts}; classes "
            f"{', '.join(self.classes)}{which})"
        )


def collect(
    images: Images,
    manifest: pd.DataFrame,
    task: Task,
    name: str,
    credit: str,
    fold: int = 0,
    masks: Masks | None = None,
) -> Collection:
    """Label a manifest for a task and divide it into its splits.

    Parameters
    ----------
    images
        uint8 (N, H, W, 3).
    manifest
        A row for each image, with the columns of `COLUMNS`. Without the column `mask`, photographs are unchanged, and
        which pixels of the fakes were changed is unknown.
    masks
        uint8 (P, H, W) from 0 (as photographed) to 255 (changed), a mask for each image of which the column `mask` says
        `part`, in the order of the manifest. None: there is no such image.

    Raises
    ------
    BayesdfError
        The manifest cannot be learnt from (`manifest.check_manifest`), or the masks do not belong to these images
        (`masks.check_masks`).
    """
    manifest = manifest.assign(mask=kinds(manifest))
    masks = no_masks(images) if masks is None else masks
    check_manifest(manifest, task)
    check_masks(masks, manifest, images)
    return _labelled(images, manifest, masks, task, name, credit, fold=fold)


def relabel(collection: Collection, task: Task) -> Collection:
    """The same images in the same splits, with the labels of another task. A split may lack some of its classes."""
    manifest = collection.manifest.drop(columns="label")
    images, masks, without = collection.train.images, collection.masks, collection.without
    return _labelled(images, manifest, masks, task, collection.name, collection.credit, without, collection.fold)


def leave_out(collection: Collection, source: str) -> tuple[Collection, ImageDataset]:
    """A data set without one generator, as if it had not been invented yet, and that generator's test images.

    Parameters
    ----------
    source
        The generator.

    Returns
    -------
    rest
        The collection without the images of that generator in any split. Its name is added to `without`.
    unseen
        The generator's images of the test people, with the labels that they have in `collection`.

    Raises
    ------
    BayesdfError
        There is no such generator, or no other.
    """
    generators = sorted(set(collection.manifest["source"]) - {REAL})
    if source not in generators:
        raise BayesdfError(f"no generator {source!r} to leave out: choose one of {', '.join(generators)}")
    if len(generators) < 2:
        raise BayesdfError(f"{source!r} is the only generator of {collection.name}: add another to leave it out")
    test = collection.test
    own = (test.manifest["source"] == source).to_numpy()
    without = tuple(sorted({*collection.without, source}))
    return _of_rows(collection, collection.manifest["source"] != source, without), test.take(own)


def thin(collection: Collection, every: int) -> Collection:
    """The first of each `every` images of every source in every split, in the order of the manifest.

    Raises
    ------
    BayesdfError
        `every` is below 1, or a split would lose a class.
    """
    if every < 1:
        raise BayesdfError(f"every is {every}, but must be at least 1")
    if every == 1:
        return collection
    place = collection.manifest.groupby(["source", "split"]).cumcount()
    return _of_rows(collection, place % every == 0, collection.without)


def _of_rows(collection: Collection, chosen: pd.Series, without: tuple[str, ...]) -> Collection:
    """The collection of the chosen rows of the manifest alone."""
    kept = np.flatnonzero(chosen.to_numpy())
    masks = rows_of(collection.masks, collection.manifest, kept)
    manifest = collection.manifest.iloc[kept].drop(columns="label").reset_index(drop=True)
    check_manifest(manifest, collection.task)
    images, task, name, credit = collection.train.images, collection.task, collection.name, collection.credit
    return _labelled(images[kept], manifest, masks, task, name, credit, without, collection.fold)


def _chosen_rows(chosen: ArrayLike, count: int) -> NDArray[np.intp]:
    """The rows that a bool mask or row numbers choose of `count` rows."""
    try:
        found = np.asarray(chosen)
    except (TypeError, ValueError):  # lists in lists of several lengths, tensors elsewhere than in memory
        found = np.asarray(None)
    if found.ndim != 1 or (found.dtype.kind not in "biu" and found.size):
        what = f"{type(chosen).__name__}, shape {found.shape}" if found.ndim else f"{type(chosen).__name__}"
        raise BayesdfError(f"take: chosen is a {what}, but must be bool ({count},) or a list of row numbers")
    if found.dtype.kind == "b":
        if len(found) != count:
            raise BayesdfError(f"take: chosen has {len(found)} values, but there are {count} images: give one for each")
        return np.flatnonzero(found)
    strange = found[(found < 0) | (found >= count)]
    if len(strange):
        raise BayesdfError(f"take: there is no row {strange[0]}: {count} images have the rows 0 to {count - 1}")
    values, times = np.unique(found, return_counts=True)
    if (times > 1).any():
        raise BayesdfError(f"take: row {values[times > 1][0]} is chosen more than once: give each row once")
    return found.astype(np.intp)


def _image_and_people_counts(manifest: pd.DataFrame) -> str:
    """How many images and people there are."""
    people = f" of {manifest['subject'].replace('', None).nunique()} people" if "subject" in manifest else ""
    return f"{len(manifest)} images{people}"


def _labelled(
    images: Images,
    manifest: pd.DataFrame,
    masks: Masks,
    task: Task,
    name: str,
    credit: str,
    without: tuple[str, ...] = (),
    fold: int = 0,
) -> Collection:
    names = class_names(manifest["source"].unique().tolist(), task)
    labelled = manifest.assign(label=labels(manifest, task))
    parts = {}
    for split in SPLITS:
        rows = np.flatnonzero((labelled["split"] == split) & (labelled["label"] >= 0))
        partial = rows_of(masks, labelled, rows)
        parts[split] = ImageDataset(images, rows, labelled.iloc[rows], task, names, partial)
    digest = hashlib.sha256("".join(part.fingerprint for part in parts.values()).encode())
    return Collection(
        **parts,
        manifest=labelled,
        task=task,
        classes=names,
        name=name,
        credit=credit,
        fingerprint=digest.hexdigest()[:16],
        masks=masks,
        without=without,
        fold=fold,
    )

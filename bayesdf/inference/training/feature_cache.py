"""The batches of each epoch: images, or features that a frozen prefix has computed once."""

import math
import shutil
import tempfile
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor

from bayesdf.errors import BayesdfWarning
from bayesdf.inference.batches import batches
from bayesdf.inference.training.problem import Problem, set_modes
from bayesdf.inference.training.progress import Clock, ProgressReport

CACHE_BYTES = 1 << 30
"""Bytes of features of training images that are kept in memory between epochs. Beyond it they go to a file."""


class TrainingBatches:
    """Shuffled batches of one epoch after another, made of cached features where these do not change.

    The cache is a list of views: one without augmentation, and as many as the settings say with it.
    """

    def __init__(self, problem: Problem, epochs: int, report: ProgressReport | None = None) -> None:
        self.problem, self.report = problem, report
        self.order = torch.Generator().manual_seed(problem.settings.seed)
        self.noise = torch.Generator().manual_seed(problem.settings.seed + 1)
        augment = problem.settings.augment
        self.augment = None if augment is None else lambda images: augment(images, self.noise)
        self.prefix = None if problem.settings.freeze is None else problem.parts.prefix
        self.epoch = 0
        self.features: list[tuple[Tensor, ...]] | None = None
        views = problem.settings.views if problem.settings.augment is not None else 1
        if self.prefix is not None and views is not None:
            views = min(views, epochs)
            key = (views, None if augment is None else problem.settings.seed)
            if key not in problem.feature_cache:
                problem.feature_cache.clear()  # one set is enough room to take
                problem.feature_cache[key] = self._compute_features(views)
            self.features = problem.feature_cache[key]
            self.labels = problem.labels.to(problem.device)

    def __iter__(self) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        problem, settings = self.problem, self.problem.settings
        order = torch.randperm(problem.size, generator=self.order)
        if self.features is not None:
            features = self.features[self.epoch % len(self.features)]
            self.epoch += 1
            for part in order.to(problem.device).tensor_split(math.ceil(problem.size / settings.batch_size)):
                rows = part.to(features[0].device)
                yield tuple(feature[rows].to(problem.device) for feature in features), self.labels[part]
            return
        for images, labels in batches(problem.train, settings.batch_size, problem.device, order, self.augment):
            if self.prefix is None:
                yield (images,), labels
            else:
                with torch.no_grad():
                    features = self.prefix(images)
                yield features, labels

    def _compute_features(self, views: int) -> list[tuple[Tensor, ...]] | None:
        """The features of all training images in their order, one tuple for each view; None where they are too large.

        Beyond `CACHE_BYTES` they lie in a temporary file, if the disk has twice that space. Otherwise the prefix runs
        again in every epoch.
        """
        problem, size = self.problem, self.problem.settings.batch_size
        assert self.prefix is not None
        set_modes(problem, training=False)
        kept: list[tuple[Tensor, ...]] = []
        clock = Clock()
        with torch.no_grad():
            for view in range(views):
                place = 0
                for images, _ in batches(problem.train, size, problem.device, None, self.augment):
                    features = self.prefix(images)
                    if self.report is not None and view == 0 and place > 0:
                        self.report.announce("features first", clock() * views * problem.size / (place + len(images)))
                    if not all(isinstance(part, Tensor) and len(part) == len(images) for part in features):
                        return None  # something besides a value an image crosses, such as a shape
                    if place == 0:
                        needed = sum(part[0].nbytes for part in features) * problem.size * views
                        on_disk = needed > CACHE_BYTES
                        free = shutil.disk_usage(tempfile.gettempdir()).free
                        if on_disk and free < 2 * needed:
                            if problem.settings.augment is not None:
                                warnings.warn(
                                    f"features of {views} views take {needed / 1e9:.1f} GB, and the disk has not twice "
                                    "that: every epoch sees new versions of the images instead",
                                    BayesdfWarning,
                                    stacklevel=2,
                                )
                            return None
                        kept.append(tuple(_empty_features(part, problem.size, on_disk) for part in features))
                    for whole, part in zip(kept[-1], features, strict=True):
                        whole[place : place + len(images)] = part
                    place += len(images)
        return kept


def _empty_features(feature: Tensor, size: int, on_disk: bool) -> Tensor:
    """An empty tensor for `size` images, with the memory layout of a batch's feature (B, …).

    It lies in memory, or in a file that is deleted together with the tensor.
    """
    shape = (size, *feature.shape[1:])
    last = feature.dim() == 4 and feature.is_contiguous(memory_format=torch.channels_last)
    if not on_disk:
        layout = torch.channels_last if last else torch.contiguous_format
        return torch.empty(shape, dtype=feature.dtype, device=feature.device, memory_format=layout)
    with tempfile.NamedTemporaryFile() as file:
        flat = torch.from_file(file.name, shared=True, size=math.prod(shape), dtype=feature.dtype)
    if last:
        return flat.view(shape[0], shape[2], shape[3], shape[1]).permute(0, 3, 1, 2)
    return flat.view(shape)


class ValidationBatches:
    """Features and labels of the validation images. They are cached where the prefix is frozen and they are few."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.kept: list[tuple[tuple[Tensor, ...], Tensor]] | None = None

    def __iter__(self) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        if self.kept is not None:
            yield from self.kept
            return
        problem, room = self.problem, CACHE_BYTES
        assert problem.validation is not None
        found = []
        for images, label in batches(problem.validation, 2 * problem.settings.batch_size, problem.device):
            features = problem.parts.prefix(images)
            yield features, label
            room -= sum(part.nbytes for part in features if isinstance(part, Tensor))
            if problem.settings.freeze is not None and room >= 0:
                found.append((features, label))
        if problem.settings.freeze is not None and room >= 0:
            self.kept = found

"""The problem that a method fits: a copy of the network, split at its random tensors, and the data."""

import functools
import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from bayesdf.errors import BayesdfError, BayesdfWarning
from bayesdf.inference.batches import batches
from bayesdf.inference.prediction.locations import grid_mismatch
from bayesdf.inference.prediction.predictor import resolve_device, to_device
from bayesdf.inference.prediction.split import Split, depends_on_mode, split
from bayesdf.inference.training.checks import check_call
from bayesdf.inference.training.labels import all_labels, class_names
from bayesdf.inference.training.settings import Training, name_of
from bayesdf.models.detector import Detector
from bayesdf.models.priors import describe

_AUGMENTED = 64  # images by which augmentations are distinguished


@dataclass
class Problem:
    """A copy of the network, split at its random tensors, and the data."""

    network: nn.Module
    parts: Split
    train: Dataset[Any]
    labels: Tensor
    validation: Dataset[Any] | None
    priors: dict[str, str]
    class_weights: Tensor
    example: tuple[Tensor, Tensor]
    device: torch.device
    settings: Training
    identity: Callable[[], bytes]
    """A digest of images, priors and augmentation: other ones give another digest."""
    feature_cache: dict[tuple[int, int | None], list[tuple[Tensor, ...]] | None] = field(default_factory=dict)
    """Features of the frozen prefix, by views and (where images are augmented) seed. Phases and members share them."""

    @property
    def size(self) -> int:
        """Number of training images."""
        return len(self.train)  # type: ignore[arg-type]

    @property
    def module(self) -> nn.Module:
        """The module that a batch runs through: the network, or its suffix where the prefix is frozen."""
        return self.network if self.settings.freeze is None else self.parts.suffix

    def trained_parameters(self, exclude: set[str]) -> dict[str, nn.Parameter]:
        """The parameters that are trained as point estimates."""
        if self.settings.freeze == "all":
            return {}
        return {name: value for name, value in self.module.named_parameters() if name not in exclude}


def prepare(
    detector: Detector,
    settings: Training,
    train: Dataset[Any],
    validation: Dataset[Any] | None,
    random: Callable[[nn.Module, Tensor], list[str]] | None = None,
) -> Problem:
    """Check the data against the detector, copy the network, and split it.

    Parameters
    ----------
    random : callable, optional
        Takes the copy and an image (1, 3, H, W), prepares the copy, and returns the names of the tensors that differ
        between draws. Default: the detector's sites, of which there must be at least one.
    """
    check_call(detector, train, validation)
    if random is None and not detector.sites:
        who = type(settings).__name__
        raise BayesdfError(f"{who}: the detector has no priors, so there is nothing to infer: give it some")
    labels = all_labels(train)
    if len(labels) == 0:
        raise BayesdfError("the training data is empty: check the path and the split")
    present = torch.unique(labels)
    classes = class_names(train, labels)
    if len(present) < 2:
        only = classes[int(present[0])]
        count = f"{len(labels)} training images" if labels.dim() == 1 else f"{labels.numel()} locations of images"
        raise BayesdfError(f"all {count} are of class {only!r}: a detector needs at least two")
    if validation is not None and len(validation) == 0:  # type: ignore[arg-type]
        raise BayesdfError("the validation data is empty: check the split, or pass none")
    device = resolve_device(settings.device)
    images, example_labels = next(batches(train, 2, device, torch.arange(min(2, len(labels)))))
    detector.check_output(classes, images)
    network = to_device(detector.copy(images), device).eval()
    _check_grid(network, images, labels, validation)
    names = list(detector.sites) if random is None else random(network, images[:1])
    parts = split(network, names, images)
    if settings.freeze == "prefix" and not parts.traced:
        raise BayesdfError(
            "freeze='prefix' needs a network that torch.fx can trace: use freeze='all' or None, or rewrite the "
            f"network's forward without control flow that depends on the images ({parts.obstacle})"
        )
    if settings.freeze == "prefix" and depends_on_mode(network):
        warnings.warn(
            "the network's forward itself asks whether it is in training mode (as in F.dropout(x, p, self.training)), "
            "which freeze='prefix' fixes to evaluation mode: use modules (nn.Dropout), or another freeze",
            BayesdfWarning,
            stacklevel=3,
        )
    weights = class_weights(labels, len(classes)) if settings.class_balanced else torch.ones(len(classes))
    example = (images, example_labels)
    described = {pattern: describe(prior) for pattern, prior in detector.priors.items()}
    identity = functools.cache(lambda: _identity(detector, network, settings, train, validation, images))
    return Problem(
        network, parts, train, labels, validation, described, weights.to(device), example, device, settings, identity
    )


@torch.no_grad()
def _check_grid(network: nn.Module, images: Tensor, labels: Tensor, validation: Dataset[Any] | None) -> None:
    """Check that there is a label for each of the network's logits."""
    shape = network(images).shape[:-1]
    for part in (labels,) if validation is None else (labels, all_labels(validation)):
        if part.shape[1:] != shape[1:]:
            raise BayesdfError(grid_mismatch(part.shape, shape))


def _identity(
    detector: Detector,
    network: nn.Module,
    settings: Training,
    train: Dataset[Any],
    validation: Dataset[Any] | None,
    images: Tensor,
) -> bytes:
    """A digest of all images and labels, of the network's modules and output, of the priors, and of augmentation.

    The content of functions cannot be compared. Two priors, networks or augmentations of the same name are
    distinguished by their values for fixed seeds, and by their code.
    """
    digest = hashlib.sha256()

    def add(*values: Tensor) -> None:
        for value in values:
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())

    for part in (train, validation):
        fingerprint = str(getattr(part, "fingerprint", "") or "")
        digest.update(f"{part is None} {fingerprint};".encode())
        if part is not None:
            add(all_labels(part))
        if part is not None and not fingerprint:
            for batch, _ in batches(part, 256, torch.device("cpu")):  # one at a time: all together may not fit
                add(batch)
    digest.update(f"{network}".encode())
    digest.update(repr([(name, tuple(value.shape)) for name, value in network.state_dict().items()]).encode())
    functions = [settings.augment, getattr(settings, "guide", None), *detector.sites.values()]
    digest.update(repr([_code(function) for function in functions]).encode())
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.random.fork_rng(devices), pyro.poutine.block(), torch.no_grad():
        torch.manual_seed(0)
        add(network(images))
        for _, site in pyro.poutine.trace(detector.sample).get_trace().iter_stochastic_nodes():
            add(site["value"], torch.as_tensor(site["fn"].log_prob(site["value"])))
        if settings.augment is not None:
            some = torch.arange(min(_AUGMENTED, len(train)))  # type: ignore[arg-type]
            batch = next(batches(train, _AUGMENTED, torch.device("cpu"), some))[0]
            add(*(settings.augment(batch, torch.Generator().manual_seed(seed)) for seed in range(2)))
    return digest.digest()


def _code(function: Any, depth: int = 3) -> Any:
    """What a user's function does, as far as its code and its closure show."""
    function = getattr(function, "func", function) if isinstance(function, partial) else function
    code = getattr(function, "__code__", None)
    if code is None or depth == 0:
        return name_of(function) if callable(function) else repr(function)[:200]
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    held = [_code(value, depth - 1) if callable(value) else repr(value)[:200] for value in cells]
    constants = [value for value in code.co_consts if isinstance(value, int | float | str | bytes | None)]
    return code.co_code, constants, code.co_names, held


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """``N / (K n_c)`` over the K classes present: all classes weigh the same, and the sum over the N labels is N."""
    counts = torch.bincount(labels.flatten(), minlength=classes).float()
    present = (counts > 0).sum()
    return torch.where(counts > 0, labels.numel() / (present * counts.clamp_min(1)), 0.0)


def set_modes(problem: Problem, training: bool) -> None:
    """Put what is trained into train mode: all of the network, or its suffix. What is frozen stays in eval mode."""
    problem.network.eval()
    if training and problem.settings.freeze is None:
        problem.network.train()
    elif training and problem.settings.freeze == "prefix":
        problem.parts.suffix.train()
        # Normalisation by the batch would tie an image's likelihood to its neighbours, and be another function than the
        # one that predicts.
        for module in problem.parts.suffix.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()

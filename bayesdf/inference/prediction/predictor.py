"""Predict images under draws, in bounded memory: the prefix runs once an image, the suffix once a draw."""

import math
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.func import functional_call, vmap
from torch.utils.data import Dataset

from bayesdf.errors import BayesdfError, BayesdfWarning
from bayesdf.inference.batches import batches
from bayesdf.inference.prediction.batchnorm_folding import fold_batch_norm
from bayesdf.inference.prediction.split import Split, split
from bayesdf.inference.samplers import Sampler
from bayesdf.inference.samplers.sampler import in_memory_format
from bayesdf.models.features import classifier_inputs, is_pointwise

FEATURE_BYTES = 1 << 29
"""Bytes of features kept at once. More images make a second round, in which every draw is made again."""
DRAW_BYTES = 1 << 26
"""Bytes of what runs at once, where several draws run together."""
LOGIT_BYTES = 1 << 30
"""Bytes of logits in memory. More go to a temporary file."""


@dataclass(frozen=True)
class Piece:
    """The logits of some images under some draws."""

    images: slice
    draws: slice
    logits: np.ndarray
    """float32 (draws, images, C), or (draws, images, h, w, C)."""
    labels: np.ndarray
    """int64 (images,), or (images, h, w)."""
    features: list[tuple[Any, ...]]
    """The output of the prefix, batch by batch."""
    sides: tuple[int, ...]
    """The height and width of the last image."""


class Predictor:
    """A network on a device, ready for the draws of a sampler. It is split once, at the first images."""

    def __init__(self, network: nn.Module, sampler: Sampler, device: torch.device) -> None:
        self.network = to_device(network, device).eval()
        self.sampler, self.device = sampler, device
        own = state_names(network)
        self.names = [name for name in sampler.shapes if name in own]
        self._parts: Split | None = None
        self._sides: tuple[int, ...] = ()
        self._shapes: set[torch.Size] = set()
        """Shapes of images that the network has accepted."""

    def parts(self, images: Tensor) -> Split:
        """The network's prefix and suffix. The first images of each shape are tried on the network."""
        if images.shape[1:] not in self._shapes:
            with torch.no_grad(), naming(images):
                self.network(images[:2])
            self._shapes.add(images.shape[1:])
        if self._parts is None:
            parts = split(self.network, self.names, images[:2])
            if parts.obstacle is not None:
                message = "the network cannot be split into prefix and suffix, so every draw runs all of it"
                warnings.warn(f"{message} ({parts.obstacle})", BayesdfWarning, stacklevel=3)
            self._parts = Split(fold_batch_norm(parts.prefix), fold_batch_norm(parts.suffix), parts.obstacle)
        return self._parts

    def values(self, index: int, seed: int) -> dict[str, Tensor]:
        """A draw of the network's own tensors, on the device, in the memory format that convolutions want."""
        drawn = self.sampler.draw(index, seed)
        return {name: in_memory_format(drawn[name].to(self.device)) for name in self.names}

    def logits_at(self, features: tuple[Any, ...], point: Mapping[str, Tensor]) -> Tensor:
        """Logits (N, …, C) of features, with these values in the random tensors."""
        assert self._parts is not None
        return _call(self._parts.suffix, features, {name: point[name].to(self.device) for name in self.names})

    def penultimate(self, features: list[tuple[Any, ...]], mixed: bool) -> np.ndarray:
        """(N, F): the input of the network's classifier, its random tensors at the posterior's centre."""
        assert self._parts is not None
        with _precision(self.device, mixed), classifier_inputs(self.network) as seen:
            for batch in features:
                self._parts.suffix(*batch)
        return torch.cat(seen).float().cpu().numpy()

    def features(
        self, dataset: Dataset[Any], batch_size: int, observe: Callable[[Tensor], None] | None = None
    ) -> Iterator[tuple[list[tuple[Any, ...]], np.ndarray]]:
        """The output of the prefix, batch by batch, with labels (N, …): as much at once as fits into `FEATURE_BYTES`.

        `observe` sees every batch of images once, in their order.
        """
        features: list[tuple[Any, ...]] = []
        labels: list[np.ndarray] = []
        for images, label in batches(dataset, batch_size, self.device):
            if observe is not None:
                observe(images)
            features.append(self.parts(images).prefix(images))
            self._sides = tuple(images.shape[2:])
            labels.append(label.cpu().numpy())
            if _bytes(features) > FEATURE_BYTES:
                yield features, np.concatenate(labels)
                features, labels = [], []
        if features:
            yield features, np.concatenate(labels)

    def pieces(
        self,
        dataset: Dataset[Any],
        draws: int,
        seed: int,
        *,
        batch_size: int,
        mixed: bool = False,
        observe: Callable[[Tensor], None] | None = None,
    ) -> Iterator[Piece]:
        """Logits of every image under every draw: the prefix runs once an image, the suffix once a draw.

        Images come in order. For each chunk of images all draws come in order. `observe` sees every batch of
        images once.
        """
        begin = 0
        for features, labels in _each_within(self.features(dataset, batch_size, observe), self.device, mixed):
            images = slice(begin, begin + len(labels))
            begin = images.stop
            for chunk in self._draw_chunks(features, draws, mixed):
                with _precision(self.device, mixed):
                    logits = self._suffix(features, chunk, seed)
                yield Piece(images, chunk, logits.float().cpu().numpy(), labels, features, self._sides)
        if begin == 0:
            raise BayesdfError("the data set to predict is empty")

    def _suffix(self, features: list[tuple[Any, ...]], chunk: slice, seed: int) -> Tensor:
        """(draws of the chunk, N, …, C)"""
        assert self._parts is not None
        suffix = self._parts.suffix
        drawn = [self.values(index, seed) for index in range(chunk.start, chunk.stop)]
        if len(drawn) > 1:
            together = {name: torch.stack([values[name] for values in drawn]) for name in self.names}
            return torch.cat([vmap(partial(_call, suffix, batch))(together) for batch in features], dim=1)
        return torch.cat([_call(suffix, batch, drawn[0]) for batch in features])[None]

    def _draw_chunks(self, features: list[tuple[Any, ...]], draws: int, mixed: bool) -> Iterator[slice]:
        """The draws that run at once: one, or as many as fit where the suffix is linear at each location.

        Measured (benchmarks/inference.py): a linear suffix runs several times faster over many draws at once,
        convolutions do not.
        """
        size = 1
        assert self._parts is not None
        if self.names and self._parts.traced and linear_at_locations(self._parts.suffix, features[0]):
            sized = Sized(self._parts.suffix)
            with _precision(self.device, mixed):
                of_image = sized.run(*features[0])[0].numel()
            numbers = sum(int(np.prod(self.sampler.shapes[name])) for name in self.names)
            numbers += 2 * sized.largest + of_image * sum(len(batch[0]) for batch in features)
            size = max(1, DRAW_BYTES // (4 * numbers))
        for begin in range(0, draws, size):
            yield slice(begin, min(begin + size, draws))


def linear_at_locations(suffix: nn.Module, features: tuple[Any, ...]) -> bool:
    """Whether features are vectors, or maps that one 1 x 1 convolution sees."""
    if not all(isinstance(part, Tensor) for part in features):
        return False
    if all(part.dim() <= 2 for part in features):
        return True
    assert isinstance(suffix, fx.GraphModule)
    functions = [node.target for node in suffix.graph.nodes if node.op == "call_function"]
    if any("conv" in getattr(function, "__name__", "") for function in functions):  # such as a folded one
        return False
    convolutions = [module for module in suffix.modules() if isinstance(module, nn.modules.conv._ConvNd)]
    return len(convolutions) == 1 and is_pointwise(convolutions[0])


class Sized(fx.Interpreter):
    """Runs a traced module, and records the largest tensor on the way."""

    largest = 0

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.largest = max(self.largest, result.numel())
        return result


def _call(suffix: nn.Module, features: tuple[Any, ...], values: dict[str, Tensor]) -> Tensor:
    return functional_call(suffix, values, features)


def empty_logits(*shape: int) -> np.ndarray:
    """An array float32, as of logits (draws, images, classes): in memory, or in a temporary file if it is large."""
    if 4 * math.prod(shape) <= LOGIT_BYTES:
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.float32, "w+", shape=shape)


@contextmanager
def _precision(device: torch.device, mixed: bool) -> Iterator[None]:
    """Without gradients, and in mixed precision on request."""
    half = torch.float16 if device.type == "cuda" else torch.bfloat16
    with torch.no_grad(), torch.autocast(device.type, half) if mixed else nullcontext():
        yield


def _each_within(made: Iterator[Any], device: torch.device, mixed: bool) -> Iterator[Any]:
    """The items of an iterator. Each is made within `_precision`, which is left before it is given out."""
    while True:
        try:
            with _precision(device, mixed):
                one = next(made)
        except StopIteration:
            return
        yield one


@contextmanager
def naming(images: Tensor) -> Iterator[None]:
    """Turn what a network raises at images that do not fit it into one line."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, AssertionError, TypeError, IndexError) as error:
        if isinstance(error, BayesdfError):
            raise
        cause = " ".join(str(error).split())[:200]
        raise BayesdfError(f"the network fails on images of shape {tuple(images.shape)}: {cause}") from error


def resolve_device(device: str) -> torch.device:
    """The device of this name. ``auto`` is the GPU if there is one."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise BayesdfError(f"device {device!r} is not available here: pass 'cpu' or 'auto'") from error


def to_device(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to the device, convolutions in the fastest memory format (measured 1.4 to 1.8 times on CPU)."""
    if any(isinstance(module, nn.Conv2d) for module in network.modules()):
        return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.to(device)


def state_names(network: nn.Module) -> set[str]:
    """The names a draw can replace: parameters and buffers."""
    return {name for name, _ in network.named_parameters()} | {name for name, _ in network.named_buffers()}


def _bytes(batches: list[tuple[Any, ...]]) -> int:
    return sum(part.nbytes for features in batches for part in features if isinstance(part, Tensor))

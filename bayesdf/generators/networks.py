"""What are the trained generators made of? Their building blocks, reconstruction loss and weight files."""

import hashlib
import importlib.resources
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from bayesdf.errors import BayesdfError

Network = TypeVar("Network", bound=nn.Module)
DIGESTS = "SHA256SUMS"


def convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.GroupNorm(8, outputs), nn.SiLU(inplace=True))


class Encoder(nn.Module):
    """(B, C, height, 64) → (B, features): a convolution and a halving at each of four widths."""

    def __init__(
        self, channels: int, features: int, widths: Sequence[int] = (24, 48, 96, 128), height: int = 64
    ) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        for inputs, outputs in zip((channels, *widths), widths, strict=False):
            steps += [convolution(inputs, outputs), nn.AvgPool2d(2)]
        self.body = nn.Sequential(*steps)
        self.head = nn.Linear(widths[-1] * (height // 16) * 4, features)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images).flatten(1))


class Decoder(nn.Module):
    """(B, features) → (B, 1, 64, 64), any real values.

    `code` (B, codes) modulates each level (FiLM, Perez et al. 2018).
    """

    def __init__(self, features: int, codes: int = 0, widths: Sequence[int] = (128, 96, 64, 40, 24)) -> None:
        super().__init__()
        self.start = nn.Linear(features, widths[0] * 16)
        self.width = widths[0]
        self.blocks = nn.ModuleList(convolution(a, b) for a, b in pairwise(widths))
        self.films = nn.ModuleList(nn.Linear(codes, 2 * b) for b in widths[1:]) if codes else None
        self.last = nn.Sequential(convolution(widths[-1], widths[-1]), nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, features: Tensor, code: Tensor | None = None) -> Tensor:
        x = self.start(features).view(-1, self.width, 4, 4)
        for level, block in enumerate(self.blocks):
            x = block(F.interpolate(x, scale_factor=2, mode="bilinear"))
            if self.films is not None:
                scale, shift = self.films[level](code)[..., None, None].chunk(2, 1)
                x = x * (1.0 + scale) + shift
        return self.last(x)


class Eigenfaces(nn.Module):
    """The first principal components of faces (Turk and Pentland 1991): a code of (B, size) values of unit variance."""

    mean: Tensor
    axes: Tensor
    deviation: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(64 * 64))
        self.register_buffer("axes", torch.eye(size, 64 * 64))
        self.register_buffer("deviation", torch.ones(size))

    def fit(self, images: Tensor) -> "Eigenfaces":
        """Set mean, axes and deviations to those of the images (N, 1, 64, 64)."""
        pixels = images.flatten(1)
        _, singular, axes = torch.linalg.svd(pixels - pixels.mean(0), full_matrices=False)
        self.mean.copy_(pixels.mean(0))
        self.axes.copy_(axes[: len(self.axes)])
        self.deviation.copy_(singular[: len(self.axes)] / len(pixels) ** 0.5)
        return self

    def code(self, images: Tensor) -> Tensor:
        """(B, 1, 64, 64) → (B, size)."""
        return (images.flatten(1) - self.mean) @ self.axes.T / self.deviation

    def picture(self, code: Tensor) -> Tensor:
        """(B, size) → (B, 1, 64, 64)."""
        return (self.mean + (code * self.deviation) @ self.axes).view(-1, 1, 64, 64)


def pyramid_loss(made: Tensor, truth: Tensor, levels: int = 4) -> Tensor:
    """L1 distance between Laplacian pyramids (Bojanowski et al. 2018, GLO, equation 2): keeps edges sharp.

    Parameters
    ----------
    made, truth
        (B, 1, H, W) in [0, 1].
    """
    loss = made.new_zeros(())
    for level in range(levels):
        made_low, truth_low = F.avg_pool2d(made, 2), F.avg_pool2d(truth, 2)
        detail = (made - F.interpolate(made_low, scale_factor=2)) - (truth - F.interpolate(truth_low, scale_factor=2))
        loss = loss + 2.0 ** (1 - level) * detail.abs().mean()
        made, truth = made_low, truth_low
    return loss + (made - truth).abs().mean()


@torch.no_grad()
def shrink_weights(layer: nn.Module) -> None:
    """Give a last layer a tenth of its initial weights and no bias, so that its output is small at first."""
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    layer.weight.mul_(0.1)
    if layer.bias is not None:
        layer.bias.zero_()


def flip(images: Tensor, which: Tensor) -> Tensor:
    """Mirror the images (B, C, H, W) for which `which` (B,) is true."""
    return torch.where(which[:, None, None, None], images.flip(-1), images)


def pack(network: nn.Module) -> bytes:
    """The network's weights as float16 safetensors."""
    return save({key: value.half().contiguous() for key, value in network.state_dict().items()})


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 by file name, from a folder's `SHA256SUMS` (as `sha256sum` writes it)."""
    file = folder / DIGESTS
    lines = file.read_text().splitlines() if file.is_file() else []
    return {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}


def weights_fingerprint() -> str:
    """One digest of the weights of all generators: with other weights, the same seed makes other pictures."""
    digest = hashlib.sha256()
    folder = importlib.resources.files("bayesdf.generators").joinpath("weights")
    for file in sorted(folder.iterdir(), key=lambda item: item.name):
        if file.name.endswith(".safetensors"):
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def load_weights(network: Network, name: str) -> Network:
    """Fill a network with the weights shipped for a generator, ready to run.

    Raises
    ------
    BayesdfError
        The file is missing, damaged (its SHA-256 is not that in `weights/SHA256SUMS`), or of another architecture.
    """
    remedy = f"reinstall bayesdf or run `python -m bayesdf.generators.train {name}`"
    resource = importlib.resources.files("bayesdf.generators").joinpath("weights", f"{name}.safetensors")
    with importlib.resources.as_file(resource) as path:
        if not path.is_file():
            raise BayesdfError(f"generator {name}: weights are missing at {path}; {remedy}")
        try:
            if digests(path.parent).get(path.name) != hashlib.sha256(path.read_bytes()).hexdigest():
                raise RuntimeError(f"the file's SHA-256 is not that in {DIGESTS}")
            network.load_state_dict({key: value.float() for key, value in load_file(path).items()})
        except (SafetensorError, RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise BayesdfError(f"generator {name}: weights at {path} cannot be read ({reason}); {remedy}") from None
    return network.eval().requires_grad_(False)

"""A style-based adversarial network: a mapping network, convolutions modulated by its styles, and noise inputs.

Karras, Laine and Aila 2019, "A style-based generator architecture for generative adversarial networks", with the
demodulation and the skip connections of Karras et al. 2020, "Analyzing and improving the image quality of StyleGAN".
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bayesdf.faces import Faces
from bayesdf.generators.generator import Generator
from bayesdf.generators.networks import Eigenfaces, Encoder, load_weights, pyramid_loss
from bayesdf.generators.stages import (
    BATCH,
    Stage,
    Work,
    train_adversarially,
    train_encoder,
    train_on_loss,
    training_faces,
)

NAME = "stylegan"
STYLE = 64
"""The first values of the latent decide the style; the others are the noise inputs."""
NOISY = (8, 16, 32)
"""Sides of the levels with a noise input."""
LATENT = STYLE + sum(side * side for side in NOISY)


class Modulated(nn.Module):
    """A convolution whose inputs are scaled by a style, its outputs scaled back to unit variance (equations 1 and 3).

    Scaling activations before and after is the same as scaling the weights, without a set of weights an image.
    """

    def __init__(self, inputs: int, outputs: int, size: int = 3, demodulate: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size) / (inputs * size * size) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.style = nn.Linear(STYLE, inputs)
        nn.init.ones_(self.style.bias)
        self.demodulate = demodulate

    def forward(self, x: Tensor, style: Tensor, noise: Tensor | float = 0.0) -> Tensor:
        scale = self.style(style)
        x = F.conv2d(x * scale[..., None, None], self.weight, padding=self.weight.shape[-1] // 2)
        if self.demodulate:
            power = (scale**2) @ self.weight.pow(2).sum((2, 3)).T
            x = x * (power + 1e-6).rsqrt()[..., None, None]
        return x + noise + self.bias[:, None, None]


class StyleGAN(nn.Module):
    """(B, 1408) → (B, 1, 64, 64): 64 values of style, and noise for the levels of side 8, 16 and 32."""

    def __init__(self, widths: tuple[int, ...] = (112, 96, 72, 48, 24)) -> None:
        super().__init__()
        self.mapping = nn.Sequential(
            nn.Linear(STYLE, 128), nn.LeakyReLU(0.2), nn.Linear(128, 128), nn.LeakyReLU(0.2), nn.Linear(128, STYLE)
        )
        self.constant = nn.Parameter(torch.randn(1, widths[0], 4, 4))
        self.levels = nn.ModuleList(Modulated(a, b) for a, b in zip((widths[0], *widths), widths, strict=False))
        self.strength = nn.Parameter(torch.full((len(NOISY),), 0.05))
        self.grey = nn.ModuleList(Modulated(width, 1, 1, demodulate=False) for width in widths)
        self.encoder = Encoder(1, STYLE)

    def decode(self, code: Tensor) -> Tensor:
        style = code[:, :STYLE] + self.mapping(code[:, :STYLE])
        noises = iter(code[:, STYLE:].split([side * side for side in NOISY], 1))
        strengths = iter(self.strength)
        x = self.constant.expand(len(code), -1, -1, -1)
        image = torch.zeros(len(code), 1, 2, 2)
        for level, grey in zip(self.levels, self.grey, strict=True):
            side = x.shape[-1]
            noise: Tensor | float = 0.0
            if side in NOISY:
                noise = next(strengths) * next(noises).view(-1, 1, side, side)
            x = F.leaky_relu(level(x, style, noise), 0.2) * 2.0**0.5
            image = F.interpolate(image, scale_factor=2, mode="bilinear") + grey(x, style)
            if side < 64:
                x = F.interpolate(x, scale_factor=2, mode="bilinear")
        return torch.sigmoid(image)


def build(faces: Faces) -> StyleGAN:
    """The untrained network."""
    return StyleGAN()


def _with_noise(style: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """A whole latent, random noise inputs after the style."""
    return torch.cat([style, torch.randn(len(style), LATENT - STYLE, generator=generator)], 1)


def redraw(network: StyleGAN, faces: Faces, steps: int) -> Work:
    """Learn to draw the photographs from their principal components."""
    pictures = training_faces()
    codes = Eigenfaces(STYLE).fit(pictures[::8]).code(pictures)

    def loss(generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(pictures), (BATCH,), generator=generator)
        return pyramid_loss(network.decode(_with_noise(codes[rows], generator)), pictures[rows])

    return train_on_loss(network, loss, steps)


def compete(network: StyleGAN, faces: Faces, steps: int) -> Work:
    """Learn to make faces that a critic takes for photographs."""
    eigenfaces = Eigenfaces(STYLE).fit(training_faces()[::8])
    drawn = [p for name, p in network.named_parameters() if not name.startswith("encoder.")]
    return train_adversarially(
        network,
        lambda number, generator: network.decode(torch.randn(number, LATENT, generator=generator)),
        lambda truth, generator: network.decode(_with_noise(eigenfaces.code(truth), generator)),
        steps,
        drawn,
        rate=1e-3,
    )


def guess(network: StyleGAN, faces: Faces, steps: int) -> Work:
    """Learn where to start inverting."""
    return train_encoder(network, network.encoder, network.decode, LATENT, STYLE, steps)


STAGES: dict[str, Stage] = {"redraw": (2000, redraw), "compete": (6700, compete), "guess": (2500, guess)}


@functools.cache
def trained() -> StyleGAN:
    """The network with the weights that ship."""
    return load_weights(StyleGAN(), NAME)


generator = Generator(
    NAME,
    LATENT,
    decode=lambda code: trained().decode(code),
    encode=lambda images: F.pad(trained().encoder(images), (0, LATENT - STYLE)),
    family="whole-image synthesis, style-based GAN",
    paper="Karras, Laine and Aila 2019, A style-based generator architecture for GANs",
)

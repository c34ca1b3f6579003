"""A latent diffusion model, sampled without further noise: the first noise decides the image.

Rombach et al. 2022, "High-resolution image synthesis with latent diffusion models": an autoencoder, sharpened by a
critic, gives each face a small code; a network learns to take noise out of codes. Sampling follows the probability
flow in few deterministic steps: Song, Meng and Ermon 2021, "Denoising diffusion implicit models" (equation 12 with
sigma = 0).
"""

import functools
import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bayesdf.faces import Faces
from bayesdf.generators.generator import Generator
from bayesdf.generators.networks import convolution, load_weights, pyramid_loss
from bayesdf.generators.stages import BATCH, Stage, Work, train_adversarially, train_on_loss, training_faces

NAME = "diffusion"
CHANNELS = 2
LATENT = CHANNELS * 8 * 8
SAMPLING_STEPS = 20


class Autoencoder(nn.Module):
    """(B, 1, 64, 64) ↔ (B, 2, 8, 8)."""

    def __init__(self, widths: tuple[int, ...] = (24, 48, 72, 96)) -> None:
        super().__init__()
        down: list[nn.Module] = [convolution(1, widths[0])]
        for a, b in pairwise(widths):
            down += [nn.AvgPool2d(2), convolution(a, b)]
        self.down = nn.Sequential(*down, nn.Conv2d(widths[-1], CHANNELS, 3, padding=1))
        up: list[nn.Module] = [convolution(CHANNELS, widths[-1]), convolution(widths[-1], widths[-1])]
        for b, a in zip(widths[:0:-1], widths[-2::-1], strict=True):
            up += [nn.Upsample(scale_factor=2, mode="bilinear"), convolution(b, a)]
        self.up = nn.Sequential(*up, nn.Conv2d(widths[0], 1, 3, padding=1))

    def encode(self, images: Tensor) -> Tensor:
        return self.down(images)

    def decode(self, codes: Tensor) -> Tensor:
        return torch.sigmoid(self.up(codes))


class Denoiser(nn.Module):
    """Noisy codes (B, 128) and the angle of their noise (B,) in [0, pi/2] → the velocity (B, 128).

    Codes are cos(angle) · clean + sin(angle) · noise; the velocity is cos(angle) · noise - sin(angle) · clean (Salimans
    and Ho 2022, "Progressive distillation", section 4).
    """

    def __init__(self, width: int = 448, blocks: int = 4) -> None:
        super().__init__()
        self.start = nn.Linear(LATENT, width)
        self.angle = nn.Sequential(nn.Linear(32, 128), nn.SiLU())
        self.films = nn.ModuleList(nn.Linear(128, 2 * width) for _ in range(blocks))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.SiLU(), nn.Dropout(0.1), nn.Linear(width, width)) for _ in range(blocks)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(blocks))
        self.end = nn.Linear(width, LATENT)

    def forward(self, codes: Tensor, angle: Tensor) -> Tensor:
        frequencies = 2.0 ** torch.arange(16) * 0.5
        waves = angle[:, None] * frequencies
        time = self.angle(torch.cat([waves.sin(), waves.cos()], 1))
        x = self.start(codes)
        for norm, film, block in zip(self.norms, self.films, self.blocks, strict=True):
            scale, shift = film(time).chunk(2, 1)
            x = x + block(norm(x) * (1.0 + scale) + shift)
        return self.end(x)


class Diffusion(nn.Module):
    """(B, 128) → (B, 1, 64, 64): noise, the code it flows to, the picture of that code."""

    mean: Tensor
    axes: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.autoencoder = Autoencoder()
        self.denoiser = Denoiser()
        self.register_buffer("mean", torch.zeros(LATENT))
        self.register_buffer("axes", torch.eye(LATENT))
        self.register_buffer("deviation", torch.ones(LATENT))

    def whiten(self, codes: Tensor) -> Tensor:
        """Codes (B, 2, 8, 8) → (B, 128) uncorrelated values of unit variance."""
        return (codes.flatten(1) - self.mean) @ self.axes.T / self.deviation

    def colour(self, white: Tensor) -> Tensor:
        """The inverse of `whiten`."""
        return (self.mean + (white * self.deviation) @ self.axes).view(-1, CHANNELS, 8, 8)

    def flow(self, x: Tensor, angles: Tensor) -> Tensor:
        """Follow the probability flow of (B, 128) through the angles given, one step between two of them."""
        for now, then in pairwise(angles):
            velocity = self.denoiser(x, now.expand(len(x)))
            clean, noise = now.cos() * x - now.sin() * velocity, now.sin() * x + now.cos() * velocity
            x = then.cos() * clean + then.sin() * noise
        return x

    def decode(self, noise: Tensor) -> Tensor:
        angles = torch.linspace(math.pi / 2, 0.0, SAMPLING_STEPS + 1)
        return self.autoencoder.decode(self.colour(self.flow(noise, angles)))

    def encode(self, images: Tensor) -> Tensor:
        """Noise (B, 128) from which images about like these come: the flow followed backwards."""
        angles = torch.linspace(0.0, math.pi / 2, SAMPLING_STEPS + 1)
        return self.flow(self.whiten(self.autoencoder.encode(images)), angles)


def build(faces: Faces) -> Diffusion:
    """The untrained network."""
    return Diffusion()


def compress(network: Diffusion, faces: Faces, steps: int) -> Work:
    """Learn codes that a little noise does not spoil."""
    pictures = training_faces()

    def loss(generator: torch.Generator) -> Tensor:
        images = pictures[torch.randint(len(pictures), (BATCH,), generator=generator)]
        codes = network.autoencoder.encode(images)
        noise = 0.1 * torch.randn(codes.shape, generator=generator)
        return pyramid_loss(network.autoencoder.decode(codes + noise), images) + 1e-3 * codes.pow(2).mean()

    return train_on_loss(network, loss, steps, network.autoencoder.parameters())


def sharpen(network: Diffusion, faces: Faces, steps: int) -> Work:
    """Let a critic judge the pictures of photographs' codes, and of points between two of them."""
    pictures, decoder = training_faces(), network.autoencoder.up

    def between(number: int, generator: torch.Generator) -> Tensor:
        images = pictures[torch.randint(len(pictures), (2 * number,), generator=generator)]
        with torch.no_grad():
            one, other = network.autoencoder.encode(images).chunk(2)
        weight = torch.rand(number, 1, 1, 1, generator=generator) * 0.3
        return network.autoencoder.decode(one + weight * (other - one))

    def redraw(truth: Tensor, generator: torch.Generator) -> Tensor:
        with torch.no_grad():
            codes = network.autoencoder.encode(truth)
        return network.autoencoder.decode(codes)

    return train_adversarially(network, between, redraw, steps, decoder.parameters(), rate=5e-4)


def diffuse(network: Diffusion, faces: Faces, steps: int) -> Work:
    """Learn to take noise out of codes."""
    with torch.no_grad():
        codes = torch.cat([network.autoencoder.encode(part).flatten(1) for part in training_faces().split(64)])
        network.mean.copy_(codes.mean(0))
        _, singular, axes = torch.linalg.svd(codes - network.mean, full_matrices=False)
        network.axes.copy_(axes)
        network.deviation.copy_(singular / len(codes) ** 0.5)
        white = (codes - network.mean) @ axes.T / network.deviation

    def loss(generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(white), (128,), generator=generator)
        angle = torch.rand(128, generator=generator) * (math.pi / 2)
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]
        noise = torch.randn(128, LATENT, generator=generator)
        velocity = network.denoiser(cos * white[rows] + sin * noise, angle)
        return F.mse_loss(velocity, cos * noise - sin * white[rows])

    return train_on_loss(network, loss, steps, network.denoiser.parameters(), rate=1e-3)


STAGES: dict[str, Stage] = {"compress": (2500, compress), "sharpen": (3500, sharpen), "diffuse": (10000, diffuse)}


@functools.cache
def trained() -> Diffusion:
    """The network with the weights that ship."""
    return load_weights(Diffusion(), NAME)


generator = Generator(
    NAME,
    LATENT,
    decode=lambda noise: trained().decode(noise),
    encode=lambda images: trained().encode(images),
    family="whole-image synthesis, diffusion",
    paper="Song, Meng and Ermon 2021, Denoising diffusion implicit models",
)

"""A variational autoencoder: the whole picture is made anew from a short code.

Kingma and Welling 2014, "Auto-encoding variational Bayes"; trained on the aligned photographs with a Laplacian-pyramid
reconstruction term. A fake is a morph: the point between the codes of two people, decoded.
"""

import functools

import numpy as np
import torch
from torch import Tensor, nn

from bayesdf.faces import SIZE, Faces
from bayesdf.generators.fakes import Fakes, pick_donors
from bayesdf.generators.networks import Decoder, Encoder, begin_quietly, flip, load_weights, pyramid_loss

NAME = "vae"
FAMILY = "whole-image synthesis, VAE"
STEPS = 1500

LATENT = 128
BETA = 2e-5
"""Weight of the divergence against the reconstruction, which is a mean over pixels: as in beta-VAE, below 1."""


class VAE(nn.Module):
    """(B, 1, 64, 64) → code (B, 128) → (B, 1, 64, 64).

    Encoder and decoder are each a linear map plus a convolutional network. The linear maps are the principal components
    of the photographs (eigenfaces, Turk and Pentland 1991) and stay as they are; the convolutions learn the rest.
    """

    mean: Tensor
    axes: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder(1, 2 * LATENT)
        self.decoder = Decoder(LATENT)
        self.register_buffer("mean", torch.zeros(SIZE * SIZE))
        self.register_buffer("axes", torch.zeros(LATENT, SIZE * SIZE))
        self.register_buffer("deviation", torch.ones(LATENT))

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of the code, each (B, 128)."""
        mean, log_variance = self.encoder(images).chunk(2, 1)
        components = (images.flatten(1) - self.mean) @ self.axes.T / self.deviation
        return components + mean, (log_variance - 4.0).clamp(-8.0, 4.0)

    def decode(self, code: Tensor) -> Tensor:
        """Images (B, 1, 64, 64) in about [0, 1]."""
        eigenface = self.mean + (code * self.deviation) @ self.axes
        return eigenface.view(-1, 1, SIZE, SIZE) + self.decoder(code)


def build(faces: Faces) -> VAE:
    """The untrained network, with the principal components of the faces and their mirror images."""
    network = VAE()
    pixels = torch.from_numpy(np.concatenate([faces.images, faces.images[..., ::-1]])).flatten(1)
    _, singular, axes = torch.linalg.svd(pixels - pixels.mean(0), full_matrices=False)
    network.mean.copy_(pixels.mean(0))
    network.axes.copy_(axes[:LATENT])
    network.deviation.copy_(singular[:LATENT] / len(pixels) ** 0.5)
    for last in (network.encoder.head, network.decoder.last[-1]):
        begin_quietly(last)
    return network


def loss(network: VAE, faces: Faces, rows: Tensor, generator: torch.Generator) -> Tensor:
    """The negative evidence lower bound of a batch, in its beta form (Higgins et al. 2017)."""
    images = torch.from_numpy(faces.images[rows.numpy()])[:, None]
    images = flip(images, torch.rand(len(images), generator=generator) < 0.5)
    mean, log_variance = network.encode(images)
    code = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=generator)
    divergence = 0.5 * (mean**2 + log_variance.exp() - 1.0 - log_variance).sum(1).mean()
    return pyramid_loss(network.decode(code), images) + BETA * divergence


@functools.cache
def trained() -> VAE:
    """The network with the weights that ship."""
    return load_weights(VAE(), NAME)


@torch.no_grad()
def make(faces: Faces, rng: np.random.Generator) -> Fakes:
    """One morph for every photograph, between its person and another, nearer to the first."""
    network = trained()
    donors = pick_donors(faces, rng)
    mean, log_variance = network.encode(torch.from_numpy(np.array(faces.images))[:, None])
    weight = torch.from_numpy(rng.uniform(0.2, 0.5, (len(faces), 1))).float()
    noise = torch.from_numpy(rng.standard_normal(mean.shape)).float()
    code = (1.0 - weight) * mean + weight * mean[donors] + (0.5 * log_variance).exp() * noise
    return Fakes(network.decode(code)[:, 0].clamp(0.0, 1.0).numpy(), donors)

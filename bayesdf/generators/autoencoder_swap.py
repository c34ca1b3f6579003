"""An identity-swapping autoencoder: expression from the target, identity from the donor, blended back into the target.

The scheme of the `deepfakes` tools (Roessler et al. 2019, section 3): one encoder for everybody and a decoder per
person, trained to undo random warps of that person's pictures. Here the decoders share their weights and a code per
person modulates each level.
"""

import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bayesdf.faces import SIZE, TEMPLATE, Faces, photographs
from bayesdf.generators.blend import alpha_blend, ellipse, face_mask, match_tone
from bayesdf.generators.fakes import Fakes, pick_donors
from bayesdf.generators.networks import Decoder, Encoder, begin_quietly, load_weights, pyramid_loss

NAME = "autoencoder_swap"
FAMILY = "face swap, autoencoder"
STEPS = 2500

EXPRESSION, IDENTITY = 40, 48


class SwapAutoencoder(nn.Module):
    """Face (B, 1, 64, 64) and person (B,) → that person's face with the same pose and expression.

    Each person has a code and a canvas, which starts as the mean of his or her pictures; the decoder draws on it.
    """

    def __init__(self, people: int) -> None:
        super().__init__()
        self.encoder = Encoder(1, EXPRESSION)
        self.identity = nn.Embedding(people, IDENTITY)
        self.canvas = nn.Embedding(people, SIZE * SIZE)
        self.decoder = Decoder(EXPRESSION + IDENTITY, IDENTITY)

    def forward(self, images: Tensor, person: Tensor) -> Tensor:
        code = self.identity(person)
        drawn = self.decoder(torch.cat([self.encoder(images), code], 1), code)
        return self.canvas(person).view(-1, 1, SIZE, SIZE) + drawn


def people(faces: Faces) -> Tensor:
    """(N,) the number of the person in each photograph, as the shipped network counts them."""
    everyone = np.unique(photographs().subject)
    return torch.from_numpy(np.searchsorted(everyone, faces.subject))


def random_warp(images: Tensor, generator: torch.Generator, strength: float = 0.04) -> Tensor:
    """Warp each image smoothly at random: what hides the identity's geometry from the encoder."""
    batch, _, height, width = images.shape
    coarse = torch.randn(batch, 2, 5, 5, generator=generator) * strength
    offset = F.interpolate(coarse, size=(height, width), mode="bicubic").permute(0, 2, 3, 1)
    identity = F.affine_grid(torch.eye(2, 3).expand(batch, 2, 3), [batch, 1, height, width], align_corners=False)
    return F.grid_sample(images, identity + offset, padding_mode="reflection", align_corners=False)


def build(faces: Faces) -> SwapAutoencoder:
    """The untrained network for these people, the mean face of each on the canvas."""
    everyone = np.unique(faces.subject)
    network = SwapAutoencoder(len(everyone))
    means = np.stack([faces.images[faces.subject == who].mean(0) for who in everyone])
    with torch.no_grad():
        network.canvas.weight.copy_(torch.from_numpy(means).flatten(1))
    begin_quietly(network.decoder.last[-1])
    return network


def loss(network: SwapAutoencoder, faces: Faces, rows: Tensor, generator: torch.Generator) -> Tensor:
    """How far the faces restored from warped ones are from the true ones, hair and background left out."""
    images = torch.from_numpy(faces.images[rows.numpy()])[:, None]
    tone = 1.0 + 0.1 * torch.randn(len(images), 1, 1, 1, generator=generator)
    made = network(random_warp(images, generator) * tone, people(faces)[rows])
    inside = torch.from_numpy(ellipse(TEMPLATE, centre=(32.0, 36.5), radii=(26.0, 29.5))).float()
    return pyramid_loss(made * inside, images * inside)


@functools.cache
def trained() -> SwapAutoencoder:
    """The network with the weights that ship."""
    return load_weights(build(photographs()), NAME)


@torch.no_grad()
def make(faces: Faces, rng: np.random.Generator) -> Fakes:
    """One swap for every photograph, its expression worn by another of the people."""
    donors = pick_donors(faces, rng)
    swapped = trained()(torch.from_numpy(np.array(faces.images))[:, None], people(faces)[donors])[:, 0].numpy()
    images = np.empty_like(faces.images)
    for row, target in enumerate(faces.images):
        mask = face_mask(faces.landmarks[row])
        images[row] = alpha_blend(match_tone(swapped[row], target, mask), target, mask).clip(0.0, 1.0)
    return Fakes(images, donors)

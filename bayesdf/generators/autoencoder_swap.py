"""An identity-swapping autoencoder: expression from the target, identity from the donor, blended back into the target.

The scheme is that of the `deepfakes` tools (Roessler et al. 2019, section 3): one encoder for everybody and a decoder
per person, trained to undo random warps of that person's pictures. Here the decoders share their weights. A code per
person modulates each level.
"""

import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bayesdf.faces import SIZE, TEMPLATE, Faces, photographs
from bayesdf.generators.blend import alpha_blend, ellipse, face_mask, match_tone, soften
from bayesdf.generators.fakes import Fakes, pick_donors
from bayesdf.generators.generator import Generator
from bayesdf.generators.networks import Decoder, Encoder, load_weights, pyramid_loss, shrink_weights
from bayesdf.generators.stages import BATCH, Stage, Work, train_encoder, train_on_loss

NAME = "autoencoder_swap"

EXPRESSION, IDENTITY, PEOPLE = 40, 48, 40
LATENT = EXPRESSION + PEOPLE + 2
"""Values of the latent: an expression, a weight for each person, and the tone, which is matched to the target's."""
LOGIT_SCALE = 8.0
"""Difference of the logits of two people whose latent values differ by one."""


class SwapAutoencoder(nn.Module):
    """Face (B, 1, 64, 64) and person (B,) → that person's face with the same pose and expression.

    Each person has a code and a canvas. The canvas starts as the mean of the person's pictures. The decoder draws on
    it.
    """

    def __init__(self, people: int) -> None:
        super().__init__()
        self.encoder = Encoder(1, EXPRESSION)
        self.identity = nn.Embedding(people, IDENTITY)
        self.canvas = nn.Embedding(people, SIZE * SIZE)
        self.decoder = Decoder(EXPRESSION + IDENTITY, IDENTITY)
        self.usual = nn.BatchNorm1d(EXPRESSION, affine=False, momentum=0.01)
        self.guess = Encoder(1, LATENT)

    def draw(self, expression: Tensor, code: Tensor, canvas: Tensor) -> Tensor:
        return canvas.view(-1, 1, SIZE, SIZE) + self.decoder(torch.cat([expression, code], 1), code)

    def forward(self, images: Tensor, person: Tensor) -> Tensor:
        expression = self.encoder(images)
        if self.training:
            self.usual(expression.detach())
        return self.draw(expression, self.identity(person), self.canvas(person))

    def decode(self, latent: Tensor) -> Tensor:
        """Latents (B, 82), standard normal, → faces (B, 1, 64, 64) before blending.

        The person with the largest latent value is drawn. If two values are nearly equal, the result is a mixture.
        """
        spread = self.usual.running_var
        middle = self.usual.running_mean
        assert spread is not None and middle is not None
        expression = middle + latent[:, :EXPRESSION] * spread.sqrt()
        people = (LOGIT_SCALE * latent[:, EXPRESSION:-2]).softmax(1)
        face = self.draw(expression, people @ self.identity.weight, people @ self.canvas.weight)
        gain, offset = latent[:, -2:, None, None].split(1, 1)
        return (face - 0.5) * (0.2 * gain).exp() + 0.5 + 0.1 * offset


def people(faces: Faces) -> Tensor:
    """(N,) the number of the person in each photograph, as in the shipped network."""
    everyone = np.unique(photographs().subject)
    return torch.from_numpy(np.searchsorted(everyone, faces.subject))


def random_warp(images: Tensor, generator: torch.Generator, strength: float = 0.04) -> Tensor:
    """Warp each image smoothly at random. This hides the geometry of the face from the encoder."""
    batch, _, height, width = images.shape
    coarse = torch.randn(batch, 2, 5, 5, generator=generator) * strength
    offset = F.interpolate(coarse, size=(height, width), mode="bicubic").permute(0, 2, 3, 1)
    identity = F.affine_grid(torch.eye(2, 3).expand(batch, 2, 3), [batch, 1, height, width], align_corners=False)
    return F.grid_sample(images, identity + offset, padding_mode="reflection", align_corners=False)


def build(faces: Faces) -> SwapAutoencoder:
    """The untrained network for these people, with the mean face of each as the canvas."""
    everyone = np.unique(faces.subject)
    network = SwapAutoencoder(len(everyone))
    means = np.stack([faces.images[faces.subject == who].mean(0) for who in everyone])
    with torch.no_grad():
        network.canvas.weight.copy_(torch.from_numpy(means).flatten(1))
    shrink_weights(network.decoder.last[-1])
    return network


def restore(network: SwapAutoencoder, faces: Faces, steps: int) -> Work:
    """Learn to restore the faces from warped ones. Hair and background do not count."""
    inside = torch.from_numpy(ellipse(TEMPLATE, centre=(32.0, 36.5), radii=(26.0, 29.5))).float()
    person = people(faces)

    def loss(generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(faces), (BATCH,), generator=generator)
        images = torch.from_numpy(faces.images[rows.numpy()])[:, None]
        tone = 1.0 + 0.1 * torch.randn(len(images), 1, 1, 1, generator=generator)
        made = network(random_warp(images, generator) * tone, person[rows])
        return pyramid_loss(made * inside, images * inside)

    parameters = [p for name, p in network.named_parameters() if not name.startswith("guess.")]
    return train_on_loss(network, loss, steps, parameters)


def guess(network: SwapAutoencoder, faces: Faces, steps: int) -> Work:
    """Train the encoder for inversion on the part of the picture that remains after blending."""
    network.eval()
    inside = torch.from_numpy(REGION)
    return train_encoder(network, network.guess, lambda latent: network.decode(latent) * inside, LATENT, LATENT, steps)


STAGES: dict[str, Stage] = {"restore": (2500, restore), "guess": (3000, guess)}
REGION = (soften(face_mask(TEMPLATE)) > 0.99).astype(np.float32)
"""Pixels where the blend shows nothing of the target: (64, 64), 0 or 1."""


@functools.cache
def trained() -> SwapAutoencoder:
    """The network with the weights that ship."""
    return load_weights(build(photographs()), NAME)


@torch.no_grad()
def make(faces: Faces, rng: np.random.Generator) -> Fakes:
    """One swap for every photograph: its expression on another person's face. The mask is the weight of the blend."""
    donors = pick_donors(faces, rng)
    swapped = trained()(torch.from_numpy(np.array(faces.images))[:, None], people(faces)[donors])[:, 0].numpy()
    images, weights = np.empty_like(faces.images), np.empty_like(faces.images)
    for row, target in enumerate(faces.images):
        mask = face_mask(faces.landmarks[row])
        weights[row] = weight = soften(mask)
        images[row] = alpha_blend(match_tone(swapped[row], target, mask), target, weight).clip(0.0, 1.0)
    return Fakes(images, donors, weights)


generator = Generator(
    NAME,
    LATENT,
    decode=lambda latent: trained().decode(latent),
    encode=lambda images: trained().guess(images * torch.from_numpy(REGION)),
    region=REGION,
    manipulate=make,
    family="face swap, autoencoder",
    paper="Roessler et al. 2019, FaceForensics++ (section 3, the deepfakes method)",
)

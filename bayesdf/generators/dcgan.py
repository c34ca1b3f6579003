"""A deep convolutional adversarial network: noise, then transposed convolutions.

Radford, Metz and Chintala 2016, "Unsupervised representation learning with deep convolutional generative adversarial
networks". With a few hundred photographs it first learns to redraw them from their principal components, and then to
deceive a critic (see `stages.train_adversarially`).
"""

import functools

import torch
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

NAME = "dcgan"
LATENT = 64


class DCGAN(nn.Module):
    """(B, 64) → (B, 1, 64, 64) in [0, 1]; `encoder` guesses back."""

    def __init__(self, widths: tuple[int, ...] = (160, 112, 72, 40)) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.ConvTranspose2d(LATENT, widths[0], 4, bias=False)]
        for inputs, outputs in zip(widths, (*widths[1:], 24), strict=True):
            layers += [nn.BatchNorm2d(inputs), nn.ReLU(inplace=True)]
            layers += [nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False)]
        layers += [nn.BatchNorm2d(24), nn.ReLU(inplace=True), nn.Conv2d(24, 1, 3, padding=1), nn.Sigmoid()]
        self.layers = nn.Sequential(*layers)
        self.encoder = Encoder(1, LATENT)

    def decode(self, code: Tensor) -> Tensor:
        return self.layers(code[:, :, None, None])


def build(faces: Faces) -> DCGAN:
    """The untrained network."""
    return DCGAN()


def redraw(network: DCGAN, faces: Faces, steps: int) -> Work:
    """Learn to draw the photographs from their principal components."""
    pictures = training_faces()
    codes = Eigenfaces(LATENT).fit(pictures[::8]).code(pictures)

    def loss(generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(pictures), (BATCH,), generator=generator)
        return pyramid_loss(network.decode(codes[rows]), pictures[rows])

    return train_on_loss(network, loss, steps, network.layers.parameters())


def compete(network: DCGAN, faces: Faces, steps: int) -> Work:
    """Learn to make faces that a critic takes for photographs."""
    eigenfaces = Eigenfaces(LATENT).fit(training_faces()[::8])
    return train_adversarially(
        network,
        lambda number, generator: network.decode(torch.randn(number, LATENT, generator=generator)),
        lambda truth, generator: network.decode(eigenfaces.code(truth)),
        steps,
        network.layers.parameters(),
        rate=5e-4,
    )


def guess(network: DCGAN, faces: Faces, steps: int) -> Work:
    """Learn where to start inverting."""
    network.layers.eval()
    return train_encoder(network, network.encoder, network.decode, LATENT, LATENT, steps)


STAGES: dict[str, Stage] = {"redraw": (2000, redraw), "compete": (8000, compete), "guess": (2500, guess)}


@functools.cache
def trained() -> DCGAN:
    """The network with the weights that ship."""
    return load_weights(DCGAN(), NAME)


generator = Generator(
    NAME,
    LATENT,
    decode=lambda code: trained().decode(code),
    encode=lambda images: trained().encoder(images),
    family="whole-image synthesis, GAN",
    paper="Radford, Metz and Chintala 2016, Unsupervised representation learning with deep convolutional GANs",
)

"""A variational autoencoder: the whole picture is made anew from a short code.

Kingma and Welling 2014, "Auto-encoding variational Bayes"; trained on the aligned photographs with a Laplacian-pyramid
reconstruction term, the divergence weighed less than it (Higgins et al. 2017, "beta-VAE").
"""

import functools

import torch
from torch import Tensor, nn

from bayesdf.faces import Faces
from bayesdf.generators.generator import Generator
from bayesdf.generators.networks import Decoder, Eigenfaces, Encoder, load_weights, pyramid_loss, shrink_weights
from bayesdf.generators.stages import BATCH, Stage, Work, train_on_loss, training_faces

NAME = "vae"
LATENT = 64
BETA = 1e-4
"""Weight of the divergence against the reconstruction, which is a mean over pixels."""


class VAE(nn.Module):
    """(B, 1, 64, 64) → code (B, 64) → (B, 1, 64, 64).

    Encoder and decoder are each a linear map plus a convolutional network. The linear maps are the principal components
    of the photographs and stay as they are; the convolutions learn the rest.
    """

    def __init__(self) -> None:
        super().__init__()
        self.eigenfaces = Eigenfaces(LATENT)
        self.encoder = Encoder(1, 2 * LATENT)
        self.decoder = Decoder(LATENT)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of the code, each (B, 64)."""
        mean, log_variance = self.encoder(images).chunk(2, 1)
        return self.eigenfaces.code(images) + mean, (log_variance - 3.0).clamp(-8.0, 4.0)

    def decode(self, code: Tensor) -> Tensor:
        """Images (B, 1, 64, 64) in about [0, 1]."""
        return self.eigenfaces.picture(code) + self.decoder(code)


def build(faces: Faces) -> VAE:
    """The untrained network, with the principal components of the photographs."""
    network = VAE()
    network.eigenfaces.fit(training_faces()[::8])
    for last in (network.encoder.head, network.decoder.last[-1]):
        shrink_weights(last)
    return network


def reconstruct(network: VAE, faces: Faces, steps: int) -> Work:
    """Make the negative evidence lower bound smaller, in its beta form."""
    pictures = training_faces()

    def loss(generator: torch.Generator) -> Tensor:
        images = pictures[torch.randint(len(pictures), (BATCH,), generator=generator)]
        mean, log_variance = network.encode(images)
        code = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=generator)
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1.0 - log_variance).sum(1).mean()
        return pyramid_loss(network.decode(code), images) + BETA * divergence

    return train_on_loss(network, loss, steps)


STAGES: dict[str, Stage] = {"reconstruct": (3000, reconstruct)}


@functools.cache
def trained() -> VAE:
    """The network with the weights that ship."""
    return load_weights(VAE(), NAME)


generator = Generator(
    NAME,
    LATENT,
    decode=lambda code: trained().decode(code),
    encode=lambda images: trained().encode(images)[0],
    family="whole-image synthesis, VAE",
    paper="Kingma and Welling 2014, Auto-encoding variational Bayes",
)

"""What is a generator? A function from a latent to a face, with its name and paper."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayesdf.errors import BayesdfError
from bayesdf.faces import Faces, photographs
from bayesdf.generators.fakes import NOBODY, Fakes


@dataclass(frozen=True)
class Generator:
    """A source of fakes. `Generator("mine", latent_dim=16, decode=network)` is all that inversion needs.

    Attributes
    ----------
    name
        The name in manifests and tables.
    latent_dim
        Number of standard normal values of which one image is made: its latent. 0 if fakes are made of photographs.
    decode
        Latents (B, latent_dim) → images (B, 1, 64, 64) in about [0, 1], differentiable. A generator without one cannot
        be inverted.
    encode
        Images (B, 1, 64, 64) → latents (B, latent_dim), a guess from which inversion starts. With `exact`, the latent
        of any image that the generator made.
    exact
        Whether `encode` undoes `decode`.
    region
        (64, 64) weights in [0, 1] of the pixels that the generator draws; None for all of them.
    manipulate
        (photographs, randomness) → a fake for each photograph, for generators that work on photographs.
    family, paper
        Kind of generator, and who described it first.
    """

    name: str
    latent_dim: int = 0
    decode: Callable[[Tensor], Tensor] | None = None
    encode: Callable[[Tensor], Tensor] | None = None
    exact: bool = False
    region: NDArray[np.float32] | None = None
    manipulate: Callable[[Faces, np.random.Generator], Fakes] | None = None
    family: str = ""
    paper: str = ""

    @property
    def invertible(self) -> bool:
        """Whether images can be traced back to a latent, because there is a differentiable `decode`."""
        return self.decode is not None

    def sample_latent(self, n: int, seed: int) -> Tensor:
        """Latents (n, latent_dim) of standard normal values."""
        return torch.randn(n, self.latent_dim, generator=torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def pictures(self, latent: Tensor | NDArray[np.float32]) -> NDArray[np.float32]:
        """What `decode` makes of latents (N, latent_dim): (N, 64, 64) in [0, 1]."""
        if self.decode is None:
            raise BayesdfError(f"generator {self.name}: has no `decode`, so it makes no pictures of latents")
        made = [self.decode(part) for part in torch.as_tensor(latent).split(64)]
        return torch.cat(made)[:, 0].clamp(0.0, 1.0).numpy()

    @torch.no_grad()
    def guess(self, images: Tensor) -> Tensor:
        """The latents (B, latent_dim) that `encode` gives for images (B, 1, 64, 64); raises if they are not finite."""
        assert self.encode is not None
        guess = self.encode(images)
        if tuple(guess.shape) != (len(images), self.latent_dim) or not guess.isfinite().all():
            raise BayesdfError(
                f"generator {self.name}: encode makes {tuple(guess.shape)} of {len(images)} images, or values that "
                f"are not finite; it must make finite ({len(images)}, {self.latent_dim})"
            )
        return guess

    def sample(self, n: int, seed: int) -> NDArray[np.float32]:
        """New fakes (n, 64, 64) in [0, 1]; the same seed makes the same.

        A manipulation works on photographs drawn at random from all 400.
        """
        if self.manipulate is None:
            return self.pictures(self.sample_latent(n, seed))
        rng = np.random.default_rng(seed)
        # One more photograph of each person, so that there is always a second person to take from.
        others = np.arange(0, len(photographs()), 10) + rng.integers(10)
        rows = np.concatenate([rng.integers(len(photographs()), size=n), others])
        return self.manipulate(photographs().take(rows), rng).images[:n]

    def fakes(self, faces: Faces, rng: np.random.Generator) -> Fakes:
        """One fake for each photograph: its manipulation, or a new face in its place."""
        if self.manipulate is not None:
            return self.manipulate(faces, rng)
        images = self.pictures(torch.from_numpy(rng.standard_normal((len(faces), self.latent_dim), np.float32)))
        return Fakes(images, np.full(len(faces), NOBODY), np.ones_like(images))

"""How far is what a generator makes of a latent from a picture?

For an image x, a generator G and its latent z (the values that G makes a picture of) the loss is

    L(z) = w_p |x - G(z)|² + w_g |∇x - ∇G(z)|² + w_s |φ(x) - φ(G(z))|² + σ² |z|² / n

The first three terms are mean squares: over pixels, over differences of neighbouring pixels, and over the edge
strengths φ of `bayesdf.generators.perceptual`. n is the number of pixels. The last term is the prior. If the pixels
have noise of standard deviation σ, and w_p = 1 is the only weight, then L is the negative logarithm of the posterior of
z under its standard normal prior, times 2σ²/n. Some generators have more latent values than a picture has pixels to
determine, such as noise inputs. The prior keeps them from explaining everything.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bayesdf._version import __version__
from bayesdf.errors import BayesdfError
from bayesdf.generators import perceptual
from bayesdf.generators.generator import Generator

SIDE = 64
FLOOR = 1.0 / 255.0 / 12.0**0.5
"""Root mean square error that rounding to 8 bits makes. A stored picture cannot be known more exactly."""
TERMS = ("pixel", "gradient", "perceptual", "energy")
"""Terms of the loss; `energy` is the mean square of the latent."""


@dataclass(frozen=True)
class Weights:
    """Weights of the terms of the loss.

    Attributes
    ----------
    pixel, gradient, perceptual
        Weights of the three mean squares. A term of weight 0 is measured, but does not guide the search.
    noise
        Assumed standard deviation σ of the noise of pixels, in grey values of [0, 1]. 0 switches the prior off.
    """

    pixel: float = 1.0
    gradient: float = 0.5
    perceptual: float = 0.5
    noise: float = 0.01

    def __post_init__(self) -> None:
        values = (self.pixel, self.gradient, self.perceptual, self.noise)
        if not all(np.isfinite(values)) or min(values) < 0.0 or not any(values[:3]):
            raise BayesdfError(f"weights {values}: give finite numbers, none below 0, and not 0 for all three errors")


class Loss:
    """The loss of one generator, with its slope."""

    def __init__(self, generator: Generator, weights: Weights) -> None:
        if generator.decode is None:
            raise BayesdfError(
                f"generator {generator.name}: cannot be inverted, since it has no `decode` from latent to images"
            )
        if generator.latent_dim < 1:
            raise BayesdfError(f"generator {generator.name}: latent_dim is {generator.latent_dim}; give 1 or more")
        self.name, self.decode, self.latent_dim = generator.name, generator.decode, generator.latent_dim
        region = np.ones((SIDE, SIDE)) if generator.region is None else np.asarray(generator.region)
        if region.shape != (SIDE, SIDE) or not np.isfinite(region).all() or not region.any():
            raise BayesdfError(f"generator {self.name}: region must be ({SIDE}, {SIDE}) weights, not all of them 0")
        self.region = torch.from_numpy(region).float()
        self.area = float((self.region**2).sum())
        self.weights = torch.tensor(
            [weights.pixel, weights.gradient, weights.perceptual, weights.noise**2 * self.latent_dim / self.area]
        )
        self.example = self.make_example()

    @torch.no_grad()
    def make_example(self) -> Tensor:
        """The picture of one fixed latent: (1, 1, 64, 64). It differs between generators with different weights."""
        latent = torch.randn(1, self.latent_dim, generator=torch.Generator().manual_seed(1))
        try:
            made = self.make(latent)
            self.residuals(latent, made, torch.zeros(1, 1, SIDE, SIDE))
        except (RuntimeError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise BayesdfError(
                f"generator {self.name}: decode must make float32 images (B, 1, {SIDE}, {SIDE}) of a latent "
                f"(B, {self.latent_dim}), but fails ({reason})"
            ) from None
        if not made.isfinite().all():
            raise BayesdfError(f"generator {self.name}: decode makes NaN or infinite values")
        return made

    def fingerprint(self, settings: tuple[object, ...], *more: Tensor) -> str:
        """SHA-256 of the version, the generator, the weights of the loss, the settings and more arrays."""
        arrays = (self.region, self.weights, self.example, *more)
        shapes = [tuple(array.shape) for array in arrays]
        digest = hashlib.sha256(repr((__version__, self.name, self.latent_dim, settings, shapes)).encode())
        for array in arrays:
            digest.update(array.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def make(self, latent: Tensor) -> Tensor:
        """What the generator makes: (B, 1, 64, 64)."""
        made = self.decode(latent)
        shape = (len(latent), 1, SIDE, SIDE)
        if tuple(made.shape) != shape:
            raise BayesdfError(
                f"generator {self.name}: decode makes {tuple(made.shape)} of latent {tuple(latent.shape)}; "
                f"it must make {shape}"
            )
        return made

    def residuals(self, latent: Tensor, made: Tensor, images: Tensor) -> list[Tensor]:
        """Vectors (B, ·) whose sums of squares are the terms of the loss of `made`, which was made of `latent`."""
        # Outside its region the generator is given what is there, so that no error can arise.
        difference = self.region * (made - images)
        across, down = difference.diff(dim=-1).flatten(1), difference.diff(dim=-2).flatten(1)
        edges = perceptual.features(images + difference) - perceptual.features(images)
        scale = self.area**-0.5
        return [
            difference.flatten(1) * scale,
            torch.cat([across, down], 1) * (scale * 0.5**0.5),
            edges * (scale * SIDE / edges.shape[1] ** 0.5),
            latent / self.latent_dim**0.5,
        ]

    def __call__(self, latent: Tensor, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Terms (B, 4), loss (B,), its slope (B, latent), reconstruction (B, 64, 64)."""
        latent = latent.detach().requires_grad_(True)
        with torch.enable_grad():
            made = self.make(latent)
            residuals = self.residuals(latent, made, images)
            terms = torch.stack([part.pow(2).sum(1) for part in residuals], 1)
            loss = terms @ self.weights
            slope = self.slope(loss.sum(), made, latent)
        loss = torch.where(loss.isfinite() & slope.isfinite().all(1), loss.detach(), torch.inf)
        return terms.detach(), loss, slope, made.detach()[:, 0]

    def slope(self, total: Tensor, made: Tensor, latent: Tensor) -> Tensor:
        try:
            if not made.requires_grad:
                raise RuntimeError("images do not record the latent they are made of")
            return torch.autograd.grad(total, latent)[0]
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:150]
            raise BayesdfError(f"generator {self.name}: decode is not differentiable ({reason})") from None

"""What happens to pictures on their way, blur, crops, noise, compression, light; and an inversion that allows for it.

`perturb` treats pictures as a careless sender would. `forgiving` gives a generator a few more values of entropy that
move, tone and blur what it makes, so that inverting it undoes such treatment while it looks for the entropy: a
generator is any differentiable way from entropy to a picture, so the search need not know.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor

from bayesdf.errors import BayesdfError
from bayesdf.generators.generator import Generator

Picture = NDArray[np.float32]
LEVELS = 255.0
TREATMENTS = 7
"""Values of entropy that `forgiving` adds: zoom, shift across and down, contrast, brightness, and two blurs."""
ZOOM, SHIFT, CONTRAST, BRIGHTNESS, BLUR = 0.15, 0.06, 0.15, 0.12, 0.5
"""Standard deviations of the treatments: of logarithms of scales, in half sides, in grey values, and of shares."""
ZOOMS = (0.0, 0.75, 1.5, 2.4)
"""Zooms that the search tries for a start, in standard deviations: 0, 11, 20 and 30 % of the side cut away."""


@dataclass(frozen=True)
class Perturbation:
    """One way of treating pictures.

    Attributes
    ----------
    label, unit
        As figures say it: the name, and what strength is counted in.
    strengths
        Those that the study looks at, rising; 0 is no treatment.
    apply
        (picture (64, 64) in [0, 1], strength above 0, randomness) → picture, not yet clipped or rounded.
    """

    label: str
    unit: str
    strengths: tuple[float, ...]
    apply: Callable[[Picture, float, np.random.Generator], Picture]


def _blur(picture: Picture, strength: float, rng: np.random.Generator) -> Picture:
    return ndimage.gaussian_filter(picture, strength, mode="nearest")


def _crop(picture: Picture, strength: float, rng: np.random.Generator) -> Picture:
    """The middle, enlarged to the old size."""
    side = len(picture)
    rim = 0.5 * strength * side
    image = Image.fromarray(picture)
    box = (rim, rim, side - rim, side - rim)
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, box=box))


def _noise(picture: Picture, strength: float, rng: np.random.Generator) -> Picture:
    return picture + strength / LEVELS * rng.standard_normal(picture.shape, np.float32)


def _jpeg(picture: Picture, strength: float, rng: np.random.Generator) -> Picture:
    buffer = io.BytesIO()
    image = Image.fromarray((picture.clip(0.0, 1.0) * LEVELS).round().astype(np.uint8))
    image.save(buffer, "JPEG", quality=max(1, round(100.0 - strength)))
    return np.asarray(Image.open(buffer)).astype(np.float32) / np.float32(LEVELS)


def _brightness(picture: Picture, strength: float, rng: np.random.Generator) -> Picture:
    """Lighter or darker, each as likely."""
    return picture + rng.choice([-1.0, 1.0]) * np.float32(strength / LEVELS)


PERTURBATIONS: dict[str, Perturbation] = {
    "blur": Perturbation("Gaussian blur", "standard deviation (pixels)", (0.5, 1.0, 1.5, 2.0), _blur),
    "crop": Perturbation("crop and resize", "part of the side cut away", (0.05, 0.1, 0.2, 0.3), _crop),
    "noise": Perturbation("Gaussian noise", "standard deviation (of 255 grey values)", (4.0, 8.0, 16.0, 32.0), _noise),
    "jpeg": Perturbation("JPEG", "100 less the JPEG quality", (30.0, 50.0, 70.0, 85.0), _jpeg),
    "brightness": Perturbation("brightness", "shift (of 255 grey values)", (10.0, 20.0, 40.0, 60.0), _brightness),
}


def perturb(images: NDArray[np.floating], name: str, strength: float, seed: int = 0) -> Picture:
    """Treat pictures in one way and store them with 8 bits.

    Parameters
    ----------
    images
        (N, 64, 64) in [0, 1].
    name
        One of `PERTURBATIONS`.
    strength
        In the unit of that one; 0 gives the pictures back as they are.
    seed
        Every picture has randomness of its own, which stays the same at all strengths.

    Returns
    -------
    (N, 64, 64) float32 in [0, 1], multiples of 1/255 where the strength is above 0.

    Raises
    ------
    BayesdfError
        A name that is none, or a strength below 0 or not finite.
    """
    if name not in PERTURBATIONS:
        raise BayesdfError(f"unknown perturbation {name!r}: choose from {', '.join(PERTURBATIONS)}")
    if not (np.isfinite(strength) and strength >= 0.0):
        raise BayesdfError(f"{name} of strength {strength}: give a number of 0 or more")
    pictures = np.array(images, np.float32)
    if strength == 0.0:
        return pictures
    sources = np.random.SeedSequence(seed).spawn(len(pictures))
    return _stored(
        [
            PERTURBATIONS[name].apply(one, strength, np.random.default_rng(s))
            for one, s in zip(pictures, sources, strict=True)
        ]
    )


def perturb_at_random(images: NDArray[np.floating], seed: int = 0) -> Picture:
    """Treat every picture in one way, drawn at random, of a strength drawn evenly up to the strongest of the study."""
    rng = np.random.default_rng(seed)
    ways = list(PERTURBATIONS.values())
    made = []
    for picture in np.array(images, np.float32):
        way = ways[rng.integers(len(ways))]
        made.append(way.apply(picture, rng.uniform(1e-3, 1.0) * way.strengths[-1], rng))
    return _stored(made)


def forgiving(generator: Generator) -> Generator:
    """The generator with `TREATMENTS` more values of entropy, which zoom, shift, tone and blur what it makes.

    All of them 0 is the generator itself. Where it has an encoder, this is asked about the picture as it is and about
    the picture shrunk by each of `ZOOMS`, since no descent finds its way from a wrong zoom; the start is what makes the
    picture again most nearly, all other treatments 0. That takes a run forward for each. A generator that could be
    inverted exactly no longer can.
    """
    decode = generator.decode
    if decode is None:
        raise BayesdfError(f"generator {generator.name}: cannot be inverted, since it has no `decode`")

    def make(entropy: Tensor) -> Tensor:
        return treat(decode(entropy[:, :-TREATMENTS]), entropy[:, -TREATMENTS:])

    @torch.no_grad()
    def start(images: Tensor) -> Tensor:
        starts, errors = [], []
        for zoom in ZOOMS:
            treatments = torch.zeros(len(images), TREATMENTS)
            treatments[:, 0] = zoom
            starts.append(torch.cat([generator.guess(treat(images, -treatments)), treatments], 1))
            difference = make(starts[-1]) - images
            if generator.region is not None:
                difference = difference * torch.from_numpy(generator.region)
            errors.append(difference.pow(2).sum((1, 2, 3)))
        best = torch.stack(errors).nan_to_num(torch.inf).argmin(0)
        return torch.stack(starts)[best, torch.arange(len(images))]

    return replace(
        generator,
        latent_dim=generator.latent_dim + TREATMENTS,
        decode=make,
        encode=None if generator.encode is None else start,
        exact=False,
    )


def treat(images: Tensor, treatments: Tensor) -> Tensor:
    """Pictures (B, 1, 64, 64) under treatments (B, 7), about standard normal; differentiable in both.

    Zoom, shift across, shift down, contrast, brightness, and the shares of two blurred versions (of standard deviation
    1 and 2 pixels) that stand in for the picture.
    """
    zoom, across, down, contrast, brightness, soft, softer = treatments.unbind(1)
    scale = (-ZOOM * zoom).exp()
    none = torch.zeros_like(scale)
    rows = [torch.stack(row, 1) for row in ((scale, none, SHIFT * across), (none, scale, SHIFT * down))]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    blurred = [
        share[:, None, None, None] * (_smooth(moved, width) - moved) for share, width in ((soft, 1.0), (softer, 2.0))
    ]
    seen = moved + BLUR * (blurred[0] + blurred[1])
    gain = (CONTRAST * contrast).exp()[:, None, None, None]
    return 0.5 + gain * (seen - 0.5) + BRIGHTNESS * brightness[:, None, None, None]


def _smooth(images: Tensor, width: float) -> Tensor:
    """Gaussian blur of a standard deviation in pixels, rim repeated."""
    reach = int(np.ceil(3.0 * width))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / width) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel[None, None, :, None]), kernel[None, None, None, :])


def _stored(pictures: list[Picture]) -> Picture:
    levels = (np.stack(pictures).clip(0.0, 1.0) * LEVELS).round()
    return (levels / LEVELS).astype(np.float32)

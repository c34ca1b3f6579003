"""What happens to pictures on their way? Blur, crops, noise, compression, brightness."""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from bayesdf.errors import BayesdfError

Picture = NDArray[np.float32]
LEVELS = 255.0


@dataclass(frozen=True)
class Perturbation:
    """One way of disturbing pictures.

    Attributes
    ----------
    label, unit
        For figures: the name, and the unit of what `shown` writes.
    strengths
        Those of the study, rising; 0 changes nothing.
    apply
        (picture (64, 64) in [0, 1], strength above 0, randomness) → picture, not yet clipped or rounded.
    shown
        A strength as figures write it.
    """

    label: str
    unit: str
    strengths: tuple[float, ...]
    apply: Callable[[Picture, float, np.random.Generator], Picture]
    shown: Callable[[float], str] = "{:g}".format


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


def _quality(strength: float) -> str:
    """The JPEG quality, which falls as the strength rises."""
    return f"{100.0 - strength:g}" if strength else "none"


def _brightness(picture: Picture, strength: float, rng: np.random.Generator) -> Picture:
    """Lighter or darker, each as likely."""
    return picture + rng.choice([-1.0, 1.0]) * np.float32(strength / LEVELS)


PERTURBATIONS: dict[str, Perturbation] = {
    "blur": Perturbation("Gaussian blur", "standard deviation (pixels)", (0.5, 1.0, 1.5, 2.0), _blur),
    "crop": Perturbation("crop and resize", "part of the side cut away", (0.05, 0.1, 0.2, 0.3), _crop),
    "noise": Perturbation("Gaussian noise", "standard deviation (of 255 grey values)", (4.0, 8.0, 16.0, 32.0), _noise),
    "jpeg": Perturbation("JPEG once more", "quality", (30.0, 50.0, 70.0, 85.0), _jpeg, _quality),
    "brightness": Perturbation("brightness", "shift (of 255 grey values)", (10.0, 20.0, 40.0, 60.0), _brightness),
}


def perturb(images: NDArray[np.floating], name: str, strength: float, seed: int = 0) -> Picture:
    """Disturb pictures in one way and store them with 8 bits.

    Parameters
    ----------
    images
        (N, 64, 64) in [0, 1].
    name
        One of `PERTURBATIONS`.
    strength
        In the unit of the perturbation; 0 returns the pictures unchanged.
    seed
        Every picture has its own random numbers, the same at all strengths.

    Returns
    -------
    (N, 64, 64) float32 in [0, 1], multiples of 1/255 where the strength is above 0.

    Raises
    ------
    BayesdfError
        An unknown name, or a strength below 0 or not finite.
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
    """Disturb every picture in one way, drawn at random, with a strength drawn uniformly up to the study's largest."""
    rng = np.random.default_rng(seed)
    ways = list(PERTURBATIONS.values())
    made = []
    for picture in np.array(images, np.float32):
        way = ways[rng.integers(len(ways))]
        made.append(way.apply(picture, rng.uniform(1e-3, 1.0) * way.strengths[-1], rng))
    return _stored(made)


def _stored(pictures: list[Picture]) -> Picture:
    levels = (np.stack(pictures).clip(0.0, 1.0) * LEVELS).round()
    return (levels / LEVELS).astype(np.float32)

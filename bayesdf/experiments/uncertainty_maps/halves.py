"""Fakes of which only a random half was changed: where they were changed cannot be told from position.

Generators change the same pixels in nearly every aligned face. A map that never looks at the picture then finds them
all. Here a line at a random angle passes through the middle of the changed pixels. On one side of it the picture is the
fake, on the other it is the photograph that the fake was made from. Only the pixels that the generator changed count,
so position alone scores 1/2.
"""

from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

import bayesdf.data as data
from bayesdf.experiments.seeds import rng_of
from bayesdf.experiments.uncertainty_maps.setting import pixels, with_names

NO_HALVES = (
    "no half-changed fakes: whole fakes alone do not show whether a map looks at the picture; give each fake and the "
    "photograph that it was made from the same `video` in subjects.csv, or the same file name (docs/data.md)"
)
"""What is missing where fakes and photographs cannot be paired."""

BLUR = 0.6
"""Standard deviation of the blur in pixels."""


@dataclass(frozen=True)
class Halves:
    """Half-changed fakes.

    Attributes
    ----------
    images
        (N, 3, H, W) in [0, 1].
    masks
        (image, y, x): the pixels that are those of the fake and were changed by the generator.
    within
        bool (image, y, x): all that the generator changed.
    """

    images: Tensor
    masks: xr.DataArray
    within: xr.DataArray


def pairs(images: data.ImageDataset, photographs: data.ImageDataset) -> dict[int, int]:
    """For each partly changed fake the photograph that it was made from: row of `images` -> row of `photographs`.

    Both have the same `video`, which no other photograph has: of a clip with several frames it is not known which one
    the fake was made from. Or both have the same path below the folders of their sources, but for the ending.
    """
    names = photographs.manifest[["video", "path", "source"]]
    real = {name: row for row, (_, name, source) in enumerate(names.values) if source == data.REAL}
    below = {_below(path): row for path, row in real.items()}
    counts = names["video"][names["source"] == data.REAL].value_counts()
    alone = {str(video) for video, count in counts.items() if count == 1 and video}
    videos = {
        video: row for row, (video, _, source) in enumerate(names.values) if source == data.REAL and video in alone
    }
    found = {}
    for row, (video, path, mask) in enumerate(images.manifest[["video", "path", "mask"]].values):
        place = videos.get(video, below.get(_below(path)))
        if mask == "part" and place is not None:
            found[row] = place
    return found


def _below(path: str) -> str:
    """The path below the folder of the source, without its ending."""
    return path.partition("/")[2].rsplit(".", 1)[0]


def halves(images: data.ImageDataset, photographs: data.ImageDataset, seed: int) -> Halves | None:
    """Half of each partly changed fake, over the photograph that it was made from; None where there is no such pair."""
    place = pairs(images, photographs)
    if not place:
        return None
    own = images.take(np.isin(np.arange(len(images)), list(place)))
    fakes, real = pixels(own), pixels(photographs)
    masks = own.masks.numpy() > 0.5
    y, x = np.mgrid[: masks.shape[1], : masks.shape[2]].astype(float)
    mixed, changed = [], []
    for row, (mask, photograph) in enumerate(zip(masks, place.values(), strict=True)):
        angle = rng_of(seed, "half", str(own.manifest["path"][row])).uniform(0.0, 2.0 * np.pi)
        middle = (x[mask].mean(), y[mask].mean()) if mask.any() else (0.0, 0.0)
        side = np.cos(angle) * (x - middle[0]) + np.sin(angle) * (y - middle[1]) > 0.0
        mixed.append(torch.where(torch.from_numpy(side), fakes[row], real[photograph]))
        changed.append(mask & side)
    return Halves(torch.stack(mixed), with_names(np.stack(changed).astype(np.float64), own), with_names(masks, own))


def blurred_halves(images: data.ImageDataset, face: NDArray[np.bool_], seed: int) -> Halves:
    """Photographs of which a random half of the face was blurred a little: nothing was faked.

    What a map finds here is lost detail, and not a generator.

    Parameters
    ----------
    face
        bool (H, W): the pixels that count, the same in all pictures.
    """
    from scipy.ndimage import gaussian_filter

    own = images.take(images.labels.numpy() == 0)
    real = pixels(own)
    y, x = np.mgrid[: face.shape[0], : face.shape[1]].astype(float)
    mixed, changed = [], []
    for row in range(len(own)):
        angle = rng_of(seed, "blur", str(own.manifest["path"][row])).uniform(0.0, 2.0 * np.pi)
        side = np.cos(angle) * (x - x[face].mean()) + np.sin(angle) * (y - y[face].mean()) > 0.0
        soft = torch.from_numpy(gaussian_filter(real[row].numpy(), (0.0, BLUR, BLUR)))
        mixed.append(torch.where(torch.from_numpy(side & face), soft, real[row]))
        changed.append(face & side)
    within = np.broadcast_to(face, (len(own), *face.shape))
    return Halves(torch.stack(mixed), with_names(np.stack(changed).astype(np.float64), own), with_names(within, own))


def named(maps: xr.Dataset, half: Halves) -> xr.Dataset:
    """Maps with the names of the images."""
    return maps.assign_coords({name: coord for name, coord in half.masks.coords.items() if coord.dims == ("image",)})

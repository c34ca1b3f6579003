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
from torch import Tensor

import bayesdf.data as data
from bayesdf.experiments.seeds import rng_of
from bayesdf.experiments.uncertainty_maps.setting import pixels, with_names


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


def halves(images: data.ImageDataset, photographs: data.ImageDataset, seed: int) -> Halves | None:
    """Half of each partly changed fake, over the photograph of the same `video`; None where there is no such pair."""
    own = images.take((images.manifest["mask"] == "part").to_numpy())
    place = {video: row for row, video in enumerate(photographs.manifest["video"]) if video}
    own = own.take(own.manifest["video"].isin(place).to_numpy())
    if not len(own):
        return None
    fakes, real = pixels(own), pixels(photographs)
    masks = own.masks.numpy() > 0.5
    y, x = np.mgrid[: masks.shape[1], : masks.shape[2]].astype(float)
    mixed, changed = [], []
    for row, mask in enumerate(masks):
        angle = rng_of(seed, "half", str(own.manifest["path"][row])).uniform(0.0, 2.0 * np.pi)
        side = np.cos(angle) * (x - x[mask].mean()) + np.sin(angle) * (y - y[mask].mean()) > 0.0
        photograph = real[place[own.manifest["video"][row]]]
        mixed.append(torch.where(torch.from_numpy(side), fakes[row], photograph))
        changed.append(mask & side)
    return Halves(torch.stack(mixed), with_names(np.stack(changed).astype(np.float64), own), with_names(masks, own))


def named(maps: xr.Dataset, half: Halves) -> xr.Dataset:
    """Maps with the names of the images."""
    return maps.assign_coords({name: coord for name, coord in half.masks.coords.items() if coord.dims == ("image",)})

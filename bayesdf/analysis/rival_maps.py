"""Which maps and orders know nothing of the detector, and so must be beaten by a map that does?

- `centred_gaussian`: position alone. Aligned faces have their mouth and eyes in the middle of the picture, and so have
  the masks of manipulations. A map that is always high in the middle finds them without looking.
- `random_order`: chance.

Both are maps, and go wherever a map goes: into `localisation`, into deletion curves, into `agreement`.

The strongest rival of position alone needs no function of its own. It is the mean mask that the same generator has on
other people: `average_map(training_masks)["mask"].sel(source=masks["source"])`.
"""

import numpy as np
import xarray as xr

from bayesdf.analysis.map_grid import DIMS, Maps, find_maps

WIDTH = 0.25
"""Standard deviation of the centred Gaussian, as a share of the side of the image."""


def centred_gaussian(like: Maps) -> xr.DataArray:
    """A Gaussian in the middle of each image: float64 (image, y, x), 1 in the middle.

    Its standard deviation is a quarter of the side in each direction (`WIDTH`). In a square image the width does not
    change the order of the pixels. So it changes neither AUROC nor pointing game.

    Parameters
    ----------
    like
        Maps, or one map or mask (image, y, x). The result has its size and coordinates.
    """
    image = _one(like)
    squares = []
    for dim in ("y", "x"):
        place = np.arange(image.sizes[dim]) - (image.sizes[dim] - 1) / 2
        squares.append((place / (WIDTH * image.sizes[dim])) ** 2)
    # From squares, so that pixels at the same distance have exactly the same value.
    values = np.exp(-(squares[0][:, None] + squares[1]) / 2)
    return _map_of(np.broadcast_to(values, image.shape).copy(), image, "centred_gaussian")


def random_order(like: Maps, seed: int = 0) -> xr.DataArray:
    """Independent uniform values in [0, 1) at every pixel of each image: float64 (image, y, x).

    Parameters
    ----------
    like
        As for `centred_gaussian`.
    seed
        The same seed gives the same map.
    """
    image = _one(like)
    return _map_of(np.random.default_rng(seed).random(image.shape), image, "random_order")


def _one(like: Maps) -> xr.DataArray:
    """One map of those given. A mask that is unknown (NaN) has a size too."""
    if isinstance(like, xr.DataArray) and set(like.dims) == set(DIMS):
        return like.transpose(*DIMS)
    found = find_maps(like)
    return found if isinstance(found, xr.DataArray) else next(iter(found.data_vars.values()))


def _map_of(values: np.ndarray, like: xr.DataArray, name: str) -> xr.DataArray:
    return xr.DataArray(values, dims=DIMS, coords=like.coords, name=name)

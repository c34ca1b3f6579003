"""Does a map still find the changed pixels where their position says nothing?

Aligned faces have centred masks, so a centred Gaussian finds them well in whole pictures. Here each picture is cut to a
square window at a random position. The share of changed pixels in it lies between two bounds, so there is something to
find and something to tell it from.

The edge of a mask then lies anywhere in the window, and on either side of it the mask. A little of the advantage of
the middle remains: a small round mask that fills much of a window lies in its middle, never in all of its corners. In
simulations on pictures of 64 by 64 pixels with the default bounds, the centred Gaussian had these mean AUROCs:

======================================  =====  =======  =======  =======
masks                                   whole  side 16  side 24  side 32
======================================  =====  =======  =======  =======
half planes at random                   0.50   0.50     0.50     0.50
discs of radius 8 anywhere              0.51   0.49     0.47     0.48
discs of radius 16 anywhere             0.54   0.51     0.50     0.48
ellipses of 44 by 32 in the middle      0.99   0.52     0.58     0.69
======================================  =====  =======  =======  =======

So take windows whose side is a quarter of the picture's, and tell the centred Gaussian of the same windows beside the
maps: `centred_gaussian(masks)` of the masks that `windows` returns.
"""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesdf.analysis.map_grid import (
    DIMS,
    Array,
    Maps,
    find_maps,
    find_masks,
    on_grid,
    refuse_other_images,
)
from bayesdf.errors import BayesdfError


def windows(
    maps: Maps, masks: xr.DataArray, side: int, *, low: float = 0.1, high: float = 0.9, seed: int = 0
) -> tuple[xr.Dataset, xr.DataArray]:
    """Maps and masks cut to one square window of each image.

    Parameters
    ----------
    maps, masks
        As in `localisation`. Maps on a coarser grid are interpolated to the pixels of the masks before they are cut.
    side
        Of the window, in pixels.
    low, high
        The window is drawn uniformly from all positions inside the picture where the share of changed pixels lies
        between the two.
    seed
        The same seed gives the same windows, whatever the maps.

    Returns
    -------
    (xr.Dataset, xr.DataArray)
        The maps (image, y, x), a variable for each quantity (a single map keeps its name), and the masks (image, y, x),
        both of the images that have such a window. Further coordinates of `image`: `top` and `left`, the first pixel of
        the window. Attribute of the Dataset: `without_window` (images left out).

    Raises
    ------
    BayesdfError
        As `localisation`, a side that does not fit, bounds that are not 0 <= low <= high <= 1, or no window at all.
    """
    changed, known = find_masks(masks)
    height, width = changed.shape[1:]
    if not 1 <= side <= min(height, width):
        raise BayesdfError(
            f"side={side}: windows of pictures of {height} by {width} pixels have 1 … {min(height, width)}"
        )
    if not 0.0 <= low <= high <= 1.0:
        raise BayesdfError(f"low={low}, high={high}: give bounds of the changed share, 0 <= low <= high <= 1")
    share = _shares(changed.values, side)
    allowed = (share >= low) & (share <= high) & known[:, None, None]
    chosen = np.flatnonzero(allowed.any(axis=(1, 2)))
    if not len(chosen):
        raise BayesdfError(
            f"no window of {side} by {side} pixels has a changed share of {low} … {high}; widen the bounds, or give "
            "images of which a part was changed"
        )
    key = np.random.default_rng(seed).random(share.shape)  # of all positions, so that bounds do not move the draws
    best = np.where(allowed, key, -1.0).reshape(len(key), -1)[chosen].argmax(axis=1)
    top, left = np.divmod(best, share.shape[2])
    image = chosen[:, None, None]
    cut = (image, (top[:, None] + np.arange(side))[:, :, None], (left[:, None] + np.arange(side))[:, None, :])

    found = find_maps(maps)
    if isinstance(found, xr.DataArray):
        found = found.to_dataset(name=found.name or "map")
    place = {"top": ("image", top), "left": ("image", left)}
    parts = {}
    for name, one in found.data_vars.items():
        refuse_other_images(one, changed)
        parts[name] = (DIMS, on_grid(one, changed)[cut], one.attrs)
    images = {key: coord[chosen] for key, coord in found.coords.items() if coord.dims == ("image",)}
    own = {key: coord[chosen] for key, coord in changed.coords.items() if coord.dims == ("image",)}
    result = xr.Dataset(
        parts, coords={**images, **place}, attrs={**found.attrs, "without_window": len(known) - len(chosen)}
    )
    return result, xr.DataArray(changed.values[cut].astype(np.float64), dims=DIMS, coords={**own, **place}, name="mask")


def _shares(changed: NDArray[np.bool_], side: int) -> Array:
    """The changed share of the window at each position: (image, top, left), by sums from the first corner."""
    sums = np.zeros((len(changed), changed.shape[1] + 1, changed.shape[2] + 1), dtype=np.int64)
    sums[:, 1:, 1:] = changed.cumsum(axis=1).cumsum(axis=2)
    inside = sums[:, side:, side:] - sums[:, :-side, side:] - sums[:, side:, :-side] + sums[:, :-side, :-side]
    return inside / side**2

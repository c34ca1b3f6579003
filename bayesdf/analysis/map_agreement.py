"""Do two maps of the same image mark the same pixels?

Two methods, two sets of draws or two seeds give maps of different units and scales. So their agreement is the rank
correlation over pixels (Spearman): 1 where both have the same order of pixels, 0 where the orders have nothing in
common, -1 where one is the reverse of the other. Ties have their mean rank.

A high agreement does not say that the maps are true: two maps of edges agree with each other.
"""

import numpy as np
import xarray as xr

from bayesdf.analysis.map_grid import Array, Maps, blocks, find_maps, flat, image_only, on_grid, refuse_other_images
from bayesdf.analysis.roc import row_ranks
from bayesdf.analysis.tree import listed
from bayesdf.errors import BayesdfError


def agreement(a: Maps, b: Maps) -> xr.DataArray:
    """Spearman's rank correlation over the pixels of two maps of each image.

    Parameters
    ----------
    a, b
        Maps of the same images in the same order: two single maps (image, y, x), two sets with quantities of the same
        names, or a set and a single map, which is compared with each quantity. The coarser of two maps is interpolated
        to the grid of the other.

    Returns
    -------
    xr.DataArray
        float64 (image, quantity), or (image,) of two single maps: -1 … 1. NaN where a map is the same at all pixels.

    Raises
    ------
    BayesdfError
        Maps of other images or sizes, no quantity in common, or values that are not finite.
    """
    one, other = find_maps(a), find_maps(b)
    if isinstance(one, xr.DataArray) and isinstance(other, xr.DataArray):
        return _agreement(one, other)
    names = [
        str(name)
        for name in (other if isinstance(one, xr.DataArray) else one).data_vars
        if isinstance(other, xr.DataArray) or isinstance(one, xr.DataArray) or name in other.data_vars
    ]
    if not names:
        raise BayesdfError(
            f"the maps have no quantity in common: {listed(one.data_vars)} and {listed(other.data_vars)}; "
            "give one map of each, as with a['epistemic'] and b['epistemic']"
        )
    parts = [
        _agreement(*(part if isinstance(part, xr.DataArray) else part[name] for part in (one, other))) for name in names
    ]
    found = xr.concat(parts, xr.DataArray(names, dims="quantity", name="quantity"), coords="minimal", compat="override")
    return found.transpose("image", "quantity")


def _agreement(one: xr.DataArray, other: xr.DataArray) -> xr.DataArray:
    refuse_other_images(one, other, "maps")
    finer = one if one[0].size >= other[0].size else other
    pair = [flat(on_grid(part, finer)) for part in (one, other)]
    found = np.concatenate([_spearman(*(part[rows] for part in pair)) for rows in blocks(len(pair[0]))])
    return xr.DataArray(found, dims="image", coords=image_only(one), name="agreement")


def _spearman(one: Array, other: Array) -> Array:
    """(image, pixel) twice -> (image,)."""
    a, b = (row_ranks(part) - (part.shape[1] + 1) / 2 for part in (one, other))
    size = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    found = np.divide((a * b).sum(axis=1), size, out=np.full(len(size), np.nan), where=size > 0)
    return np.clip(found, -1.0, 1.0)

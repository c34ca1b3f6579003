"""Which part of a map lies in each region of the face?

The share of region r is Σ_{pixels in r} |map| / Σ_{all pixels} |map|. The shares of an image add to 1. A map of
gradients may have both signs. Its magnitude is what marks a pixel as important, so magnitudes are summed. A map that is
the same everywhere has the region's share of the area as its share: that is the rival.
"""

import numpy as np
import xarray as xr

from bayesdf.analysis.map_grid import Array, Maps, each_quantity, flat, image_only, on_grid
from bayesdf.analysis.tree import listed, wrong_input
from bayesdf.errors import BayesdfError

GIVE = "give xr.DataArray(region_masks(size), dims=('region', 'y', 'x'), coords={'region': list(REGIONS)})"


def region_shares(maps: Maps, regions: xr.DataArray) -> xr.Dataset:
    """The share of each map that lies in each region.

    Parameters
    ----------
    maps
        Maps as in `localisation`. On a coarser grid they are interpolated to the pixels of the regions.
    regions
        bool (region, y, x), or (image, region, y, x) where each image has its own. Each pixel is in exactly one region,
        as in `bayesdf.faces.regions.region_masks`.

    Returns
    -------
    xr.Dataset
        `share` (`image`, `quantity`, `region`), or (`image`, `region`) for a single map: 0 … 1, adding to 1 over
        regions. NaN where a map is zero at every pixel. `area` (`region`) or (`image`, `region`): the region's share of
        the pixels. An empty region has the share 0.

    Raises
    ------
    BayesdfError
        Maps that are not finite or of another size, or regions that overlap or leave a pixel out.
    """
    member = checked_regions(regions)

    def measure(one: xr.DataArray) -> xr.Dataset:
        magnitude = np.abs(on_grid(one, member))
        share = _in_regions(magnitude, member)
        total = magnitude.sum(axis=(1, 2))[:, None]
        share = np.divide(share, total, out=np.full_like(share, np.nan), where=total > 0)
        return xr.Dataset({"share": (("image", "region"), share)}, coords=image_only(one))

    return (
        each_quantity(maps, measure)
        .assign(area=member.mean(("y", "x")).drop_vars("image", errors="ignore"))
        .assign_coords(region=member["region"].values)
    )


def checked_regions(regions: xr.DataArray) -> xr.DataArray:
    """Regions as bool (region, y, x) or (image, region, y, x), with names, that are disjoint and cover every pixel."""
    needed = {"region", "y", "x"}
    if not isinstance(regions, xr.DataArray) or not needed <= set(regions.dims) <= needed | {"image"}:
        raise BayesdfError(f"{wrong_input(regions, 'a set of regions (region, y, x)')}; {GIVE}")
    if regions.dtype != bool:
        raise BayesdfError(f"regions have dtype {regions.dtype}; a pixel is in a region or not: give bool")
    found = regions.transpose(..., "region", "y", "x")
    count = found.values.sum(axis=-3)
    if (count != 1).any():
        raise BayesdfError(
            f"{int((count == 0).sum())} pixels are in no region and {int((count > 1).sum())} in several of "
            f"{listed(_names(found))}; shares add to 1 where every pixel is in exactly one"
        )
    return found.assign_coords(region=_names(found))


def _names(regions: xr.DataArray) -> list[str]:
    return [str(name) for name in regions["region"].values]


def _in_regions(magnitude: Array, member: xr.DataArray) -> Array:
    """Sums of the magnitude (image, y, x) in each region: (image, region)."""
    if "image" not in member.dims:
        return flat(magnitude) @ flat(member.values.astype(np.float64)).T
    if member.sizes["image"] != len(magnitude):
        raise BayesdfError(
            f"regions of {member.sizes['image']} images and maps of {len(magnitude)}; give each image its regions"
        )
    return np.einsum("nyx,nryx->nr", magnitude, member.values.astype(np.float64))

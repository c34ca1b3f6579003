"""Do maps and masks show the same images, and what are their values on one grid of pixels?

Maps are what `bayesdf.inference.uncertainty_maps` returns: a variable (image, y, x) for each quantity. Maps at the
resolution of features stand on a coarser grid. Their coordinates `y` and `x` are the centres of their cells in pixels,
where the first pixel has the coordinate 0. Maps without coordinates tile the image. Between the centres of cells maps
are interpolated linearly in both directions. Outside the outermost centres they keep the value of these.
"""

from collections.abc import Callable

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesdf.analysis.tree import listed, name_of_image, wrong_input
from bayesdf.errors import BayesdfError

Array = NDArray[np.float64]
Maps = xr.DataTree | xr.Dataset | xr.DataArray
"""A tree with a group `maps`, a Dataset with a variable for each quantity, or the map of one quantity."""

DIMS = ("image", "y", "x")
CHANGED = 0.5
"""A pixel is changed where its mask is above this."""
ROUNDED = 1e-6
"""Shares and probabilities of single precision may lie so far outside 0 … 1."""
IMAGES = 256
"""So many images are ranked at a time."""


def find_maps(maps: Maps) -> xr.DataArray | xr.Dataset:
    """The maps as (image, y, x): a Dataset with a variable for each quantity, or the one map that was given.

    Raises
    ------
    BayesdfError
        No maps, other dimensions, no images or pixels, or values that are not finite.
    """
    if isinstance(maps, xr.DataTree):
        if "maps" not in maps.children and not maps.data_vars:
            raise BayesdfError(
                f"the tree holds no group 'maps' (it has {listed(maps.children)}); give what uncertainty_maps returned"
            )
        maps = maps.children.get("maps", maps).to_dataset()
    if isinstance(maps, xr.DataArray):
        return _checked(maps, str(maps.name or "map"))
    if not isinstance(maps, xr.Dataset):
        raise BayesdfError(
            f"{wrong_input(maps, 'a set of maps (image, y, x)')}; give what uncertainty_maps returned, or "
            "xr.DataArray(array, dims=('image', 'y', 'x'))"
        )
    if not maps.data_vars:
        raise BayesdfError("the data set holds no maps; give a variable (image, y, x) for each quantity")
    return maps.assign({name: _checked(array, str(name)) for name, array in maps.data_vars.items()})


def each_quantity(maps: Maps, measure: Callable[[xr.DataArray], xr.Dataset]) -> xr.Dataset:
    """What `measure` says of the map of each quantity, along `quantity`. A single map has no such dimension."""
    found = find_maps(maps)
    if isinstance(found, xr.DataArray):
        return measure(found)
    parts = [measure(found[name]) for name in found.data_vars]
    names = xr.DataArray([str(name) for name in found.data_vars], dims="quantity", name="quantity")
    joined = xr.concat(parts, names, coords="minimal", compat="override", combine_attrs="override")
    return joined.transpose("image", "quantity", ...)


def find_masks(masks: xr.DataArray) -> tuple[xr.DataArray, NDArray[np.bool_]]:
    """Which pixels were changed, bool (image, y, x), and which images have a mask that is known, bool (image,).

    Raises
    ------
    BayesdfError
        Other dimensions, values outside 0 … 1, a mask that is NaN in a part only, or no mask that is known.
    """
    masks, known = find_known(masks, "mask")
    inside = masks.values[known]
    if inside.min() < -ROUNDED or inside.max() > 1.0 + ROUNDED:
        raise BayesdfError(
            f"masks have values from {inside.min():.4g} to {inside.max():.4g}; a mask is the changed share of each "
            "pixel, 0 … 1 (divide 8-bit masks by 255)"
        )
    return masks.copy(data=masks.values > CHANGED), known


def find_known(array: xr.DataArray, name: str) -> tuple[xr.DataArray, NDArray[np.bool_]]:
    """An array as (image, y, x), and which of its images are known: bool (image,). The others are NaN throughout.

    Raises
    ------
    BayesdfError
        Other dimensions, infinite values, an image that is NaN in a part only, or no image that is known.
    """
    if not isinstance(array, xr.DataArray):
        raise BayesdfError(
            f"{wrong_input(array, f'the {name} of images')}; give xr.DataArray(array, dims=('image', 'y', 'x'))"
        )
    array = _checked(array, name, finite=False)
    if array.dtype.kind != "f":
        return array, np.ones(array.sizes["image"], dtype=bool)
    finite = np.isfinite(array.values)
    known = finite.all(axis=(1, 2))
    torn = np.flatnonzero(~known & ~np.isnan(array.values).all(axis=(1, 2)))
    if len(torn):
        raise BayesdfError(
            f"the {name} of image {name_of_image(array, torn[0])} is not finite at {int((~finite[torn[0]]).sum())} of "
            f"its pixels; give a {name} at every pixel, or NaN throughout where none is known"
        )
    if not known.any():
        raise BayesdfError(f"the {name} of every image is unknown (NaN); give images of which it is known")
    return array, known


def refuse_other_images(maps: xr.DataArray, other: xr.DataArray, what: str = "masks") -> None:
    """Refuse maps and masks (or other maps) of different images. The coordinates `path`, else `image`, tell them."""
    if maps.sizes["image"] != other.sizes["image"]:
        raise BayesdfError(
            f"maps of {maps.sizes['image']} images and {what} of {other.sizes['image']}; give those of the same images"
        )
    for name in ("path", "image"):
        if name in maps.coords and name in other.coords:
            apart = np.flatnonzero(maps[name].values != other[name].values)
            if len(apart):
                first = apart[0]
                raise BayesdfError(
                    f"maps and {what} show different images: at row {first} the {name} is {maps[name].values[first]!s} "
                    f"in one and {other[name].values[first]!s} in the other ({len(apart)} such rows); bring both into "
                    "one order"
                )
            return


def on_grid(maps: xr.DataArray, like: xr.DataArray) -> Array:
    """The values of a map at the pixels of `like`: float64 (image, y, x). On the same grid they are as they were.

    Raises
    ------
    BayesdfError
        Cells that lie outside the image, leave a part of it out or do not rise: the map is that of another image.
    """
    values = np.asarray(maps.values, dtype=np.float64)
    if all(maps.sizes[dim] == like.sizes[dim] for dim in ("y", "x")):
        return values
    rows, columns = (_weights(maps, like, dim) for dim in ("y", "x"))
    return np.asarray(rows @ values @ columns.T)


def blocks(images: int) -> list[slice]:
    """Rows to take at a time, so that memory stays bounded."""
    return [slice(start, start + IMAGES) for start in range(0, images, IMAGES)]


def flat(values: NDArray) -> NDArray:
    """(image, y, x) as (image, pixel)."""
    return values.reshape(len(values), -1)


def image_only(array: xr.DataArray | xr.Dataset) -> dict[str, xr.DataArray]:
    """What is known of each image: the coordinates over `image` alone."""
    return {str(name): coord for name, coord in array.coords.items() if coord.dims == ("image",)}


def _weights(maps: xr.DataArray, like: xr.DataArray, dim: str) -> Array:
    """Linear interpolation along a dimension as a matrix (pixel, cell). Each row sums to 1."""
    cells, pixels = maps.sizes[dim], like.sizes[dim]
    if cells > pixels:
        raise BayesdfError(
            f"maps have {cells} cells along {dim} and masks {pixels} pixels: these are masks of another size than the "
            "images of the maps; give masks at the size of the images"
        )
    at = np.asarray(like[dim].values, dtype=np.float64) if dim in like.coords else np.arange(pixels, dtype=np.float64)
    if dim in maps.coords:
        centre = np.asarray(maps[dim].values, dtype=np.float64)
    else:
        centre = at[0] - 0.5 + (at[-1] - at[0] + 1.0) / cells * (np.arange(cells) + 0.5)
    step = np.diff(centre)
    reach = step.max(initial=1.0) if cells > 1 else float(pixels)  # the outermost cells end at the edge of the image
    ends = np.array([centre[0] - at[0], at[-1] - centre[-1]])
    if (step <= 0).any() or (ends < -1.0).any() or (ends > reach).any():
        raise BayesdfError(
            f"the cells of the maps lie at {dim} = {centre[0]:.4g} … {centre[-1]:.4g}, the pixels of the masks at "
            f"{at[0]:.4g} … {at[-1]:.4g}; give maps and masks of the same image, {dim} in pixels and rising"
        )
    if cells == 1:
        return np.ones((pixels, 1))
    left = np.clip(np.searchsorted(centre, at, side="right") - 1, 0, cells - 2)
    share = np.clip((at - centre[left]) / (centre[left + 1] - centre[left]), 0.0, 1.0)
    weights = np.zeros((pixels, cells))
    weights[np.arange(pixels), left] = 1.0 - share
    weights[np.arange(pixels), left + 1] += share
    return weights


def _checked(array: xr.DataArray, name: str, finite: bool = True) -> xr.DataArray:
    if set(array.dims) != set(DIMS):
        raise BayesdfError(f"{name} has dimensions {listed(array.dims)}; a map is (image, y, x)")
    array = array.transpose(*DIMS)
    if not array.size:
        raise BayesdfError(f"{name} has shape {array.shape}; a map needs images and pixels")
    if array.dtype.kind not in "biuf":
        raise BayesdfError(f"{name} has dtype {array.dtype}; give real numbers")
    bad = ~np.isfinite(array.values).all(axis=(1, 2)) if finite and array.dtype.kind == "f" else np.zeros(1, bool)
    if bad.any():
        raise BayesdfError(
            f"the map {name!r} of {int(bad.sum())} images is not finite, first image "
            f"{name_of_image(array, int(bad.argmax()))}; leave these images out, or look for the cause in the detector"
        )
    return array

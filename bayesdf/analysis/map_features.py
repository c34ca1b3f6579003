"""What does the place of an image's uncertainty say about its source?

A family of features for `bayesdf.analysis.attribute`, of each quantity of a set of maps:

- `map_cell:<quantity>:<row>,<column>`: the log of the mean magnitude of the map in a cell of a coarse grid;
- `map_share:<quantity>:<region>`: the share of the map in a region of the face (`bayesdf.analysis.region_shares`).

It stands beside the other families: `combine(scalars(predictions), map_features(maps, regions))`. Its control is the
place of P(fake), which holds no uncertainty: `map_features(maps[["p_fake"]], regions)`.
"""

import numpy as np
import xarray as xr

from bayesdf.analysis.map_grid import Array, Maps, find_maps, image_only, on_grid
from bayesdf.analysis.region_shares import checked_regions, region_shares
from bayesdf.errors import BayesdfError

CELLS = 4
"""The coarse grid has so many rows and columns."""
SMALLEST = 1e-6
"""A cell counts with at least this share of the mean of its map: a cell without gradients has a logarithm too."""


def map_features(maps: Maps, regions: xr.DataArray | None = None) -> xr.DataArray:
    """The place and the size of each quantity's map in each image, as features.

    Parameters
    ----------
    maps
        Maps as in `localisation`. A grid that is not a multiple of 4 by 4 cells is divided as evenly as it can be.
        Coarser maps are interpolated to 4 by 4 pixels first.
    regions
        bool (region, y, x) as in `region_shares`. None: no shares of regions.

    Returns
    -------
    xr.DataArray
        float64 (image, feature), finite, named `map_features`, with the coordinates of the images (`source`, `subject`,
        `donor`, `path`, …) that `attribute` uses. A map that is zero everywhere has the smallest logarithm in every
        cell, and the share of its area in each region.

    Raises
    ------
    BayesdfError
        As `region_shares`.
    """
    found = find_maps(maps)
    several = found.to_dataset(name=found.name or "map") if isinstance(found, xr.DataArray) else found
    names: list[str] = []
    columns: list[Array] = []
    for name, one in several.data_vars.items():
        cells = _cells(one)
        floor = np.maximum(SMALLEST * cells.mean(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        columns.append(np.log(np.maximum(cells, floor)))
        names += [f"map_cell:{name}:{row},{column}" for row in range(CELLS) for column in range(CELLS)]
    if regions is not None:
        shares = region_shares(several, checked_regions(regions))
        filled = shares["share"].fillna(shares["area"]).transpose("image", "quantity", "region")
        columns.append(filled.values.reshape(filled.sizes["image"], -1))
        names += [
            f"map_share:{quantity}:{region}"
            for quantity in filled["quantity"].values
            for region in filled["region"].values
        ]
    return xr.DataArray(
        np.concatenate(columns, axis=1),
        dims=("image", "feature"),
        coords={**image_only(several), "feature": names},
        name="map_features",
    )


def average_map(maps: Maps, by: str = "source") -> xr.Dataset:
    """The mean map of each generator.

    Maps are averaged as they are, so images of large uncertainty count most. To average where the uncertainty lies, and
    not how large it is, divide each map by its mean first: `maps / maps.mean(("y", "x"))`.

    Parameters
    ----------
    maps
        Maps as in `localisation`.
    by
        A coordinate of `image`: the mean of each of its values.

    Returns
    -------
    xr.Dataset
        float64 (`source`, y, x), a variable for each quantity, with `images` (`source`): how many images are in each
        mean. The first dimension has the name that `by` gives.

    Raises
    ------
    BayesdfError
        As `localisation`, or the images have no coordinate `by`.
    """
    found = find_maps(maps)
    found = found.to_dataset(name=found.name or "map") if isinstance(found, xr.DataArray) else found
    if by not in found.coords or found[by].dims != ("image",):
        raise BayesdfError(
            f"the images have no coordinate {by!r}; their coordinates are {', '.join(image_only(found)) or 'none'}"
        )
    named = found[by].values.astype(str)
    names = np.unique(named)
    member = (names[:, None] == named).astype(np.float64)
    member /= member.sum(axis=1, keepdims=True)
    means = {
        name: ((by, "y", "x"), np.tensordot(member, np.asarray(one.values, dtype=np.float64), 1), one.attrs)
        for name, one in found.data_vars.items()
    }
    pixels = {name: coord for name, coord in found.coords.items() if "image" not in coord.dims}
    count = (by, np.array([(named == name).sum() for name in names]))
    return xr.Dataset(means, coords={**pixels, by: names, "images": count}, attrs=found.attrs)


def _cells(one: xr.DataArray) -> Array:
    """The mean magnitude in each cell of the coarse grid: (image, cell), row after row."""
    values = np.abs(np.asarray(one.values, dtype=np.float64))
    if min(values.shape[1:]) < CELLS:
        height, width = (max(CELLS, size) for size in values.shape[1:])
        grid = xr.DataArray(np.zeros((1, height, width)), dims=("image", "y", "x"))
        values = np.abs(on_grid(one.drop_vars(["y", "x"], errors="ignore"), grid))
    for axis in (1, 2):
        parts = np.array_split(np.arange(values.shape[axis]), CELLS)
        values = np.stack([values.take(part, axis=axis).mean(axis=axis) for part in parts], axis=axis)
    return values.reshape(len(values), -1)

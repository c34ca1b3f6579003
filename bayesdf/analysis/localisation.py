"""Does a map rise where the picture was changed?

Pixels are ranked by the map. The AUROC of an image is

    P(map(changed pixel) > map(other pixel)) + 1/2 P(map(changed pixel) = map(other pixel))

for a changed and an unchanged pixel drawn at random. It is 1 where every changed pixel is above every other, and 1/2 by
chance. It depends on the order of the pixels alone, so maps of different units and scales compare. The pointing game
asks whether the highest pixel of the map is a changed one [1].

Neither figure means anything beside a rival of its own size: see `bayesdf.analysis.rival_maps`. Scores are xarray, so
a paired difference is a subtraction, and `mean_over_images` gives its interval:

    mean_over_images(localisation(maps, masks) - localisation(centred_gaussian(masks), masks))

References
----------
1. Zhang, Bargal, Lin, Brandt, Shen and Sclaroff, "Top-Down Neural Attention by Excitation Backprop", IJCV 2018 (the
   pointing game; a point within 15 pixels of the object is a hit there).
"""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesdf.analysis.map_grid import (
    Array,
    Maps,
    blocks,
    each_quantity,
    find_masks,
    flat,
    image_only,
    on_grid,
    refuse_other_images,
)
from bayesdf.analysis.roc import auroc_by_rank, row_ranks
from bayesdf.errors import BayesdfError


def localisation(
    maps: Maps, masks: xr.DataArray, *, tolerance: float = 0.0, within: xr.DataArray | None = None
) -> xr.Dataset:
    """AUROC over pixels and pointing game of each image.

    Parameters
    ----------
    maps
        What `bayesdf.inference.uncertainty_maps` returns, a Dataset of its quantities, or one map (image, y, x). Maps
        on a coarser grid are interpolated to the pixels of the masks (`bayesdf.analysis.map_grid`). Values below zero
        are lower than zero: where only magnitude should count, give `abs(maps)`.
    masks
        (image, y, x) in [0, 1]. Pixels above 0.5 are changed. NaN throughout an image: its mask is not known.
    tolerance
        How far from a changed pixel the highest pixel may lie and still hit, in pixels.
    within
        bool (image, y, x): only these pixels count, such as those that a generator changes as a rule. None: all.

    Returns
    -------
    xr.Dataset
        Over (`image`, `quantity`), or over `image` for a single map: `auroc`, and `pointing`, 1 for a hit and 0 for a
        miss. Where several pixels are highest, it is the share of them that hit. Both are NaN for images without a
        known mask, and for images of which no pixel or every pixel was changed. Attributes: `tolerance` (pixels),
        `unknown_masks`, `empty_masks`, `full_masks` (images).

    Raises
    ------
    BayesdfError
        Maps and masks of other images or sizes, maps that are not finite, masks outside 0 … 1, or no image in which
        some pixels were changed and others not.
    """
    if not tolerance >= 0.0:
        raise BayesdfError(f"tolerance={tolerance}: it is a distance in pixels, 0 or more")
    changed, known = find_masks(masks)
    inside = np.ones(changed.shape, bool) if within is None else within.transpose(*changed.dims).values.astype(bool)
    if inside.shape != changed.shape:
        raise BayesdfError(f"within has shape {inside.shape}, the masks {changed.shape}; give both of the same images")
    changed = changed & inside
    count = np.maximum(inside.sum(axis=(1, 2)), 1)
    share = changed.values.sum(axis=(1, 2)) / count
    partly = known & (share > 0.0) & (share < 1.0)
    if not partly.any():
        raise BayesdfError(
            f"no image has a mask that tells pixels apart ({int((~known).sum())} unknown, "
            f"{int((known & (share == 0)).sum())} without a changed pixel, {int((known & (share == 1)).sum())} changed "
            "everywhere); give images of which a part was changed"
        )
    target = changed.values[partly]
    hit = flat(_dilated(target, tolerance))
    target, counted = flat(target), flat(inside[partly])

    def measure(one: xr.DataArray) -> xr.Dataset:
        refuse_other_images(one, changed)
        values = flat(on_grid(one.isel(image=np.flatnonzero(partly)), changed))
        auroc, pointing = np.full((2, len(partly)), np.nan)
        found = [_scores(values[rows], target[rows], hit[rows], counted[rows]) for rows in blocks(len(values))]
        auroc[partly], pointing[partly] = np.concatenate(found, axis=1)
        return xr.Dataset({"auroc": ("image", auroc), "pointing": ("image", pointing)}, coords=image_only(one))

    return each_quantity(maps, measure).assign_attrs(
        tolerance=float(tolerance),
        unknown_masks=int((~known).sum()),
        empty_masks=int((known & (share == 0)).sum()),
        full_masks=int((known & (share == 1)).sum()),
    )


def _scores(
    values: Array, target: NDArray[np.bool_], hit: NDArray[np.bool_], counted: NDArray[np.bool_]
) -> tuple[Array, Array]:
    """AUROC, and the share of the highest pixels that hit: (image, pixel) -> two (image,)."""
    lowest = values.min(axis=1, keepdims=True) - 1.0
    ranks = row_ranks(np.where(counted, values, lowest))
    highest = ranks == ranks.max(axis=1, keepdims=True)
    auroc = auroc_by_rank(target, ranks, (~counted).sum(axis=1))
    return auroc, (highest & hit).sum(axis=1) / highest.sum(axis=1)


def _dilated(target: NDArray[np.bool_], tolerance: float) -> NDArray[np.bool_]:
    """Pixels whose distance from a changed one is at most the tolerance: bool (image, y, x)."""
    if tolerance == 0.0:
        return target
    from scipy.ndimage import distance_transform_edt

    # Images lie far apart along the first axis, so that the nearest changed pixel is in the image itself.
    apart = (float(sum(target.shape[1:])), 1.0, 1.0)
    return np.asarray(distance_transform_edt(~target, sampling=apart) <= tolerance)

"""Does a map find the changed pixels where their position says nothing?

Aligned faces have centred masks, so a centred Gaussian finds them well in whole pictures. Here pictures are cut to
square windows, of which a map can see only what is in them. The windows are drawn so that position says little:

- the share of changed pixels lies between two bounds;
- with a window, its mirror images are possible too: those as far above the middle of the mask as it is below, and as
  far to the left as it is to the right. So changed pixels are as often at the top of a window as at the bottom;
- windows that a centred Gaussian finds and windows that it misses are drawn with such probabilities that its expected
  AUROC is 1/2 in every image.

*Cut the pictures, and then map them.* A detector that sees a whole face knows where its middle is. A map of the whole
picture that is cut afterwards still points there. On the embedded data the centred Gaussian of the whole picture, cut
to windows of 16 by 16 pixels, has a mean AUROC of 0.98 on swapped faces. Where only maps can be cut, that is the rival:
`windows(centred_gaussian(masks), masks, side)`.

What remains: a map may know the usual shape of masks. A mouth is wider than high, so a horizontal stripe through the
middle of a window finds a little of it. An image is left out where there is no room for mirror images: its mask is
large, or at the edge of the picture.
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
    flat,
    image_only,
    on_grid,
    refuse_other_images,
)
from bayesdf.analysis.roc import row_ranks
from bayesdf.errors import BayesdfError


def windows(
    maps: Maps, masks: xr.DataArray, side: int, seed: int = 0, *, low: float = 0.1, high: float = 0.9
) -> tuple[xr.Dataset, xr.DataArray]:
    """Pictures or maps, and their masks, cut to one square window of each image.

    Parameters
    ----------
    maps
        Pictures (image, channel, y, x) of the size of the masks, or maps as in `localisation`. Maps on a coarser grid
        are interpolated to the pixels of the masks before they are cut.
    masks
        As in `localisation`.
    side
        Of the window, in pixels. A quarter of the picture's leaves room to draw from: of the 400 manipulated test faces
        of the embedded data, 385 have such a window, and 36 one of half the picture's side.
    seed
        The same seed gives the same windows, whatever the maps.
    low, high
        Bounds of the share of changed pixels in a window. Windows with one kind of pixel only are never drawn.

    Returns
    -------
    (xr.Dataset, xr.DataArray)
        The pictures (variable `pictures` unless they have a name) or the maps (a variable for each quantity), and the
        masks (image, y, x) of 0 and 1, both of the images that have such a window. Further coordinates of `image`:
        `top` and `left`, the first pixel of the window. Attribute of the Dataset: `without_window` (images left out).

    Raises
    ------
    BayesdfError
        As `localisation`, a side that does not fit, bounds that are not 0 <= low <= high <= 1, or no window at all.

    Examples
    --------
    >>> import numpy as np
    >>> masks = xr.DataArray(np.zeros((2, 32, 32)), dims=("image", "y", "x"))
    >>> masks[:, 10:20, 12:24] = 1.0
    >>> pictures = xr.DataArray(np.zeros((2, 3, 32, 32)), dims=("image", "channel", "y", "x"))
    >>> cut, cut_masks = windows(pictures, masks, side=8)
    >>> cut["pictures"].shape, cut_masks.shape
    ((2, 3, 8, 8), (2, 8, 8))
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
    allowed = (share >= low) & (share <= high) & (share > 0.0) & (share < 1.0) & known[:, None, None]
    for axis in (1, 2):
        allowed &= _mirrored(allowed, changed.values, side, axis)
    chosen, top, left = _drawn(flat(allowed), flat(_centred_aurocs(changed.values, side, share)), share.shape[2], seed)
    if not len(chosen):
        raise BayesdfError(
            f"no image has windows of {side} by {side} pixels with a changed share of {low} … {high} where position "
            "says nothing; give a smaller side, wider bounds, or images of which a part was changed"
        )
    image = chosen[:, None, None]
    cut = (image, (top[:, None] + np.arange(side))[:, :, None], (left[:, None] + np.arange(side))[:, None, :])

    found = _arrays(maps)
    place = {"top": ("image", top), "left": ("image", left)}
    parts = {name: _cut(one, changed, cut) for name, one in found.data_vars.items()}
    images, own = ({key: coord[chosen] for key, coord in image_only(part).items()} for part in (found, changed))
    attrs = {**found.attrs, "without_window": len(known) - len(chosen)}
    cut_masks = xr.DataArray(changed.values[cut].astype(np.float64), dims=DIMS, coords={**own, **place}, name="mask")
    return xr.Dataset(parts, coords={**images, **place}, attrs=attrs), cut_masks


def _arrays(maps: Maps) -> xr.Dataset:
    """Maps or pictures as a Dataset. Pictures have dimensions beside those of a map."""
    if isinstance(maps, xr.DataArray) and set(DIMS) < set(maps.dims):
        return maps.to_dataset(name=maps.name or "pictures")
    found = find_maps(maps)
    return found.to_dataset(name=found.name or "map") if isinstance(found, xr.DataArray) else found


def _cut(one: xr.DataArray, changed: xr.DataArray, cut: tuple[NDArray[np.int64], ...]) -> xr.Variable:
    refuse_other_images(one, changed)
    other = [dim for dim in one.dims if dim not in DIMS]
    if not other:
        return xr.Variable(DIMS, on_grid(one, changed)[cut], one.attrs)
    if one.sizes["y"] != changed.sizes["y"] or one.sizes["x"] != changed.sizes["x"]:
        raise BayesdfError(
            f"pictures of {one.sizes['y']} by {one.sizes['x']} pixels and masks of {changed.sizes['y']} by "
            f"{changed.sizes['x']}; give masks at the size of the pictures"
        )
    found = xr.Variable((*DIMS, *other), one.transpose(*DIMS, *other).values[cut], one.attrs)
    return found.transpose(*one.transpose("image", *other, "y", "x").dims)


def _drawn(
    allowed: NDArray[np.bool_], score: Array, columns: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Which images have a window, and its first row and column: each (window,).

    Of the allowed positions (image, position), one is drawn among those that score above 1/2 with the probability that
    makes the expected score 1/2, and else one among the others.
    """
    above, below = allowed & (score > 0.5), allowed & (score <= 0.5)
    chosen = np.flatnonzero(above.any(axis=1) & below.any(axis=1))
    above, below, score = above[chosen], below[chosen], score[chosen]
    high, low = (np.where(side, score, 0.0).sum(axis=1) / side.sum(axis=1) for side in (above, below))
    # Every position of every image has a draw of its own, so that the bounds do not move the draws.
    rng = np.random.default_rng(seed)
    coin, key = rng.random(len(allowed))[chosen], rng.random(allowed.shape)[chosen]
    pool = np.where((coin < (0.5 - low) / (high - low))[:, None], above, below)
    top, left = np.divmod(np.where(pool, key, -1.0).argmax(axis=1), columns)
    return chosen, top, left


def _mirrored(allowed: NDArray[np.bool_], changed: NDArray[np.bool_], side: int, axis: int) -> NDArray[np.bool_]:
    """Whether the window on the other side of the middle of the mask, as far from it, is allowed too."""
    positions = allowed.shape[axis]
    along = changed.sum(axis=3 - axis)
    middle = (along * np.arange(along.shape[1])).sum(axis=1) / np.maximum(along.sum(axis=1), 1)
    other = np.rint(2 * middle - (side - 1)).astype(np.int64)[:, None] - np.arange(positions)
    inside = (other >= 0) & (other < positions)
    shape = (len(allowed), positions, 1) if axis == 1 else (len(allowed), 1, positions)
    found = np.take_along_axis(allowed, np.clip(other, 0, positions - 1).reshape(shape), axis=axis)
    return found & inside.reshape(shape)


def _centred_aurocs(changed: NDArray[np.bool_], side: int, share: Array) -> Array:
    """The AUROC of a centred Gaussian in the window at each position: (image, top, left); 0 where it has none."""
    from scipy.signal import fftconvolve

    middle = (np.arange(side) - (side - 1) / 2) ** 2
    ranks = row_ranks(-(middle[:, None] + middle).reshape(1, -1)).reshape(1, side, side)
    sums = fftconvolve(changed.astype(np.float64), ranks, mode="valid", axes=(1, 2))  # ranks are symmetric
    count = np.rint(share * side**2)
    pairs = count * (side**2 - count)
    return np.divide(sums - count * (count + 1) / 2, pairs, out=np.zeros_like(pairs), where=pairs > 0)


def _shares(changed: NDArray[np.bool_], side: int) -> Array:
    """The changed share of the window at each position: (image, top, left), by sums from the first corner."""
    sums = np.zeros((len(changed), changed.shape[1] + 1, changed.shape[2] + 1), dtype=np.int64)
    sums[:, 1:, 1:] = changed.cumsum(axis=1).cumsum(axis=2)
    inside = sums[:, side:, side:] - sums[:, :-side, side:] - sums[:, side:, :-side] + sums[:, :-side, :-side]
    return inside / side**2

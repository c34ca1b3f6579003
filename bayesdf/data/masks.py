"""Which pixels of an image were changed?

The column `mask` of a manifest says it of whole images (`KINDS`). Only of images that were changed in part are there
masks of pixels, uint8 from 0 (as photographed) to 255 (changed), in the order of the manifest.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from bayesdf.data.manifest import REAL
from bayesdf.data.preprocessing import centre_square
from bayesdf.errors import BayesdfError

Masks = NDArray[np.uint8]
NONE, PART, WHOLE, UNKNOWN = KINDS = ("none", "part", "whole", "unknown")
"""What is known of an image: no pixel changed (photographs), some, all, or nothing."""


def no_masks(images: NDArray[np.uint8]) -> Masks:
    """The masks (0, H, W) of images (N, H, W, 3) none of which was changed in part."""
    return np.zeros((0, *images.shape[1:3]), np.uint8)


def kinds(manifest: pd.DataFrame) -> pd.Series:
    """The column `mask` of a manifest; of one without it, `none` for photographs and `unknown` for fakes."""
    if "mask" in manifest:
        return manifest["mask"]
    return pd.Series(np.where(manifest["source"] == REAL, NONE, UNKNOWN), manifest.index, name="mask")


def check_masks(masks: Masks, manifest: pd.DataFrame, images: NDArray[np.uint8]) -> None:
    """Refuse masks that do not belong to these images.

    Raises
    ------
    BayesdfError
        The column `mask` has other values than `KINDS`, a photograph was changed, or the masks are not uint8 (number of
        images of the kind `part`, H, W).
    """
    column = manifest["mask"]
    strange = manifest[~column.isin(KINDS)]
    if len(strange):
        raise BayesdfError(
            f"the manifest's column `mask` says {strange['mask'].iloc[0]!r} of {strange['path'].iloc[0]}: it must be "
            f"one of {', '.join(KINDS)}"
        )
    changed = manifest[(manifest["source"] == REAL) & (column != NONE)]
    if len(changed):
        raise BayesdfError(
            f"the manifest's column `mask` says {changed['mask'].iloc[0]!r} of the photograph "
            f"{changed['path'].iloc[0]}: no pixel of a photograph was changed, so it must be {NONE!r}"
        )
    wanted = (int((column == PART).sum()), *images.shape[1:3])
    if masks.shape != wanted or masks.dtype != np.uint8:
        raise BayesdfError(
            f"masks are {masks.dtype} {masks.shape}, but must be uint8 {wanted}: a mask of the images' size for each "
            f"image of which the column `mask` says {PART!r}"
        )


def rows_of(masks: Masks, manifest: pd.DataFrame, rows: NDArray[np.integer]) -> Masks:
    """Of the masks of a manifest, those of some of its rows, in the order of `rows`."""
    part = (manifest["mask"] == PART).to_numpy()
    place = np.cumsum(part) - 1
    return masks[place[rows[part[rows]]]]


def unpack(masks: Masks, column: pd.Series) -> NDArray[np.float32]:
    """The mask of every image, (N, H, W) in [0, 1]; NaN where it is not known."""
    level = column.map({NONE: 0.0, PART: 0.0, WHOLE: 1.0, UNKNOWN: np.nan}).to_numpy(np.float32)
    whole = np.empty((len(column), *masks.shape[1:]), np.float32)
    whole[:] = level[:, None, None]
    whole[(column == PART).to_numpy()] = masks / np.float32(255.0)
    return whole


def mask_path(mask: Image.Image | NDArray[np.floating], size: int) -> Masks:
    """The geometry of the common path alone: centre crop and resize, without JPEG.

    Masks are resized with the weights of a triangle, which are positive, so that no ringing leaves [0, 1].

    Parameters
    ----------
    mask
        A grey PIL image of 8 bits, or (H, W) values in [0, 1].
    size
        Side of the result in pixels.

    Returns
    -------
    (size, size) uint8.
    """
    if not isinstance(mask, Image.Image):
        mask = Image.fromarray((np.asarray(mask) * 255.0).round().astype(np.uint8))
    return np.asarray(centre_square(mask, size, Image.Resampling.BILINEAR))

"""Where is the face in each image of a data set, and where are its regions?"""

import os
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch.utils.data import Dataset

from bayesdf.errors import BayesdfError
from bayesdf.faces import LANDMARKS
from bayesdf.faces.regions import region_masks

COLUMNS = tuple(f"{mark}_{axis}" for mark in LANDMARKS for axis in "xy")
"""The columns of a manifest that say where the landmarks are: numbers in pixels of the data set's images. The centre of
the first pixel is (0, 0)."""


def face_regions(dataset: Dataset[Any], template: bool = False) -> NDArray[np.bool_]:
    """The regions of the face in each image: forehead, eyes, nose, cheeks, mouth, jaw, background.

    Parameters
    ----------
    dataset
        Square images with a manifest. Its columns `left_eye_x`, `left_eye_y`, `right_eye_x`, … (`COLUMNS`) place the
        regions. The embedded data needs none: its faces are aligned.
    template
        Take every face as aligned, that is, where `bayesdf.faces.TEMPLATE` says, whatever the manifest has.

    Returns
    -------
    (image, region, H, W) in the order of `bayesdf.faces.REGIONS`. Every pixel is in exactly one region. Where the faces
    are aligned, it is a view of the same regions for all images, and cannot be written.

    Raises
    ------
    BayesdfError
        This is no data set or has no images, the images are not square, or landmarks are missing and `template` was
        not asked for.
    """
    if not isinstance(dataset, Dataset):
        what = f"{dataset!r}" if isinstance(dataset, str | os.PathLike) else f"a {type(dataset).__name__}"
        raise BayesdfError(
            f"face_regions takes images with a manifest, not {what}: pass a part of what bayesdf.data.load returns, as "
            "data.test"
        )
    manifest = getattr(dataset, "manifest", pd.DataFrame())
    count = len(dataset)  # type: ignore[arg-type]
    if not count:
        raise BayesdfError("face_regions got a data set without images: pass at least one")
    height, width = dataset[0][0].shape[-2:]
    if height != width:
        raise BayesdfError(f"images are {height} x {width} pixels, but regions of the face need square images")
    missing = [name for name in COLUMNS if name not in manifest]
    if template or (manifest.attrs.get("aligned") and missing):
        return np.broadcast_to(region_masks(width), (count, *region_masks(width).shape))
    way_out = "or say that the faces are aligned as in the template (template=True, --regions template)"
    if missing:
        raise BayesdfError(
            f"the images have no landmarks of the faces: give the column(s) {', '.join(missing)} in the folder's "
            f"subjects.csv (docs/data.md), {way_out}"
        )
    points = manifest[list(COLUMNS)].to_numpy(float)
    lacking = manifest[np.isnan(points).any(1)]
    if len(lacking):
        raise BayesdfError(
            f"{lacking['path'].iloc[0]} has no landmarks, or not all ({len(lacking)} of {count} such images): add them "
            f"to its row of subjects.csv (docs/data.md), leave these images out, {way_out}"
        )
    return np.stack([region_masks(width, marks) for marks in points.reshape(count, -1, 2)])


def after_common_path(manifest: pd.DataFrame, shown: NDArray[np.int64], size: int) -> pd.DataFrame:
    """The manifest with its landmarks, in pixels of the displayed files, moved as centre crop and resize move them.

    Parameters
    ----------
    manifest
        With the columns `path` and `COLUMNS`, each a text. An empty text is a landmark that is not known.
    shown
        (N, 2) width and height at which each file is displayed.
    size
        Side of the images after the common path.

    Raises
    ------
    BayesdfError
        A landmark is not a number, lies outside the picture by more than half its width or height, or the left eye or
        corner of the mouth lies right of the right one.
    """
    given: dict[str, NDArray[np.float64]] = {}
    side = shown.min(1)
    for name in COLUMNS:
        place = pd.to_numeric(manifest[name], errors="coerce").to_numpy(float)
        wrong = manifest[~np.isfinite(place) & (manifest[name] != "").to_numpy()]
        if len(wrong):
            raise BayesdfError(
                f"{name} of {wrong['path'].iloc[0]} is {wrong[name].iloc[0]!r}: landmarks are numbers, in pixels of "
                "the image, or left empty"
            )
        length = shown[:, "xy".index(name[-1])]
        outside = (place < -0.5 * length) | (place > 1.5 * length)
        if outside.any():
            row = int(np.flatnonzero(outside)[0])
            raise BayesdfError(
                f"{name} of {manifest['path'].iloc[row]} is {place[row]:g}, but the image is displayed with "
                f"{shown[row, 0]} x {shown[row, 1]} pixels ({int(outside.sum())} such images): landmarks are in pixels "
                "of the image itself, or left empty"
            )
        given[name] = place
    for left, right in (("left_eye_x", "right_eye_x"), ("mouth_left_x", "mouth_right_x")):
        swapped = given[left] > given[right]
        if swapped.any():
            row = int(np.flatnonzero(swapped)[0])
            raise BayesdfError(
                f"{left} of {manifest['path'].iloc[row]} is {given[left][row]:g}, right of {right}, "
                f"{given[right][row]:g} ({int(swapped.sum())} such images): left is the left side of the picture, not "
                "of the person; exchange them, or leave the landmarks of such an image empty"
            )
    moved = {}
    for name, place in given.items():
        first = (shown[:, "xy".index(name[-1])] - side) // 2
        moved[name] = (place - first + 0.5) * (size / side) - 0.5
    return manifest.assign(**moved)

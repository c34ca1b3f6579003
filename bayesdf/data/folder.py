"""How are a user's own images read? From plain folders, one for each source.

    <root>/real/...            photographs
    <root>/<generator>/...     what each generator made

Images lie in a source's folder directly or in folders below it. Who is in them is read from the names, or from a table
`<root>/subjects.csv` (see `bayesdf.data.subjects`). Files may say which pixels of a fake were changed (see
`bayesdf.data.mask_files`).
"""

import hashlib
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps
from rich.progress import track

from bayesdf.data import subjects
from bayesdf.data.audit import audit, jpeg_quality
from bayesdf.data.image_cache import Content, cached_images
from bayesdf.data.landmarks import COLUMNS, after_common_path
from bayesdf.data.manifest import REAL, SPLITS
from bayesdf.data.mask_files import PIXEL_LIMIT, find_masks, read_mask
from bayesdf.data.masks import NONE, PART, UNKNOWN, no_masks
from bayesdf.data.preprocessing import common_path
from bayesdf.data.splits import assign_splits
from bayesdf.errors import BayesdfError, BayesdfWarning

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".pgm", ".ppm", ".tif", ".tiff"}
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "PPM", "TIFF")
"""A file is read as one of these, whatever its name. Other formats would start other programs."""


@dataclass(frozen=True)
class Unreadable:
    """A file that is not an image, or is truncated."""

    path: str
    reason: str


def read(
    root: Path,
    size: int,
    quality: int | None,
    fractions: tuple[float, float, float] | None,
    seed: int,
    skip_unreadable: float,
    fold: int = 0,
    folds: int = 1,
) -> Content:
    """The images (N, size, size, 3) uint8 below a folder, their manifest, and masks of those changed in part.

    The manifest has more columns than the required ones. `rule` says how the subject was found. `format`, `mode`,
    `width`, `height` and `jpeg_quality` are those of the files.

    Raises
    ------
    BayesdfError
        The folder is missing or empty, a source has too few images, or more than the share `skip_unreadable` of the
        files cannot be read (the message names them). Or a mask does not fit its image (`mask_files`).
    """
    files = image_files(root)
    mask_of = find_masks(root, files)
    masks_alone = set(mask_of.values())
    files = [file for file in files if file not in masks_alone]
    people = subjects.find_people(root, [file.relative_to(root).as_posix() for file in files])
    state = [
        f"{file.relative_to(root)} {file.stat().st_size} {file.stat().st_mtime_ns}"
        for file in [*files, *mask_of.values()]
    ]
    settings = f"{root.resolve()} {size} {quality} {skip_unreadable}"
    key = hashlib.sha256("\n".join([settings, *state]).encode()).hexdigest()[:16]
    images, manifest, masks = cached_images(
        f"folder-{key}", lambda: _make(root, files, mask_of, size, quality, skip_unreadable)
    )
    manifest[people.columns] = people.loc[manifest["path"]].to_numpy()
    shown = manifest[["shown_width", "shown_height"]].to_numpy()
    manifest = manifest.drop(columns=["shown_width", "shown_height"])
    if COLUMNS[0] in manifest:
        manifest = after_common_path(manifest, shown, size)
    manifest["video"] = manifest["video"].where(manifest["video"] != "", manifest["path"])
    for finding in [*subjects.people_cautions(manifest), *audit(manifest)]:
        warnings.warn(finding, BayesdfWarning, stacklevel=3)
    if not (manifest["split"] != "").any():
        manifest["split"] = assign_splits(manifest, fractions, seed, fold, folds)
    elif fractions is not None or folds > 1:
        asked = "the fractions (--split)" if fractions is not None else "the folds (--folds)"
        raise BayesdfError(
            f"{root} says itself which images are {', '.join(SPLITS)} (by "
            f"{'its table' if (root / subjects.TABLE).is_file() else 'its folders'}): leave {asked} out"
        )
    return images, manifest, masks


def image_files(root: Path) -> list[Path]:
    """The image files below a root with one folder for each source, in a fixed order. None may lie outside the root."""
    if not root.is_dir():
        raise BayesdfError(f"no folder at {root}: give a folder with one subfolder a source, or the name `embedded`")
    home = root.resolve()
    files = []
    for folder, names, leaves in os.walk(root):
        names.sort()
        for name in names:
            if (Path(folder) / name).is_symlink():
                raise BayesdfError(
                    f"{Path(folder) / name} is a link to a folder: copy the images in, or remove the link"
                )
        if Path(folder) == root:
            continue
        files += [Path(folder) / leaf for leaf in sorted(leaves) if Path(leaf).suffix.lower() in SUFFIXES]
    if not files:
        raise BayesdfError(
            f"no images below {root}: expected <root>/<source>/*.png (or {', '.join(sorted(SUFFIXES))}), "
            "with the photographs in a folder named `real`"
        )
    for file in files:
        if not str(file).isprintable():
            raise BayesdfError(f"the file name {str(file)!r} is not plain text: rename the file")
        if not file.resolve().is_relative_to(home):
            raise BayesdfError(f"{file} points outside {root}: copy the image into the folder or remove the link")
    return files


def _make(
    root: Path, files: list[Path], mask_of: dict[Path, Path], size: int, quality: int | None, skip_unreadable: float
) -> Content:
    images, rows, masks, unreadable = [], [], [], []
    for file in track(files, description="reading images", transient=True):
        relative = file.relative_to(root)
        try:
            pixels, facts, shown = read_image(file, size, quality)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            unreadable.append(Unreadable(str(relative), str(error).splitlines()[0] if str(error) else "unreadable"))
            continue
        kind = NONE if relative.parts[0] == REAL else UNKNOWN
        if file in mask_of:
            kind, mask = read_mask(mask_of[file], relative.as_posix(), shown, size)
            masks += [mask] if kind == PART else []
        images.append(pixels)
        rows.append(
            {
                "path": relative.as_posix(),
                "source": relative.parts[0],
                **dict.fromkeys(("subject", "donor", "video", "split"), ""),
                **facts,
                "mask": kind,
                "shown_width": shown[0],
                "shown_height": shown[1],
            }
        )
    if len(unreadable) > skip_unreadable * len(files) or not images:
        named = "; ".join(f"{item.path} ({item.reason})" for item in unreadable[:5])
        more = f" and {len(unreadable) - 5} more" if len(unreadable) > 5 else ""
        raise BayesdfError(
            f"{len(unreadable)} of {len(files)} images below {root} cannot be read: {named}{more}; remove them, or "
            f"allow a share to be skipped (skip_unreadable, --skip-unreadable; now {skip_unreadable:g})"
        )
    for item in unreadable:
        warnings.warn(f"skipped {item.path}: {item.reason}", BayesdfWarning, stacklevel=4)
    together = np.stack(images)
    return together, pd.DataFrame(rows), np.stack(masks) if masks else no_masks(together)


def read_image(file: Path, size: int, quality: int | None) -> tuple[np.ndarray, dict[str, object], tuple[int, int]]:
    """The pixels of a file after the common path, facts of the file, and the width and height of what it displays."""
    with Image.open(file, formats=FORMATS) as image:
        if image.width * image.height > PIXEL_LIMIT:
            raise ValueError(f"{image.width} x {image.height} pixels are over the limit of {PIXEL_LIMIT:,}")
        facts = {
            "format": image.format or "unknown",
            "mode": image.mode,
            "width": image.width,
            "height": image.height,
            "jpeg_quality": jpeg_quality(image),
        }
        image.load()
        shown = ImageOps.exif_transpose(image)
        pixels, length = common_path(shown, size, quality)
    return pixels, facts | {"bytes": length}, shown.size

"""Which file says which pixels of a user's image were changed, and what does it say?

    <root>/<source>/…/<name>_mask.png         beside the image <name>.*
    <root>/masks/<source>/…/<name>.png        at the place of the image in a parallel tree

A mask is a grey PNG of the size at which its image is displayed. White pixels were changed, black ones were not, and
grey ones were blended. Folders and files whose names look like those of masks in another way are refused.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from bayesdf.data.manifest import REAL
from bayesdf.data.masks import NONE, PART, WHOLE, Masks, mask_path
from bayesdf.errors import BayesdfError

TREE = "masks"
"""The folder of masks beside the sources."""
ENDING = "_mask"
_LIKE_TREE = ("mask", "masks")
_LIKE_ENDING = re.compile(r"(?<=.)[-_ ]masks?$", re.IGNORECASE)
PIXEL_LIMIT = 64_000_000
"""Larger images are refused before they are read: a small file can unpack to many gigabytes."""


def possible_images(root: Path, files: Sequence[Path]) -> dict[Path, list[Path]]:
    """The files that are named as masks, and for each the images that it may belong to.

    A file that is not a PNG counts as a mask only if there is an image of its name.
    """
    named = {file: without for file in files if (without := _without_ending(root, file)) is not None}
    images: dict[Path, list[Path]] = {}
    for file in files:
        if file not in named:
            images.setdefault(file.with_suffix(""), []).append(file)
    found = {file: images.get(without, []) for file, without in named.items()}
    return {file: owners for file, owners in found.items() if owners or _is_png(file) or _in_tree(root, file)}


def find_masks(root: Path, files: Sequence[Path]) -> dict[Path, Path]:
    """The mask of each image that has one, by image.

    Parameters
    ----------
    files
        All image files below the root, masks among them.

    Raises
    ------
    BayesdfError
        A mask has no image, or could be of two, or is not a PNG; or an image has two masks. Or a file looks like a mask
        but is named in another way.
    """
    masks: dict[Path, Path] = {}
    found = possible_images(root, files)
    _refuse_look_alikes(root, [file for file in files if not found.get(file) and not _in_tree(root, file)])
    for mask, owners in found.items():
        if not owners:
            if _in_tree(root, mask) and (own := _LIKE_ENDING.sub("", mask.stem)) != mask.stem:
                raise BayesdfError(
                    f"{mask} is a mask without its image: in the folder `{TREE}` a mask has its image's own name, so "
                    f"call it {own}.png"
                )
            reserved = f" (the folder `{TREE}` is for masks)" if _in_tree(root, mask) else ""
            raise BayesdfError(
                f"{mask} is a mask without its image: there is no image {_without_ending(root, mask)}.*{reserved}; add "
                "the image or remove the mask, or rename the file if it is an image"
            )
        if len(owners) > 1:
            raise BayesdfError(f"{mask} could be the mask of {owners[0]} or of {owners[1].name}: rename one of them")
        if not _is_png(mask):
            raise BayesdfError(f"{mask} is a mask in another format: save masks as PNG, which keeps every pixel")
        if owners[0] in masks:
            raise BayesdfError(f"{owners[0]} has two masks, {masks[owners[0]]} and {mask}: keep one")
        masks[owners[0]] = mask
    return masks


def read_mask(mask: Path, image: str, shown: tuple[int, int], size: int) -> tuple[str, Masks]:
    """What a mask says of its image: `none`, `part` or `whole`, and the mask (size, size) uint8 after the common path.

    Parameters
    ----------
    image
        Its image's path below the root, which begins with the source.
    shown
        Width and height at which the image is displayed.

    Raises
    ------
    BayesdfError
        The mask cannot be read, has another size, marks pixels of a photograph, or marks none of a fake.
    """
    try:
        with Image.open(mask, formats=("PNG",)) as opened:
            if opened.width * opened.height > PIXEL_LIMIT:
                raise ValueError(f"{opened.width} x {opened.height} pixels are over the limit of {PIXEL_LIMIT:,}")
            grey = _grey(ImageOps.exif_transpose(opened))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error).splitlines()[0] if str(error) else "unreadable"
        raise BayesdfError(f"mask {mask} cannot be read ({reason}): save it again as PNG, or remove it") from None
    if grey.size != shown:
        raise BayesdfError(
            f"mask {mask} has {grey.width} x {grey.height} pixels, but its image {image} is displayed with "
            f"{shown[0]} x {shown[1]}: a mask must have the size of its image"
        )
    brightest = int(np.asarray(grey).max())
    if image.split("/")[0] == REAL:
        if brightest:
            raise BayesdfError(
                f"mask {mask} marks pixels of the photograph {image} as changed: a photograph's mask must be black, or "
                "be left out"
            )
        return NONE, mask_path(grey, size)
    if brightest < 128:
        what = f"has no value above {brightest} of 255" if brightest else "is empty"
        raise BayesdfError(
            f"mask {mask} of the fake {image} {what}: changed pixels must be white (255); remove the mask if they are "
            "not known"
        )
    pixels = mask_path(grey, size)
    return WHOLE if pixels.min() == 255 else PART, pixels


def _refuse_look_alikes(root: Path, files: Sequence[Path]) -> None:
    """Refuse files that are no masks of an image, but whose folder or name says that they are masks.

    As for masks, a file that is not a PNG must have an image of its name for its own name to count.
    """
    names = {file.with_suffix("") for file in files}
    alike = []
    for file in files:
        folders = [folder.lower() for folder in file.relative_to(root).parent.parts]
        own = _LIKE_ENDING.sub("", file.stem)
        otherwise = own != file.stem and not file.stem.endswith(ENDING)
        named = otherwise and (_is_png(file) or file.with_name(own) in names)
        if named or any(folder in _LIKE_TREE for folder in folders):
            alike.append(file)
    if alike:
        place = [part for part in alike[0].relative_to(root).parent.parts if part.lower() not in _LIKE_TREE]
        own = _LIKE_ENDING.sub("", alike[0].stem)
        tree = root.joinpath(TREE, *(place or ["<source>"]), f"{own}.png")
        more = f" ({len(alike)} such files)" if len(alike) > 1 else ""
        raise BayesdfError(
            f"{alike[0]} looks like a mask{more}: call it {own}{ENDING}.png beside its image, or put it at {tree}; "
            "rename the folder or the file if it is an image"
        )


def _grey(image: Image.Image) -> Image.Image:
    """Grey values of 8 bits. Transparent pixels are black."""
    if image.mode.startswith("I"):  # 16 bits: Pillow would cut them off at 255
        return Image.fromarray((np.asarray(image).astype(float) / 257.0).clip(0.0, 255.0).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return image.convert("L")


def _without_ending(root: Path, file: Path) -> Path | None:
    """Where the image of a mask lies, without its suffix; None if the file is not named as a mask."""
    if _in_tree(root, file):
        return root / file.relative_to(root / TREE).with_suffix("")
    stem = file.stem.removesuffix(ENDING)
    return file.with_name(stem) if stem not in ("", file.stem) else None


def _in_tree(root: Path, file: Path) -> bool:
    return file.is_relative_to(root / TREE)


def _is_png(file: Path) -> bool:
    return file.suffix.lower() == ".png"

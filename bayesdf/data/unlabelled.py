"""How do images without labels become a torch data set, whatever form they come in?"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from bayesdf.data.folder import SUFFIXES, read_image
from bayesdf.data.mask_files import possible_images
from bayesdf.data.preprocessing import QUALITY, common_path
from bayesdf.errors import BayesdfError
from bayesdf.faces import SIZE

UNKNOWN = -1
"""The label of an image that has none."""


class UnlabelledImages(Dataset[tuple[Tensor, Tensor]]):
    """Pairs of an image, float32 (3, H, W) in [0, 1], and the label `UNKNOWN`. Files are read on access.

    Attributes
    ----------
    manifest
        A row for each image, with the column `path` where the images are files.
    """

    def __init__(self, images: Sequence[Any], size: int, quality: int | None, names: list[str] | None = None) -> None:
        self.images, self.size, self.quality = images, size, quality
        self.manifest = pd.DataFrame(index=range(len(images))) if names is None else pd.DataFrame({"path": names})

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.images[index]
        if is_picture(image):
            try:
                pixels = _pixels(image, self.size, self.quality)
            except (OSError, ValueError, SyntaxError, TypeError, Image.DecompressionBombError) as error:
                what = f"{image}" if isinstance(image, str | os.PathLike) else f"image {index}"
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise BayesdfError(f"{what} cannot be read as an image: {reason}") from error
            return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255.0, torch.tensor(UNKNOWN)
        if isinstance(image, np.ndarray):
            image = torch.from_numpy(np.array(image))
        if not isinstance(image, Tensor):
            raise BayesdfError(
                f"image {index} is a {type(image).__name__}, but must be a tensor (3, H, W), an array, a PIL image or "
                "the path of a file"
            )
        return image, torch.tensor(UNKNOWN)


def unlabelled(images: Any, *, size: int = SIZE, quality: int | None = QUALITY) -> UnlabelledImages:
    """Images without labels as a data set, for `Posterior.predict`.

    Tensors are passed to the network unchanged. Pictures (files, PIL images, arrays with the colours last) go through
    the same steps as training images: centre crop, resize, 8 bits, JPEG (see `bayesdf.data.common_path`).

    Parameters
    ----------
    images
        Tensor or array (B, 3, H, W) or (3, H, W), float in [0, 1] or uint8; a torch data set of images alone, such as
        ``TensorDataset(images)``; the path of a folder (all image files below it, by name) or of a file; a PIL image;
        an array (H, W, 3) or (B, H, W, 3), uint8 or float in [0, 1]; or an iterable of tensors, arrays, PIL images or
        paths.
    size
        Side in pixels to which pictures are resized.
    quality
        JPEG quality with which pictures are compressed, 1 to 95; None leaves the compression out.

    Raises
    ------
    BayesdfError
        There is no such file or folder, there is no image in it, or the argument is none of the above.
    """
    if isinstance(images, Tensor | np.ndarray):
        alone = images.ndim == 3 or (images.ndim == 2 and isinstance(images, np.ndarray))
        if not alone and images.ndim != 4:
            raise BayesdfError(f"images have shape {tuple(images.shape)}, but must be (B, 3, H, W) or (3, H, W)")
        return UnlabelledImages(images[None] if alone else images, size, quality)  # type: ignore[arg-type]
    if isinstance(images, str | os.PathLike):
        path = Path(images)
        if path.is_dir():
            files = _image_files(path)
            names = [file.relative_to(path).as_posix() for file in files]
            return UnlabelledImages(files, size, quality, names)
        if not path.is_file():
            raise BayesdfError(f"there is no file and no folder at {path}")
        images = [path]
    if isinstance(images, Image.Image):
        images = [images]
    if isinstance(images, TensorDataset) and len(images.tensors) == 1:
        return unlabelled(images.tensors[0], size=size, quality=quality)
    if isinstance(images, DataLoader) or not isinstance(images, Dataset | Iterable) or isinstance(images, dict):
        raise BayesdfError(
            f"images are a {type(images).__name__}, but must be a tensor (B, 3, H, W), a torch data set, a folder, or "
            "an iterable of images or paths" + (" (pass its .dataset)" if isinstance(images, DataLoader) else "")
        )
    if isinstance(images, Dataset):
        return UnlabelledImages(images, size, quality)  # type: ignore[arg-type]
    found = list(images)
    paths = [isinstance(item, str | os.PathLike) for item in found]
    for item, is_path in zip(found, paths, strict=True):
        if is_path and not Path(item).is_file():
            raise BayesdfError(f"there is no file at {item}")
    return UnlabelledImages(found, size, quality, [str(item) for item in found] if found and all(paths) else None)


def is_picture(image: Any) -> bool:
    """Whether an image goes through the common path: a file, a PIL image, or an array (H, W) or (H, W, 3)."""
    if isinstance(image, np.ndarray):
        return image.ndim == 2 or (image.ndim == 3 and image.shape[-1] in (3, 4) and image.shape[0] != 3)
    return isinstance(image, str | os.PathLike | Image.Image)


def _pixels(image: Any, size: int, quality: int | None) -> np.ndarray:
    """(size, size, 3) uint8."""
    if isinstance(image, str | os.PathLike):
        return read_image(Path(image), size, quality)[0]
    if isinstance(image, Image.Image):
        return common_path(ImageOps.exif_transpose(image), size, quality)[0]
    if image.dtype == np.uint8:
        return common_path(Image.fromarray(image), size, quality)[0]
    if image.dtype.kind != "f" or not np.isfinite(image).all() or image.min() < 0 or image.max() > 1:
        raise ValueError(f"an array of {image.dtype} with values outside 0 to 1: give float in [0, 1] or uint8")
    return common_path(image[..., :3], size, quality)[0]


def _image_files(folder: Path) -> list[Path]:
    """The image files below a folder, in a fixed order, without the masks of others."""
    found = []
    for root, names, leaves in os.walk(folder):
        names.sort()
        found += [Path(root) / leaf for leaf in sorted(leaves) if Path(leaf).suffix.lower() in SUFFIXES]
    if not found:
        raise BayesdfError(f"no images below {folder}: expected files {', '.join(sorted(SUFFIXES))}")
    masks = possible_images(folder, found)
    return [file for file in found if not masks.get(file)]

"""Which steps does every image go through, real or fake, before a detector sees it? Crop, resize, quantise, compress.

Where real and fake images differ in format, size or compression, a detector learns the file format. So the last steps
are the same for all images.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bayesdf.faces import SIZE

QUALITY = 90


def common_path(
    image: Image.Image | NDArray[np.floating], size: int, quality: int | None = QUALITY
) -> tuple[NDArray[np.uint8], int]:
    """Centre crop to a square, resize, quantise to 8 bits, compress as JPEG and read back.

    Parameters
    ----------
    image
        A PIL image, or grey (H, W) or colour (H, W, 3) values in [0, 1].
    size
        Side of the result in pixels.
    quality
        JPEG quality, 1 to 95; None leaves the compression out.

    Returns
    -------
    pixels
        (size, size, 3) uint8.
    bytes
        Size of the JPEG file; 0 without compression.
    """
    if not isinstance(image, Image.Image):
        image = Image.fromarray((np.asarray(image).clip(0.0, 1.0) * 255.0).round().astype(np.uint8))
    if image.mode.startswith("I"):  # 16 bits: Pillow would cut them off at 255
        values = np.asarray(image).astype(float) / 65535.0
        image = Image.fromarray((values.clip(0.0, 1.0) * 255.0).round().astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range: save the image with 8 or 16 bits")
    grey = image.mode in ("L", "1", "LA")
    image = image.convert("L" if grey else "RGB")
    image = centre_square(image, size)
    length = 0
    if quality is not None:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality, subsampling=0)
        length = buffer.tell()
        image = Image.open(buffer)
    return np.asarray(image.convert("RGB")), length


def centre_square(
    image: Image.Image, size: int, resampling: Image.Resampling = Image.Resampling.LANCZOS
) -> Image.Image:
    """The largest centred square of an image, resized to `size` pixels a side."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    if image.size != (side, side):
        image = image.crop((left, top, left + side, top + side))
    return image if side == size else image.resize((size, size), resampling)


def common_path_grey(images: NDArray[np.floating], quality: int | None = QUALITY) -> NDArray[np.float32]:
    """Faces after the common path, in grey: as published images look when they are inverted or checked.

    Parameters
    ----------
    images
        Grey (N, H, W) or colour (N, H, W, 3) values in [0, 1].
    quality
        JPEG quality, 1 to 95; None leaves the compression out.

    Returns
    -------
    (N, 64, 64) in [0, 1], multiples of 1/255.
    """
    done = [Image.fromarray(common_path(image, SIZE, quality)[0]).convert("L") for image in np.asarray(images)]
    return np.stack([np.asarray(image) for image in done]).astype(np.float32) / np.float32(255.0)

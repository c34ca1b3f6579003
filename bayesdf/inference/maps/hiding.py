"""What becomes of the uncertainty when parts of an image are hidden, and what stands in their place?"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bayesdf.errors import BayesdfError
from bayesdf.inference.maps.predictive import Predictive, Values

FILLS = ("blurred", "grey")
"""What may stand in the place of hidden pixels.

``blurred``: the image itself, blurred by a Gaussian whose standard deviation is `BLUR` of its shorter side. It keeps
colour and light and loses detail. ``grey``: the mean colour of the image at every pixel.
"""
BLUR = 0.1


def check_fill(fill: str) -> None:
    """Raise an error if there is no such fill."""
    if fill not in FILLS:
        raise BayesdfError(f"there is no fill {fill!r}: choose from {', '.join(FILLS)}")


def filled(images: Tensor, fill: str) -> Tensor:
    """What stands in the place of hidden pixels of images (B, C, H, W): a tensor of the same shape.

    Raises
    ------
    BayesdfError
        There is no such fill.
    """
    check_fill(fill)
    if fill == "grey":
        return images.mean((2, 3), keepdim=True).expand_as(images)
    return blurred(images, BLUR * min(images.shape[2:]))


def blurred(images: Tensor, deviation: float) -> Tensor:
    """Images (B, C, H, W) after a Gaussian blur of this standard deviation in pixels, mirrored at the borders."""
    reach = min(max(1, round(3 * deviation)), min(images.shape[2:]) - 1)
    distance = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-0.5 * (distance / deviation).square())
    kernel = kernel / kernel.sum()
    planes = F.pad(images.flatten(0, 1)[:, None].contiguous(), (reach,) * 4, mode="reflect")
    planes = F.conv2d(F.conv2d(planes, kernel[None, None, :, None]), kernel[None, None, None])
    return planes.view(images.shape)


def hidden(predictive: Predictive, images: Tensor, parts: Sequence[Tensor], fills: Tensor) -> Values:
    """Each quantity of whole images with a part hidden.

    Parameters
    ----------
    images, fills : Tensor (B, 3, H, W)
    parts : sequence of Tensor (P, H, W)
        The parts of each image, as many for each. What is hidden is 1, or between 0 and 1 where it is half hidden.

    Returns
    -------
    dict of Tensor (B, P)
        float64. Pairs of an image and a part run in chunks of `Predictive.batch_size`.
    """
    count = len(parts[0])
    pairs = [(image, part) for image in range(len(images)) for part in range(count)]
    found: dict[str, list[Tensor]] = {name: [] for name in predictive.quantities}
    for begin in range(0, len(pairs), predictive.batch_size):
        chunk = pairs[begin : begin + predictive.batch_size]
        rows = [image for image, _ in chunk]
        hide = torch.stack([parts[image][part] for image, part in chunk])[:, None].to(images)
        seen = torch.lerp(images[rows], fills[rows], hide).contiguous(memory_format=torch.channels_last)
        for name, value in predictive.of_images(seen).items():
            found[name].append(value)
    return {name: torch.cat(values).view(len(images), count) for name, values in found.items()}


def falls(predictive: Predictive, images: Tensor, parts: Sequence[Tensor], fill: str) -> Values:
    """By how much each quantity falls when a part is hidden, at the pixels of the part: float64 (B, H, W).

    Parameters
    ----------
    images : Tensor (B, 3, H, W)
    parts : sequence of Tensor (P, H, W) bool
        Those of each image. A pixel in several parts gets the mean of their falls, and a pixel in none gets 0.
    fill : str
        One of `FILLS`.
    """
    whole = predictive.of_images(images)
    without = hidden(predictive, images, parts, filled(images, fill))
    cover = [of_image.double() / of_image.sum(0).clamp_min(1) for of_image in parts]
    maps = {}
    for name, value in whole.items():
        fall = value[:, None] - without[name]
        maps[name] = torch.stack([torch.tensordot(one, share, 1) for one, share in zip(fall, cover, strict=True)])
    return maps

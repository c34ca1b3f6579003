"""What becomes of the uncertainty when parts of an image are hidden, and what stands in their place?"""

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


def hidden(predictive: Predictive, images: Tensor, parts: Tensor, fills: Tensor) -> Values:
    """Each quantity of whole images with a part hidden.

    Parameters
    ----------
    images, fills : Tensor (B, 3, H, W)
    parts : Tensor (B, P, H, W)
        The parts of each image. What is hidden is 1, or between 0 and 1 where it is half hidden.

    Returns
    -------
    dict of Tensor (B, P)
        float64. Pairs of an image and a part run in chunks of `Predictive.batch_size`.
    """
    pairs = torch.cartesian_prod(torch.arange(len(images)), torch.arange(parts.shape[1])).to(images.device)
    found: dict[str, list[Tensor]] = {name: [] for name in predictive.quantities}
    for chunk in pairs.split(predictive.batch_size):
        rows, which = chunk.unbind(1)
        hide = parts[rows, which][:, None].to(images)
        seen = torch.lerp(images[rows], fills[rows], hide).contiguous(memory_format=torch.channels_last)
        for name, value in predictive.of_images(seen).items():
            found[name].append(value)
    return {name: torch.cat(values).view(parts.shape[:2]) for name, values in found.items()}


def falls(predictive: Predictive, images: Tensor, parts: Tensor, fill: str) -> Values:
    """By how much each quantity falls when a part is hidden, at the pixels of the part: float64 (B, H, W).

    Parameters
    ----------
    images : Tensor (B, 3, H, W)
    parts : Tensor (B, P, H, W) bool
        The parts of each image. A pixel in several parts gets the mean of their falls, and a pixel in none gets 0.
    fill : str
        One of `FILLS`.
    """
    whole = predictive.of_images(images)
    without = hidden(predictive, images, parts, filled(images, fill))
    maps = {name: torch.zeros(parts[:, 0].shape, dtype=torch.float64, device=images.device) for name in whole}
    for row, of_image in enumerate(parts):
        share = of_image.double() / of_image.sum(0).clamp_min(1)
        for name, value in whole.items():
            maps[name][row] = torch.tensordot(value[row] - without[name][row], share, 1)
    return maps

"""Random changes to a training image that do not change its label."""

import torch
import torch.nn.functional as F
from torch import Tensor


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror and shift each image at random, and change its brightness and contrast.

    Shifts are by whole pixels, and nothing is rotated or rescaled. Resampling would wipe out the traces that warping
    generators leave, and would leave such traces itself.

    Parameters
    ----------
    images
        (B, 3, H, W) in [0, 1].
    generator
        The source of randomness, on the CPU.

    Returns
    -------
    (B, 3, H, W) in [0, 1].
    """
    batch, _, height, width = images.shape
    reach = max(height // 16, 1)
    padded = F.pad(images, (reach,) * 4, mode="reflect")
    shift = torch.randint(0, 2 * reach + 1, (2, batch), generator=generator)
    y = (shift[0][:, None] + torch.arange(height))[:, None, :, None]
    x = (shift[1][:, None] + torch.arange(width))[:, None, None, :]
    mirrored = torch.rand(batch, generator=generator) < 0.5
    x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
    rows = torch.arange(batch)[:, None, None, None]
    channels = torch.arange(images.shape[1])[None, :, None, None]
    shifted = padded[rows, channels, y.to(images.device), x.to(images.device)]
    contrast = 1.0 + 0.2 * (2.0 * torch.rand(batch, 1, 1, 1, generator=generator) - 1.0)
    brightness = 0.1 * (2.0 * torch.rand(batch, 1, 1, 1, generator=generator) - 1.0)
    mean = shifted.mean((1, 2, 3), keepdim=True)
    toned = (shifted - mean) * contrast.to(images.device) + mean + brightness.to(images.device)
    return toned.clamp(0.0, 1.0)

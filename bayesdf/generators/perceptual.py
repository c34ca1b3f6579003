"""How alike do two pictures look? Compare the strength of edges of each size and direction at each place.

A windowed scattering transform of the first order (Bruna and Mallat 2013, "Invariant scattering convolution networks"):
moduli of Gabor filters at three octaves and four directions, averaged over patches of four by four coefficients. The
filters are fixed. Nothing is downloaded or trained, and no generator's own network judges the others.
"""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

OCTAVES = 3
DIRECTIONS = 4
SIDE = 7
_SMOOTH = 1e-3
"""A thousandth of the grey scale; it makes the modulus differentiable where there is no edge."""


@functools.cache
def filters() -> Tensor:
    """(2 * DIRECTIONS, 1, SIDE, SIDE): real parts, then imaginary parts, of Gabor filters without response to grey."""
    reach = torch.arange(SIDE) - SIDE // 2
    y, x = torch.meshgrid(reach, reach, indexing="ij")
    envelope = torch.exp(-(x**2 + y**2) / (2.0 * 1.6**2))
    parts: list[list[Tensor]] = [[], []]
    for direction in range(DIRECTIONS):
        angle = math.pi * direction / DIRECTIONS
        phase = 0.5 * math.pi * (math.cos(angle) * x + math.sin(angle) * y)
        for part, wave in zip(parts, (phase.cos(), phase.sin()), strict=True):
            wavelet = envelope * (wave - (envelope * wave).sum() / envelope.sum())
            part.append(wavelet / wavelet.pow(2).sum().sqrt())
    return torch.stack(parts[0] + parts[1])[:, None]


def features(images: Tensor) -> Tensor:
    """Strength of edges by octave, direction and place.

    Parameters
    ----------
    images
        (B, 1, 64, 64) in about [0, 1]; the sides must be multiples of 16.

    Returns
    -------
    (B, 1344) in units of grey values, differentiable.
    """
    bank = filters()
    found = []
    for octave in range(OCTAVES):
        if octave:
            images = F.avg_pool2d(images, 2)
        padded = F.pad(images, (SIDE // 2,) * 4, mode="reflect")
        real, imaginary = F.conv2d(padded, bank).chunk(2, 1)
        modulus = (real**2 + imaginary**2 + _SMOOTH**2).sqrt()
        found.append(F.avg_pool2d(modulus, 4).flatten(1))
    return torch.cat(found, 1)

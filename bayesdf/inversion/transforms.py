"""How does inversion allow for a picture that was cropped, toned or blurred? It searches for that too.

`forgiving` gives a generator a few more latent values, which transform what it makes. A generator is any differentiable
function from a latent to a picture, so `invert` searches for the transform and the latent together.
"""

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bayesdf.errors import BayesdfError
from bayesdf.generators.generator import Generator

TRANSFORMS = 7
"""Latent values that `forgiving` adds: zoom, shift across and down, contrast, brightness, and two blurs."""
ZOOM, SHIFT, CONTRAST, BRIGHTNESS, BLUR = 0.15, 0.06, 0.15, 0.12, 0.5
"""Standard deviations of the transforms: of logarithms of scales, in half sides, in grey values, and of shares."""
ZOOMS = (0.0, 0.75, 1.5, 2.4)
"""Zooms that are tried for a start, in standard deviations: 0, 11, 20 and 30 % of the side cut away."""


def forgiving(generator: Generator) -> Generator:
    """The generator with `TRANSFORMS` more latent values, which zoom, shift, tone and blur what it makes.

    If all of them are 0, it is the generator itself. No descent succeeds from a wrong zoom. So the encoder, if there is
    one, is asked about the picture as it is and about the picture shrunk by each of `ZOOMS`. The start is the latent
    that makes the picture again most nearly, with all other transforms 0. Each zoom costs one forward run. An exact
    generator becomes one that is not exact.
    """
    decode = generator.decode
    if decode is None:
        raise BayesdfError(f"generator {generator.name}: cannot be inverted, since it has no `decode`")

    def make(latent: Tensor) -> Tensor:
        return transform(decode(latent[:, :-TRANSFORMS]), latent[:, -TRANSFORMS:])

    @torch.no_grad()
    def start(images: Tensor) -> Tensor:
        starts, errors = [], []
        for zoom in ZOOMS:
            values = torch.zeros(len(images), TRANSFORMS)
            values[:, 0] = zoom
            starts.append(torch.cat([generator.guess(transform(images, -values)), values], 1))
            difference = make(starts[-1]) - images
            if generator.region is not None:
                difference = difference * torch.from_numpy(generator.region)
            errors.append(difference.pow(2).sum((1, 2, 3)))
        best = torch.stack(errors).nan_to_num(torch.inf).argmin(0)
        return torch.stack(starts)[best, torch.arange(len(images))]

    return replace(
        generator,
        latent_dim=generator.latent_dim + TRANSFORMS,
        decode=make,
        encode=None if generator.encode is None else start,
        exact=False,
    )


def transform(images: Tensor, values: Tensor) -> Tensor:
    """Pictures (B, 1, 64, 64) after transforms of values (B, 7), about standard normal; differentiable in both.

    The values are zoom, shift across, shift down, contrast, brightness, and the shares of two blurred versions
    (standard deviations of 1 and 2 pixels) that are mixed into the picture.
    """
    zoom, across, down, contrast, brightness, soft, softer = values.unbind(1)
    scale = (-ZOOM * zoom).exp()
    none = torch.zeros_like(scale)
    rows = [torch.stack(row, 1) for row in ((scale, none, SHIFT * across), (none, scale, SHIFT * down))]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    blurred = [
        share[:, None, None, None] * (_smooth(moved, width) - moved) for share, width in ((soft, 1.0), (softer, 2.0))
    ]
    seen = moved + BLUR * (blurred[0] + blurred[1])
    gain = (CONTRAST * contrast).exp()[:, None, None, None]
    return 0.5 + gain * (seen - 0.5) + BRIGHTNESS * brightness[:, None, None, None]


def _smooth(images: Tensor, width: float) -> Tensor:
    """Gaussian blur with a standard deviation in pixels; the rim is repeated."""
    reach = int(np.ceil(3.0 * width))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / width) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel[None, None, :, None]), kernel[None, None, None, :])

"""By how much does the uncertainty fall when a square of the image is hidden?

    map(pixel) = mean over squares that cover the pixel of  U(image) - U(image without the square)

A place with a value above zero raises the uncertainty: without it the detector is surer.

References
----------
Zeiler, Fergus, "Visualizing and Understanding Convolutional Networks", 2014, arXiv:1311.2901, section 4.2.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bayesdf.errors import BayesdfError
from bayesdf.inference.maps.hiding import check_fill, falls
from bayesdf.inference.maps.method import MapMethod
from bayesdf.inference.maps.predictive import Predictive, Values


@dataclass(frozen=True)
class Occlusion(MapMethod):
    """Squares in a regular grid.

    Parameters
    ----------
    patch : int, optional
        Side of a square in pixels. Default: an eighth of the shorter side of the image.
    stride : int, optional
        Pixels from one square to the next. Default: `patch`, so that squares do not overlap.
    fill : str
        What stands in the place of the square: ``blurred`` or ``grey`` (`hiding.FILLS`).
    """

    name: ClassVar[str] = "occlusion"
    signed: ClassVar[bool] = True
    patch: int | None = None
    stride: int | None = None
    fill: str = "blurred"

    def __post_init__(self) -> None:
        for name in ("patch", "stride"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BayesdfError(f"{name} is {value}, but must be at least 1 pixel")
        if self.patch is not None and self.stride is not None and self.stride > self.patch:
            raise BayesdfError(f"stride {self.stride} is more than patch {self.patch}, so pixels would be left out")
        check_fill(self.fill)

    def maps(self, predictive: Predictive, images: Tensor, indices: range) -> Values:
        height, width = images.shape[2:]
        patch = self.patch or max(1, min(height, width) // 8)
        parts = squares(height, width, patch, min(self.stride or patch, patch)).to(images.device)
        return falls(predictive, images, parts.expand(len(images), -1, -1, -1), self.fill)


def squares(height: int, width: int, patch: int, stride: int) -> Tensor:
    """Masks (P, height, width), bool. The last square of a row or column ends at the border if the grid does not."""

    def begins(side: int) -> list[int]:
        last = max(side - patch, 0)
        return sorted({*range(0, last + 1, stride), last})

    masks = []
    for y in begins(height):
        for x in begins(width):
            mask = torch.zeros(height, width, dtype=torch.bool)
            mask[y : y + patch, x : x + patch] = True
            masks.append(mask)
    return torch.stack(masks)

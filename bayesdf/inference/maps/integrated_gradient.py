"""Which pixels make the difference in uncertainty between an image and a baseline without detail?

The gradient is averaged along the straight way from the baseline ``b`` to the image ``x``:

    map(pixel) = Σ_channels (x - b) ∫_0^1 ∂U(b + t (x - b)) / ∂x dt

The values add to ``U(x) - U(b)`` (completeness). The integral is a Gauss-Legendre sum.

References
----------
Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep Networks", ICML 2017, arXiv:1703.01365, equation 1.
"""

import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from bayesdf.errors import BayesdfError, BayesdfWarning
from bayesdf.inference.maps.hiding import check_fill, filled
from bayesdf.inference.maps.method import MapMethod
from bayesdf.inference.maps.predictive import Predictive, Values

TOLERANCE = 0.1
"""A sum that misses the difference by more than this share of it is warned of. So is one that misses by 0.01."""


@dataclass(frozen=True)
class IntegratedGradient(MapMethod):
    """With sign, in nats: a pixel above zero raises the quantity over that of the baseline.

    Parameters
    ----------
    steps : int
        Points of the Gauss-Legendre sum.
    baseline : str
        ``blurred`` (the image without its detail) or ``grey`` (its mean colour): `hiding.FILLS`.
    """

    name: ClassVar[str] = "integrated_gradient"
    signed: ClassVar[bool] = True
    steps: int = 32
    baseline: str = "blurred"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise BayesdfError(f"steps is {self.steps}, but must be at least 1")
        check_fill(self.baseline)

    def maps(self, predictive: Predictive, images: Tensor, indices: range) -> Values:
        base = filled(images, self.baseline)
        away = images - base
        sums = {name: torch.zeros_like(images) for name in predictive.quantities}
        for node, weight in zip(*np.polynomial.legendre.leggauss(self.steps), strict=True):
            between = (base + (node + 1) / 2 * away).contiguous(memory_format=torch.channels_last)
            for name, gradient in predictive.gradients(between).items():
                sums[name] += weight / 2 * gradient
        maps = {name: (value * away).sum(1) for name, value in sums.items()}
        self._warn_of_gaps(predictive, images, base, maps)
        return maps

    def _warn_of_gaps(self, predictive: Predictive, images: Tensor, base: Tensor, maps: Values) -> None:
        ends = predictive.of_images(images), predictive.of_images(base)
        for name, value in maps.items():
            difference = ends[0][name] - ends[1][name]
            gap = (value.double().sum((1, 2)) - difference).abs()
            wide = int((gap > TOLERANCE * difference.abs() + 0.01).sum())
            if wide:
                warnings.warn(
                    f"integrated gradients of {name} of {wide} of {len(images)} images do not add to its difference "
                    f"from the baseline (by up to {float(gap.max()):.2g}): raise steps above {self.steps}",
                    BayesdfWarning,
                    stacklevel=4,
                )

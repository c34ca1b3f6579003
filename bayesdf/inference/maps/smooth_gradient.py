"""How does the uncertainty change with each pixel, on the average over noisy copies of the image?

The gradients of noisy copies are averaged with their signs. The map is the sum over the channels of the absolute value
of that mean. What changes from copy to copy cancels. (The paper draws such maps. A mean of squares is another method.)

References
----------
Smilkov, Thorat, Kim, Viégas, Wattenberg, "SmoothGrad: removing noise by adding noise", 2017, arXiv:1706.03825.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from bayesdf.errors import BayesdfError
from bayesdf.inference.maps.method import MapMethod
from bayesdf.inference.maps.predictive import Predictive, Values


@dataclass(frozen=True)
class SmoothGradient(MapMethod):
    """Sum over channels of the absolute mean gradient: nats per unit of brightness.

    Parameters
    ----------
    copies : int
        Noisy copies of each image.
    deviation : float
        Standard deviation of the normal noise on every pixel, in units of brightness. The paper takes 0.1 to 0.2 of the
        range for photographs of objects. The traces of fakes are finer.
    """

    name: ClassVar[str] = "smooth_gradient"
    per: ClassVar[str] = "brightness"
    copies: int = 20
    deviation: float = 0.05

    def __post_init__(self) -> None:
        if self.copies < 1:
            raise BayesdfError(f"copies is {self.copies}, but must be at least 1")
        if not self.deviation > 0:
            raise BayesdfError(f"deviation is {self.deviation}, but must be above 0")

    def maps(self, predictive: Predictive, images: Tensor, indices: range) -> Values:
        # The noise of an image is its own, so that it does not depend on the batch.
        noises = [_generator(predictive.seed, index) for index in indices]
        sums = {name: torch.zeros_like(images) for name in predictive.quantities}
        for _ in range(self.copies):
            noise = torch.stack([torch.randn(images.shape[1:], generator=noise) for noise in noises]).to(images.device)
            noisy = (images + self.deviation * noise).contiguous(memory_format=torch.channels_last)
            for name, gradient in predictive.gradients(noisy).items():
                sums[name] += gradient
        return {name: (value / self.copies).abs().sum(1) for name, value in sums.items()}


def _generator(seed: int, index: int) -> torch.Generator:
    state = np.random.SeedSequence((seed, index)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & 0x7FFF_FFFF_FFFF_FFFF)

"""How does the uncertainty of an image change with each of its pixels?

The map is the sum over the channels of the absolute gradient in the pixels. (Simonyan et al. take the largest of them.
The sum also bounds the change of the quantity to first order, if every channel of the pixel changes by at most 1.)

References
----------
Simonyan, Vedaldi, Zisserman, "Deep Inside Convolutional Networks: Visualising Image Classification Models and Saliency
Maps", 2013, arXiv:1312.6034, section 3.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import xarray as xr
from torch import Tensor

from bayesdf.errors import BayesdfError
from bayesdf.inference.maps.method import MapMethod
from bayesdf.inference.maps.predictive import Predictive, Values
from bayesdf.inference.posterior import Posterior


@dataclass(frozen=True)
class Gradient(MapMethod):
    """Sum over channels of the absolute gradient: nats per unit of brightness."""

    name: ClassVar[str] = "gradient"
    per: ClassVar[str] = "brightness"

    def maps(self, predictive: Predictive, images: Tensor, indices: range) -> Values:
        return {name: value.abs().sum(1) for name, value in predictive.gradients(images).items()}


def input_gradients(
    posterior: Posterior, images: Tensor, draws: int | None = None, seed: int = 0, *, device: str = "auto"
) -> xr.Dataset:
    """Gradients of each image's total, aleatoric and epistemic uncertainty in its pixels, with sign and by channel.

    Parameters
    ----------
    posterior : Posterior
    images : Tensor (B, 3, H, W)
        Values in [0, 1]; a batch that fits into memory.
    draws, seed, device
        As for `Posterior.predict`.

    Returns
    -------
    xr.Dataset
        ``total``, ``aleatoric``, ``epistemic`` (image, channel, y, x): nats per unit of brightness; the first is the
        sum of the others.

    Raises
    ------
    BayesdfError
        No images, or more draws than a posterior of stored draws holds.
    """
    if images.dim() != 4 or not len(images):
        raise BayesdfError(f"images have shape {tuple(images.shape)}, but must be (B, 3, H, W) with at least one")
    predictive = Predictive(posterior, draws, seed, ("total", "aleatoric", "epistemic"), device)
    pixels = images.to(predictive.device, torch.float32, memory_format=torch.channels_last)
    dims, units = ("image", "channel", "y", "x"), {"units": "nats per unit of brightness"}
    found = predictive.gradients(pixels)
    return xr.Dataset({name: (dims, value.cpu().numpy(), units) for name, value in found.items()})

"""Does a map change when the detector's weights are destroyed? If not, it shows edges and not the detector.

The weights of the last layers are replaced by random ones, one layer more at a time (cascading randomisation). A map
that stays alike says nothing about what the detector has learnt.

References
----------
Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim, "Sanity Checks for Saliency Maps", NeurIPS 2018, section 3.1.
"""

import copy
from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from bayesdf.errors import BayesdfError
from bayesdf.inference.posterior import Posterior
from bayesdf.inference.samplers import Sampler


def layers(posterior: Posterior) -> list[str]:
    """The names of the convolutions and linear layers of a posterior's network, the last first."""
    kinds = nn.Conv2d | nn.Linear
    return [name for name, module in posterior.network.named_modules() if isinstance(module, kinds)][::-1]


def randomised(posterior: Posterior, number: int, seed: int = 0) -> Posterior:
    """The posterior with random weights in the last `number` convolutions and linear layers.

    Each weight and bias is drawn from a normal with the mean and the standard deviation of its own tensor, so that
    activations keep their scale. Normalisation stays as it is. A site in such a layer has the random values as its
    centre. Its draws keep their distances from the centre.

    Parameters
    ----------
    posterior : Posterior
        Left as it is.
    number : int
        From 0 (none) to the number of `layers`.
    seed : int
        At least 0. The values of a layer are the same for every `number` that includes it.

    Raises
    ------
    BayesdfError
        There are not so many layers.
    """
    names = layers(posterior)
    if not 0 <= number <= len(names):
        raise BayesdfError(f"number is {number}, but the network has {len(names)} convolutions and linear layers")
    network = copy.deepcopy(posterior.network)
    own = dict(network.named_parameters())
    centres: dict[str, Tensor] = {}
    point = posterior.sampler.point()
    for place, layer in enumerate(names[:number]):
        state = np.random.SeedSequence((seed, place)).generate_state(1, np.uint64)[0]
        noise = torch.Generator().manual_seed(int(state) & 0x7FFF_FFFF_FFFF_FFFF)
        for kind in ("weight", "bias"):
            name = f"{layer}.{kind}"
            if name not in own:
                continue
            value = point.get(name, own[name].detach())
            centres[name] = value.mean() + value.std(correction=0) * torch.randn(value.shape, generator=noise)
            with torch.no_grad():
                own[name].copy_(centres[name])
    sampler = _Moved(posterior.sampler, centres)
    return Posterior(network, sampler, posterior.sample_stats, {**posterior.attrs, "randomised_layers": number})


class _Moved(Sampler):
    """A sampler with the centres of some sites replaced."""

    kind: ClassVar[str] = "randomised"

    def __init__(self, sampler: Sampler, centres: dict[str, Tensor]) -> None:
        self.sampler, self.centres = sampler, centres
        self.shapes, self.capacity, self.chains = sampler.shapes, sampler.capacity, sampler.chains

    def draw(self, index: int, seed: int) -> dict[str, Tensor]:
        return self._moved(self.sampler.draw(index, seed))

    def point(self) -> dict[str, Tensor]:
        return self._moved(self.sampler.point())

    def install(self, network: nn.Module) -> None:
        self.sampler.install(network)

    def to_dataset(self) -> xr.Dataset:
        raise BayesdfError("a posterior with randomised weights is for comparison and is not saved")

    def _moved(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        point: dict[str, Any] = self.sampler.point()
        return {
            name: value - point[name] + self.centres[name] if name in self.centres else value
            for name, value in values.items()
        }

"""Masks of channels."""

from typing import ClassVar

import torch
import xarray as xr
from torch import Tensor, nn

from bayesdf.inference.channel_dropout import install
from bayesdf.inference.samplers.sampler import Sampler, generator, order_attrs, read_order, tensor


class MaskSampler(Sampler):
    """Independent Bernoulli masks, ``mask_c = b_c / (1 - rate_c)``, ``b_c ~ Bernoulli(1 - rate_c)``."""

    kind: ClassVar[str] = "mask"

    def __init__(self, rates: dict[str, Tensor]) -> None:
        self.rates = rates
        self.shapes = {name: tuple(rate.shape) for name, rate in rates.items()}

    def draw(self, index: int, seed: int) -> dict[str, Tensor]:
        return self.masks(generator(index, seed))

    def masks(self, noise: torch.Generator | None = None) -> dict[str, Tensor]:
        """Masks from the given source of random numbers, by default torch's."""
        return {
            name: (torch.rand(rate.shape, generator=noise) >= rate).float() / (1 - rate)
            for name, rate in self.rates.items()
        }

    def point(self) -> dict[str, Tensor]:
        return {name: torch.ones_like(rate) for name, rate in self.rates.items()}

    def install(self, network: nn.Module) -> None:
        for name, rate in self.rates.items():
            install(network, name.removesuffix(".mask"), len(rate), float(rate.mean()))

    def to_dataset(self) -> xr.Dataset:
        variables = {f"{name}.rate": ((f"{name}_dim_0",), rate.numpy()) for name, rate in self.rates.items()}
        return xr.Dataset(variables, attrs=order_attrs(self.rates))

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset) -> "MaskSampler":
        return cls({name: tensor(dataset[f"{name}.rate"]) for name in read_order(dataset)})

"""Draws that were made once and kept."""

from collections.abc import Mapping
from typing import ClassVar, Self

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from bayesdf.inference.samplers.sampler import Sampler, dims, generator, order_attrs, read_order, tensor


class StoredSampler(Sampler):
    """Draws of one or several chains, given out in an order that depends on the seed; values (chain, draw, *site)."""

    kind: ClassVar[str] = "stored"
    group: ClassVar[str] = "posterior"

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        self.values = {name: value.detach().cpu().float().contiguous().clone() for name, value in values.items()}
        self.shapes = {name: tuple(value.shape[2:]) for name, value in self.values.items()}
        sizes = {tuple(value.shape[:2]) for value in self.values.values()}
        if len(sizes) != 1 or min(next(iter(sizes))) < 1:
            raise ValueError(f"stored draws of sizes {sorted(sizes)}")
        self.chains, self.capacity = next(iter(sizes))

    def draw(self, index: int, seed: int) -> dict[str, Tensor]:
        assert self.capacity is not None
        turn, chain = divmod(index, self.chains)
        place = torch.randperm(self.capacity, generator=generator(chain, seed))[turn]
        return {name: value[chain, place] for name, value in self.values.items()}

    def point(self) -> dict[str, Tensor]:
        return {name: value.mean((0, 1)) for name, value in self.values.items()}

    def to_dataset(self) -> xr.Dataset:
        variables = {
            name: (("chain", "draw", *dims(name, value[0, 0])), value.numpy()) for name, value in self.values.items()
        }
        coords = {"chain": np.arange(self.chains), "draw": np.arange(self.capacity or 0)}
        return xr.Dataset(variables, coords, attrs=order_attrs(self.shapes))

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset) -> Self:
        return cls({name: tensor(dataset[name]) for name in read_order(dataset)})

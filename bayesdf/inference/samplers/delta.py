"""A point."""

from collections.abc import Mapping
from typing import ClassVar, Self

import xarray as xr
from torch import Tensor

from bayesdf.inference.samplers.sampler import Sampler, cpu, dims, order_attrs, read_order, tensor


class DeltaSampler(Sampler):
    """The same value in every draw."""

    kind: ClassVar[str] = "delta"

    def __init__(self, value: Mapping[str, Tensor]) -> None:
        self.value = cpu(value)
        self.shapes = {name: tuple(value.shape) for name, value in self.value.items()}

    def draw(self, index: int, seed: int) -> dict[str, Tensor]:
        return dict(self.value)

    def point(self) -> dict[str, Tensor]:
        return dict(self.value)

    def to_dataset(self) -> xr.Dataset:
        variables = {name: (dims(name, value), value.numpy()) for name, value in self.value.items()}
        return xr.Dataset(variables, attrs=order_attrs(self.shapes))

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset) -> Self:
        return cls({name: tensor(dataset[name]) for name in read_order(dataset)})

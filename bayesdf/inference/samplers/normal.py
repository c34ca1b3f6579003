"""Independent normals."""

from collections.abc import Mapping
from typing import ClassVar, Self

import xarray as xr
from torch import Tensor

from bayesdf.inference.mean_field_kernels import normal
from bayesdf.inference.samplers.sampler import (
    Sampler,
    constrain,
    cpu,
    dims,
    generator,
    known_support,
    order_attrs,
    read_order,
    tensor,
)


class NormalSampler(Sampler):
    """Independent normals in unconstrained space, ``z = loc + scale ε``, ``value = transform(z)``."""

    kind: ClassVar[str] = "normal"

    def __init__(self, loc: Mapping[str, Tensor], scale: Mapping[str, Tensor], support: Mapping[str, str]) -> None:
        self.loc, self.scale, self.support = cpu(loc), cpu(scale), dict(support)
        self.shapes = {name: tuple(value.shape) for name, value in self.loc.items()}

    def draw(self, index: int, seed: int) -> dict[str, Tensor]:
        noise = generator(index, seed)
        return {
            name: constrain(normal(loc, self.scale[name], noise), support)
            for (name, loc), support in zip(self.loc.items(), self.support.values(), strict=True)
        }

    def point(self) -> dict[str, Tensor]:
        return {name: constrain(loc, self.support[name]) for name, loc in self.loc.items()}

    def to_dataset(self) -> xr.Dataset:
        variables = {}
        for name, loc in self.loc.items():
            attrs = {"support": self.support[name]}
            variables[f"{name}.loc"] = xr.Variable(dims(name, loc), loc.numpy(), attrs)
            variables[f"{name}.scale"] = xr.Variable(dims(name, loc), self.scale[name].numpy(), attrs)
        return xr.Dataset(variables, attrs=order_attrs(self.shapes))

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset) -> Self:
        sites = read_order(dataset)
        loc = {name: tensor(dataset[f"{name}.loc"]) for name in sites}
        scale = {name: tensor(dataset[f"{name}.scale"]) for name in sites}
        support = {name: known_support(dataset[f"{name}.loc"].attrs["support"]) for name in sites}
        return cls(loc, scale, support)

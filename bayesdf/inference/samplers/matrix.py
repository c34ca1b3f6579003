"""A normal for each site whose covariance has structure along the rows and the columns of a weight matrix."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
import xarray as xr
from torch import Tensor

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


@dataclass(frozen=True)
class Matrix:
    """``z = loc + rows (scale ∘ ε) columnsᵀ``, where `loc` is flattened to (its first dimension, the rest).

    `rows` and `columns` are square; None stands for the identity.
    """

    loc: Tensor
    scale: Tensor
    rows: Tensor | None
    columns: Tensor | None

    def value(self, noise: Tensor) -> Tensor:
        """What comes of standard normal noise, of the shape of `scale`."""
        return self.loc + transformed(self.scale * noise, self.rows, self.columns).view(self.loc.shape)


def transformed(value: Tensor, rows: Tensor | None, columns: Tensor | None) -> Tensor:
    """``rows value columnsᵀ``."""
    value = value if rows is None else rows @ value
    return value if columns is None else value @ columns.T


class MatrixSampler(Sampler):
    """Independent sites, each a `Matrix` in unconstrained space (Louizos and Welling, "Structured and Efficient
    Variational Deep Learning with Matrix Gaussian Posteriors", 2016, where the scale is 1)."""

    kind: ClassVar[str] = "matrix"

    def __init__(self, sites: Mapping[str, Matrix], support: Mapping[str, str]) -> None:
        self.sites = {name: _own(site) for name, site in sites.items()}
        self.support = dict(support)
        self.shapes = {name: tuple(site.loc.shape) for name, site in self.sites.items()}

    def draw(self, index: int, seed: int) -> dict[str, Tensor]:
        source = generator(index, seed)
        return self.draw_from_noise(
            {name: torch.randn(shape, generator=source) for name, shape in self.noise_shapes().items()}
        )

    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the standard normal numbers that a draw is made of."""
        return {name: tuple(site.scale.shape) for name, site in self.sites.items()}

    def draw_from_noise(self, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The draw that is made of these."""
        return {name: constrain(site.value(noise[name]), self.support[name]) for name, site in self.sites.items()}

    def point(self) -> dict[str, Tensor]:
        return {name: constrain(site.loc, self.support[name]) for name, site in self.sites.items()}

    def to_dataset(self) -> xr.Dataset:
        variables = {}
        for name, site in self.sites.items():
            attrs = {"support": self.support[name]}
            variables[f"{name}.loc"] = xr.Variable(dims(name, site.loc), site.loc.numpy(), attrs)
            for part in ("scale", "rows", "columns"):
                value = getattr(site, part)
                if value is not None:
                    sides = tuple(f"{name}_{part}_{k}" for k in range(value.dim()))
                    variables[f"{name}.{part}"] = xr.Variable(sides, value.numpy())
        return xr.Dataset(variables, attrs=order_attrs(self.shapes))

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset) -> Self:
        sites, support = {}, {}
        for name in read_order(dataset):
            parts = {
                part: tensor(dataset[f"{name}.{part}"]) if f"{name}.{part}" in dataset else None
                for part in ("rows", "columns")
            }
            sites[name] = Matrix(tensor(dataset[f"{name}.loc"]), tensor(dataset[f"{name}.scale"]), **parts)
            support[name] = known_support(dataset[f"{name}.loc"].attrs["support"])
        return cls(sites, support)


def _own(site: Matrix) -> Matrix:
    kept = cpu({part: value for part, value in vars(site).items() if value is not None})
    return Matrix(kept["loc"], kept["scale"], kept.get("rows"), kept.get("columns"))

"""One normal over all sites, its covariance a diagonal plus a matrix of low rank."""

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
import xarray as xr
from torch import Tensor

from bayesdf.inference.samplers.sampler import Sampler, generator, layout_attrs, read_layout, tensor, unpack


class LowRankSampler(Sampler):
    """One normal over all sites, flattened: ``z = loc + sqrt(diagonal) ε + factor η``."""

    kind: ClassVar[str] = "lowrank"

    def __init__(
        self,
        loc: Tensor,
        factor: Tensor,
        diagonal: Tensor,
        shapes: Mapping[str, tuple[int, ...]],
        support: Mapping[str, str],
    ) -> None:
        self.loc, self.factor, self.diagonal = (value.detach().cpu() for value in (loc, factor, diagonal))
        self.shapes, self.support = {name: tuple(shape) for name, shape in shapes.items()}, dict(support)

    def draw(self, index: int, seed: int) -> dict[str, Tensor]:
        noise = generator(index, seed)
        common = self.factor @ torch.randn(self.factor.shape[1], generator=noise)
        own = self.diagonal.sqrt() * torch.randn(self.loc.shape, generator=noise)
        return unpack(self.loc + common + own, self.shapes, self.support)

    def point(self) -> dict[str, Tensor]:
        return unpack(self.loc, self.shapes, self.support)

    def to_dataset(self) -> xr.Dataset:
        variables = {
            "loc": ("latent", self.loc.numpy()),
            "diagonal": ("latent", self.diagonal.numpy()),
            "factor": (("latent", "rank"), self.factor.numpy()),
        }
        return xr.Dataset(variables, attrs=layout_attrs(self.shapes, self.support))

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset) -> Self:
        loc, factor, diagonal = (tensor(dataset[name]) for name in ("loc", "factor", "diagonal"))
        return cls(loc, factor, diagonal, *read_layout(dataset))

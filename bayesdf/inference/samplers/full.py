"""One normal over all sites with any covariance."""

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
import xarray as xr
from torch import Tensor

from bayesdf.inference.samplers.sampler import Sampler, generator, layout_attrs, read_layout, tensor, unpack


class FullSampler(Sampler):
    """One normal over all sites, flattened: ``z = loc + factor ε``, its covariance ``factor factorᵀ``."""

    kind: ClassVar[str] = "full"

    def __init__(
        self, loc: Tensor, factor: Tensor, shapes: Mapping[str, tuple[int, ...]], support: Mapping[str, str]
    ) -> None:
        self.loc, self.factor = loc.detach().cpu().float(), factor.detach().cpu().float().contiguous()
        self.shapes, self.support = {name: tuple(shape) for name, shape in shapes.items()}, dict(support)

    def draw(self, index: int, seed: int) -> dict[str, Tensor]:
        return self.draw_from_noise({"z": torch.randn(self.loc.shape, generator=generator(index, seed))})

    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the standard normal numbers that a draw is made of."""
        return {"z": tuple(self.loc.shape)}

    def draw_from_noise(self, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The draw that is made of these."""
        return unpack(self.loc + self.factor @ noise["z"], self.shapes, self.support)

    def point(self) -> dict[str, Tensor]:
        return unpack(self.loc, self.shapes, self.support)

    def to_dataset(self) -> xr.Dataset:
        variables = {"loc": ("latent", self.loc.numpy()), "factor": (("latent", "noise"), self.factor.numpy())}
        return xr.Dataset(variables, attrs=layout_attrs(self.shapes, self.support))

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset) -> Self:
        return cls(tensor(dataset["loc"]), tensor(dataset["factor"]), *read_layout(dataset))

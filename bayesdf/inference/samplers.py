"""What a posterior keeps of a method: the numbers from which its draws are made again.

A sampler turns ``(index, seed)`` into the values of all sites; draw 7 of seed 0 is the same wherever and whenever it
is made, and whatever else is drawn. To disk and back goes an `xr.Dataset` of plain arrays (group ``variational``).
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from torch.distributions import biject_to, constraints

from bayesdf.errors import BayesdfError

CONSTRAINTS: dict[str, constraints.Constraint] = {
    "real": constraints.real,
    "positive": constraints.positive,
    "unit_interval": constraints.unit_interval,
}


class Sampler(Protocol):
    """What every method leaves behind."""

    kind: ClassVar[str]
    shapes: dict[str, tuple[int, ...]]
    """Site name to shape of one value."""
    capacity: int | None
    """The most draws there are; None: any number."""

    def draw(self, index: int, seed: int) -> dict[str, Tensor]:
        """The values of all sites in one draw, on the CPU."""

    def point(self) -> dict[str, Tensor]:
        """One value of every site that stands for them all: the network's point estimate."""

    def install(self, network: nn.Module) -> None:
        """Give the network the modules that the sites belong to, where it lacks them."""

    def to_dataset(self) -> xr.Dataset: ...

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset) -> "Sampler": ...


class NormalSampler:
    """Independent normals in unconstrained space, ``z = loc + scale ε``, ``value = transform(z)``."""

    kind: ClassVar[str] = "normal"
    capacity: int | None = None

    def __init__(self, loc: Mapping[str, Tensor], scale: Mapping[str, Tensor], support: Mapping[str, str]) -> None:
        self.loc, self.scale, self.support = _cpu(loc), _cpu(scale), dict(support)
        self.shapes = {name: tuple(value.shape) for name, value in self.loc.items()}

    def draw(self, index: int, seed: int) -> dict[str, Tensor]:
        noise = generator(index, seed)
        return {
            name: constrain(torch.addcmul(loc, self.scale[name], torch.randn(loc.shape, generator=noise)), support)
            for (name, loc), support in zip(self.loc.items(), self.support.values(), strict=True)
        }

    def point(self) -> dict[str, Tensor]:
        return {name: constrain(loc, self.support[name]) for name, loc in self.loc.items()}

    def install(self, network: nn.Module) -> None:
        pass

    def to_dataset(self) -> xr.Dataset:
        variables = {}
        for name, loc in self.loc.items():
            attrs = {"support": self.support[name]}
            variables[f"{name}.loc"] = xr.Variable(dims(name, loc), loc.numpy(), attrs)
            variables[f"{name}.scale"] = xr.Variable(dims(name, loc), self.scale[name].numpy(), attrs)
        return xr.Dataset(variables, attrs=order(self.shapes))

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset) -> "NormalSampler":
        sites = ordered(dataset)
        loc = {name: tensor(dataset[f"{name}.loc"]) for name in sites}
        scale = {name: tensor(dataset[f"{name}.scale"]) for name in sites}
        support = {name: known_support(dataset[f"{name}.loc"].attrs["support"]) for name in sites}
        return cls(loc, scale, support)


class LowRankSampler:
    """One normal over all sites, flattened: ``z = loc + sqrt(diagonal) ε + factor η``."""

    kind: ClassVar[str] = "lowrank"
    capacity: int | None = None

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
        return self._unpack(self.loc + common + own)

    def point(self) -> dict[str, Tensor]:
        return self._unpack(self.loc)

    def _unpack(self, flat: Tensor) -> dict[str, Tensor]:
        pieces = flat.split([int(np.prod(shape)) for shape in self.shapes.values()])
        return {
            name: constrain(piece.view(shape), self.support[name])
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }

    def install(self, network: nn.Module) -> None:
        pass

    def to_dataset(self) -> xr.Dataset:
        return xr.Dataset(
            {
                "loc": ("latent", self.loc.numpy()),
                "diagonal": ("latent", self.diagonal.numpy()),
                "factor": (("latent", "rank"), self.factor.numpy()),
            },
            attrs={"shapes": json.dumps(self.shapes), "support": json.dumps(self.support)},
        )

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset) -> "LowRankSampler":
        support = {name: known_support(value) for name, value in json.loads(dataset.attrs["support"]).items()}
        loc, factor, diagonal = (tensor(dataset[name]) for name in ("loc", "factor", "diagonal"))
        return cls(loc, factor, diagonal, json.loads(dataset.attrs["shapes"]), support)


class DeltaSampler:
    """The same value in every draw."""

    kind: ClassVar[str] = "delta"
    capacity: int | None = None

    def __init__(self, value: Mapping[str, Tensor]) -> None:
        self.value = _cpu(value)
        self.shapes = {name: tuple(value.shape) for name, value in self.value.items()}

    def draw(self, index: int, seed: int) -> dict[str, Tensor]:
        return dict(self.value)

    def point(self) -> dict[str, Tensor]:
        return dict(self.value)

    def install(self, network: nn.Module) -> None:
        pass

    def to_dataset(self) -> xr.Dataset:
        variables = {name: (dims(name, value), value.numpy()) for name, value in self.value.items()}
        return xr.Dataset(variables, attrs=order(self.shapes))

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset) -> "DeltaSampler":
        return cls({name: tensor(dataset[name]) for name in ordered(dataset)})


class StoredSampler:
    """Draws made once and kept, given out in an order that depends on the seed; values (stored draw, *site)."""

    kind: ClassVar[str] = "stored"

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        self.values = _cpu(values)
        self.shapes = {name: tuple(value.shape[1:]) for name, value in self.values.items()}
        self.capacity: int | None = min((len(value) for value in self.values.values()), default=None)

    def draw(self, index: int, seed: int) -> dict[str, Tensor]:
        order = torch.randperm(self.capacity or 1, generator=generator(0, seed))
        return {name: value[order[index]] for name, value in self.values.items()}

    def point(self) -> dict[str, Tensor]:
        return {name: value.mean(0) for name, value in self.values.items()}

    def install(self, network: nn.Module) -> None:
        pass

    def to_dataset(self) -> xr.Dataset:
        variables = {
            name: (("stored_draw", *dims(name, value[0])), value.numpy()) for name, value in self.values.items()
        }
        return xr.Dataset(variables, attrs=order(self.shapes))

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset) -> "StoredSampler":
        return cls({name: tensor(dataset[name]) for name in ordered(dataset)})


def generator(index: int, seed: int) -> torch.Generator:
    """The random numbers of one draw: independent between indices and between seeds."""
    state = np.random.SeedSequence((seed, index)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & 0x7FFF_FFFF_FFFF_FFFF)


def constrain(value: Tensor, support: str) -> Tensor:
    """From unconstrained space to the support of that name."""
    return value if support == "real" else biject_to(CONSTRAINTS[support])(value)


def support_name(support: Any, site: str) -> str:
    """The name in `CONSTRAINTS` of a distribution's support."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if support is constraints.real:
        return "real"
    lower, upper = getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)
    if lower is not None and bool(torch.as_tensor(lower == 0).all()):
        if upper is None:
            return "positive"
        if bool(torch.as_tensor(upper == 1).all()):
            return "unit_interval"
    raise BayesdfError(
        f"site {site!r} has support {support}, but guides 'normal' and 'lowrank' know reals, positive "
        "numbers and the unit interval: pass a Pyro guide, or transform the site"
    )


def known_support(name: str) -> str:
    if name not in CONSTRAINTS:
        raise BayesdfError(f"the stored posterior names the support {name!r}, which is none of {list(CONSTRAINTS)}")
    return name


def order(sites: Iterable[str]) -> dict[str, str]:
    """The attribute that keeps the order of sites, in which a draw spends its random numbers; stores sort by name."""
    return {"sites": json.dumps(list(sites))}


def ordered(dataset: xr.Dataset) -> list[str]:
    """What `order` kept."""
    return [str(name) for name in json.loads(dataset.attrs["sites"])]


def dims(site: str, value: Tensor) -> tuple[str, ...]:
    """ArviZ's names for the dimensions of a site."""
    return tuple(f"{site}_dim_{k}" for k in range(value.dim()))


def tensor(variable: xr.DataArray) -> Tensor:
    return torch.from_numpy(np.array(variable.values, dtype=np.float32))


def _cpu(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().to("cpu", torch.float32).contiguous().clone() for name, value in values.items()}

"""What every sampler is, and the small things they share."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

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


@biject_to.register(constraints.MixtureSameFamilyConstraint)
def _of_components(constraint: Any) -> Any:
    """The transform of a mixture is that of its components; torch has none, so that no guide of Pyro could hold it."""
    return biject_to(constraint.base_constraint)


class Sampler:
    """What every method leaves behind: the numbers from which its draws are made again."""

    kind: ClassVar[str]
    group: ClassVar[str] = "variational"
    """Of a store, in which `to_dataset` lies."""
    shapes: dict[str, tuple[int, ...]]
    """Site name to shape of one value."""
    capacity: int | None = None
    """The most draws there are in a chain; None: any number."""
    chains: int = 1
    """How many Markov chains the draws are of."""

    def draw(self, index: int, seed: int) -> dict[str, Tensor]:
        """The values of all sites in one draw, on the CPU; the chains take turns: draw `index` is of chain ``index %
        chains``."""
        raise NotImplementedError

    def point(self) -> dict[str, Tensor]:
        """One value of every site that stands for them all: the network's point estimate."""
        raise NotImplementedError

    def install(self, network: nn.Module) -> None:
        """Give the network the modules that the sites belong to, where it lacks them."""

    def to_dataset(self) -> xr.Dataset:
        raise NotImplementedError

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset) -> Self:
        raise NotImplementedError


def generator(index: int, seed: int) -> torch.Generator:
    """The random numbers of one draw: independent between indices and between seeds."""
    state = np.random.SeedSequence((seed, index)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & 0x7FFF_FFFF_FFFF_FFFF)


def constrain(value: Tensor, support: str) -> Tensor:
    """From unconstrained space to the support of that name."""
    return value if support == "real" else biject_to(CONSTRAINTS[support])(value)


def support_name(support: Any, site: str) -> str:
    """The name in `CONSTRAINTS` of a distribution's support."""
    while isinstance(support, constraints.independent | constraints.MixtureSameFamilyConstraint):
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
        f"site {site!r} has support {support}, but methods know reals, positive numbers and the unit interval: pass a "
        "Pyro guide to SVI, or transform the site"
    )


def known_support(name: str) -> str:
    if name not in CONSTRAINTS:
        raise BayesdfError(f"the stored posterior names the support {name!r}, which is none of {list(CONSTRAINTS)}")
    return name


def order_attrs(sites: Iterable[str]) -> dict[str, str]:
    """The attribute that keeps the order of sites, in which a draw spends its random numbers; stores sort by name."""
    return {"sites": json.dumps(list(sites))}


def read_order(dataset: xr.Dataset) -> list[str]:
    """What `order_attrs` kept."""
    return [str(name) for name in json.loads(dataset.attrs["sites"])]


def layout_attrs(shapes: Mapping[str, tuple[int, ...]], support: Mapping[str, str]) -> dict[str, str]:
    """The attributes that keep how sites lie in one flat vector."""
    return {"shapes": json.dumps(dict(shapes)), "support": json.dumps(dict(support))}


def read_layout(dataset: xr.Dataset) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """What `layout_attrs` kept: shapes and supports."""
    shapes = {name: tuple(int(side) for side in shape) for name, shape in json.loads(dataset.attrs["shapes"]).items()}
    return shapes, {name: known_support(value) for name, value in json.loads(dataset.attrs["support"]).items()}


def unpack(flat: Tensor, shapes: Mapping[str, tuple[int, ...]], support: Mapping[str, str]) -> dict[str, Tensor]:
    """The sites that lie, unconstrained, one after another in a flat vector."""
    pieces = flat.split([int(np.prod(shape)) for shape in shapes.values()])
    return {
        name: constrain(piece.view(shape), support[name])
        for (name, shape), piece in zip(shapes.items(), pieces, strict=True)
    }


def dims(site: str, value: Tensor) -> tuple[str, ...]:
    """ArviZ's names for the dimensions of a site."""
    return tuple(f"{site}_dim_{k}" for k in range(value.dim()))


def tensor(variable: xr.DataArray) -> Tensor:
    return torch.from_numpy(np.array(variable.values, dtype=np.float32))


def cpu(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies that belong to the sampler alone, their channels last where they are weights of convolutions."""
    return {name: in_memory_format(value.detach().to("cpu", torch.float32)).clone() for name, value in values.items()}


def in_memory_format(value: Tensor) -> Tensor:
    """As convolutions want their weights in memory."""
    return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value.contiguous()

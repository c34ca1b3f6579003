"""The column `sites` of docs/methods.md says of each method what it does."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from bayesdf.errors import BayesdfError
from bayesdf.inference import MAP, NUTS, SGMCMC, SVI, SWAG, DeepEnsemble, Laplace, MCDropout, laplace, nuts
from bayesdf.inference.guides import full
from bayesdf.inference.settings import Training
from bayesdf.models import Detector, priors

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"
BRIEF = {"epochs": 1, "progress": False}
METHODS: dict[str, Callable[[], Training]] = {
    "`MAP`": lambda: MAP(**BRIEF),
    '`SVI(guide="normal")`': lambda: SVI(guide="normal", **BRIEF),
    '`SVI(guide="matrix")`': lambda: SVI(guide="matrix", **BRIEF),
    '`SVI(guide="lowrank")`': lambda: SVI(guide="lowrank", **BRIEF),
    '`SVI(guide="full")`': lambda: SVI(guide="full", **BRIEF),
    "`SVI(guide=…)`": lambda: SVI(guide=pyro.infer.autoguide.AutoNormal, **BRIEF),
    "`MCDropout`": lambda: MCDropout(layers="1", **BRIEF),
    "`DeepEnsemble`": lambda: DeepEnsemble(members=2, **BRIEF),
    "`SWAG`": lambda: SWAG(collect_epochs=2, snapshots=4, rank=2, batch_size=8, **BRIEF),
    '`Laplace(structure="full")`': lambda: Laplace(structure="full", **BRIEF),
    '`Laplace(structure="kron")`': lambda: Laplace(structure="kron", **BRIEF),
    '`SGMCMC(dynamics="sgld")`, `"sghmc"`': lambda: SGMCMC(
        sampling_epochs=10, cycles=1, chains=1, stored_draws=4, batch_size=8, **BRIEF
    ),
    "`NUTS`": lambda: NUTS(chains=1, warmup=4, samples=4, **BRIEF),
}


def sites() -> dict[str, str]:
    """Method as the table writes it -> its cell `sites`."""
    rows = [line.split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    return {row[0].removeprefix("| "): row[2] for row in rows if len(row) == 4}


def shared_scale(name: str, parameter: Tensor) -> dist.Distribution:
    scale = pyro.sample(f"{name}.scale", dist.HalfNormal(torch.tensor(1.0)))
    return dist.Normal(0.0, scale).expand(parameter.shape).to_event(parameter.dim())


def one_sum(name: str, parameter: Tensor) -> dist.Distribution:
    return dist.Dirichlet(torch.ones_like(parameter))


PRIORS = {
    "normal, last layer": {"3": priors.normal(scale=1.0)},
    "first layer": {"1": priors.normal(scale=1.0)},
    "not normal": {"3": priors.laplace(scale=1.0)},
    "hyperprior": {"3.weight": shared_scale},
}


def fitted(method: Training, chosen: dict) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.Tanh(), nn.Linear(4, 2))
    images = torch.randn(24, 3, 2, 2)
    method.fit(Detector(network, chosen), TensorDataset(images, (images.mean((1, 2, 3)) > 0).long()))  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    with pyro.get_param_store().scope():
        yield


def test_the_table_names_every_method() -> None:
    assert set(sites()) == set(METHODS)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("row", METHODS)
def test_a_method_takes_the_sites_that_the_table_says(row: str) -> None:
    cell = sites()[row]
    for kind, chosen in PRIORS.items():
        taken = kind == "normal, last layer" or not cell.startswith("last layer, normal priors")
        if taken and not (kind == "hyperprior" and "no hyperpriors" in cell):
            fitted(METHODS[row](), chosen)
        else:
            with pytest.raises(BayesdfError):
                fitted(METHODS[row](), chosen)


@pytest.mark.parametrize("row", ["`MAP`", '`SVI(guide="normal")`', "`DeepEnsemble`", "`SWAG`", "`NUTS`"])
def test_a_simplex_is_refused(row: str) -> None:
    with pytest.raises(BayesdfError, match="support Simplex"):
        fitted(METHODS[row](), {"3.bias": one_sum})


def test_the_limits_are_those_of_the_code() -> None:
    found = {row: int(n[0].replace(",", "")) for row, cell in sites().items() if (n := re.findall(r"[\d,]{5,}", cell))}
    assert found == {
        '`SVI(guide="full")`': full.FULL_NUMBERS,
        '`Laplace(structure="full")`': laplace.FULL_NUMBERS,
        "`NUTS`": nuts.NUMBERS,
    }

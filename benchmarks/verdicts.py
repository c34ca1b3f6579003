"""Does a fit know whether it is good? The verdicts of fits that are known to be bad, and of fits with all defaults.

    python benchmarks/verdicts.py

Every method fits logistic regressions and two moons with all its defaults. Such a fit is good if no predictive
probability is further than 0.1 from that of a long run of NUTS. Bad fits are made on purpose: too few steps, rates too
small and too large, labels that would be misread, chains that are stuck or too short, scales that collapse, NaN images.
A fit is flagged if it warns, or raises an error. The output is a line for each fit, and how many of each kind are
flagged.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
import typer
from pyro.infer.autoguide import AutoDelta, AutoIAFNormal
from sklearn.datasets import make_moons
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from bayesdf import (
    MAP,
    NUTS,
    SGMCMC,
    SVI,
    SWAG,
    BayesdfError,
    ConvergenceWarning,
    DeepEnsemble,
    Detector,
    Laplace,
    MCDropout,
)
from bayesdf.inference import Posterior
from bayesdf.models import priors

QUIET: dict[str, Any] = {"progress": False}
FEW: dict[str, Any] = {**QUIET, "epochs": 10, "lr": 1e-3}
TOLERANCE = 0.1


@dataclass(frozen=True)
class Task:
    """A detector whose posterior NUTS can find, and its data."""

    name: str
    detector: Detector
    data: TensorDataset


def regression(images: int, features: int, seed: int, prior: Any = None) -> Task:
    """Logistic regression with standard normal features and weights."""
    noise = torch.Generator().manual_seed(seed)
    pictures = torch.randn(images, features, generator=noise)
    weights = torch.randn(features, generator=noise)
    labels = (torch.rand(images, generator=noise) < torch.sigmoid(pictures @ weights)).long()
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(features, 2))
    data = TensorDataset(pictures[:, :, None, None], labels)
    return Task(f"{images} x {features}, {seed}", Detector(network, {"1": prior or priors.normal(1.0)}), data)


class RandomFeatures(nn.Module):
    """Rectified random projections of points: buffers, which no method trains."""

    def __init__(self, inputs: int, features: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(features, inputs))
        self.register_buffer("bias", torch.randn(features))

    def forward(self, points: Tensor) -> Tensor:
        return F.relu(F.linear(points, self.weight, self.bias)) / self.bias.numel() ** 0.5


def moons(seed: int) -> Task:
    """Two moons, and a prior on the classifier over random features.

    Were the features trained too, without a prior, they would grow without end on classes that can be told apart, and
    no two methods would end at the same features.
    """
    points, labels = make_moons(200, noise=0.1, random_state=seed)
    points = (points - points.mean(0)) / points.std(0)
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), RandomFeatures(2, 32), nn.Linear(32, 2))
    data = TensorDataset(torch.tensor(points, dtype=torch.float32)[:, :, None, None], torch.tensor(labels))
    return Task(f"moons, {seed}", Detector(network, {"2": priors.normal(1.0)}), data)


GOOD: dict[str, Callable[..., Any]] = {
    "MAP": MAP,
    "SVI normal": SVI,
    "SVI matrix": lambda **given: SVI(guide="matrix", **given),
    "SVI lowrank": lambda **given: SVI(guide="lowrank", **given),
    "SVI full": lambda **given: SVI(guide="full", **given),
    "MC dropout": MCDropout,
    "deep ensemble": DeepEnsemble,
    "SWAG": SWAG,
    "Laplace full": Laplace,
    "Laplace kron": lambda **given: Laplace(structure="kron", **given),
    "SGHMC": SGMCMC,
    "NUTS": NUTS,
}


def good() -> Iterator[tuple[str, Task, Any]]:
    """Every method on every task; chains that walk on batches, which take longest, on one."""
    for task in [*(regression(100, 4, seed) for seed in range(3)), regression(1000, 16, 0), moons(0), moons(1)]:
        for name, method in GOOD.items():
            if name != "SGHMC" or task.name.endswith("4, 0"):
                yield name, task, method(**QUIET)


def spike(name: str, parameter: Tensor) -> Any:
    """A scale that all weights share."""
    scale = pyro.sample(f"{name}_scale", dist.HalfCauchy(0.1))
    return dist.Normal(torch.zeros_like(parameter), scale).to_event(parameter.dim())


def relabelled(task: Task, change: Callable[[Tensor], Tensor]) -> Task:
    images, labels = task.data.tensors
    return Task(task.name, task.detector, TensorDataset(images, change(labels)))


class Triples(Dataset[Any]):
    """Items of three parts."""

    def __init__(self, data: TensorDataset) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        return (*self.data[index], index)


def bad() -> Iterator[tuple[str, Task, Any]]:
    """At least thirty fits that are no posterior."""
    task = regression(100, 4, 0)
    names = {
        "SVI": SVI,
        "SVI full": GOOD["SVI full"],
        "SVI lowrank": GOOD["SVI lowrank"],
        "SVI matrix": GOOD["SVI matrix"],
        "SVI flipout": lambda **given: SVI(estimator="flipout", **given),
        "SVI IAF": lambda **given: SVI(guide=AutoIAFNormal, **given),
        "MAP": MAP,
        "MC dropout": MCDropout,
        "concrete dropout": lambda **given: MCDropout(concrete=True, **given),
        "ensemble": DeepEnsemble,
        "SWAG": SWAG,
    }  # fmt: skip  (Laplace climbs to the maximum from wherever the search ends)
    for name, method in names.items():
        yield f"{name}, too few steps", task, method(**FEW)
    yield "MAP, no step", task, MAP(epochs=0, **QUIET)
    yield "Laplace, no step", task, Laplace(epochs=0, **QUIET)
    for name in ("MAP", "SVI", "MC dropout"):
        yield f"{name}, tiny rate", task, names[name](lr=1e-6, **QUIET)
        yield f"{name}, exploding rate", task, names[name](lr=1e4, epochs=100, **QUIET)
    yield "SVI, scales that cannot move", task, SVI(scale_lr=1e-5, **QUIET)
    yield "NUTS, stuck", task, NUTS(warmup=1, samples=20, max_tree_depth=1, **QUIET)
    yield "NUTS, few draws", task, NUTS(chains=2, warmup=20, samples=6, **QUIET)
    yield "NUTS, one short chain", task, NUTS(chains=1, warmup=20, samples=30, **QUIET)
    yield "SGHMC, short", task, SGMCMC(sampling_epochs=20, stored_draws=40, **QUIET)
    yield "SGLD, tiny steps", task, SGMCMC(dynamics="sgld", step_size=1e-3, sampling_epochs=100, **QUIET)
    yield "SGHMC, stuck", task, SGMCMC(friction=1e4, step_size=0.05, sampling_epochs=100, **QUIET)
    hierarchy = regression(60, 40, 0, spike)
    hierarchy.data.tensors[0].mul_(0.01)
    for name, method in {"MAP": MAP, "SWAG": SWAG, "ensemble": DeepEnsemble}.items():
        yield f"{name}, collapsed scale", hierarchy, method(**QUIET)
    yield "SVI AutoDelta, collapsed scale", hierarchy, SVI(guide=AutoDelta, **QUIET)
    yield "MAP, one-hot labels", relabelled(task, lambda labels: F.one_hot(labels)), MAP(**QUIET)
    yield "SVI, soft labels", relabelled(task, lambda labels: labels * 0.8 + 0.1), SVI(**QUIET)
    yield "MAP, labels from 1", relabelled(task, lambda labels: labels + 1), MAP(**QUIET)
    yield "SVI, items of three parts", Task("", task.detector, Triples(task.data)), SVI(**QUIET)  # type: ignore[arg-type]
    broken = regression(100, 4, 0)
    broken.data.tensors[0][3] = float("nan")
    yield "SVI, NaN image", broken, SVI(**QUIET)


def fitted(method: Any, task: Task) -> tuple[Posterior | None, str]:
    """The posterior, if there is one, and what was said; an empty text where nothing was."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            posterior = method.fit(task.detector, task.data)
        except BayesdfError as error:
            return None, f"refused: {error}"
    said = [str(one.message) for one in caught if issubclass(one.category, ConvergenceWarning)]
    return posterior, said[0] if said else ""


def probability(posterior: Posterior, data: TensorDataset) -> np.ndarray:
    logits = posterior.predict(data, draws=min(400, posterior.sampler.capacity or 400))["posterior_predictive/logits"]
    return torch.tensor(logits.values).softmax(-1).mean((0, 1))[:, 1].numpy()


def main(
    only: Annotated[str, typer.Option(help="good, bad or both.")] = "both",
    task_name: Annotated[str, typer.Option("--task", help="Good fits on tasks whose name begins so.")] = "",
) -> None:
    """Fit, and count what is flagged."""
    torch.set_num_threads(1)
    if only in ("bad", "both"):
        flags = []
        for name, task, method in bad():
            said = fitted(method, task)[1]
            flags.append(bool(said))
            print(f"{'flagged' if said else 'MISSED ':8s} {name}: {said[:110]}", flush=True)
        print(f"bad fits: {sum(flags)} of {len(flags)} flagged")
    if only in ("good", "both"):
        flags, near, truths = [], [], {}
        for name, task, method in good():
            if not task.name.startswith(task_name):
                continue
            if task.name not in truths:
                truths[task.name] = probability(
                    NUTS(seed=1, samples=1000, **QUIET).fit(task.detector, task.data), task.data
                )
            began = time.process_time()
            posterior, said = fitted(method, task)
            seconds = time.process_time() - began
            away = (
                np.inf if posterior is None else float(abs(probability(posterior, task.data) - truths[task.name]).max())
            )
            near.append(away <= TOLERANCE)
            flags.append(bool(said))
            print(
                f"{'FLAGGED' if said else 'ok':8s} {away:.3f} {seconds:5.1f} s  {name} ({task.name}) {said[:110]}",
                flush=True,
            )
        print(f"fits with all defaults: {sum(near)} of {len(near)} within {TOLERANCE} of NUTS; {sum(flags)} flagged")


if __name__ == "__main__":
    typer.run(main)

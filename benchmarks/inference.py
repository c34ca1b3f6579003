"""How much do posterior draws, and learning a posterior, cost beside the network itself?

    python benchmarks/inference.py

on the CPU, and on the GPU if there is one. Every figure is a ratio of two times, which are measured in turns within
this run. Each is the best of several. The unit is one deterministic forward pass over the same images (prediction), or
one deterministic step of the same batch (training). `limit` is the least that this algorithm can take: the prefix once
and the suffix once a draw. Peers are the libraries of the extra `peers`. Those not installed are left out.
"""

import copy
import itertools
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import peers
import pyro
import torch
import torch.nn.functional as F
import typer
import xarray as xr
from pyro.infer import TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal
from rich.progress import track
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from bayesdf.cli import console, run_cli
from bayesdf.inference import SVI, MCDropout, Posterior
from bayesdf.inference.batches import batches
from bayesdf.inference.prediction.predictor import to_device
from bayesdf.inference.samplers import NormalSampler
from bayesdf.inference.svi import _Objective
from bayesdf.inference.training.feature_cache import TrainingBatches
from bayesdf.inference.training.problem import prepare, set_modes
from bayesdf.inference.training.seeds import seeded
from bayesdf.models import Detector, build, classifier, priors

PARTS = ("last layer", "last block", "full")
LAST_BLOCK = {"resnet18": "layer4.1", "efficientnet": "blocks.6"}
SHARING = {"laplace-torch"}
"""Of the peers, those that do not run the whole network once a draw."""
Calls = dict[str, Callable[[], Any]]
STEPS = 10
"""Training steps are short. They run this many times as often as the rest."""
LONG = 5.0
"""Seconds beyond which a call needs no second run."""


def devices() -> list[torch.device]:
    """The CPU, and the GPU where there is one."""
    return [torch.device(name) for name in ("cpu", "cuda") if name == "cpu" or torch.cuda.is_available()]


def seconds(calls: Calls, repeats: int) -> dict[str, float]:
    """The best of several runs of each, taken in turns; the first counts only where it took so long that no second
    follows."""
    best: dict[str, float] = {}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            if best.get(name, 0.0) > LONG:
                continue
            _wait()
            begun = time.perf_counter()
            call()
            _wait()
            taken = time.perf_counter() - begun
            best[name] = taken if turn < 2 else min(best[name], taken)
    return best


def _wait() -> None:
    """Until a GPU has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def random_layers(network: nn.Module, name: str, part: str) -> list[str]:
    """The convolutions and linear layers whose weights are random."""
    head = classifier(network)
    layers = [path for path, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    if part == "last layer":
        return [head]
    if part == "last block":
        return [path for path in layers if path.startswith(f"{LAST_BLOCK[name]}.")] + [head]
    return layers


def posterior_over(network: nn.Module, layers: list[str]) -> Posterior:
    parameters = dict(network.named_parameters())
    loc = {f"{path}.weight": parameters[f"{path}.weight"].cpu() for path in layers}
    scale = {site: torch.full_like(value, 0.01) for site, value in loc.items()}
    return Posterior(network, NormalSampler(loc, scale, dict.fromkeys(loc, "real")), xr.Dataset(), {})


def images_of(count: int, size: int) -> TensorDataset:
    noise = torch.Generator().manual_seed(0)
    return TensorDataset(torch.rand(count, 3, size, size, generator=noise), torch.arange(count) % 2)


def predict_rows(
    name: str, size: int, part: str, draws: list[int], images: int, repeats: int, budget: float, where: torch.device
) -> list[dict[str, Any]]:
    """A row for each number of draws; what would take longer than `budget` seconds a run is left out."""
    torch.manual_seed(0)
    network = to_device(build(name, 2), where).eval()
    layers = random_layers(network, name, part)
    posterior, data = posterior_over(network, layers), images_of(images, size)
    pixels = data.tensors[0].to(where, memory_format=torch.channels_last)
    predictor = posterior.predictor(where.type)
    with torch.no_grad():
        parts = predictor.parts(pixels)
        features = parts.prefix(pixels)

    def deterministic() -> None:
        with torch.no_grad():
            for batch, _ in batches(data, images, where):
                network(batch)

    def prefix() -> None:
        with torch.no_grad():
            parts.prefix(pixels)

    def suffix() -> None:
        with torch.no_grad():
            parts.suffix(*features)

    rows = []
    whole = seconds({"network": deterministic}, 1)["network"]
    for count in draws:
        if count * seconds({"suffix": suffix}, 1)["suffix"] > budget:
            continue
        calls: Calls = {
            "deterministic": deterministic,
            "prefix": prefix,
            "suffix": suffix,
            "bayesdf": lambda count=count: posterior.predict(data, draws=count, batch_size=images, device=where.type),
        }
        for peer, predict in _peers(network, layers, part, pixels).items():
            if peer not in SHARING and count * whole > budget:
                continue
            calls[peer] = lambda predict=predict, count=count: _without_gradients(predict, pixels, count)
        if part == "last layer":
            dropout = MCDropout(rate=peers.DROPOUT, layers=_before(network), epochs=0, progress=False, device="cpu")
            masks = dropout.fit(Detector(to_device(copy.deepcopy(network), torch.device("cpu")), {}), data)
            calls["bayesdf, MC dropout"] = lambda masks=masks, count=count: masks.predict(
                data, draws=count, batch_size=images, device=where.type
            )
        found = seconds(calls, repeats)
        one = found["deterministic"]
        limit = found.pop("prefix") + count * found.pop("suffix")
        ratios = {label: value / one for label, value in found.items() if label != "deterministic"}
        row = {
            "device": where.type,
            "network": name,
            "pixels": size,
            "images": images,
            "random": part,
            "draws": count,
            "limit": limit / one,
            "naive": count,
        }
        rows.append({**row, **ratios, "bayesdf / limit": found["bayesdf"] / limit})
    return rows


def _before(network: nn.Module) -> str:
    """The module before the classifier, behind which dropout comes."""
    paths = [path for path, module in network.named_modules() if path and not list(module.children())]
    return paths[paths.index(classifier(network)) - 1]


def _peers(network: nn.Module, layers: list[str], part: str, pixels: Tensor) -> dict[str, peers.Predict]:
    found = {"bayesian-torch": peers.bayesian_torch_predict(network, layers)}
    if part == "last layer":
        found["laplace-torch"] = peers.laplace_torch_predict(network, pixels[:32])
        head = classifier(network)
        found["torch-uncertainty, loop"] = peers.torch_uncertainty_predict(network, head, on_batch=False)
    return {name: predict for name, predict in found.items() if predict is not None}


def _without_gradients(predict: peers.Predict, pixels: Tensor, count: int) -> None:
    with torch.no_grad():
        predict(pixels, count)


def training_rows(repeats: int, where: torch.device, batch: int = 32, size: int = 64) -> list[dict[str, Any]]:
    """A step over all weights of a ResNet18 with batch normalisation in training mode, Adam included."""
    torch.manual_seed(0)
    network = to_device(build("resnet18", 2), where)
    data = images_of(batch, size)
    pixels, labels = data.tensors[0].to(where, memory_format=torch.channels_last), data.tensors[1].to(where)
    layers = random_layers(network, "resnet18", "full")
    scales = {f"{path}.weight": priors.normal(0.05) for path in layers}

    def step(module: nn.Module, loss: Callable[[], Tensor], groups: list[Any]) -> Callable[[], None]:
        optimiser = torch.optim.Adam(groups, lr=1e-4, fused=True)

        def run() -> None:
            module.train()
            optimiser.zero_grad(set_to_none=True)
            value = loss()
            value.backward()
            optimiser.step()

        return run

    def ours(estimator: str) -> Callable[[], None]:
        settings = SVI(epochs=1, batch_size=batch, estimator=estimator, progress=False, device=where.type)
        detector = Detector(network, scales)
        problem = prepare(detector, settings, data, None)
        with seeded(0, where):
            objective = _Objective(detector, problem, settings)
            store = pyro.get_param_store().get_state()
            run = step(
                problem.network,
                lambda: objective.loss(problem.network, (pixels,), labels),
                [group for group in objective.groups() if group["params"]],
            )

        def again() -> None:
            with pyro.get_param_store().scope(store):
                run()

        return again

    def plain_pyro() -> Callable[[], None]:
        detector = Detector(network, scales)
        module = to_device(build("resnet18", 2), where)

        def model(images: Tensor, labels: Tensor) -> Tensor:
            return detector.model(images, labels, network=module)

        with pyro.get_param_store().scope() as store, pyro.validation_enabled(False):
            guide = AutoNormal(model)
            guide(pixels, labels)
            elbo = TraceMeanField_ELBO()
            groups = [*guide.parameters(), *(p for n, p in module.named_parameters() if n not in scales)]
            run = step(module, lambda: elbo.differentiable_loss(model, guide, pixels, labels), groups)

        def again() -> None:
            with pyro.get_param_store().scope(store), pyro.validation_enabled(False):
                run()

        return again

    deterministic = to_device(build("resnet18", 2), where)
    calls: Calls = {
        "deterministic": step(
            deterministic, lambda: F.cross_entropy(deterministic(pixels), labels), list(deterministic.parameters())
        ),
        "bayesdf": ours("plain"),
        "bayesdf, local": ours("local"),
        "bayesdf, flipout": ours("flipout"),
        "plain Pyro": plain_pyro(),
    }
    for kind in ("Reparameterization", "Flipout"):
        bayesian = peers.bayesian_torch(network, layers, kind)
        if bayesian is not None:
            loss = peers.bayesian_torch_loss(bayesian, kind, batch)
            calls[f"bayesian-torch, {kind.lower()}"] = step(
                bayesian,
                lambda loss=loss, bayesian=bayesian: loss(bayesian, pixels, labels),
                list(bayesian.parameters()),
            )
    found = seconds(calls, repeats)
    one = found.pop("deterministic")
    return [
        {"device": where.type, "step of": name, "deterministic steps": value / one} for name, value in found.items()
    ]


def epoch_row(repeats: int, where: torch.device, images: int = 512, size: int = 64) -> dict[str, Any]:
    """An epoch over the last layer's posterior with the prefix frozen and its features kept, beside training it all."""
    torch.manual_seed(0)
    network, data = to_device(build("resnet18", 2), where), images_of(images, size)
    settings = SVI(epochs=1, freeze="prefix", progress=False, device=where.type)
    detector = Detector(network, {classifier(network): priors.normal(0.1)})
    problem = prepare(detector, settings, data, None)
    begun = time.perf_counter()
    feed = TrainingBatches(problem, 1)
    features = time.perf_counter() - begun
    full = to_device(build("resnet18", 2), where).train()
    optimiser = torch.optim.Adam(full.parameters(), lr=1e-4, fused=True)

    def whole() -> None:
        for pixels, labels in batches(data, 32, where):
            optimiser.zero_grad(set_to_none=True)
            F.cross_entropy(full(pixels), labels).backward()
            optimiser.step()

    with seeded(0, where):
        objective = _Objective(detector, problem, settings)
        own = torch.optim.Adam([group for group in objective.groups() if group["params"]], lr=1e-4, fused=True)
        set_modes(problem, training=True)

        def kept() -> None:
            for inputs, labels in feed:
                own.zero_grad(set_to_none=True)
                objective.loss(problem.module, inputs, labels).backward()
                own.step()

        found = seconds({"whole": whole, "kept": kept}, repeats)
    return {
        "device": where.type,
        "epochs of the kept prefix in one of the whole network": found["whole"] / found["kept"],
        "epochs of the whole network in making the features": features / found["whole"],
    }


def memory_rows(images: int, size: int = 64) -> list[dict[str, Any]]:
    """The most memory that a process held on the CPU, each in a process of its own, in MB."""
    found = []
    for part, draws in (("none", 0), ("last layer", 50), ("last layer", 5000), ("full", 10)):
        command = [sys.executable, __file__, "--memory-of", f"{part}:{draws}:{images}:{size}"]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found.append({"random": part, "draws": draws, "peak MB": float(output.split()[-1])})
    for row in found[1:]:
        row["of one deterministic forward's peak"] = row["peak MB"] / found[0]["peak MB"]
    return found


def _memory_of(part: str, draws: int, images: int, size: int) -> None:
    torch.manual_seed(0)
    cpu = torch.device("cpu")
    network, data = to_device(build("resnet18", 2), cpu).eval(), images_of(images, size)
    if draws == 0:
        with torch.no_grad():
            for pixels, _ in batches(data, 128, cpu):
                network(pixels)
    else:
        posterior_over(network, random_layers(network, "resnet18", part)).predict(data, draws=draws, device="cpu")
    # Of this process since it began: getrusage also counts that of the parent it was forked from.
    (peak,) = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
    print(int(peak) / 1024)


def machine() -> str:
    """What the figures were measured on."""
    models = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    threads, vector = torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    gpus = [torch.cuda.get_device_name(where) for where in devices() if where.type == "cuda"]
    return ", ".join([models[0] if models else platform.machine(), f"{threads} threads", vector, *gpus, versions])


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []


def main(
    networks: Annotated[
        str, typer.Option(help="Of the prediction rows, separated by commas.")
    ] = "resnet18,efficientnet",
    sizes: Annotated[str, typer.Option(help="Sides of the images in pixels.")] = "64,224",
    draws: Annotated[str, typer.Option(help="Numbers of draws.")] = "1,10,50,200",
    images: Annotated[str, typer.Option(help="Numbers of images at 64 pixels; as many pixels elsewhere.")] = "256,1024",
    repeats: Annotated[int, typer.Option(help="Runs of each, of which the best counts.")] = 3,
    budget: Annotated[float, typer.Option(help="Seconds; what takes longer is left out.")] = 30.0,
    out: Annotated[Path | None, typer.Option(help="Folder for the tables as CSV.")] = None,
    memory_of: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Print the tables."""
    if memory_of:
        part, count, number, side = memory_of.split(":")
        _memory_of(part, int(count), int(number), int(side))
        return
    counts = [int(value) for value in draws.split(",")]
    sides = [int(size) for size in sizes.split(",")]
    numbers = [int(value) for value in images.split(",")]
    jobs = list(itertools.product(devices(), networks.split(","), sides, PARTS, numbers))
    rows: list[dict[str, Any]] = []
    for where, name, size, part, most in track(jobs, "prediction", transient=True):
        number = max(8, round(most * (64 / size) ** 2))
        rows += predict_rows(name, size, part, counts, number, repeats, budget, where)
    tables = {
        "prediction": pd.DataFrame(rows),
        "training": pd.DataFrame([row for where in devices() for row in training_rows(STEPS * repeats, where)]),
        "epoch": pd.DataFrame([epoch_row(repeats, where) for where in devices()]),
        "memory": pd.DataFrame(memory_rows(max(numbers))),
    }
    console.print(machine(), markup=False, highlight=False)
    for name, table in tables.items():
        console.print(f"\n{name}", highlight=False)
        print(table.to_string(index=False, float_format="%.3g", na_rep=""))
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            table.to_csv(out / f"{name}.csv", index=False)


if __name__ == "__main__":
    run_cli(main)

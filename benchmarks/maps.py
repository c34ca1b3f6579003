"""How much do maps of uncertainty cost beside one map, or one forward pass, of the network itself?

    python benchmarks/maps.py

on the CPU, and on the GPU if there is one. Every figure is a ratio of two times that are measured in turns within this
run: the median over the turns of the ratio of each turn. On the CPU it is processor time of all threads, so that other
programs disturb it less.

`saliency` is one deterministic map of the same network: the gradient of the largest logit in the pixels, forward and
backward, as `captum.attr.Saliency` takes it. Gradients in weights are not computed. `forward` is one deterministic
forward pass. `gradient` and `evidence` are all three uncertainties with all draws of a posterior over the last layer,
by `uncertainty_maps`. If captum is installed, `captum loop` is what users would write without this package: a function
that runs the network once a draw and returns the uncertainty, and `Saliency` of it for each of the three, on 8 images.
"""

import statistics
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import peers
import torch
import typer
from inference import Calls, devices, images_of, machine, posterior_over
from rich.progress import track
from torch import Tensor, nn
from torch.func import functional_call

from bayesdf.cli import console, run_cli
from bayesdf.errors import BayesdfError
from bayesdf.inference import Posterior, uncertainty_maps
from bayesdf.inference.prediction.predictor import to_device
from bayesdf.models import build, classifier

QUANTITIES = ("total", "aleatoric", "epistemic")
BATCH = 64
"""Images at once, in all calls but the captum loop."""
FEW = 8
"""Images of the captum loop: the graphs of all draws are in memory at once."""


def turns(calls: Calls, repeats: int, where: torch.device) -> dict[str, list[float]]:
    """Seconds of each call in each turn, after a first turn that does not count."""
    clock = time.perf_counter if where.type == "cuda" else time.process_time
    found: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            begun = clock()
            call()
            if where.type == "cuda":
                torch.cuda.synchronize()
            if turn:
                found[name].append(clock() - begun)
    return found


def ratio(found: dict[str, list[float]], name: str, unit: str) -> float:
    """The median over turns of a call's time over that of the unit in the same turn."""
    return statistics.median(one / other for one, other in zip(found[name], found[unit], strict=True))


def saliency(network: nn.Module, images: Tensor) -> Tensor:
    """(B, H, W): the sum over channels of the absolute gradient of each image's largest logit."""
    pixels = images.detach().requires_grad_()
    (found,) = torch.autograd.grad(network(pixels).amax(1).sum(), pixels)
    return found.abs().sum(1)


def captum_loop(network: nn.Module, posterior: Posterior, images: Tensor, draws: int) -> dict[str, Tensor]:
    """Maps (B, H, W) of the three uncertainties by captum, each of a function of all draws."""
    library = peers.installed("captum.attr")
    assert library is not None
    values = [posterior.predictor(images.device.type).values(index, 0) for index in range(draws)]

    def uncertainty(name: str) -> Any:
        def forward(pixels: Tensor) -> Tensor:
            p = torch.stack([functional_call(network, value, (pixels,)).softmax(-1) for value in values])
            total, aleatoric = torch.special.entr(p.mean(0)).sum(-1), torch.special.entr(p).sum(-1).mean(0)
            return {"total": total, "aleatoric": aleatoric, "epistemic": total - aleatoric}[name]

        return forward

    return {name: library.Saliency(uncertainty(name)).attribute(images).abs().sum(1) for name in QUANTITIES}


def row(
    name: str, size: int, images: int, draws: int, repeats: int, where: torch.device, batch: int = BATCH
) -> dict[str, Any]:
    """The ratios of one network."""
    torch.manual_seed(0)
    network = to_device(build(name, 2), where).eval()
    posterior, data = posterior_over(network, [classifier(network)]), images_of(images, size)
    pixels = data.tensors[0].to(where, memory_format=torch.channels_last)

    def ours(method: str) -> Any:
        settings = {"quantities": QUANTITIES, "batch_size": batch, "device": where.type}
        return lambda: uncertainty_maps(posterior, data, method, draws, **settings)

    def forward() -> None:
        with torch.no_grad():
            for part in pixels.split(batch):
                network(part)

    network.to(where)  # posteriors keep theirs on the CPU
    calls: Calls = {
        "saliency": lambda: [saliency(network, part) for part in pixels.split(batch)],
        "forward": forward,
        "gradient": ours("gradient"),
    }
    with suppress(BayesdfError):  # MobileNet has a layer between pooling and classifier
        ours("evidence")()
        calls["evidence"] = ours("evidence")
    library = peers.installed("captum.attr")
    if library is not None:
        calls["captum, one map"] = lambda: [
            library.Saliency(network).attribute(part, target=0) for part in pixels.split(batch)
        ]
    found = turns(calls, repeats, where)
    figures = {
        "device": where.type,
        "network": name,
        "pixels": size,
        "images": images,
        "draws": draws,
        "gradient / saliency": ratio(found, "gradient", "saliency"),
        "evidence / forward": ratio(found, "evidence", "forward") if "evidence" in found else float("nan"),
    }
    if "captum, one map" in found:
        figures["gradient / captum, one map"] = ratio(found, "gradient", "captum, one map")
        few = pixels[:FEW]
        loop = turns(
            {
                "saliency": lambda: saliency(network, few),
                "captum loop": lambda: captum_loop(network, posterior, few, draws),
            },
            1,
            where,
        )
        figures["captum loop / saliency"] = ratio(loop, "captum loop", "saliency")
    return figures


def main(
    networks: Annotated[
        str, typer.Option(help="Networks, separated by commas.")
    ] = "resnet10t_half,resnet18,efficientnet,mobilenet,xception",
    size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 64,
    images: Annotated[int, typer.Option(help="Images, in batches of 64.")] = 256,
    draws: Annotated[int, typer.Option(help="Draws of the last layer.")] = 50,
    repeats: Annotated[int, typer.Option(help="Turns, of which the median counts.")] = 7,
    out: Annotated[Path | None, typer.Option(help="Folder for the table as CSV.")] = None,
) -> None:
    """Print the table."""
    jobs = [(where, name) for where in devices() for name in networks.split(",")]
    table = pd.DataFrame(
        [row(name, size, images, draws, repeats, where) for where, name in track(jobs, "maps", transient=True)]
    )
    console.print(machine(), markup=False, highlight=False)
    print(table.to_string(index=False, float_format="%.3g", na_rep=""))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        table.to_csv(out / "maps.csv", index=False)


if __name__ == "__main__":
    run_cli(main)

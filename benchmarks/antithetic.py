"""What would antithetic draws gain, and what would they cost?

    OMP_NUM_THREADS=1 python benchmarks/antithetic.py

Of each pair of draws the second would use the noise of the first with the other sign (Hammersley and Morton 1956). Half
of the noise is then never made. The package does not do this (docs/performance.md says why). Two tables:

- `cost`: processor time of a prediction with draws, as it is and with such pairs, in turns within this run. `limit` is
  the prefix once and the suffix once a draw.
- `pairs`: the correlation ρ of a figure between the two draws of a pair, over the fakes of test people. The mean of a
  figure over S such draws is as exact as over S / (1 + ρ) independent draws.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer
import xarray as xr
from inference import images_of, posterior_over, random_layers
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Subset

import bayesdf.data as data
from bayesdf.cli import console, run_cli
from bayesdf.errors import BayesdfError
from bayesdf.experiments import warm_start
from bayesdf.inference import Posterior
from bayesdf.inference.batches import batches
from bayesdf.inference.prediction.predictor import to_device
from bayesdf.inference.samplers import NormalSampler
from bayesdf.inference.samplers.sampler import constrain
from bayesdf.models import Detector, build

CPU = torch.device("cpu")
NETWORK = "resnet18"
CASES = (("last block", 64, 50), ("last block", 256, 20), ("full", 256, 4))
"""(what is random, images of 64 pixels, draws) of the table `cost`."""
NOISE = 0.05
"""Standard deviation of the random weights of the main job's detector; nothing is fitted."""
BLOCK_NOISE = 0.1
"""The same for the last block's convolutions and the classifier, as a share of the root mean square of each."""


class Mirrored(NormalSampler):
    """Draw 2i + 1 is draw 2i mirrored at the centre, before constraints."""

    kept: tuple[tuple[int, int], dict[str, Tensor]] | None = None

    def draw(self, index: int, seed: int) -> dict[str, Tensor]:
        pair = (index // 2, seed)
        if self.kept is None or self.kept[0] != pair:
            plain = NormalSampler(self.loc, self.scale, dict.fromkeys(self.loc, "real"))
            self.kept = (pair, plain.draw(*pair))
        values = self.kept[1]
        if index % 2:
            values, self.kept = {name: self._mirror(name, value) for name, value in values.items()}, None
        return {name: constrain(value, self.support[name]) for name, value in values.items()}

    def _mirror(self, name: str, value: Tensor) -> Tensor:
        loc = self.loc[name]
        return torch.sub(loc, value, out=torch.empty_like(loc)).add_(loc)


def mirrored(posterior: Posterior) -> Posterior:
    sampler = posterior.sampler
    assert isinstance(sampler, NormalSampler)
    other = Mirrored(sampler.loc, sampler.scale, sampler.support)
    return Posterior(posterior.network, other, xr.Dataset(), {})


def processor_seconds(calls: dict[str, Callable[[], Any]], repeats: int) -> pd.DataFrame:
    """A row for each repeat, a column for each call, in turns. A first repeat is not counted."""
    rows = []
    for _ in range(repeats + 1):
        row = {}
        for name, call in calls.items():
            begun = time.process_time()
            call()
            row[name] = time.process_time() - begun
        rows.append(row)
    return pd.DataFrame(rows[1:])


def cost_row(part: str, images: int, draws: int, repeats: int) -> dict[str, Any]:
    """Times of one prediction, and of its parts."""
    torch.manual_seed(0)
    network = to_device(build(NETWORK, 2), CPU).eval()
    posterior, pictures = posterior_over(network, random_layers(network, NETWORK, part)), images_of(images, 64)
    other = mirrored(posterior)
    (pixels,) = [batch for batch, _ in batches(pictures, images, CPU)]
    predictor = posterior.predictor("cpu")
    with torch.no_grad():
        parts = predictor.parts(pixels)
        features = parts.prefix(pixels)
    weights = [torch.empty(value.numel()) for value in posterior.sampler.point().values()]

    def noise() -> None:
        for value in weights:
            value.normal_()

    def quiet(call: Callable[[], Any]) -> Callable[[], Any]:
        return torch.no_grad()(call)

    calls = {
        "prefix": quiet(lambda: parts.prefix(pixels)),
        "suffix": quiet(lambda: parts.suffix(*features)),
        "draw": quiet(lambda: predictor.values(0, 0)),
        "noise": noise,
        "plain": lambda: posterior.predict(pictures, draws=draws, batch_size=images, device="cpu"),
        "mirrored": lambda: other.predict(pictures, draws=draws, batch_size=images, device="cpu"),
    }
    found = processor_seconds(calls, repeats)
    best, ratio = found.min(), found["mirrored"] / found["plain"]
    limit = best["prefix"] + draws * best["suffix"]
    return {
        "random": part,
        "images": images,
        "draws": draws,
        "draws' share": draws * best["draw"] / best["plain"],
        "noise's share": draws * best["noise"] / best["plain"],
        "plain / limit": best["plain"] / limit,
        "mirrored / limit": best["mirrored"] / limit,
        "mirrored / plain": ratio.median(),
        "least": ratio.min(),
        "most": ratio.max(),
    }


def noisy(network: nn.Module, sites: list[str], scale: Callable[[Tensor], Tensor]) -> Posterior:
    """The network with normal noise on the weights of these sites."""
    parameters = dict(network.named_parameters())
    loc = {site: parameters[site].detach() for site in sites}
    sampler = NormalSampler(loc, {site: scale(value) for site, value in loc.items()}, dict.fromkeys(loc, "real"))
    return Posterior(network, sampler, xr.Dataset(), {})


def pair_correlations(logits: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """(image,) the correlation of each figure within the pairs of mirrored draws (draw, image, class)."""
    log_p = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    p, margin = np.exp(log_p), logits[..., 1] - logits[..., 0]
    mean = p.mean(0)
    figures = {
        "margin (mean margin, profile)": margin,
        "probability (mean probability)": p[..., 1],
        "squared deviation of the margin (log_margin_sd)": (margin - margin.mean(0)) ** 2,
        "squared deviation of the probability (epistemic variance)": (p[..., 1] - mean[:, 1]) ** 2,
        "divergence from the mean (epistemic, mutual information)": (p * (log_p - np.log(mean))).sum(-1),
        "entropy of a draw (aleatoric)": -(p * log_p).sum(-1),
    }
    found = {}
    for name, values in figures.items():
        deviation = values - values.mean(0)
        found[name] = (deviation[::2] * deviation[1::2]).mean(0) / (deviation**2).mean(0)
    return found


def pair_rows(detectors: dict[str, tuple[Posterior, int, int]], test: data.ImageDataset, seed: int) -> pd.DataFrame:
    """Rows of the correlations for each detector, with its draws and its fakes; median and quartiles over fakes."""
    rows: list[dict[str, Any]] = []
    fakes = np.flatnonzero(test.manifest["source"] != "real").tolist()
    for name, (posterior, draws, images) in detectors.items():
        some = Subset(test, fakes[:: max(1, len(fakes) // images)])
        tree = mirrored(posterior).predict(some, draws=draws, seed=seed, device="cpu")
        logits = tree["posterior_predictive"].to_dataset()["logits"].values[0].astype(np.float64)
        for figure, rho in pair_correlations(logits).items():
            low, middle, high = np.quantile(rho, (0.25, 0.5, 0.75))
            rows.append(
                {
                    "random": name,
                    "figure": figure,
                    "fakes": len(rho),
                    "rho": middle,
                    "quarter": low,
                    "three quarters": high,
                    "independent draws worth 50": 50 / (1 + middle),
                }
            )
    return pd.DataFrame(rows)


def main(
    tables: Annotated[str, typer.Option(help="Separated by commas.")] = "cost,pairs",
    repeats: Annotated[int, typer.Option(help="Of the times.", min=1)] = 3,
    seed: Annotated[int, typer.Option(help="Of the draws of the table `pairs`.", min=0)] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the tables as CSV.")] = None,
) -> None:
    """Print the tables."""
    asked = [name.strip() for name in tables.split(",")]
    if not set(asked) <= {"cost", "pairs"}:
        raise BayesdfError(f"tables {tables!r}: give cost, pairs or both")
    found: dict[str, pd.DataFrame] = {}
    if "cost" in asked:
        found["cost"] = pd.DataFrame([cost_row(*case, repeats) for case in CASES])
    if "pairs" in asked:
        collection = data.load("embedded", "binary")
        network = warm_start.start(NETWORK, collection)
        sites = list(Detector(network, warm_start.default_priors(NETWORK, network)).sites)
        posterior = noisy(network, sites, lambda value: torch.full_like(value, NOISE))
        weights = [f"{path}.weight" for path in random_layers(network, NETWORK, "last block")]
        block = noisy(network, weights, lambda v: torch.full_like(v, BLOCK_NOISE * float(v.square().mean()) ** 0.5))
        detectors = {"as in the main job": (posterior, 400, 900), "last block": (block, 100, 225)}
        found["pairs"] = pair_rows(detectors, collection.test, seed)
    for name, table in found.items():
        console.print(f"\n{name}", highlight=False)
        print(table.to_string(index=False, float_format="%.3g"), flush=True)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            table.to_csv(out / f"{name}.csv", index=False)


if __name__ == "__main__":
    run_cli(main)

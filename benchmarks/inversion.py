"""How many runs of a generator does inversion take, beside Adam from random restarts?

    python benchmarks/inversion.py --images 4

Pictures made by each generator go through the common path and are inverted twice: by `bayesdf.inversion.invert`, from
the encoder's start, and by Adam from random starts, the usual way (Zhang et al. 2020; Karras et al. 2020), on the same
loss. Two questions: how many evaluations (one is a run forward and backward for one picture) until Adam's best restart
is as good as what `invert` found; and how many until the smallest loss names as many sources rightly. Adam is given the
best of its settings: those with which it gets there first.
"""

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import typer
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from bayesdf.cli import console, run_cli
from bayesdf.data import common_path_grey
from bayesdf.errors import BayesdfError
from bayesdf.generators import GENERATORS, Generator
from bayesdf.generators.perceptual import features
from bayesdf.inversion import Inversion, Weights, invert

RESTARTS = (1, 4)
RATES = (0.1, 0.2)
SLACK = 1.05
"""Adam is as good where its loss is at most this times that of `invert`."""


def loss(generator: Generator, latent: Tensor, images: Tensor, weights: Weights) -> Tensor:
    """(B,) what `bayesdf.inversion.invert` minimises."""
    assert generator.decode is not None
    region = torch.ones(64, 64) if generator.region is None else torch.from_numpy(np.asarray(generator.region))
    area = region.pow(2).sum()
    difference = region * (generator.decode(latent) - images)
    edges = features(images + difference) - features(images)
    return (
        weights.pixel * difference.pow(2).sum((1, 2, 3)) / area
        + weights.gradient
        * 0.5
        * (difference.diff(dim=-1).pow(2).sum((1, 2, 3)) + difference.diff(dim=-2).pow(2).sum((1, 2, 3)))
        / area
        + weights.perceptual * edges.pow(2).mean(1) * 64 * 64 / area
        + weights.noise**2 * latent.pow(2).sum(1) / area
    )


def adam(
    images: NDArray[np.float32], generator: Generator, *, restarts: int, rate: float, steps: int, seed: int
) -> NDArray[np.float64]:
    """(steps, N) lowest loss so far over all restarts, after 1, 2, … evaluations of each restart.

    The rate falls to nothing along a cosine, as projections of Karras et al. 2020 do.
    """
    pictures = torch.from_numpy(images)[:, None].repeat_interleave(restarts, 0)
    source = torch.Generator().manual_seed(seed)
    latent = torch.randn(len(pictures), generator.latent_dim, generator=source).requires_grad_(True)
    optimizer = torch.optim.Adam([latent], lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    path = []
    for _ in range(steps):
        value = loss(generator, latent, pictures, Weights())
        optimizer.zero_grad()
        value.sum().backward()
        optimizer.step()
        schedule.step()
        path.append(value.detach().view(len(images), restarts).min(1).values.double().numpy())
    return np.minimum.accumulate(path)


def first(reached: NDArray[np.bool_], restarts: int) -> NDArray[np.float64]:
    """Evaluations after which something holds, from (steps, …) of whether it does; infinite where it never does."""
    return np.where(reached.any(0), (reached.argmax(0) + 1.0) * restarts, np.inf)


def own_pictures(
    generators: dict[str, Generator], images: int, seed: int, encode: bool, steps: int
) -> tuple[dict[str, NDArray[np.float32]], dict[tuple[str, str], Inversion]]:
    """Pictures of each generator as they are stored, and the inversion of all of them by all generators."""
    made = {
        name: common_path_grey(generator.pictures(generator.sample_latent(images, seed)))
        for name, generator in generators.items()
    }
    pictures = np.concatenate(list(made.values()))
    found = {}
    for name, generator in generators.items():
        whole = invert(pictures, generator, steps=steps, seed=seed, amortised=encode)
        for row, source in enumerate(made):
            found[name, source] = whole.take(slice(row * images, (row + 1) * images))
    return made, found


def fewest(chosen: dict[str, Generator], images: int, seed: int, steps: int, right: float) -> float:
    """Evaluations a picture and candidate, shared ones with them, with which `invert` names as many sources rightly."""
    limit = 1
    while True:
        _, found = own_pictures(chosen, images, seed, True, limit)
        losses = np.array([np.concatenate([found[name, source].loss for source in chosen]) for name in chosen])
        truth = np.repeat(np.arange(len(chosen)), images)
        if (losses.argmin(0) == truth).mean() >= right or limit >= steps:
            spent = np.mean([one.evaluations.mean() for one in found.values()])
            return float(spent) + next(iter(found.values())).shared / len(truth)
        limit = min(2 * limit, steps)


def main(
    images: Annotated[int, typer.Option(help="Pictures of each generator, 2 to 200.")] = 4,
    generators: Annotated[str, typer.Option(help="Separated by commas; all that can be inverted by default.")] = "",
    steps: Annotated[int, typer.Option(help="Most evaluations of `invert` for a picture, 2 to 1000.")] = 40,
    adam_steps: Annotated[int, typer.Option(help="Evaluations of each of Adam's restarts, 10 to 10000.")] = 200,
    seed: Annotated[int, typer.Option(help="Of pictures and starts.", min=0, max=2**31)] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the tables; printed alone by default.")] = None,
) -> None:
    """Count evaluations of `invert` from the encoder's start, and of Adam from random restarts, at equal quality."""
    able = [name for name, generator in GENERATORS.items() if generator.invertible]
    names = [name.strip() for name in generators.split(",") if name.strip()] or able
    for name in names:
        if name not in able:
            raise BayesdfError(f"{name!r} is no generator that can be inverted: choose from {', '.join(able)}")
    if not 2 <= images <= 200 or not 2 <= steps <= 1000 or not 10 <= adam_steps <= 10000:
        raise BayesdfError("give 2 to 200 --images, 2 to 1000 --steps and 10 to 10000 --adam-steps")
    chosen = {name: GENERATORS[name] for name in names}
    started = time.monotonic()
    made, found = own_pictures(chosen, images, seed, True, steps)
    pictures = np.concatenate(list(made.values()))
    truth = np.repeat(np.arange(len(names)), images)
    ours = np.array([np.concatenate([found[name, source].loss for source in names]) for name in names])
    spent = np.array([np.concatenate([found[name, source].evaluations for source in names]) for name in names])
    right = float((ours.argmin(0) == truth).mean())
    rows, curves = [], []
    for restarts in RESTARTS:
        for rate in RATES:
            label = f"Adam, {restarts} restarts, rate {rate:g}"
            paths = np.stack(
                [
                    adam(pictures, generator, restarts=restarts, rate=rate, steps=adam_steps, seed=seed + 1)
                    for generator in track(chosen.values(), label, console=console, transient=True)
                ],
                1,
            )
            share = (paths.argmin(1) == truth).mean(1)
            curves.append(
                {"method": label, "evaluations": float(first(share >= right, restarts)), "accuracy": share.max()}
            )
            for number, name in enumerate(names):
                mine = truth == number
                needed = first(paths[:, number, mine] <= SLACK * ours[number, mine], restarts)
                rows.append(
                    {
                        "generator": name,
                        "method": label,
                        "needed": np.median(needed),
                        "reached": np.isfinite(needed).mean(),
                    }
                )
    table = pd.DataFrame(rows)
    best = table.loc[table.groupby("generator", sort=False)["needed"].idxmin()].set_index("generator")
    shared = found[names[0], names[0]].shared / len(pictures)
    best["invert"] = [shared + float(np.median(spent[number, truth == number])) for number in range(len(names))]
    best["fewer"] = best["needed"] / best["invert"]
    accuracy = pd.DataFrame(curves).sort_values("evaluations")
    accuracy["invert"] = fewest(chosen, images, seed, steps, right)
    accuracy["fewer"] = accuracy["evaluations"] / accuracy["invert"]
    console.print(
        f"{images} pictures of each of {', '.join(names)}, after 8 bits and JPEG; {time.monotonic() - started:.0f} s"
    )
    console.print(f"evaluations until Adam's loss is within {SLACK - 1:.0%} of `invert`'s (median; its best setting):")
    console.print(best.to_string(float_format="%.1f"), markup=False, highlight=False)
    console.print(
        f"evaluations a picture and candidate until the smallest loss names {right:.1%} rightly, as `invert` does:"
    )
    console.print(accuracy.to_string(index=False, float_format="%.3g"), markup=False, highlight=False)
    console.print(
        f"inf: not within the evaluations given to it. `invert`: with its share, {shared:.1f} a picture, of the "
        "evaluations that a call makes once for all its pictures."
    )
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        best.to_csv(out / "evaluations.csv")
        accuracy.to_csv(out / "accuracy.csv", index=False)


if __name__ == "__main__":
    run_cli(main)

"""How many runs of a generator does inversion take, beside Adam from random restarts?

    python benchmarks/inversion.py --images 4

Pictures made by each generator go through the common path. `bayesdf.inversion.invert` inverts them from the encoder's
start. An evaluation is a run of the generator, forward and backward, for one picture. There are two opponents:

- `adam`: Adam from random starts on the same loss (Karras et al. 2020). How many evaluations does its best restart take
  until it is as good as what `invert` found? How many until the smallest loss names as many sources rightly? Adam is
  given the best of its settings: those with which it gets there first.
- `published`: the method of Zhang, Zhou, Shumailov and Papernot 2020 as it is (function `published`). The smallest
  error over the candidates wins. How many sources does it name rightly, and with how many evaluations, beside `invert`
  on the same pictures?
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import typer
from numpy.typing import NDArray
from rich.progress import track
from scipy.stats import binomtest
from torch import Tensor

from bayesdf.analysis.intervals import Estimate
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
PUBLISHED_RESTARTS = 3
PUBLISHED_STEPS = 500
OPPONENTS = ("adam", "published")
MEANING = {
    "evaluations": f"evaluations until Adam's loss is within {SLACK - 1:.0%} of `invert`'s: median, Adam's best "
    "setting (inf: not within those given to it)",
    "accuracy": "evaluations a picture and candidate until the smallest loss names as many rightly as `invert` does",
    "published": "evaluations and processor seconds a picture and candidate; after how many of them accuracy was first "
    "what it is at the end; median error of the true source; share named rightly, 95 %; less that of Zhang et al.",
    "by_source": "pictures of each source that are named rightly",
}
Inversions = dict[tuple[str, str], Inversion]
"""(candidate, source) -> the candidate's inversion of the source's pictures."""
LossOf = Callable[[Generator, Tensor, Tensor], Tensor]
"""(generator, latents, pictures) -> (B,) what Adam lowers."""


def weighed(generator: Generator) -> Tensor:
    """(64, 64) weights of the pixels that the generator draws."""
    return torch.ones(64, 64) if generator.region is None else torch.from_numpy(np.asarray(generator.region))


def squared_error(generator: Generator, latent: Tensor, images: Tensor) -> Tensor:
    """(B,) mean squared error of the pixels that the generator draws: the square of `Inversion.pixel`."""
    assert generator.decode is not None
    region = weighed(generator)
    return (region * (generator.decode(latent) - images)).pow(2).sum((1, 2, 3)) / region.pow(2).sum()


def loss(generator: Generator, latent: Tensor, images: Tensor) -> Tensor:
    """(B,) what `bayesdf.inversion.invert` minimises."""
    assert generator.decode is not None
    weights, region = Weights(), weighed(generator)
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
    images: NDArray[np.float32],
    generator: Generator,
    *,
    restarts: int,
    rate: float,
    steps: int,
    seed: int,
    loss_of: LossOf = loss,
    last_rate: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
) -> NDArray[np.float64]:
    """(steps, N) lowest loss so far over all restarts, after 1, 2, … evaluations of each restart.

    The rate falls to `last_rate` along a cosine, as in projections of Karras et al. 2020.
    """
    pictures = torch.from_numpy(images)[:, None].repeat_interleave(restarts, 0)
    source = torch.Generator().manual_seed(seed)
    latent = torch.randn(len(pictures), generator.latent_dim, generator=source).requires_grad_(True)
    optimizer = torch.optim.Adam([latent], lr=rate, betas=betas)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=last_rate)
    path = []
    for _ in range(steps):
        value = loss_of(generator, latent, pictures)
        optimizer.zero_grad()
        value.sum().backward()
        optimizer.step()
        schedule.step()
        path.append(value.detach().view(len(images), restarts).min(1).values.double().numpy())
    return np.minimum.accumulate(path)


def published(images: NDArray[np.float32], generator: Generator, seed: int) -> NDArray[np.float64]:
    """(steps, N) lowest squared error so far: the inversion of Zhang et al. 2020.

    Three random starts, 500 steps of Adam at a rate of 0.1 that does not fall, β₁ = 0, β₂ = 0.99. The error taken here
    is the lowest on the way. It is never above that after the last step.
    """
    return adam(
        images,
        generator,
        restarts=PUBLISHED_RESTARTS,
        rate=0.1,
        last_rate=0.1,
        betas=(0.0, 0.99),
        steps=PUBLISHED_STEPS,
        seed=seed,
        loss_of=squared_error,
    )


def first(reached: NDArray[np.bool_], restarts: int) -> NDArray[np.float64]:
    """Evaluations after which something holds, from (steps, …) of whether it does; infinite where it never does."""
    return np.where(reached.any(0), (reached.argmax(0) + 1.0) * restarts, np.inf)


def own_pictures(
    generators: dict[str, Generator], images: int, seed: int, encode: bool, steps: int
) -> tuple[dict[str, NDArray[np.float32]], Inversions]:
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


def compare_adam(
    chosen: dict[str, Generator], found: Inversions, pictures: NDArray[np.float32], steps: int, most: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Evaluations of Adam and of `invert` until losses are equal, a row a generator; and until accuracy is equal."""
    names = list(chosen)
    images = len(pictures) // len(names)
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
                    adam(pictures, generator, restarts=restarts, rate=rate, steps=most, seed=seed + 1)
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
    accuracy = pd.DataFrame(curves).sort_values("evaluations").set_index("method")
    accuracy["invert"] = fewest(chosen, images, seed, steps, right)
    accuracy["fewer"] = accuracy["evaluations"] / accuracy["invert"]
    return best, accuracy


def paired_difference(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> Estimate:
    """Share of `one` less share of `other`, both (image,) of the same independent images, with a 95 % interval.

    A difference is the share of images for `one` alone less that for `other` alone. Each has the interval of Clopper
    and Pearson at 97.5 %. Their difference holds at 95 % at least, for few images too (Bonferroni).
    """
    gained, lost = (binomtest(int(only.sum()), len(only)).proportion_ci(0.975) for only in (one & ~other, other & ~one))
    value = float(one.mean() - other.mean())
    return Estimate(value, float(gained.low - lost.high), float(gained.high - lost.low))


def compare_published(
    chosen: dict[str, Generator], found: Inversions, pictures: NDArray[np.float32], taken: float, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows for the published method and for `invert`: what they cost, and the share of sources named rightly.

    The second table has the pictures of each source that each method names rightly.
    """
    names = list(chosen)
    images = len(pictures) // len(names)
    truth, row = np.repeat(np.arange(len(names)), images), np.arange(len(pictures))

    def collect(inversions: Inversions, value: str) -> NDArray[np.float64]:
        return np.array([np.concatenate([getattr(inversions[name, s], value) for s in names]) for name in names])

    begun = time.process_time()
    bar = track(chosen.values(), "Zhang et al. 2020", console=console, transient=True)
    paths = np.stack([published(pictures, generator, seed=seed + 1) for generator in bar], 1)
    seconds = time.process_time() - begun
    begun = time.process_time()
    _, start = own_pictures(chosen, images, seed, True, 1)
    started = time.process_time() - begun
    correct = (paths.argmin(1) == truth).mean(1)
    spent = collect(found, "evaluations").mean() + found[names[0], names[0]].shared / len(pictures)
    # What decides (candidate, image), the root mean square error, evaluations, how many of them were needed, seconds.
    methods = {
        "Zhang et al. 2020": (
            paths[-1],
            np.sqrt(paths[-1]),
            PUBLISHED_RESTARTS * PUBLISHED_STEPS,
            first(correct >= correct[-1], PUBLISHED_RESTARTS),
            seconds,
        ),
        "invert": (collect(found, "loss"), collect(found, "pixel"), spent, np.nan, taken),
        "invert, smallest error of pixels": (
            collect(found, "pixel"),
            collect(found, "pixel"),
            spent,
            np.nan,
            taken,
        ),
        "the encoder's start": (collect(start, "loss"), collect(start, "pixel"), 1.0, np.nan, started),
    }
    rows, counts, baseline = [], {}, paths[-1].argmin(0) == truth
    for method, (decides, error, evaluations, needed, processor) in methods.items():
        right = decides.argmin(0) == truth
        share = binomtest(int(right.sum()), len(right)).proportion_ci()
        better = paired_difference(right, baseline)
        rows.append(
            {
                "method": method,
                "evaluations": evaluations,
                "needed": needed,
                "seconds": processor / len(pictures) / len(names),
                "error of 255": 255 * np.median(error[truth, row]),
                "right": right.mean(),
                "low": share.low,
                "high": share.high,
                "difference": better.value,
                "difference low": better.low,
                "difference high": better.high,
            }
        )
        counts[method] = [int(right[truth == number].sum()) for number in range(len(names))]
    return pd.DataFrame(rows).set_index("method"), pd.DataFrame(counts, index=names).rename_axis("source")


def main(
    images: Annotated[int, typer.Option(help="Pictures of each generator, 2 to 200.")] = 4,
    generators: Annotated[str, typer.Option(help="Separated by commas; all that can be inverted by default.")] = "",
    steps: Annotated[int, typer.Option(help="Most evaluations of `invert` for a picture, 2 to 1000.")] = 40,
    adam_steps: Annotated[int, typer.Option(help="Evaluations of each of Adam's restarts, 10 to 10000.")] = 200,
    opponents: Annotated[
        str, typer.Option(help=f"Of `invert`, separated by commas: {', '.join(OPPONENTS)}.")
    ] = ",".join(OPPONENTS),
    seed: Annotated[int, typer.Option(help="Of pictures and starts.", min=0, max=2**31)] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the tables; printed alone by default.")] = None,
) -> None:
    """Compare `invert` from the encoder's start with Adam from random restarts, and with the published method."""
    able = [name for name, generator in GENERATORS.items() if generator.invertible]
    names = [name.strip() for name in generators.split(",") if name.strip()] or able
    for name in names:
        if name not in able:
            raise BayesdfError(f"{name!r} is no generator that can be inverted: choose from {', '.join(able)}")
    if not 2 <= images <= 200 or not 2 <= steps <= 1000 or not 10 <= adam_steps <= 10000:
        raise BayesdfError("give 2 to 200 --images, 2 to 1000 --steps and 10 to 10000 --adam-steps")
    chosen = {name: GENERATORS[name] for name in names}
    asked = [name.strip() for name in opponents.split(",")]
    if not asked or not set(asked) <= set(OPPONENTS):
        raise BayesdfError(f"opponents {opponents!r}: give some of {', '.join(OPPONENTS)}")
    started, worked = time.monotonic(), time.process_time()
    made, found = own_pictures(chosen, images, seed, True, steps)
    taken = time.process_time() - worked
    pictures = np.concatenate(list(made.values()))
    tables: dict[str, pd.DataFrame] = {}
    if "adam" in asked:
        tables["evaluations"], tables["accuracy"] = compare_adam(chosen, found, pictures, steps, adam_steps, seed)
    if "published" in asked:
        tables["published"], tables["by_source"] = compare_published(chosen, found, pictures, taken, seed)
    shared = found[names[0], names[0]].shared / len(pictures)
    console.print(
        f"{images} pictures of each of {', '.join(names)}, after 8 bits and JPEG; {time.monotonic() - started:.0f} s. "
        f"`invert` makes {shared:.1f} evaluations a picture once for all pictures of a call; they are counted."
    )
    for name, table in tables.items():
        console.print(f"\n{MEANING[name]}")
        console.print(table.to_string(float_format="%.4g"), markup=False, highlight=False, soft_wrap=True)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            table.to_csv(out / f"{name}.csv")


if __name__ == "__main__":
    run_cli(main)

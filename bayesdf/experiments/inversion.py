"""Which generator made this picture? Ask each of them to make it again.

    python -m bayesdf.experiments.inversion

Every candidate generator is inverted for every picture, and how nearly each of them can make it again tells the source:
Zhang, Zhou, Shumailov and Papernot, "On attribution of deepfakes" (2020). Beside it a classifier that learnt the
sources from pictures directly, on clean pictures, on disturbed ones, and under attack.
"""

import hashlib
import importlib.resources
import itertools
import json
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
import typer
import xarray as xr
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

import bayesdf.analysis as analysis
from bayesdf import __version__
from bayesdf.analysis.calibration import negative_log_likelihood
from bayesdf.cli import console, run_cli
from bayesdf.data import REAL, common_path
from bayesdf.errors import BayesdfError
from bayesdf.experiments.run import TREE, refuse_used, workspace, write_figures, write_metrics, write_tables
from bayesdf.faces import SIZE, Faces, people, photographs
from bayesdf.generators import GENERATORS, Generator, perceptual
from bayesdf.generators.attribution import NONE, Attribution, evidence, fit
from bayesdf.generators.invert import FLOOR, Inversion, invert
from bayesdf.generators.perturb import LEVELS, PERTURBATIONS, forgiving, perturb, perturb_at_random
from bayesdf.models.blind import residual
from bayesdf.report import inversion as presentation
from bayesdf.store import write_tree

Pixels = NDArray[np.float32]
ROLES = {"calibration": "val", "test": "test", "train": "train"}
"""What pictures are for, and the people whose photographs they are or are made of."""
WORK = "work"
"""What a stopped run goes on from; a finished one has no need of it."""
DESCENT = 20
"""Steps of an attack on a network, and in each round of one on inversion."""


@dataclass(frozen=True)
class Plan:
    """How much of everything.

    Attributes
    ----------
    images, calibration, train
        Pictures of each source to judge, to calibrate the attribution with, and to train the classifiers on. There are
        only 100, 60 and 240 photographs.
    disturbed
        Of those to judge, how many of each candidate and of the photographs are disturbed and attacked too.
    strengths
        Of each perturbation, how many: the strongest and some below.
    budgets
        Largest change of a pixel in an attack, of 255 grey values.
    rounds
        Of the attack on inversion; the pictures are inverted again before each but the first.
    steps
        Most evaluations of a generator for a picture.
    epochs
        Passes over the classifiers' training pictures.
    forgiving
        Whether inversion may also zoom, shift, tone and blur what a generator makes.
    seed
        Of everything random.
    """

    images: int = 16
    calibration: int = 19
    train: int = 128
    disturbed: int = 4
    strengths: int = 4
    budgets: tuple[float, ...] = (2.0, 4.0, 8.0)
    rounds: int = 3
    steps: int = 40
    epochs: int = 30
    forgiving: bool = True
    seed: int = 0

    @property
    def conditions(self) -> list[tuple[str, float]]:
        """Perturbations and strengths to look at."""
        return [
            (name, strength)
            for name, way in PERTURBATIONS.items()
            for strength in way.strengths[len(way.strengths) - self.strengths :]
        ]


@dataclass(frozen=True)
class Pictures:
    """Images (N, 64, 64) in [0, 1] with the source and the person of each; a face of nobody has a name of its own."""

    images: Pixels
    source: NDArray[np.str_]
    subject: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: NDArray[Any]) -> "Pictures":
        return Pictures(self.images[rows], self.source[rows], self.subject[rows])

    def showing(self, images: Pixels) -> "Pictures":
        """Other versions of the same pictures: one after another, if there are several of each."""
        times = len(images) // len(self)
        return Pictures(images, np.tile(self.source, times), np.tile(self.subject, times))


def draw(sources: Mapping[str, Generator], role: str, count: int, seed: int) -> Pictures:
    """Photographs and each source's pictures, as they come.

    Generators of whole images draw entropy of a seed of its own for each role; manipulations work on the photographs of
    the role's people, and these are also the photographs that are `real`.

    Parameters
    ----------
    role
        `calibration`, `test` or `train`.
    count
        Pictures of each source; photographs as far as there are.
    """
    rng = np.random.default_rng(_seed(seed, role, REAL))
    known = photographs().take(np.isin(photographs().subject, people()[ROLES[role]]))
    order = rng.permutation(len(known))[:count]
    images, source, subject = [known.images[order]], [REAL] * len(order), [*known.subject[order]]
    for name, generator in sources.items():
        if generator.manipulate is None:
            made = generator.sample(count, _seed(seed, role, name))
            subject += [f"{name}-{row}" for row in range(count)]
        else:
            made, who = _manipulated(generator, known, count, np.random.default_rng(_seed(seed, role, name)))
            subject += who
        images.append(made)
        source += [name] * count
    return Pictures(np.concatenate(images).astype(np.float32), np.array(source), np.array(subject))


def _manipulated(generator: Generator, known: Faces, count: int, rng: np.random.Generator) -> tuple[Pixels, list[str]]:
    """Fakes of photographs drawn at random, beside one of each person, so that there is always someone to take from."""
    _, first = np.unique(known.subject, return_index=True)
    rows = np.concatenate([rng.integers(len(known), size=count), first])
    made = generator.fakes(known.take(rows), rng).images[:count]
    return made, [str(name) for name in known.subject[rows[:count]]]


def _seed(seed: int, *names: str) -> int:
    """A seed for each use of the run's seed."""
    return int(np.random.SeedSequence([seed, *(zlib.crc32(name.encode()) for name in names)]).generate_state(1)[0])


def stored(images: NDArray[np.floating], quality: int | None = 90) -> Pixels:
    """Images after the path that all take: crop, resize, grey, 8 bits and JPEG (none where `quality` is None)."""
    done = [Image.fromarray(common_path(image, SIZE, quality)[0]).convert("L") for image in np.asarray(images)]
    return np.stack([np.asarray(image) for image in done]).astype(np.float32) / np.float32(LEVELS)


def attribute(
    images: NDArray[np.floating],
    attribution: Attribution,
    *,
    candidates: Mapping[str, Generator] | None = None,
    steps: int = Plan.steps,
    forgive: bool = Plan.forgiving,
    seed: int = 0,
) -> xr.Dataset:
    """Who made these pictures? For your own, with the attribution that a run has calibrated.

        model = load_attribution("runs/inversion/attribution.zarr")
        answer = attribute(pictures, model)["probability"].to_pandas()

    Parameters
    ----------
    images
        (N, H, W) grey or (N, H, W, 3) colour values in [0, 1], faces aligned as the embedded photographs are. They take
        the path that calibration pictures took: crop, resize, 8 bits, JPEG.
    attribution
        From `bayesdf.generators.attribution.fit`; `attribution.zarr` in a run's folder.
    candidates
        Generators by name; those of `GENERATORS` by default.
    steps, forgive, seed
        As in the run that calibrated it.

    Returns
    -------
    xr.Dataset
        `probability` (image, source), `none of these` among the sources, and `prediction`.
    """
    pictures = np.asarray(images)
    if pictures.ndim not in (3, 4) or not len(pictures) or (pictures.ndim == 4 and pictures.shape[-1] != 3):
        raise BayesdfError(f"images have shape {pictures.shape}; give grey (N, H, W) or colour (N, H, W, 3)")
    known = GENERATORS if candidates is None else candidates
    lacking = [name for name in attribution.candidates if name not in known]
    if lacking:
        raise BayesdfError(f"the attribution was calibrated with generator {lacking[0]!r}, which is not at hand")
    ready = stored(pictures)
    searched = {name: forgiving(known[name]) if forgive else known[name] for name in attribution.candidates}
    found = {name: invert(ready, generator, steps=steps, seed=seed) for name, generator in searched.items()}
    return attribution.probability(evidence(found))


# What a run keeps while it works.


def _kept(path: Path, make: Callable[[], dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Arrays from a file, made and written there if it is missing or damaged."""
    if path.is_file():
        try:
            with np.load(path, allow_pickle=False) as file:
                return dict(file)
        except (OSError, ValueError, zipfile.BadZipFile, EOFError):
            path.unlink()
    arrays = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    with beside.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    beside.replace(path)
    return arrays


def _drawn(folder: Path, sources: Mapping[str, Generator], role: str, count: int, seed: int) -> Pictures:
    arrays = _kept(folder / f"pictures_{role}.npz", lambda: vars(draw(sources, role, count, seed)))
    return Pictures(**arrays)


def _invert(
    folder: Path, name: str, images: Pixels, candidates: Mapping[str, Generator], plan: Plan
) -> dict[str, Inversion]:
    """The inversion of images by each candidate; what is done is noted in the folder."""
    found = {}
    for number, (candidate, generator) in enumerate(candidates.items(), 1):
        console.print(f"    {name}: {len(images)} pictures by {candidate} ({number} of {len(candidates)})")
        found[candidate] = invert(
            images,
            generator,
            steps=plan.steps,
            seed=plan.seed,
            checkpoint=folder / "inversions" / f"{name}_{candidate}.pt",
            progress=console.is_terminal,
        )
    return found


def _rows(inversions: Mapping[str, Inversion], rows: NDArray[np.integer]) -> dict[str, Inversion]:
    """The inversions of some of the images."""
    return {
        name: replace(one, **{key: value[rows] for key, value in vars(one).items() if isinstance(value, np.ndarray)})
        for name, one in inversions.items()
    }


def explanations(pictures: Pictures, inversions: Mapping[str, Inversion]) -> xr.Dataset:
    """What inversion tells of pictures: `evidence`, and the `loss`, the `pixel` error and the `evaluations` of each."""
    told = evidence(inversions, source=pictures.source, subject=pictures.subject)
    columns = {
        key: (("image", "candidate"), np.stack([getattr(one, key) for one in inversions.values()], 1))
        for key in ("loss", "pixel", "evaluations")
    }
    return xr.Dataset({"evidence": told, **columns})


# The classifier that learns the sources directly.


class Baseline(nn.Module):
    """Grey images (B, 1, 64, 64) in [0, 1] → logits of the sources. It sees the picture and its high frequencies."""

    def __init__(self, classes: int, widths: Sequence[int] = (16, 32, 64, 96)) -> None:
        super().__init__()
        layers: list[nn.Module] = [_convolution(2, widths[0])]
        for a, b in itertools.pairwise(widths):
            layers += [_convolution(a, b, stride=2), _convolution(b, b)]
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(widths[-1], classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(torch.cat([(images - 0.5) / 0.25, residual(images)], 1)).mean((2, 3)))


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def train(pictures: Pictures, names: Sequence[str], *, augment: bool, epochs: int, seed: int) -> Baseline:
    """A classifier of the sources, fitted to pictures.

    Parameters
    ----------
    names
        The sources, in the order of the logits. All weigh the same, whatever their number of pictures.
    augment
        Whether half of the pictures of every epoch are disturbed, each in one way and strength drawn at random from
        those of the study.
    """
    label = torch.from_numpy(np.array([list(names).index(source) for source in pictures.source]))
    count = torch.bincount(label, minlength=len(names)).clamp_min(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Baseline(len(names))
        batch = min(32, len(label))
        rounds = -(-len(label) // batch)
        optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=max(epochs * rounds, 1))
        title = "training the classifier" + (" with perturbations" if augment else "")
        for epoch in track(range(epochs), title, console=console, transient=True):
            images = torch.from_numpy(pictures.images)
            if augment:
                changed = torch.from_numpy(perturb_at_random(pictures.images, _seed(seed, "augment", str(epoch))))
                images = torch.where(torch.rand(len(images), 1, 1) < 0.5, images, changed)
            order = torch.randperm(len(label))
            for rows in order.chunk(rounds):
                if len(rows) < 2:
                    continue
                loss = F.cross_entropy(
                    network(images[rows, None]), label[rows], weight=count.sum() / count / len(names)
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    return network.eval().requires_grad_(False)


def _trained(folder: Path, pictures: Pictures, names: list[str], plan: Plan, *, augment: bool) -> Baseline:
    def make() -> dict[str, NDArray[Any]]:
        seed = _seed(plan.seed, "classifier")
        state = train(pictures, names, augment=augment, epochs=plan.epochs, seed=seed).state_dict()
        return {key: value.numpy() for key, value in state.items()}

    state = _kept(folder / f"classifier{'_augmented' if augment else ''}.npz", make)
    network = Baseline(len(names))
    network.load_state_dict({key: torch.from_numpy(np.asarray(value)) for key, value in state.items()})
    return network.eval().requires_grad_(False)


@torch.no_grad()
def classify(network: nn.Module, names: Sequence[str], pictures: Pictures) -> xr.Dataset:
    """The classifier's own probabilities, as `bayesdf.analysis.attribute` returns them."""
    logits = torch.cat([network(part) for part in torch.from_numpy(pictures.images)[:, None].split(128)])
    probability = logits.double().softmax(1).numpy()
    return analysis.from_probability(pd.DataFrame(probability, columns=list(names)), pictures.source, pictures.subject)


# Attacks.


def deceive(network: nn.Module, images: Pixels, label: NDArray[np.integer], budget: float, seed: int = 0) -> Pixels:
    """Change pictures by at most `budget` of 255 grey values a pixel so that a network misjudges them.

    Projected ascent of the loss by signs of its slope, from a random start: Madry et al. 2018, "Towards deep learning
    models resistant to adversarial attacks".

    Returns
    -------
    (N, 64, 64), stored with 8 bits.
    """
    x, truth = torch.from_numpy(images)[:, None], torch.from_numpy(np.asarray(label, np.int64))
    reach = torch.full((len(x), 1, 1, 1), budget / LEVELS)
    start = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) * 2.0 - 1.0

    def slope(changed: Tensor) -> Tensor:
        return -torch.autograd.grad(F.cross_entropy(network(changed), truth, reduction="sum"), changed)[0]

    return _descend(x + reach * start, x, reach, slope)


def mislead(
    images: Pixels,
    before: Pixels,
    budget: NDArray[np.floating],
    own: Pixels,
    rival: Pixels,
    has_own: NDArray[np.bool_],
    regions: tuple[Pixels, Pixels],
) -> Pixels:
    """One round against inversion: away from what the true generator makes of the pictures, towards a rival's.

    What is lowered is the rival's evidence less the true generator's: the sum of the logarithms of the errors in
    pixels, gradients and edges, as attribution sees them. Where entropy is at its best for a picture, the slope of the
    smallest error is that with the entropy held: rounds with inversions between them descend the true objective.

    Parameters
    ----------
    images
        (N, 64, 64) as they are.
    before
        What the attack made of them so far.
    budget
        (N,) largest change, of 255 grey values.
    own, rival
        (N, 64, 64) reconstructions by the true generator and by the rival; `own` is not used where not `has_own`.
    regions
        (N, 64, 64) pixels that count for each of the two.
    """
    x = torch.from_numpy(images)[:, None]
    reach = torch.from_numpy(np.asarray(budget, np.float32) / np.float32(LEVELS)).view(-1, 1, 1, 1)
    made = [torch.from_numpy(part)[:, None] for part in (own, rival)]
    count = [torch.from_numpy(part)[:, None] for part in regions]
    side = torch.from_numpy(has_own.astype(np.float32))

    def slope(changed: Tensor) -> Tensor:
        gap = _log_errors(changed, made[1], count[1]) - side * _log_errors(changed, made[0], count[0])
        return torch.autograd.grad(gap.sum(), changed)[0]

    return _descend(torch.from_numpy(before)[:, None], x, reach, slope)


def _descend(start: Tensor, images: Tensor, reach: Tensor, slope: Callable[[Tensor], Tensor]) -> Pixels:
    """Signed steps down a slope, kept within reach of the images; rounded, which does not leave the reach."""
    low, high = (images - reach).clamp_min(0.0), (images + reach).clamp_max(1.0)
    changed = start.clamp(low, high)
    for step in range(DESCENT):
        with torch.enable_grad():
            way = slope(changed.detach().requires_grad_(True)).sign()
        size = 0.5 * reach * (1.0 - step / DESCENT)
        changed = (changed.detach() - size * way).clamp(low, high)
    # Inwards: whatever grid the picture lies on, rounding never takes it out of reach.
    grid = (changed * LEVELS).round() / LEVELS
    grid = torch.where(grid > high + 1e-6, (changed * LEVELS).floor() / LEVELS, grid)
    grid = torch.where(grid < low - 1e-6, (changed * LEVELS).ceil() / LEVELS, grid)
    return grid[:, 0].numpy()


def _log_errors(images: Tensor, made: Tensor, region: Tensor) -> Tensor:
    """(B,) sum of the logarithms of the three errors of `bayesdf.generators.invert`."""
    difference = region * (made - images)
    area = region.pow(2).mean((1, 2, 3))
    edges = perceptual.features(images + difference) - perceptual.features(images)
    squares = [
        difference.pow(2).mean((1, 2, 3)),
        0.5 * (difference.diff(dim=-1).pow(2).mean((1, 2, 3)) + difference.diff(dim=-2).pow(2).mean((1, 2, 3))),
        edges.pow(2).mean(1),
    ]
    return sum((0.5 * (square / area + FLOOR**2).log() for square in squares), torch.zeros(len(images)))


def _adaptive(
    folder: Path, pictures: Pictures, found: Mapping[str, Inversion], candidates: Mapping[str, Generator], plan: Plan
) -> Pixels:
    """The attack on inversion at each budget, (budget * N, 64, 64); photographs are only pushed towards a rival."""
    names = list(candidates)
    times = len(plan.budgets)
    loss = np.stack([found[name].loss for name in names], 1)
    own = np.array([names.index(source) if source in names else -1 for source in pictures.source])
    loss[np.flatnonzero(own >= 0), own[own >= 0]] = np.inf
    rival = loss.argmin(1)
    region = np.stack(
        [np.ones((SIZE, SIZE), np.float32) if g.region is None else g.region for g in candidates.values()]
    )
    made = np.stack([found[name].reconstruction for name in names])
    rows = np.arange(len(pictures))
    parts = [np.tile(part, (times, 1, 1)) for part in (made[own, rows], made[rival, rows])]
    images, own, rival = np.tile(pictures.images, (times, 1, 1)), np.tile(own, times), np.tile(rival, times)
    budget = np.repeat(plan.budgets, len(pictures))
    changed = images
    for number in range(plan.rounds):
        if number:
            parts = [part.copy() for part in parts]
            for code, (name, generator) in enumerate(candidates.items()):
                mine = np.flatnonzero((own == code) | (rival == code))
                if not len(mine):
                    continue
                again = _invert(folder, f"attack round {number + 1}", changed[mine], {name: generator}, plan)[name]
                for part, who in zip(parts, (own, rival), strict=True):
                    part[mine[who[mine] == code]] = again.reconstruction[who[mine] == code]

        def round_(changed: Pixels = changed, parts: list[Pixels] = parts) -> dict[str, NDArray[Any]]:
            regions = (region[own], region[rival])
            return {"images": mislead(images, changed, budget, parts[0], parts[1], own >= 0, regions)}

        changed = _kept(folder / f"attack_inversion_{number}.npz", round_)["images"]
    return changed


# The study.


def study(
    folder: Path, sources: Mapping[str, Generator], candidates: Mapping[str, Generator], plan: Plan
) -> xr.DataTree:
    """Everything but the presentation.

    Parameters
    ----------
    folder
        What is finished is kept in `folder/work`, and the same call goes on from it. The calibrated attribution is
        written to `folder/attribution.zarr`.
    sources
        Generators that make pictures, by name; photographs come on top.
    candidates
        Those of them that are inverted.

    Returns
    -------
    xr.DataTree
        `attribution`: a row a method, and below it a group for each with `probability` (image, source). `evidence`:
        what inversion tells of the judged pictures. `robustness`, `attack`: `right` and `refused` (method, condition,
        image). `open_set`: `none` (left_out, image), log-odds of `none of these`. `examples`: pictures and
        reconstructions. `throughput`: by candidate.
    """
    work = folder / WORK
    searched = {name: forgiving(one) if plan.forgiving else one for name, one in candidates.items()}
    names = sorted([REAL, *sources])
    console.print(f"[bold]1/5[/] pictures of {len(names)} sources")
    raw = {role: _drawn(work, sources, role, getattr(plan, _COUNTS[role]), plan.seed) for role in ROLES}
    common = {role: part.showing(stored(part.images)) for role, part in raw.items()}
    eight_bits = {role: raw[role].showing(stored(raw[role].images, None)) for role in ("calibration", "test")}

    console.print("[bold]2/5[/] classifiers")
    networks = {
        name: _trained(work, common["train"], names, plan, augment=name == "classifier_augmented")
        for name in ("classifier", "classifier_augmented")
    }

    console.print(f"[bold]3/5[/] inversion by {', '.join(candidates)}")
    speed = _kept(work / "throughput.npz", lambda: throughput(searched, common["test"], plan))
    rows = _first(common["test"], [REAL, *candidates], plan.disturbed)
    few = common["test"].take(rows)
    at_random = perturb_at_random(common["calibration"].images, _seed(plan.seed, "calibration"))
    seed = _seed(plan.seed, "perturbation")
    treated = [perturb(few.images, name, strength, seed) for name, strength in plan.conditions]
    sets = {
        "clean calibration": eight_bits["calibration"],
        "clean test": eight_bits["test"],
        "calibration": common["calibration"],
        "disturbed calibration": common["calibration"].showing(at_random),
        "test": common["test"],
        "disturbed": few.showing(np.concatenate(treated)),
        "deceiving": few.showing(np.concatenate(_deceiving(work, few, names, networks, plan))),
    }
    whole = _invert(work, "pictures", np.concatenate([part.images for part in sets.values()]), searched, plan)
    bounds = np.cumsum([0, *(len(part) for part in sets.values())])
    found = {name: _rows(whole, np.arange(*bounds[i : i + 2])) for i, name in enumerate(sets)}
    told = {name: explanations(part, found[name]) for name, part in sets.items()}
    console.print("    the attack on inversion itself")
    misleading = few.showing(_adaptive(work, few, _rows(found["test"], rows), searched, plan))
    told["misleading"] = explanations(misleading, _invert(work, "attacked", misleading.images, searched, plan))

    console.print("[bold]4/5[/] calibration and answers")
    models = {
        "clean": fit(told["clean calibration"]["evidence"], seed=plan.seed),
        "inversion": fit(told["calibration"]["evidence"], seed=plan.seed),
        "inversion_augmented": fit(
            xr.concat([told["calibration"]["evidence"], told["disturbed calibration"]["evidence"]], "image"),
            seed=plan.seed,
        ),
    }
    models["inversion_augmented"].save(folder / "attribution.zarr", overwrite=True)

    def judge(pictures: Pictures, explained: xr.Dataset) -> dict[str, xr.Dataset]:
        answers = {name: models[name].probability(explained["evidence"]) for name in presentation.INVERTING}
        answers |= {name: classify(network, names, pictures) for name, network in networks.items()}
        return {**answers, "smallest_error": nearest(explained)}

    answers = judge(common["test"], told["test"])
    answers["clean"] = models["clean"].probability(told["clean test"]["evidence"])
    answers["clean_smallest_error"] = nearest(told["clean test"])

    untouched = judge(few, told["test"].isel(image=rows))
    size = len(few)
    conditions = [("none", 0.0), *plan.conditions]
    robustness = _right([untouched, *_parts(judge, sets["disturbed"], told["disturbed"], size)], few, conditions)
    attacked = [*_parts(judge, sets["deceiving"], told["deceiving"], size)]
    attacked += _parts(judge, misleading, told["misleading"], size)
    attacks = [("none", 0.0), *((name, budget) for name in presentation.ATTACKS for budget in plan.budgets)]
    attack = _right([untouched, *attacked], few, attacks)

    console.print("[bold]5/5[/] each candidate left out")
    groups = {
        "/attribution": summary(answers, list(candidates), plan.seed),
        **{f"/attribution/{name}": answers[name] for name in answers if "smallest_error" not in name},
        "/evidence": told["test"],
        "/robustness": robustness,
        "/attack": attack,
        "/open_set": left_out(told["calibration"]["evidence"], told["test"]["evidence"], plan.seed),
        "/examples": _examples(common["test"], found["test"]),
        "/throughput": xr.Dataset(
            {key: ("candidate", value) for key, value in speed.items()}, coords={"candidate": list(candidates)}
        ),
    }
    return xr.DataTree.from_dict(groups)


_COUNTS = {"calibration": "calibration", "test": "images", "train": "train"}


def _first(pictures: Pictures, sources: Sequence[str], count: int) -> NDArray[np.int64]:
    """Rows of the first pictures of each of some sources."""
    return np.concatenate([np.flatnonzero(pictures.source == name)[:count] for name in sources])


def _parts(
    judge: Callable[[Pictures, xr.Dataset], dict[str, xr.Dataset]], pictures: Pictures, explained: xr.Dataset, size: int
) -> list[dict[str, xr.Dataset]]:
    """What every method says of each `size` pictures."""
    parts = [np.arange(start, start + size) for start in range(0, len(pictures), size)]
    return [judge(pictures.take(rows), explained.isel(image=rows)) for rows in parts]


def _deceiving(
    folder: Path, pictures: Pictures, names: list[str], networks: Mapping[str, nn.Module], plan: Plan
) -> list[Pixels]:
    """Attacks on each network with each budget."""
    label = np.array([names.index(source) for source in pictures.source])
    made = []
    for name, network in networks.items():

        def all_budgets(network: nn.Module = network) -> dict[str, NDArray[Any]]:
            seed = _seed(plan.seed, "attack")
            changed = [deceive(network, pictures.images, label, budget, seed) for budget in plan.budgets]
            return {"images": np.concatenate(changed)}

        made.append(_kept(folder / f"attack_{name}.npz", all_budgets)["images"])
    return made


def nearest(explained: xr.Dataset) -> xr.Dataset:
    """Attribution by the smallest loss alone: it names a candidate for every picture, and knows no probabilities."""
    names = explained["candidate"].values
    prediction = names[explained["loss"].values.argmin(1)]
    return xr.Dataset(
        {"prediction": ("image", prediction), "truth": ("image", explained["source"].values)},
        coords={"cluster": ("image", explained["subject"].values)},
    )


def _right(
    answers: Sequence[Mapping[str, xr.Dataset]], pictures: Pictures, conditions: Sequence[tuple[str, float]]
) -> xr.Dataset:
    """Which picture each method judged rightly under each condition.

    Classifiers cannot refuse: where a method can, the most probable of the sources that have a name counts, and
    `refused` says where `none of these` was more probable still.
    """
    methods = list(answers[0])
    named = [[_named(one[method]) for one in answers] for method in methods]
    truth = answers[0][methods[0]]["truth"].values
    refused = [[(one[method]["prediction"] == NONE).values for one in answers] for method in methods]
    kinds, strengths = zip(*conditions, strict=True)
    dims = ("method", "condition", "image")
    return xr.Dataset(
        {"right": (dims, np.array(named) == truth), "refused": (dims, np.array(refused))},
        coords={
            "method": methods,
            "kind": ("condition", list(kinds)),
            "strength": ("condition", np.array(strengths)),
            "source": ("image", pictures.source),
            "subject": ("image", pictures.subject),
        },
    )


def _named(answer: xr.Dataset) -> NDArray[np.str_]:
    """The most probable source that has a name."""
    if "probability" not in answer or NONE not in answer["source"].values:
        return answer["prediction"].values
    names = answer["source"].values
    return names[np.where(names == NONE, -1.0, answer["probability"].values).argmax(1)]


def summary(answers: Mapping[str, xr.Dataset], candidates: Sequence[str], seed: int) -> xr.Dataset:
    """Figures of each method over `estimate` = value, low, high.

    `accuracy_candidates` (of the candidates' own samples), and where the method knows all sources, `accuracy`,
    `log_loss` (nats) and `ece`. Intervals resample people, or pictures where they are of nobody.
    """
    rows = []
    for answer in answers.values():
        right = (answer["prediction"] == answer["truth"]).values.astype(np.float64)
        own = np.isin(answer["truth"].values, candidates)
        cluster = answer["cluster"].values
        figures = {"accuracy_candidates": analysis.cluster_bootstrap(np.mean, [right[own]], cluster[own], seed=seed)}
        if "probability" in answer:
            probability = answer["probability"].values
            names = list(answer["source"].values)
            label = np.array([names.index(name) for name in answer["truth"].values])
            log_p = np.log(np.maximum(probability, 1e-12))
            figures |= {
                "accuracy": analysis.cluster_bootstrap(np.mean, [right], cluster, seed=seed),
                "log_loss": analysis.cluster_bootstrap(negative_log_likelihood, [log_p, label], cluster, seed=seed),
                "ece": analysis.cluster_bootstrap(
                    analysis.expected_calibration_error, [probability, label], cluster, seed=seed
                ),
            }
        rows.append(figures)
    nothing = analysis.Estimate(np.nan, np.nan, np.nan)
    return xr.Dataset(
        {
            key: (("method", "estimate"), np.array([row.get(key, nothing) for row in rows]))
            for key in presentation.FIGURES
        },
        coords={"method": list(answers), "estimate": list(analysis.Estimate._fields)},
    )


def left_out(calibration: xr.DataArray, judged: xr.DataArray, seed: int) -> xr.Dataset:
    """Log-odds of `none of these` for every picture when one candidate is unknown: neither inverted nor calibrated."""
    names = [str(name) for name in judged["candidate"].values]
    odds = []
    for name in names:
        others = [other for other in names if other != name]
        known = calibration.sel(candidate=others).isel(image=np.flatnonzero(calibration["source"].values != name))
        model = fit(known, seed=seed)
        with np.errstate(divide="ignore"):
            joint = model.log_likelihood(judged.sel(candidate=others)).values + np.log(model.prior)
        place = model.sources.index(NONE)
        odds.append(joint[:, place] - np.logaddexp.reduce(np.delete(joint, place, 1), 1))
    return xr.Dataset(
        {"none": (("left_out", "image"), np.array(odds))},
        coords={
            "left_out": names,
            "source": ("image", judged["source"].values),
            "subject": ("image", judged["subject"].values),
        },
    )


def throughput(candidates: Mapping[str, Generator], pictures: Pictures, plan: Plan) -> dict[str, NDArray[Any]]:
    """What inversion costs, by candidate: counted, modelled and measured.

    Seconds a picture = (evaluations a picture + shared evaluations / pictures) * seconds of one evaluation, which is a
    run of the generator and the features of its errors, forward and backward, timed by itself. The evaluations a
    picture are at most steps * restarts.
    """
    images = pictures.images[_first(pictures, sorted(set(pictures.source)), 2)][:32]
    rows = []
    for name, generator in candidates.items():
        started = time.perf_counter()
        found = invert(images, generator, steps=plan.steps, seed=plan.seed)
        seconds = (time.perf_counter() - started) / len(images)
        evaluation = _evaluation(images, generator)
        rows.append(
            {
                "entropy": generator.latent_dim,
                "pictures": len(images),
                "evaluations": found.evaluations.mean(),
                "shared": found.shared,
                "milliseconds_evaluation": 1e3 * evaluation,
                "seconds_modelled": (found.evaluations.mean() + found.shared / len(images)) * evaluation,
                "seconds": seconds,
                "pictures_per_second": 1.0 / seconds,
            }
        )
        console.print(f"    {name}: {1.0 / seconds:.2f} pictures a second")
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


def _evaluation(images: Pixels, generator: Generator, times: int = 3) -> float:
    """Seconds a picture that a run of the generator and the features of its errors takes, forward and backward."""
    assert generator.decode is not None
    pictures = torch.from_numpy(images)[:, None]
    spent = []
    for seed in range(times + 1):
        entropy = generator.entropy(len(images), seed).requires_grad_(True)
        started = time.perf_counter()
        difference = generator.decode(entropy) - pictures
        edges = perceptual.features(pictures + difference) - perceptual.features(pictures)
        torch.autograd.grad(difference.pow(2).sum() + edges.pow(2).sum(), entropy)
        spent.append((time.perf_counter() - started) / len(images))
    return float(np.median(spent[1:]))  # the first run warms up


def _examples(pictures: Pictures, found: Mapping[str, Inversion], count: int = 4) -> xr.Dataset:
    """Pictures of every source and what each candidate makes of them."""
    rows = _first(pictures, sorted(set(pictures.source)), count)
    made = np.stack([one.reconstruction[rows] for one in found.values()])
    return xr.Dataset(
        {
            "picture": (("image", "y", "x"), _bytes(pictures.images[rows])),
            "reconstruction": (("candidate", "image", "y", "x"), _bytes(made)),
            "pixel": (("candidate", "image"), np.stack([one.pixel[rows] for one in found.values()])),
            "loss": (("candidate", "image"), np.stack([one.loss[rows] for one in found.values()])),
        },
        coords={"candidate": list(found), "source": ("image", pictures.source[rows])},
    )


def _bytes(images: NDArray[np.floating]) -> NDArray[np.uint8]:
    return (images.clip(0.0, 1.0) * LEVELS).round().astype(np.uint8)


# The command line.


def main(
    images: Annotated[
        int, typer.Option(help="Pictures of each source to judge, 4 to 1000 (photographs: 100 at most).")
    ] = Plan.images,
    candidates: Annotated[
        str,
        typer.Option(help="Generators to invert, separated by commas; all that can be by default. Two or more."),
    ] = "",
    steps: Annotated[int, typer.Option(help="Most evaluations of a generator for a picture, 2 to 10000.")] = Plan.steps,
    forgive: Annotated[
        bool,
        typer.Option(
            "--forgiving/--strict",
            help="Whether the search may also zoom, shift, tone and blur what a generator makes, to undo what happened "
            "to a picture on its way.",
        ),
    ] = Plan.forgiving,
    out: Annotated[Path, typer.Option(help="Folder of the run; must be new or empty.")] = Path("runs/inversion"),
    seed: Annotated[
        int, typer.Option(help="Seed of everything random. The same seed gives the same run.", min=0, max=2**32 - 1)
    ] = 0,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="A look in two minutes: few pictures, few steps. Its figures mean little."),
    ] = False,
) -> None:
    """Attribute pictures to generators by inverting them, beside a classifier, under perturbations and attacks.

    Sources are photographs, the candidates, and the generators that cannot be inverted. A generator that can be but is
    no candidate is left out altogether.

    The run folder holds run.zarr (evidence, probabilities, all results, for xarray), attribution.zarr (the calibrated
    attribution, for your own pictures), metrics.json, tables/, figures/ and report.html. A run that was stopped goes on
    where it was when the same command is given again.
    """
    chosen = _known_candidates(candidates)
    if not 4 <= images <= 1000:
        raise BayesdfError(f"--images {images}: give 4 to 1000")
    if not 2 <= steps <= 10000:
        raise BayesdfError(f"--steps {steps}: give 2 to 10000")
    plan = Plan(
        images=images,
        calibration=max(4, round(1.2 * images)),
        train=8 * images,
        disturbed=max(1, images // 4),
        steps=steps,
        forgiving=forgive,
        seed=seed,
    )
    if quick:
        plan = replace(
            plan, images=4, calibration=4, train=12, disturbed=1, strengths=1, budgets=(8.0,), rounds=1, epochs=2
        )
        plan = replace(plan, steps=min(steps, 8))
    started = time.monotonic()
    out = out.resolve()
    refuse_used(out)
    sources = {name: generator for name, generator in GENERATORS.items() if name in chosen or not generator.invertible}
    settings = {"bayesdf": __version__, "candidates": ",".join(chosen), **asdict(plan), "weights": _weights()}
    with workspace(out, settings) as folder:
        tree = study(folder, sources, {name: GENERATORS[name] for name in chosen}, plan)
        seconds = time.monotonic() - started
        _write(folder, tree, settings, seconds)
        shutil.rmtree(folder / WORK, ignore_errors=True)
    _say(tree, out, seconds)


def _known_candidates(text: str) -> list[str]:
    able = [name for name, generator in GENERATORS.items() if generator.invertible]
    names = [name.strip() for name in text.split(",") if name.strip()] if text else able
    for name in names:
        if name not in GENERATORS:
            raise BayesdfError(f"unknown generator {name!r}: choose candidates from {', '.join(able)}")
        if name not in able:
            raise BayesdfError(f"generator {name!r} cannot be inverted: choose candidates from {', '.join(able)}")
    names = list(dict.fromkeys(names))
    if len(names) < 2:
        raise BayesdfError(f"--candidates {text!r}: attribution takes two candidates or more, of {', '.join(able)}")
    return names


def _weights() -> str:
    """Fingerprint of the generators' weights: pictures made with others are not those of this run."""
    digest = hashlib.sha256()
    folder = importlib.resources.files("bayesdf.generators").joinpath("weights")
    for file in sorted(folder.iterdir(), key=lambda item: item.name):
        if file.name.endswith(".safetensors"):
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _write(folder: Path, tree: xr.DataTree, settings: Mapping[str, Any], seconds: float) -> None:
    attrs = {
        key: json.dumps(value) if isinstance(value, list | tuple) else str(value) for key, value in settings.items()
    }
    tree.attrs = {"experiment": "inversion", **attrs, "torch": torch.__version__, "seconds": round(seconds, 1)}
    write_tree(tree, folder / TREE, overwrite=True)
    tables = presentation.tables(tree)
    figures = presentation.figures(tree, tables)
    write_metrics(folder, presentation.metrics(tree, tables))
    write_tables(folder, tables)
    write_figures(folder, figures)
    presentation.page(folder / "report.html", tree, figures, tables, settings)


def _say(tree: xr.DataTree, out: Path, seconds: float) -> None:
    """What a reader in a hurry wants to know."""
    table = Table(title="Sources named rightly (95 % intervals)")
    for column in ("", "candidates' samples", "all sources"):
        table.add_column(column, justify="right" if column else "left")
    for label, cells in presentation.headline(tree).items():
        table.add_row(label, *cells)
    console.print(table)
    text = f"finished in {seconds:.0f} s; open {out / 'report.html'}, or bayesdf.open_run({str(out)!r})"
    console.print(text, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run_cli(main)

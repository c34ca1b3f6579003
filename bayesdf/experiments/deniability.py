"""Can an innocent developer be framed, and can a guilty one deny?

    python -m bayesdf.experiments.deniability

One generator is accused. Its developer keeps a ledger of every sample's entropy (`bayesdf.generators.ledger`).
Adversaries who hold a copy of the public weights publish pictures that the generator seems to have made; inversion
alone and the developer's evidence are asked who made them. Then the developer is guilty: its own samples are blurred,
cropped, recompressed, and its ledger is cut, rewritten, shuffled and forked. The question is that of Zhang, Zhou,
Shumailov and Papernot 2020, "On attribution of deepfakes" (arXiv 2008.09194), on plausible deniability.

A real secret comes from `ledger.new_secret` and is random. Here it is derived from the seed, so that a run can be
repeated: it protects nothing, and serves no other ledger.
"""

import hashlib
import importlib.resources
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer
import xarray as xr
from numpy.typing import NDArray
from PIL import Image
from rich.table import Table
from scipy import ndimage
from scipy.special import gammaln
from torch import Tensor

from bayesdf import __version__
from bayesdf.cli import console, run_cli
from bayesdf.data import common_path
from bayesdf.errors import BayesdfError
from bayesdf.experiments.run import TREE, refuse_used, workspace, write_figures, write_metrics, write_tables
from bayesdf.faces import CREDIT, SIZE, people, photographs
from bayesdf.generators import GENERATORS, Generator, ledger
from bayesdf.generators.invert import Inversion, invert
from bayesdf.generators.ledger import Evidence, Head, Verdict
from bayesdf.generators.ledger.entropy import commit, expand, record_key
from bayesdf.generators.ledger.records import seal
from bayesdf.report import deniability as presentation
from bayesdf.report.deniability import Results, wilson
from bayesdf.store import write_tree

Images = NDArray[np.float32]

BUDGETS = (4, 8, 16, 32, 64)
"""How far each pixel of a photograph may be changed, in grey values of 255."""
ALTERATIONS: dict[str, tuple[float, ...]] = {
    "as made": (0.0,),
    "jpeg": (90, 70, 50, 30, 10),
    "blur": (0.5, 1.0, 1.5, 2.0, 3.0),
    "noise": (0.01, 0.02, 0.05, 0.1, 0.2),
    "brightness": (0.95, 0.9, 0.8, 0.65, 0.5),
    "crop": (0.98, 0.95, 0.9, 0.8, 0.7),
}
"""What happens to a guilty developer's image: JPEG quality, blur and noise (standard deviations, in pixels and in grey
values of [0, 1]), factor on the grey values, share of the side that is kept."""
MILD = (("jpeg", 90.0), ("jpeg", 70.0), ("blur", 0.5), ("noise", 0.02), ("brightness", 0.95))
"""Ways of delivery that the threshold is calibrated to live with."""
FALSE_MADE = 1e-3
GROWTH = 1000
"""By prediction at most this share of innocent images is called `made`, even by a ledger so many times as large."""
TAIL = 1e-3
"""Share of the distances, the smallest, that the tail is fitted to."""
LIKELY = 0.975
"""Inversion convicts if error and energy are each no higher than in this share of genuine samples."""
MULTIPLES = (1.0, 1.5, 2.0, 2.5)
HEADS = 15
RIVALS = ("vae", "dcgan")
VERSIONS = {"bayesdf": __version__, "torch": torch.__version__, "xarray": xr.__version__}


def main(
    generator: Annotated[str, typer.Option(help="The accused: a generator that can be inverted.")] = "dcgan",
    samples: Annotated[int, typer.Option(help="Samples in the developer's ledger; 50 to 100000.")] = 2000,
    images: Annotated[int, typer.Option(help="Accused images of each attack; 4 to 100.")] = 50,
    steps: Annotated[int, typer.Option(help="Most evaluations of the generator for one inversion.")] = 100,
    out: Annotated[Path, typer.Option(help="Folder of the run; must be new or empty.")] = Path("runs/deniability"),
    seed: Annotated[int, typer.Option(help="Seed of everything random, the toy secret too.", min=0, max=2**32 - 1)] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="A look in a minute: 200 samples, 8 images. Its figures mean little.")
    ] = False,
) -> None:
    """Frame an innocent developer, and let a guilty one deny; count how often each succeeds.

    The run folder holds run.zarr (all distances and verdicts), metrics.json, tables/, figures/, report.html, and
    ledger/ with what a developer publishes or hands over. A run that was stopped goes on where it was when the same
    command is given again.
    """
    accused = _accused(generator)
    for name, value, low, high in (
        ("samples", samples, 50, 100_000),
        ("images", images, 4, 100),
        ("steps", steps, 1, 10_000),
    ):
        if not low <= value <= high:
            raise BayesdfError(f"--{name} {value}: give {low} to {high}")
    if quick:
        samples, images, steps = min(samples, 200), min(images, 8), min(steps, 40)
    started = time.monotonic()
    out = out.resolve()
    refuse_used(out)
    rival = GENERATORS[next(name for name in RIVALS if name != generator)]
    settings = {
        "bayesdf": __version__,
        "generator": generator,
        "weights": weights_digest(accused),
        "rival": rival.name,
        "samples": samples,
        "images": images,
        "steps": steps,
        "seed": seed,
    }
    with workspace(out, {**settings, "rival_weights": weights_digest(rival)}) as folder:
        results = study(folder, accused, rival, samples=samples, images=images, steps=steps, seed=seed)
        console.print("[bold]6/6[/] tables, figures, report")
        _write(folder, results, settings, time.monotonic() - started)
    _summary(results, out, time.monotonic() - started)


def _accused(name: str) -> Generator:
    able = ", ".join(key for key, generator in GENERATORS.items() if generator.invertible)
    if name not in GENERATORS:
        raise BayesdfError(f"unknown generator {name!r}: choose from {able}")
    if not GENERATORS[name].invertible:
        raise BayesdfError(
            f"generator {name} cannot be inverted, so nobody is accused by inversion: choose from {able}"
        )
    return GENERATORS[name]


def study(
    folder: Path, accused: Generator, rival: Generator, *, samples: int, images: int, steps: int, seed: int
) -> Results:
    """The whole experiment, in `folder`, which keeps the ledger and all inversions for a second try.

    Parameters
    ----------
    accused
        Whose developer keeps the ledger.
    rival
        Whose images are passed off as the accused's, beside photographs.
    samples, images, steps, seed
        As on the command line.
    """
    console.print(f"[bold]1/6[/] a ledger of {samples} samples of {accused.name}")
    kept = keep_ledger(folder / "ledger", accused, samples, seed)
    third = Party(accused, *_published(folder / "ledger"))
    search = Search(folder / "inversions", accused, steps, seed)

    console.print("[bold]2/6[/] calibration: what is near, and what can be explained")
    measured = _calibrate(search, samples, images)

    console.print("[bold]3/6[/] framing the innocent")
    frame, published, targets = _framed(search, rival, images, measured)
    guilty_rows = np.sort(_rng(seed, "guilty").permutation(samples)[:images] + 1)
    guilty = pictures(accused, ledger.recall(kept.path, kept.secret, accused, guilty_rows.tolist()))
    frame = pd.concat([frame, pd.DataFrame({"attack": "guilty", "target": accused.name, "truth": guilty_rows})])
    published = np.concatenate([published, deliver(guilty)])
    targets = np.concatenate([targets, guilty])
    found = search("accused", published)
    frame = frame.reset_index(drop=True).assign(error=found.pixel, energy=found.energy)
    frame["convicted"] = (found.pixel <= measured["error"]) & (found.energy <= measured["energy"])
    evidence, head, key = third.evidence, third.head, third.key
    threshold = measured["threshold"]
    frame = _judged(frame, third.judge(published, threshold, found.entropy))
    # What an adversary makes of the evidence itself, once it is in many hands.
    opened = pictures(accused, opened_entropy(evidence, guilty_rows.tolist()))
    copies, shares = altered_copies(opened, targets[:images], accused, threshold)
    copied = _judged(pd.DataFrame({"share": shares, "truth": guilty_rows}), third.judge(copies, threshold))

    console.print("[bold]4/6[/] a guilty developer's images, altered; false alarms as the ledger grows")
    rows, changed = [], []
    for kind, strengths in ALTERATIONS.items():
        for strength in strengths:
            rows.append(pd.DataFrame({"alteration": kind, "strength": strength, "truth": guilty_rows}))
            changed.append(alter(guilty, kind, strength, _rng(seed, "alter", kind, strength)))
    fresh = deliver(pictures(accused, accused.entropy(10 * images, _number(seed, "fresh"))))
    verdicts = third.judge(np.concatenate([*changed, fresh]), threshold)
    altered = _judged(pd.concat(rows, ignore_index=True), verdicts[: -len(fresh)])
    again = _judged(pd.DataFrame({"kind": ["second copy"] * len(fresh)}), verdicts[-len(fresh) :])
    own = pictures(accused, ledger.recall(kept.path, kept.secret, accused, range(1, samples + 1)))
    by_kind = {"second copy": fresh, "searched": published[_rows(frame, "searched")]}
    by_kind["photograph"] = published[_rows(frame, "untouched")]
    growth = pd.concat(
        [
            false_rate(distances(part, own, accused), threshold, measured["tails"][kind], kind)
            for kind, part in by_kind.items()
        ],
        ignore_index=True,
    )

    console.print("[bold]5/6[/] cheating ledgers")
    cheats = cheat(folder / "cheats", kept, third, threshold, seed)
    shutil.rmtree(folder / "cheats")
    facts = {
        "generator": accused.name,
        "rival": rival.name,
        "samples": samples,
        "images": images,
        "threshold": threshold,
        "error": measured["error"],
        "energy": measured["energy"],
        "false_made": FALSE_MADE,
        "growth": GROWTH,
        "likely": LIKELY,
        "heads": len(kept.heads),
        "root": head.root,
        "public_key": key,
        "copies_identical": float(np.mean([np.array_equal(a, b) for a, b in zip(opened, guilty, strict=True)])),
    }
    return Results(
        facts=facts,
        tails=_tail_table(measured["tails"], samples),
        genuine=measured["genuine"],
        innocents=measured["innocents"],
        accused=frame,
        copied=copied,
        fresh=again,
        guilty=altered,
        growth=growth,
        cheats=cheats,
        published=published,
        targets=targets,
    )


# --- The developer ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """What the developer has: a log, the secret, and the heads published so far."""

    path: Path
    secret: bytes
    heads: list[Head]


def toy_secret(name: str, seed: int) -> bytes:
    """A secret that anyone can make again: for an experiment only. `ledger.new_secret` makes a real one."""
    return hashlib.sha256(f"bayesdf toy secret of {name} {seed}".encode()).digest()


def keep_ledger(folder: Path, generator: Generator, samples: int, seed: int) -> Kept:
    """Draw all samples, publishing a head after each of `HEADS` batches; goes on from what a stopped run left."""
    folder.mkdir(parents=True, exist_ok=True)
    path, secret = folder / "developer.ledger", toy_secret(generator.name, seed)
    if path.exists():
        try:
            ledger.check(path)
        except ledger.TornError:
            ledger.repair(path)
    else:
        # So many samples share a key that the last epoch is about half full, as in life.
        size = max(4, round(samples / (HEADS / 2)))
        ledger.create(path, secret, generator, weights=weights_digest(generator), epoch_size=size, epochs=16)
    (folder / "public_key.txt").write_text(ledger.check(path).public_key + "\n")
    note = folder / "heads.jsonl"
    heads = [Head.from_json(line) for line in note.read_text().splitlines()] if note.exists() else []
    for target in np.linspace(0, samples, HEADS + 1).round().astype(int)[1 + len(heads) :].tolist():
        missing = target - ledger.check(path).samples
        if missing:
            ledger.draw(path, secret, generator, missing)
        heads.append(ledger.publish(path, secret))
        _replace(note, "".join(f"{head.to_json()}\n" for head in heads))
    evidence = folder / "evidence.json"
    evidence.unlink(missing_ok=True)
    ledger.gather(path, secret, heads[-1]).save(evidence)
    return Kept(path, secret, heads)


def weights_digest(generator: Generator) -> str:
    """SHA-256 of the file of the generator's weights; where it has none, of what it makes of one entropy."""
    file = importlib.resources.files("bayesdf.generators").joinpath("weights", f"{generator.name}.safetensors")
    data = file.read_bytes() if file.is_file() else pictures(generator, generator.entropy(1, 0)).tobytes()
    return hashlib.sha256(data).hexdigest()


# --- The third party --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Party:
    """What a third party judges by: its own copy of the generator, and what was published or handed over."""

    generator: Generator
    evidence: Evidence
    head: Head
    key: str

    def judge(self, images: Images, threshold: float, latents: NDArray[np.float32] | None = None) -> list[Verdict]:
        return ledger.verify_all(
            self.evidence,
            images,
            self.head,
            self.generator,
            self.key,
            threshold=threshold,
            latents=latents,
            weights=weights_digest(self.generator),
        )


def _published(folder: Path) -> tuple[Evidence, Head, str]:
    """Evidence, the newest head and the public key, read as a stranger would: nothing else of the developer's."""
    head = Head.from_json((folder / "heads.jsonl").read_text().splitlines()[-1])
    return ledger.load_evidence(folder / "evidence.json"), head, (folder / "public_key.txt").read_text().strip()


def _judged(frame: pd.DataFrame, verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """The rows with what the ledger says of each."""
    frame = frame.assign(
        made=[verdict.made for verdict in verdicts],
        index=[verdict.index for verdict in verdicts],
        distance=[verdict.distance for verdict in verdicts],
    )
    if verdicts[0].latent_distance is not None:
        frame["latent_distance"] = [verdict.latent_distance for verdict in verdicts]
    if "truth" in frame:
        frame["right"] = frame["index"] == frame["truth"]
    return frame


# --- Pictures and distances -------------------------------------------------------------------------------------------


@torch.no_grad()
def pictures(generator: Generator, entropy: Tensor | NDArray[np.float32]) -> Images:
    """What the generator makes of entropy: (N, 64, 64) in [0, 1]."""
    assert generator.decode is not None
    made = [generator.decode(part)[:, 0].clamp(0.0, 1.0) for part in torch.as_tensor(entropy).split(64)]
    return torch.cat(made).numpy()


def deliver(images: Images, quality: int | None = 90) -> Images:
    """Images as they arrive: after the 8 bits and the JPEG step that all images take; without JPEG for None."""
    return np.stack([common_path(image, SIZE, quality)[0][..., 0] for image in images]).astype(np.float32) / 255.0


def alter(images: Images, kind: str, strength: float, rng: np.random.Generator) -> Images:
    """One of `ALTERATIONS`, then 8 bits, then (but for `as made` and `jpeg` itself) JPEG of quality 90."""
    if kind == "as made":
        return deliver(images, None)
    if kind == "jpeg":
        return deliver(images, int(strength))
    if kind == "blur":
        changed = ndimage.gaussian_filter(images, (0, strength, strength))
    elif kind == "noise":
        changed = images + strength * rng.standard_normal(images.shape, np.float32)
    elif kind == "brightness":
        changed = images * np.float32(strength)
    else:
        edge = (1.0 - strength) * SIZE / 2.0
        box = (edge, edge, SIZE - edge, SIZE - edge)
        whole = (Image.fromarray(image) for image in images)
        changed = np.stack([np.asarray(one.resize((SIZE, SIZE), Image.Resampling.LANCZOS, box)) for one in whole])
    return deliver(changed.clip(0.0, 1.0))


def distances(images: Images, samples: Images, generator: Generator) -> NDArray[np.float32]:
    """(image, sample) root mean square errors over the pixels that the generator draws: as `ledger.verify` has them."""
    region = np.ones((SIZE, SIZE), np.float32) if generator.region is None else generator.region
    scale = torch.from_numpy(np.sqrt(region / region.sum()).astype(np.float32)).flatten()
    a, b = (torch.from_numpy(part).flatten(1) * scale for part in (images, samples))
    parts = [torch.cdist(a, part, compute_mode="donot_use_mm_for_euclid_dist") for part in b.split(64)]
    return torch.cat(parts, 1).numpy()


@dataclass(frozen=True)
class Tail:
    """The share of distances up to t, below `edge`: share * (t / edge) ** exponent."""

    edge: float
    share: float
    exponent: float

    def rate(self, threshold: float, samples: int) -> float:
        """How often an image has one of so many samples within the threshold.

        All images are taken to be alike. Where some are nearer to everything than others, this says too much (Jensen).
        """
        return float(-np.expm1(-samples * self.share * (threshold / self.edge) ** self.exponent))

    def threshold(self, rate: float, samples: int) -> float:
        """The threshold at which that happens at this rate, at most the edge."""
        return float(self.edge * min(1.0, (-np.log1p(-rate) / (samples * self.share)) ** (1.0 / self.exponent)))


def _tail_table(tails: dict[str, Tail], samples: int) -> pd.DataFrame:
    rows = [
        {"kind": kind, **vars(tail), "threshold": tail.threshold(FALSE_MADE, GROWTH * samples)}
        for kind, tail in tails.items()
    ]
    return pd.DataFrame(rows).set_index("kind")


def fit_tail(found: NDArray[np.floating]) -> Tail:
    """The lower tail of distances (image, sample) between what has nothing to do with each other.

    Near 0 the share of distances below t grows as a power of t, the exponent being the number of dimensions in which
    images differ; it is estimated from the smallest `TAIL` of the distances, as Hill 1975 does for upper tails.
    """
    flat = np.sort(found, axis=None).astype(np.float64)
    count = min(max(20, round(TAIL * flat.size)), flat.size - 1)
    edge = flat[count]
    logs = np.log(edge / np.maximum(flat[:count], 1e-9))
    return Tail(edge=float(edge), share=count / flat.size, exponent=float(1.0 / max(logs.mean(), 1e-9)))


def false_rate(found: NDArray[np.floating], threshold: float, tail: Tail, kind: str) -> pd.DataFrame:
    """How often an innocent image is called made, by size of the ledger and threshold.

    Parameters
    ----------
    found
        (image, sample) distances. The rate for n samples is the mean over images and over all choices of n of them:
        1 - C(N - c, n) / C(N, n) for an image with c samples within the threshold.
    tail
        Fitted elsewhere; predicts the same rate, also for ledgers larger than this one.
    """
    total = found.shape[1]
    sizes = np.unique(np.geomspace(10, total, 10).round().astype(int)).tolist()
    rows = []
    for multiple in MULTIPLES:
        close = (found <= multiple * threshold).sum(1)
        for size in [*sizes, 10 * total, 100 * total, GROWTH * total]:
            row = {"kind": kind, "multiple": multiple, "ledger_size": size, "images": len(found)}
            row["predicted"] = tail.rate(multiple * threshold, size)
            if size <= total:
                rest = total - close
                room = np.maximum(rest - size, 0)
                ways = (gammaln(rest + 1.0) - gammaln(room + 1.0)) - (
                    gammaln(total + 1.0) - gammaln(total - size + 1.0)
                )
                missed = np.where(rest < size, 0.0, np.exp(ways))
                rate = wilson(float((1.0 - missed).sum()), len(found))
                row |= {"made": rate.value, "made.low": rate.low, "made.high": rate.high}
            rows.append(row)
    return pd.DataFrame(rows)


# --- Calibration, and the adversary -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Search:
    """Inversion by the accused generator, each kept in a file of the run until it is finished."""

    folder: Path
    generator: Generator
    steps: int
    seed: int

    def __call__(self, name: str, images: Images) -> Inversion:
        checkpoint = self.folder / f"{name}.pt"
        return invert(
            images, self.generator, steps=self.steps, seed=self.seed, checkpoint=checkpoint, progress=True, chunk=64
        )


def explained(generator: Generator, found: Inversion, targets: Images) -> Images:
    """What an adversary publishes: the picture made of the entropy found, shrunk until it is a likely one.

    Unlikely entropy would betray the search. Outside the region that the generator draws the target stays as it is.
    """
    entropy = found.entropy * np.minimum(1.0, np.maximum(found.energy, 1e-9) ** -0.5)[:, None].astype(np.float32)
    made = pictures(generator, entropy)
    if generator.region is None:
        return made
    return (generator.region * made + (1.0 - generator.region) * targets).astype(np.float32)


def within(budget: float, images: Images, goal: Images) -> Images:
    """The pictures nearest to `goal` in which no pixel is further than `budget` from `images`."""
    return (images + (goal - images).clip(-budget, budget)).clip(0.0, 1.0)


def _calibrate(search: Search, samples: int, images: int) -> dict[str, Any]:
    """Thresholds, from samples, photographs and people that are used for nothing else."""
    generator, seed = search.generator, search.seed
    count = 2 * images
    genuine = pictures(generator, generator.entropy(count, _number(seed, "calibration samples")))
    rows = [
        pd.DataFrame({"delivery": _delivery(kind, strength), "distance": _each(changed, genuine, generator)})
        for kind, strength in MILD
        for changed in [alter(genuine, kind, strength, _rng(seed, "mild", kind, strength))]
    ]
    faces = photographs().images[~np.isin(photographs().subject, people()["test"])]
    faces = faces[np.sort(_rng(seed, "calibration faces").permutation(len(faces))[:count])]
    inverted = search("calibration", np.concatenate([deliver(genuine), faces]))
    searched = explained(generator, _take(inverted, slice(count, None)), faces)
    kinds = {"second copy": deliver(genuine), "searched": deliver(searched), "photograph": deliver(faces)}
    others = pictures(generator, generator.entropy(samples, _number(seed, "calibration ledger")))
    found = {kind: distances(part, others, generator) for kind, part in kinds.items()}
    tails = {kind: fit_tail(part) for kind, part in found.items()}
    innocents = [pd.DataFrame({"kind": kind, "distance": part.min(1)}) for kind, part in found.items()]
    return {
        "threshold": min(1.0, *(tail.threshold(FALSE_MADE, GROWTH * samples) for tail in tails.values())),
        "error": float(np.quantile(inverted.pixel[:count], LIKELY, method="higher")),
        "energy": float(np.quantile(inverted.energy[:count], LIKELY, method="higher")),
        "tails": tails,
        "genuine": pd.concat(rows, ignore_index=True),
        "innocents": pd.concat(innocents, ignore_index=True),
    }


def _framed(
    search: Search, rival: Generator, images: int, measured: dict[str, Any]
) -> tuple[pd.DataFrame, Images, Images]:
    """The attacks on an innocent developer: a row a picture, the pictures as delivered, and what they were to be."""
    generator, seed = search.generator, search.seed
    faces = photographs().images[np.isin(photographs().subject, people()["test"])]
    faces = faces[np.sort(_rng(seed, "targets").permutation(len(faces))[:images])]
    strange = rival.sample(len(faces), _number(seed, "rival"))
    targets = np.concatenate([faces, strange])
    searched = explained(generator, search("targets", targets), targets)
    # Twice: nearer pictures are found once the search may start from a picture that was moved towards its reach.
    first = np.concatenate([within(budget / 255.0, faces, searched[: len(faces)]) for budget in BUDGETS])
    again = explained(generator, search("perturbed", first), first)
    moved = [
        within(budget / 255.0, faces, goal) for budget, goal in zip(BUDGETS, np.split(again, len(BUDGETS)), strict=True)
    ]
    second = pictures(generator, generator.entropy(len(faces), _number(seed, "second copy")))
    parts: list[tuple[str, str, float, Images, Images]] = [
        ("untouched", "photograph", np.nan, faces, faces),
        *(("perturbed", "photograph", float(b), m, faces) for b, m in zip(BUDGETS, moved, strict=True)),
        ("searched", "photograph", np.nan, searched[: len(faces)], faces),
        ("searched", rival.name, np.nan, searched[len(faces) :], strange),
        ("second copy", generator.name, np.nan, second, second),
    ]
    rows = []
    for attack, target, budget, made, wanted in parts:
        apart = np.abs(made - wanted).reshape(len(made), -1)
        changes = {"largest_change": apart.max(1), "rms_change": np.sqrt((apart**2).mean(1))}
        rows.append(pd.DataFrame({"attack": attack, "target": target, "budget": budget, **changes}))
    published = np.concatenate([deliver(made) for _, _, _, made, _ in parts])
    return pd.concat(rows, ignore_index=True), published, np.concatenate([wanted for *_, wanted in parts])


def opened_entropy(evidence: Evidence, records: Sequence[int]) -> Tensor:
    """The entropy of records that evidence opens: anyone who has the evidence can make these samples again."""
    size = int(json.loads(evidence.records[0])["epoch_size"])
    keys = [
        bytes.fromhex(evidence.keys[record])
        if record in evidence.keys
        else record_key(bytes.fromhex(evidence.epochs[record // size][0]), record)
        for record in records
    ]
    return expand(keys, int(json.loads(evidence.records[0])["latent_dim"]))


def altered_copies(
    opened: Images, goals: Images, generator: Generator, threshold: float
) -> tuple[Images, NDArray[np.float64]]:
    """Opened samples moved towards other pictures until nine tenths of the threshold away, and the share of the way."""
    goals = goals[: len(opened)]
    share = np.minimum(1.0, 0.9 * threshold / np.maximum(_each(goals, opened, generator), 1e-6))
    blended = opened + share[:, None, None].astype(np.float32) * (goals - opened)
    return deliver(blended), share


def _each(a: Images, b: Images, generator: Generator) -> NDArray[np.float64]:
    """(N,) distances between pictures of the same row."""
    region = np.ones((SIZE, SIZE), np.float32) if generator.region is None else generator.region
    return np.sqrt(((a - b).astype(np.float64) ** 2 * region).sum((1, 2)) / region.sum())


# --- Cheating ledgers -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cheat:
    """What a developer tries, the outcome or error that the documentation promises, and the attempt itself."""

    name: str
    expected: str
    attempt: Callable[[], Verdict | None]


def cheat(folder: Path, kept: Kept, third: Party, threshold: float, seed: int) -> pd.DataFrame:
    """What a guilty developer may do to a ledger, done to a copy of it, and what the third party then gets.

    All of it happens under an earlier head, which ends within an epoch, so that its samples are made again quickly.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator, key, secret = third.generator, third.key, kept.secret
    head = kept.heads[HEADS // 3 - 1]
    honest = ledger.gather(kept.path, secret, head)
    text = list(honest.records)
    size = int(json.loads(text[0])["epoch_size"])
    guilty, late = (size + size // 2, head.size - 2)
    image = deliver(pictures(generator, opened_entropy(honest, [guilty])))[0]
    fresh = deliver(pictures(generator, generator.entropy(1, _number(seed, "outside"))))[0]
    own_key = hashlib.sha256(b"a key of the developer's choice" + secret).digest()

    def judge(evidence: Evidence, against: Head = head, picture: Images = image) -> Verdict:
        return ledger.verify(evidence, picture, against, generator, key, threshold=threshold, progress=False)

    def records(lines: Sequence[str]) -> Evidence:
        return replace(honest, records=tuple(lines))

    def edited(at: int) -> list[str]:
        """The commitment of a record replaced, and all digests from there on left as they were."""
        record = json.loads(text[at]) | {"commitment": commit(own_key).hex()}
        return [*text[:at], json.dumps(record, sort_keys=True, separators=(",", ":")), *text[at + 1 :]]

    def forged(at: int) -> list[str]:
        """The same, all digests made right again: sound in itself."""
        return _rechained(edited(at), at)

    def exchanged() -> list[str]:
        return [*text[:guilty], text[guilty + 1], text[guilty], *text[guilty + 2 :]]

    def without(at: int) -> list[str]:
        return [*text[:at], *text[at + 1 :]]

    def swapped() -> tuple[Path, Head, Evidence]:
        """A key of the developer's choice committed to in the epoch in progress, before the head was published."""
        path = _log(folder / "swapped.ledger", forged(late))
        signed = ledger.publish(path, secret)
        return path, signed, replace(records(forged(late)), head=signed, keys={**honest.keys, late: own_key.hex()})

    def filled(opened: bool) -> Verdict:
        """The same ledger once that epoch is full, the epoch's key opened or each record's own."""
        path, earlier, evidence = swapped()
        epoch = late // size
        rest = (epoch + 1) * size - earlier.size
        if rest:
            ledger.draw(path, secret, generator, rest)
        signed = ledger.publish(path, secret)
        lines = tuple(path.read_text().splitlines())
        epochs = dict(honest.epochs)
        keys = dict(evidence.keys)
        if opened:
            epochs[epoch] = third.evidence.epochs[epoch]
        else:
            epoch_key = bytes.fromhex(third.evidence.epochs[epoch][0])
            keys |= {r: record_key(epoch_key, r).hex() for r in range(earlier.size, signed.size)}
        late_image = deliver(pictures(generator, opened_entropy(honest, [late])))[0]
        return judge(Evidence(signed, lines, epochs, keys), signed, late_image)

    def forked() -> Verdict:
        path = _log(folder / "forked.ledger", forged(guilty))
        other = ledger.publish(path, secret)
        return judge(replace(records(forged(guilty)), head=other))

    def second(owner: bytes) -> tuple[Head, Evidence]:
        path = folder / f"second {owner.hex()[:8]}.ledger"
        path.unlink(missing_ok=True)
        ledger.create(path, owner, generator, epoch_size=size, epochs=16)
        ledger.draw(path, owner, generator, 5)
        signed = ledger.publish(path, owner)
        return signed, ledger.gather(path, owner, signed)

    def outside() -> Verdict:
        """An honest log with nothing open to doubt, filled up to the end of an epoch; the image is not from it."""
        path = _log(folder / "outside.ledger", text)
        rest = (late // size + 1) * size - head.size
        if rest:
            ledger.draw(path, secret, generator, rest)
        signed = ledger.publish(path, secret)
        return judge(ledger.gather(path, secret, signed), signed, fresh)

    def late_swap() -> Verdict:
        _, signed, evidence = swapped()
        return judge(evidence, signed, deliver(pictures(generator, opened_entropy(honest, [late])))[0])

    stranger = hashlib.sha256(b"another" + secret).digest()
    old = kept.heads[0]
    other_key = dict(honest.epochs) | {1: (own_key.hex(), honest.epochs[1][1])}
    all_but_one = [record for record in range(1, head.size) if record != guilty]
    cheats = [
        Cheat("none: an honest ledger", "made", lambda: judge(honest)),
        Cheat("entropy from outside the ledger", "not made", outside),
        Cheat("records after the image's cut off", "TruncatedError", lambda: judge(records(text[:guilty]))),
        Cheat("the image's record taken out", "TruncatedError", lambda: judge(records(without(guilty)))),
        Cheat(
            "taken out, the rest numbered and chained anew",
            "TruncatedError",
            lambda: judge(records(_rechained(without(guilty), guilty))),
        ),
        Cheat("the record rewritten", "TamperedError", lambda: judge(records(edited(guilty)))),
        Cheat("rewritten, all digests made right", "ForkError", lambda: judge(records(forged(guilty)))),
        Cheat("two records exchanged", "ReorderedError", lambda: judge(records(exchanged()))),
        Cheat(
            "another record repeated in its place",
            "ReplayedError",
            lambda: judge(records([*text[:guilty], text[guilty - 1], *text[guilty + 1 :]])),
        ),
        Cheat(
            "evidence under a head from before the image",
            "ReplayedError",
            lambda: judge(ledger.gather(kept.path, secret, old)),
        ),
        Cheat(
            "an old head shown as the current one",
            "ReplayedError",
            lambda: ledger.check_consistency(head, old, [], key),
        ),
        Cheat(
            "the key of the image's epoch withheld",
            "IncompleteError",
            lambda: judge(replace(honest, epochs={e: pair for e, pair in honest.epochs.items() if e != 1})),
        ),
        Cheat(
            "every record opened but the image's",
            "IncompleteError",
            lambda: judge(ledger.gather(kept.path, secret, head, only=all_but_one)),
        ),
        Cheat("another key given for the epoch", "TamperedError", lambda: judge(replace(honest, epochs=other_key))),
        Cheat(
            "keys of two records of the epoch in progress exchanged",
            "TamperedError",
            lambda: judge(replace(honest, keys={**honest.keys, late: honest.keys[late - 1]})),
        ),
        Cheat("a key of one's own, in the epoch in progress", "not made, flagged", late_swap),
        Cheat("the same, once the epoch is full and opened", "TamperedError", lambda: filled(True)),
        Cheat("the same, full but opened record by record", "IncompleteError", lambda: filled(False)),
        Cheat("two histories of the same length", "ForkError", forked),
        Cheat("a second ledger under the same key", "ForkError", lambda: judge(second(secret)[1])),
        Cheat("a head signed by another", "SignatureError", lambda: judge(second(stranger)[1])),
        Cheat(
            "the published head edited",
            "SignatureError",
            lambda: judge(honest, replace(head, root=hashlib.sha256(b"another root").hexdigest())),
        ),
    ]
    return pd.DataFrame([_outcome(one) for one in cheats])


def _outcome(one: Cheat) -> dict[str, object]:
    error = message = ""
    try:
        verdict = one.attempt()
    except ledger.LedgerError as refused:
        outcome, error, message = "refused", type(refused).__name__, str(refused)
    else:
        assert verdict is not None, one.name
        outcome = "made" if verdict.made else "not made, flagged" if verdict.unbound else "not made"
        message = f"{verdict.unbound} of {verdict.compared} samples are not yet bound to record 0"
    return {
        "cheat": one.name,
        "outcome": outcome,
        "error": error,
        "message": message,
        "expected": one.expected,
        "as_expected": one.expected in (outcome, error),
    }


def _rechained(lines: Sequence[str], at: int) -> list[str]:
    """Numbers, chain and digests of all records from `at` on made right: what a forger who knows the format writes."""
    out = list(lines[:at])
    for number, line in enumerate(lines[at:], at):
        record = json.loads(line) | {"record": number, "previous": json.loads(out[-1])["digest"]}
        del record["digest"]
        out.append(seal(record).decode())
    return out


def _log(path: Path, lines: Sequence[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


# --- Odds and ends ----------------------------------------------------------------------------------------------------


def _number(seed: int, *what: object) -> int:
    """A seed for one purpose, unlike that for any other."""
    return int.from_bytes(hashlib.sha256(repr((seed, *what)).encode()).digest()[:4], "little") >> 1


def _rng(seed: int, *what: object) -> np.random.Generator:
    return np.random.default_rng(_number(seed, *what))


def _delivery(kind: str, strength: float) -> str:
    return f"{kind} {strength:g}"


def _rows(frame: pd.DataFrame, attack: str) -> NDArray[np.bool_]:
    return (frame["attack"] == attack).to_numpy()


def _take(found: Inversion, rows: slice) -> Inversion:
    arrays: dict[str, Any] = {name: value[rows] for name, value in vars(found).items() if isinstance(value, np.ndarray)}
    return replace(found, **arrays)


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text)
    beside.replace(path)


def _write(folder: Path, results: Results, settings: dict[str, Any], seconds: float) -> None:
    """The run's files. Inversions were kept for a second try only; the log's lock serves nobody any more."""
    frames = {
        "accused": results.accused,
        "copied": results.copied,
        "fresh": results.fresh,
        "guilty": results.guilty,
        "growth": results.growth,
        "cheats": results.cheats,
        "calibration/genuine": results.genuine,
        "calibration/innocents": results.innocents,
    }
    groups = {f"/{name}": xr.Dataset.from_dataframe(part.rename_axis("image")) for name, part in frames.items()}
    axes = ("image", "y", "x")
    for name, part in (("published", results.published), ("wanted", results.targets)):
        groups["/accused"][name] = (axes, (part * 255.0).round().astype(np.uint8))
    tree = xr.DataTree.from_dict(groups)
    named = {key: str(value) for key, value in settings.items()}
    measured = {key: results.facts[key] for key in ("threshold", "error", "energy")}
    tree.attrs = {**VERSIONS, **named, **measured, "experiment": "deniability", "seconds": round(seconds, 1)}
    write_tree(tree, folder / TREE, overwrite=True)
    figures, tables = presentation.figures(results), presentation.tables(results)
    write_metrics(folder, presentation.metrics(results))
    write_tables(folder, tables)
    write_figures(folder, figures)
    presentation.page(folder / "report.html", results, figures, tables, settings, CREDIT)
    shutil.rmtree(folder / "inversions", ignore_errors=True)
    (folder / "ledger" / "developer.ledger.lock").unlink(missing_ok=True)


def _summary(results: Results, out: Path, seconds: float) -> None:
    """What a reader in a hurry wants to know."""
    table = Table(title="Share of images (95 % Wilson intervals)")
    for column in ("", "inversion convicts", "ledger says made"):
        table.add_column(column, justify="left" if not column else "right")
    for row in presentation.verdicts(results):
        table.add_row(*row)
    console.print(table)
    console.print(presentation.answer(results), markup=False, highlight=False, soft_wrap=True)
    text = f"finished in {seconds:.0f} s; open {out / 'report.html'}, or bayesdf.open_run({str(out)!r})"
    console.print(text, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run_cli(main)

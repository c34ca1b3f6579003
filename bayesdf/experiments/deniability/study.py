"""Who is framed, who can deny: the whole experiment, step by step."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayesdf.cli import console
from bayesdf.data import common_path_grey
from bayesdf.experiments.deniability.calibration import LIKELY, calibrate
from bayesdf.experiments.deniability.cheats import cheat
from bayesdf.experiments.deniability.developer import keep_ledger, recalled
from bayesdf.experiments.deniability.distances import FALSE_MADE, GROWTH, distances, false_rate, tail_table
from bayesdf.experiments.deniability.framing import Search, altered_copies, framed
from bayesdf.experiments.deniability.party import Party, from_published, judged, opened_latents
from bayesdf.experiments.deniability.pictures import ALTERATIONS, Images, alter
from bayesdf.experiments.seeds import rng_of, seed_of
from bayesdf.generators import Generator
from bayesdf.report.deniability import Results


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
    third = Party(accused, *from_published(folder / "ledger"))
    search = Search(folder / "inversions", accused, steps, seed)

    console.print("[bold]2/6[/] calibration: what is near, and what can be explained")
    measured = calibrate(search, samples, images)
    threshold = measured.threshold

    console.print("[bold]3/6[/] framing the innocent")
    frame, published, targets = framed(search, rival, images)
    records = np.sort(rng_of(seed, "guilty").permutation(samples)[:images] + 1)
    guilty = recalled(kept, accused, records.tolist())
    frame = pd.concat(
        [frame, pd.DataFrame({"attack": "guilty", "target": accused.name, "cluster": "", "truth": records})]
    )
    published = np.concatenate([published, common_path_grey(guilty)])
    targets = np.concatenate([targets, guilty])
    found = search("accused", published)
    frame = frame.reset_index(drop=True).assign(error=found.pixel, energy=found.energy)
    frame["convicted"] = (found.pixel <= measured.error) & (found.energy <= measured.energy)
    frame = judged(frame, third.judge(published, threshold, found.latent))
    # What an adversary makes of the evidence itself, once it is in many hands.
    opened = accused.pictures(opened_latents(third.evidence, records.tolist()))
    copies, shares = altered_copies(opened, targets[:images], accused, threshold)
    person = frame.loc[frame["attack"] == "untouched", "cluster"].to_numpy()
    copied = judged(
        pd.DataFrame({"share": shares, "truth": records, "cluster": person}), third.judge(copies, threshold)
    )

    console.print("[bold]4/6[/] a guilty developer's images, altered; false alarms as the ledger grows")
    changes, changed = _altered(guilty, records, seed)
    fresh = common_path_grey(accused.pictures(accused.sample_latent(10 * images, seed_of(seed, "fresh"))))
    verdicts = third.judge(np.concatenate([changed, fresh]), threshold)
    innocents = {
        "second copy": fresh,
        "searched": published[(frame["attack"] == "searched") & (frame["target"] == "photograph")],
        "photograph": published[frame["attack"] == "untouched"],
    }
    own = recalled(kept, accused, range(1, samples + 1))
    growth = [
        false_rate(
            distances(part, own, accused),
            threshold,
            measured.tails[kind],
            kind,
            clusters=[""] * len(part) if kind == "second copy" else person,
        )
        for kind, part in innocents.items()
    ]

    console.print("[bold]5/6[/] cheating ledgers")
    cheats = cheat(folder / "cheats", kept, third, threshold, seed)
    shutil.rmtree(folder / "cheats")
    facts = {
        "generator": accused.name,
        "rival": rival.name,
        "samples": samples,
        "images": images,
        "threshold": threshold,
        "error": measured.error,
        "energy": measured.energy,
        "false_made": FALSE_MADE,
        "growth": GROWTH,
        "likely": LIKELY,
        "heads": len(kept.heads),
        "root": third.head.root,
        "public_key": third.key,
        "copies_identical": float(np.mean([np.array_equal(a, b) for a, b in zip(opened, guilty, strict=True)])),
    }
    return Results(
        facts=facts,
        tails=tail_table(measured.tails, samples),
        genuine=measured.genuine,
        innocents=measured.innocents,
        accused=frame,
        copied=copied,
        fresh=judged(pd.DataFrame({"kind": ["second copy"] * len(fresh), "cluster": ""}), verdicts[len(changed) :]),
        guilty=judged(changes, verdicts[: len(changed)]),
        growth=pd.concat(growth, ignore_index=True),
        cheats=cheats,
        published=published,
        targets=targets,
    )


def _altered(guilty: Images, records: NDArray[np.int64], seed: int) -> tuple[pd.DataFrame, Images]:
    """The developer's images after each of `ALTERATIONS`: a row a picture, and the pictures."""
    rows, changed = [], []
    for kind, strengths in ALTERATIONS.items():
        for strength in strengths:
            rows.append(pd.DataFrame({"alteration": kind, "strength": strength, "truth": records}))
            changed.append(alter(guilty, kind, strength, rng_of(seed, "alter", kind, strength)))
    return pd.concat(rows, ignore_index=True), np.concatenate(changed)

"""From settings to a DataTree: the ledger, the attacks and the verdicts are one cell."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesdf._version import __version__
from bayesdf.cli import console
from bayesdf.data import common_path_grey
from bayesdf.experiments.deniability.cheats import try_cheats
from bayesdf.experiments.deniability.developer import keep_ledger, recall_pictures
from bayesdf.experiments.deniability.distances import FALSE_MADE, GROWTH, distances, false_rate, tail_table
from bayesdf.experiments.deniability.framing import Search, altered_copies, framing_attacks
from bayesdf.experiments.deniability.page import present
from bayesdf.experiments.deniability.pictures import ALTERATIONS, Images, alter, weights_digest
from bayesdf.experiments.deniability.results import Results
from bayesdf.experiments.deniability.third_party import ThirdParty, opened_latents, read_published, with_verdicts
from bayesdf.experiments.deniability.thresholds import LIKELY, calibrate
from bayesdf.experiments.experiment import Cell, Study
from bayesdf.experiments.seeds import rng_of, seed_of
from bayesdf.generators import Generator


def study(
    *, accused: Generator, rival: Generator, samples: int, images: int, steps: int, seed: int, quick: bool = False
) -> Study:
    """Declare the study.

    Parameters
    ----------
    accused
        Whose developer keeps the ledger.
    rival
        Whose images are passed off as the accused's, beside photographs.
    samples, images, steps, seed, quick
        As on the command line.
    """
    settings = {
        "bayesdf": __version__,
        "generator": accused.name,
        "weights": weights_digest(accused),
        "rival": rival.name,
        "samples": samples,
        "images": images,
        "steps": steps,
        "seed": seed,
    }
    given = partial(work, accused, rival, samples=samples, images=images, steps=steps, seed=seed)
    return Study(
        name="deniability",
        settings=settings,
        follows={"rival_weights": weights_digest(rival)},
        cells=[Cell("deniability", f"{accused.name}: {samples} samples, {images} images of each attack", given)],
        present=present,
        collect=lambda results: results["deniability"],
        attrs={"quick": quick},
        scratch=["inversions", "cheats"],
    )


def work(
    accused: Generator, rival: Generator, folder: Path, *, samples: int, images: int, steps: int, seed: int
) -> xr.DataTree:
    """Frame the innocent, let the guilty deny, and judge by inversion and by the ledger.

    Parameters
    ----------
    accused, rival, samples, images, steps, seed
        As `study` takes them.
    folder
        The same call goes on from what it holds. `ledger` is what the developer publishes and hands over, `inversions`
        and `cheats` are scratch.

    Returns
    -------
    xr.DataTree
        What `Results.to_tree` makes.
    """
    console.print(f"    1/5 a ledger of {samples} samples of {accused.name}")
    developer = keep_ledger(folder / "ledger", accused, samples, seed)
    third = ThirdParty(accused, *read_published(folder / "ledger"))
    search = Search(folder / "inversions", accused, steps, seed)

    console.print("    2/5 calibration: what is near, and what can be explained")
    measured = calibrate(search, samples, images)
    threshold = measured.threshold

    console.print("    3/5 framing the innocent")
    frame, published, targets = framing_attacks(search, rival, images)
    records = np.sort(rng_of(seed, "guilty").permutation(samples)[:images] + 1)
    guilty = recall_pictures(developer, accused, records.tolist())
    frame = pd.concat(
        [frame, pd.DataFrame({"attack": "guilty", "target": accused.name, "cluster": "", "truth": records})]
    )
    published = np.concatenate([published, common_path_grey(guilty)])
    targets = np.concatenate([targets, guilty])
    found = search("accused", published)
    frame = frame.reset_index(drop=True).assign(error=found.pixel, energy=found.energy)
    frame["convicted"] = (found.pixel <= measured.error) & (found.energy <= measured.energy)
    frame = with_verdicts(frame, third.judge(published, threshold, found.latent))
    # What an adversary makes of the evidence itself, once it is in many hands.
    opened = accused.pictures(opened_latents(third.evidence, records.tolist()))
    copies, shares = altered_copies(opened, targets[:images], accused, threshold)
    person = frame.loc[frame["attack"] == "untouched", "cluster"].to_numpy()
    copied = with_verdicts(
        pd.DataFrame({"share": shares, "truth": records, "cluster": person}), third.judge(copies, threshold)
    )

    console.print("    4/5 a guilty developer's images, altered; false alarms as the ledger grows")
    changes, changed = _altered(guilty, records, seed)
    fresh = common_path_grey(accused.pictures(accused.sample_latent(10 * images, seed_of(seed, "fresh"))))
    verdicts = third.judge(np.concatenate([changed, fresh]), threshold)
    innocents = {
        "second copy": fresh,
        "searched": published[(frame["attack"] == "searched") & (frame["target"] == "photograph")],
        "photograph": published[frame["attack"] == "untouched"],
    }
    own = recall_pictures(developer, accused, range(1, samples + 1))
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

    console.print("    5/5 cheating ledgers")
    cheats = try_cheats(folder / "cheats", developer, third, threshold, seed)
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
        "heads": len(developer.heads),
        "root": third.head.root,
        "public_key": third.key,
        "copies_identical": float(np.mean([np.array_equal(a, b) for a, b in zip(opened, guilty, strict=True)])),
    }
    results = Results(
        facts=facts,
        tails=tail_table(measured.tails, samples),
        genuine=measured.genuine,
        innocents=measured.innocents,
        accused=frame,
        copied=copied,
        fresh=with_verdicts(
            pd.DataFrame({"kind": ["second copy"] * len(fresh), "cluster": ""}), verdicts[len(changed) :]
        ),
        guilty=with_verdicts(changes, verdicts[: len(changed)]),
        growth=pd.concat(growth, ignore_index=True),
        cheats=cheats,
        published=published,
        targets=targets,
    )
    return results.to_tree()


def _altered(guilty: Images, records: NDArray[np.int64], seed: int) -> tuple[pd.DataFrame, Images]:
    """The developer's images after each of `ALTERATIONS`: a row a picture, and the pictures."""
    rows, changed = [], []
    for kind, strengths in ALTERATIONS.items():
        for strength in strengths:
            rows.append(pd.DataFrame({"alteration": kind, "strength": strength, "truth": records}))
            changed.append(alter(guilty, kind, strength, rng_of(seed, "alter", kind, strength)))
    return pd.concat(rows, ignore_index=True), np.concatenate(changed)

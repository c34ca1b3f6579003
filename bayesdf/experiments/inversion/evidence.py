"""How nearly can each candidate make the pictures again?"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from bayesdf.cli import console
from bayesdf.experiments.inversion.pictures import Pictures, Pixels
from bayesdf.experiments.inversion.plan import Plan
from bayesdf.generators import Generator
from bayesdf.inversion import Inversion, evidence, invert


def invert_by_candidates(
    folder: Path, name: str, images: Pixels, candidates: Mapping[str, Generator], plan: Plan
) -> dict[str, Inversion]:
    """The inversion of images by each candidate. What is done is kept in the folder, in files of this name."""
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


def evidence_of(pictures: Pictures, inversions: Mapping[str, Inversion]) -> xr.Dataset:
    """`evidence` of pictures, and for each candidate the `loss`, the `pixel` error and the number of `evaluations`."""
    terms = evidence(inversions, source=pictures.source, subject=pictures.subject)
    columns = {
        key: (("image", "candidate"), np.stack([getattr(one, key) for one in inversions.values()], 1))
        for key in ("loss", "pixel", "evaluations")
    }
    return xr.Dataset({"evidence": terms, **columns})

"""The data set that comes with the package: 400 photographs of 40 people, and what the generators make of them.

The photographs are those of AT&T Laboratories Cambridge (see `bayesdf.faces`). Within each split every generator makes
one fake for every photograph; second persons (donors of a face, a motion, a mouth) come from the same split. The split
is fixed, so that weights trained on its training people can ship.
"""

import hashlib
import importlib.resources
import itertools

import numpy as np
import pandas as pd
from rich.progress import track

from bayesdf import __version__
from bayesdf.data.common import QUALITY, common_path
from bayesdf.data.manifest import REAL, SPLITS
from bayesdf.data.prepared import Images, prepared
from bayesdf.faces import SIZE, photographs
from bayesdf.generators import GENERATORS

SEED = 0
PEOPLE = {"train": 24, "val": 6, "test": 10}


def people() -> dict[str, list[str]]:
    """Who is in which split: 24, 6 and 10 of the 40 people, dealt once and for all."""
    everyone = np.random.default_rng(SEED).permutation(np.unique(photographs().subject))
    bounds = np.cumsum([PEOPLE[split] for split in SPLITS])[:-1]
    return {split: sorted(part.tolist()) for split, part in zip(SPLITS, np.split(everyone, bounds), strict=True)}


def read(size: int = SIZE, quality: int | None = QUALITY) -> tuple[Images, pd.DataFrame]:
    """The images (N, size, size, 3) uint8 and their manifest."""
    return prepared(f"embedded-{_key(size, quality)}", lambda: _make(size, quality))


def _key(size: int, quality: int | None) -> str:
    digest = hashlib.sha256(f"{__version__} {SEED} {PEOPLE} {size} {quality} {sorted(GENERATORS)}".encode())
    digest.update(photographs().images.tobytes())
    weights = importlib.resources.files("bayesdf.generators").joinpath("weights")
    for name in sorted(GENERATORS):
        file = weights.joinpath(f"{name}.safetensors")
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _make(size: int, quality: int | None) -> tuple[Images, pd.DataFrame]:
    images, rows = [], []
    jobs = list(itertools.product(enumerate(people().items()), enumerate([REAL, *GENERATORS])))
    for (part, (split, members)), (number, source) in track(jobs, "making the fakes", transient=True):
        faces = photographs().take(np.isin(photographs().subject, members))
        if source == REAL:
            made, donors = faces.images, np.full(len(faces), -1)
        else:
            fakes = GENERATORS[source].make(faces, np.random.default_rng([SEED, part, number]))
            made, donors = fakes.images, fakes.donor
        for row, (image, donor) in enumerate(zip(made, donors, strict=True)):
            pixels, length = common_path(image, size, quality)
            images.append(pixels)
            rows.append(
                {
                    "path": f"{source}/{faces.name[row]}",
                    "source": source,
                    "subject": faces.subject[row],
                    "donor": faces.subject[donor] if donor >= 0 else "",
                    "video": faces.name[row],
                    "split": split,
                    "bytes": length,
                }
            )
    return np.stack(images), pd.DataFrame(rows)

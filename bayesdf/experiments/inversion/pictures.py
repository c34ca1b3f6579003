"""Which pictures are judged, calibrated with and trained on, and what has happened to them?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesdf.data import REAL
from bayesdf.experiments.inversion.resumable import load_or_make
from bayesdf.experiments.seeds import seed_of
from bayesdf.faces import Faces, people, photographs
from bayesdf.generators import Generator

Pixels = NDArray[np.float32]
ROLES = ("calibration", "test", "train")
"""What pictures are for."""


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

    def with_images(self, images: Pixels) -> "Pictures":
        """Other versions of the same pictures: one after another, if there are several of each."""
        times = len(images) // len(self)
        return Pictures(images, np.tile(self.source, times), np.tile(self.subject, times))


def people_for(role: str) -> list[str]:
    """Whose photographs are used, and worked on, for a role.

    Generators of whole images have seen training and validation people: what is calibrated and what is judged is of
    test people, one half each. Classifiers learn from training people.
    """
    parts = people()
    half = len(parts["test"]) // 2
    return {"calibration": parts["test"][:half], "test": parts["test"][half:], "train": parts["train"]}[role]


def make_pictures(sources: Mapping[str, Generator], role: str, count: int, seed: int) -> Pictures:
    """Photographs and each source's pictures, as they come.

    Generators of whole images draw latents with a seed of its own for each role; manipulations work on the photographs
    of the role's people, and these are also the photographs that are `real`.

    Parameters
    ----------
    role
        One of `ROLES`.
    count
        Pictures of each source; photographs as far as there are.
    """
    rng = np.random.default_rng(seed_of(seed, role, REAL))
    known = photographs().take(np.isin(photographs().subject, people_for(role)))
    order = rng.permutation(len(known))[:count]
    images, source, subject = [known.images[order]], [REAL] * len(order), [*known.subject[order]]
    for name, generator in sources.items():
        if generator.manipulate is None:
            made = generator.sample(count, seed_of(seed, role, name))
            subject += [f"{name}-{row}" for row in range(count)]
        else:
            made, who = _manipulated(generator, known, count, np.random.default_rng(seed_of(seed, role, name)))
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


def load_or_make_pictures(folder: Path, sources: Mapping[str, Generator], role: str, count: int, seed: int) -> Pictures:
    """`make_pictures`, from the folder where a stopped run left them."""
    arrays = load_or_make(folder / f"pictures_{role}.npz", lambda: vars(make_pictures(sources, role, count, seed)))
    return Pictures(**arrays)


def first_rows(pictures: Pictures, sources: Sequence[str], count: int) -> NDArray[np.int64]:
    """Rows of the first pictures of each of some sources."""
    return np.concatenate([np.flatnonzero(pictures.source == name)[:count] for name in sources])

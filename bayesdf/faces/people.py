"""Who is in which split? It is fixed, so weights trained on the training people can be part of the package."""

import numpy as np

from bayesdf.faces.photographs import photographs

SEED = 0
PEOPLE = {"train": 24, "val": 6, "test": 10}


def people() -> dict[str, list[str]]:
    """24, 6 and 10 of the 40 people, for training, validation and test: a random choice that never changes."""
    everyone = np.random.default_rng(SEED).permutation(np.unique(photographs().subject))
    bounds = np.cumsum(list(PEOPLE.values()))[:-1]
    return {split: sorted(part.tolist()) for split, part in zip(PEOPLE, np.split(everyone, bounds), strict=True)}

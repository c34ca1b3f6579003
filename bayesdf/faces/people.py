"""Who is in which split? It is fixed, so weights trained on the training people can be part of the package."""

import numpy as np

from bayesdf.errors import BayesdfError
from bayesdf.faces.photographs import photographs

SEED = 0
PEOPLE = {"train": 24, "val": 6, "test": 10}
FOLDS = 4
"""So many folds have every person in the test of exactly one."""


def people(fold: int = 0) -> dict[str, list[str]]:
    """24, 6 and 10 of the 40 people, for training, validation and test: a random choice that never changes.

    Parameters
    ----------
    fold
        0 … 3. Every person is in the test of exactly one fold. Fold 0 is the split of every study of a single fold.

    Raises
    ------
    BayesdfError
        There is no such fold.
    """
    if fold not in range(FOLDS):
        raise BayesdfError(f"fold is {fold}: the embedded data has the folds 0 to {FOLDS - 1}")
    everyone = np.random.default_rng(SEED).permutation(np.unique(photographs().subject))
    bounds = np.cumsum(list(PEOPLE.values()))[:-1]
    parts = np.split(np.roll(everyone, PEOPLE["test"] * fold), bounds)
    return {split: sorted(part.tolist()) for split, part in zip(PEOPLE, parts, strict=True)}

"""Which people go to train, val and test, where the data itself does not say?"""

import warnings

import numpy as np
import pandas as pd

from bayesdf.data import subjects
from bayesdf.data.manifest import SPLITS, subject_groups
from bayesdf.errors import BayesdfError, BayesdfWarning

FRACTIONS = (0.6, 0.15, 0.25)
"""The default shares of train, val and test."""
ENOUGH = 5
"""If a source has this many groups of linked people, two of them go to the test."""
LARGE = 0.5
"""A warning is given if linked people hold a larger share of the images, since they must all be in one split."""


def assign_splits(manifest: pd.DataFrame, fractions: tuple[float, float, float] | None, seed: int) -> np.ndarray:
    """The split of each image, by people. An error or a warning names linked people who prevent a good split."""
    group = subject_groups(manifest)
    try:
        split = split_by_subject(manifest, fractions, seed)
    except BayesdfError as error:
        # If a source has enough images, several of its people may have been taken for one.
        few = [rows for _, rows in group.groupby(manifest["source"]) if rows.nunique() < len(SPLITS) <= len(rows)]
        advice = f"; {subjects.explain_link(manifest[group == few[0].mode().iloc[0]])}" if few else ""
        raise BayesdfError(f"{error}{advice}") from None
    largest = group == group.mode().iloc[0]
    if largest.mean() > LARGE:
        warnings.warn(
            f"{largest.mean():.0%} of the images are linked and are all in split {split[largest.argmax()]!r}: "
            f"{subjects.explain_link(manifest[largest])}",
            BayesdfWarning,
            stacklevel=4,
        )
    return split


def split_by_subject(manifest: pd.DataFrame, fractions: tuple[float, float, float] | None, seed: int) -> np.ndarray:
    """Put whole subjects into train, val and test, so that every source is in every split.

    Subjects that appear together in an image (as subject and donor) or in a video are a group and stay together. Groups
    are taken in random order. Each goes to the split that is furthest behind its share of the group's sources.

    Parameters
    ----------
    fractions
        Shares of train, val and test. None: `FRACTIONS`, and two groups or more of every source that has `ENOUGH` go to
        the test. A figure from one person has no interval, and one person is too few to attribute a source.

    Returns
    -------
    (N,) split names.

    Raises
    ------
    BayesdfError
        A source has too few subjects to be in every split.
    """
    group = subject_groups(manifest)
    counts = pd.crosstab(group, manifest["source"])
    groups = (counts > 0).sum()
    for source, number in groups.items():
        if number < len(SPLITS):
            images = int((manifest["source"] == source).sum())
            raise BayesdfError(
                f"source {source!r} has {images} image(s) of {number} separate subject(s); train, val and test need "
                f"at least {len(SPLITS)} subjects of every source: add images or leave the source out"
            )
    total = counts.sum().to_numpy(float)
    wanted = np.outer(fractions or FRACTIONS, total)
    have = np.zeros_like(wanted)
    # How many groups of a source a split still lacks.
    lacks = np.ones(wanted.shape, int)
    if fractions is None:
        lacks[SPLITS.index("test"), groups.to_numpy() >= ENOUGH] = 2
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(counts))
    # Rare groups first: a source with few subjects must reach every split.
    rarity = np.array([1.0 / (counts.to_numpy()[:, row > 0] > 0).sum(0).min() for row in counts.to_numpy()])
    order = order[np.argsort(-rarity[order], kind="stable")]
    chosen = {}
    for position in order:
        row = counts.to_numpy(float)[position]
        missing = ((wanted - have) / total)[:, row > 0].mean(1)
        lacking = lacks[:, row > 0].clip(0).sum(1)
        # A split that still lacks these sources comes before one that is only behind.
        best = np.lexsort((-missing, -lacking))[0]
        have[best] += row
        lacks[best] -= row > 0
        chosen[counts.index[position]] = SPLITS[best]
    return group.map(chosen).to_numpy()

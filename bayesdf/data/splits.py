"""Which people go to train, val and test, where the data itself does not say?"""

import warnings
from collections.abc import Sequence

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
MOST_FOLDS = 10


def assign_splits(
    manifest: pd.DataFrame, fractions: tuple[float, float, float] | None, seed: int, fold: int = 0, folds: int = 1
) -> np.ndarray:
    """The split of each image, by people. An error or a warning names linked people who prevent a good split."""
    group = subject_groups(manifest)
    try:
        if folds > 1:
            split = split_fold(manifest, fold, folds, fractions, seed)
        else:
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
    lacks = np.ones((len(SPLITS), len(groups)), int)
    if fractions is None:
        lacks[SPLITS.index("test"), groups.to_numpy() >= ENOUGH] = 2
    part = _deal(counts, fractions or FRACTIONS, lacks, np.random.default_rng(seed))
    return np.array(SPLITS, dtype=object)[group.map(part).to_numpy()]


def split_fold(
    manifest: pd.DataFrame, fold: int, folds: int, fractions: tuple[float, float, float] | None, seed: int
) -> np.ndarray:
    """The splits of one fold of a cross-fit: every subject is in the test of exactly one fold.

    Groups of linked subjects (as in `split_by_subject`) are dealt into `folds` test parts of equal shares. Part `fold`
    is the test of this fold. The other groups go to train and val in the proportion of the first two fractions; the
    third has no meaning here. The order of the rows does not matter.

    Parameters
    ----------
    fold, folds
        Which fold, from 0, and how many there are, from 2.
    fractions
        Shares of train, val and test. None: `FRACTIONS`.

    Returns
    -------
    (N,) split names.

    Raises
    ------
    BayesdfError
        A source has too few subjects to be in every split of every fold.
    """
    linked = subject_groups(manifest)
    # How linked people are called depends on the order of the rows, their first path does not.
    group = linked.map(manifest["path"].groupby(linked).min())
    counts = pd.crosstab(group, manifest["source"])
    groups = (counts > 0).sum()
    # Of three subjects, the larger of two test parts would leave one subject for both train and val.
    needed = 4 if folds == 2 else folds
    scarce, fewest = min(groups.items(), key=lambda item: int(item[1]))
    if fewest < needed:
        images = int((manifest["source"] == scarce).sum())
        raise BayesdfError(
            f"source {scarce!r} has {images} image(s) of {fewest} separate subject(s); {folds} folds need at least "
            f"{needed} subjects of every source: ask for fewer folds (--folds), add images or leave the source out"
        )
    lacks = np.tile(np.minimum(groups.to_numpy() // folds, 2), (folds, 1))
    part = _deal(counts, [1 / folds] * folds, lacks, np.random.default_rng(seed))
    others = counts[part != fold]
    train, val, _ = fractions or FRACTIONS
    rest = _deal(
        others,
        [train / (train + val), val / (train + val)],
        np.ones((2, len(groups)), int),
        np.random.default_rng([seed, fold]),
    )
    split = np.array(SPLITS, dtype=object)[group.map(rest).fillna(SPLITS.index("test")).to_numpy(int)]
    for name in SPLITS:
        absent = sorted(set(groups.index) - set(manifest["source"][split == name]))
        if absent:
            raise BayesdfError(
                f"fold {fold} of {folds} leaves source {absent[0]!r} without {name} images: ask for fewer folds "
                "(--folds), add images of other subjects or leave the source out"
            )
    return split


def _deal(counts: pd.DataFrame, shares: Sequence[float], lacks: np.ndarray, rng: np.random.Generator) -> pd.Series:
    """Deal groups of linked subjects into parts, in random order. Each goes to the part that is furthest behind.

    Parameters
    ----------
    counts
        Images of each group and source (group, source).
    shares
        The share of each source's images that each part shall have.
    lacks
        (part, source) int: how many groups of a source a part shall have before shares count.

    Returns
    -------
    The number of the part of each group.
    """
    images = counts.to_numpy(float)
    total = np.maximum(images.sum(0), 1.0)
    wanted = np.outer(shares, total)
    have = np.zeros_like(wanted)
    lacks = lacks.copy()
    order = rng.permutation(len(counts))
    # Rare groups first: a source with few subjects must reach every part.
    rarity = np.array([1.0 / (images[:, row > 0] > 0).sum(0).min() for row in images])
    order = order[np.argsort(-rarity[order], kind="stable")]
    chosen = pd.Series(0, index=counts.index)
    for position in order:
        row = images[position]
        missing = ((wanted - have) / total)[:, row > 0].mean(1)
        lacking = lacks[:, row > 0].clip(0).sum(1)
        # A part that still lacks these sources comes before one that is only behind.
        best = np.lexsort((-missing, -lacking))[0]
        have[best] += row
        lacks[best] -= row > 0
        chosen.iloc[position] = best
    return chosen

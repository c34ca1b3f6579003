"""Could a detector tell the sources by how the files were written, rather than by what they show?

For each property of the files a rule is learnt from some people and judged on others, by cross-validation. The rule
calls a file real if its value (or range of values) is more common among real files. Its balanced accuracy is reported
if it is over `LIMIT` and higher than for shuffled labels (a permutation test). So an audit of files that give nothing
away raises an alarm with a probability of at most `FALSE_ALARMS`.

References
----------
1. Phipson and Smyth, "Permutation p-values should never be zero", 2010 (the p-value).
2. Ojala and Garriga, "Permutation tests for studying classifier performance", JMLR 2010.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from bayesdf.data.manifest import REAL

LIMIT = 0.75
"""A property of the files is reported if the balanced accuracy from it is above this."""
FALSE_ALARMS = 0.05
"""The probability of any warning where no property depends on who made the files. It holds over all properties and
sources together (Bonferroni)."""
MOST = 2000
"""At most about this many images are looked at: those of people chosen at random."""
FOLDS = 5
RANGES = 8
"""Rare values are put into this many ranges, each with about the same number of images."""

_PROPERTIES = {
    "format": ["format"],
    "colour mode": ["mode"],
    "size": ["width", "height", "shape"],
    "JPEG quality": ["jpeg_quality"],
}

Cells = NDArray[np.int64]
Answers = NDArray[np.bool_]


def jpeg_quality(image: Image.Image) -> float:
    """The quality setting that a JPEG's luminance table stands for; 0 for other formats.

    Inverts the scaling of the standard table by the Independent JPEG Group (jcparam.c): 100 - scale / 2 below a scale
    of 100 %, else 5000 / scale, the scale being the ratio of the sums of the two tables.
    """
    tables = getattr(image, "quantization", None)
    if image.format != "JPEG" or not tables:
        return 0.0
    standard = (
        3685.0  # sum of the standard luminance table, ITU-T T.81, annex K; holds down to about 25, where entries clip
    )
    scale = 100.0 * sum(tables[min(tables)]) / standard
    return round(100.0 - scale / 2.0 if scale <= 100.0 else 5000.0 / scale, 1)


def audit(manifest: pd.DataFrame, seed: int = 0) -> list[str]:
    """Say which property of the files separates real from fake, or one source from the others.

    Parameters
    ----------
    manifest
        With the columns `format`, `mode`, `width`, `height`, `jpeg_quality`, `subject` and `source`.
    seed
        Of the folds, the shuffled labels, and the choice among more than `MOST` images.

    Returns
    -------
    Sentences for the user. The list is empty where nothing separates.
    """
    rng = np.random.default_rng(seed)
    rows = _sample(manifest.assign(shape=manifest["width"] / manifest["height"]), rng)
    fake = rows["source"] != REAL
    questions = {"real from fake": fake} if fake.nunique() == 2 else {}
    generators = rows["source"][fake].unique()
    if len(generators) > 1:
        asked = generators if len(generators) > 2 else generators[:1]  # of two, either question is the other
        questions |= {f"{name!r} from the other fakes": rows["source"][fake] == name for name in asked}
    tests = []
    for question, answer in questions.items():
        asked_of = rows.loc[answer.index]
        subject = _person_numbers(asked_of["subject"])
        for name, columns in _PROPERTIES.items():
            codings = _codings(asked_of[columns])
            if codings and subject.max() > 0:
                tests.append((question, name, codings, answer.to_numpy(bool), subject))
    findings = []
    for question, name, codings, truth, subject in tests:
        score = _significant_accuracy(codings, truth, subject, FALSE_ALARMS / len(tests), rng)
        if score is not None:
            findings.append(
                f"the files' {name} tells {question} (balanced accuracy {score:.2f} on people not learnt from, chance "
                "0.50): the common crop, resize and JPEG step removes the plain difference but not every trace of it; "
                "better collect or re-encode all sources the same way"
            )
    return findings


def _sample(rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """At most about `MOST` rows: those of people in random order, until there are enough."""
    if len(rows) <= MOST:
        return rows
    subject = _person_numbers(rows["subject"])
    place = rng.permutation(subject.max() + 1)[subject]
    return rows.iloc[np.sort(np.argsort(place, kind="stable")[:MOST])]


def _person_numbers(subject: pd.Series) -> Cells:
    """A number for each image's person. An image of nobody has a number of its own."""
    own = subject.where(subject != "", [f"\0{row}" for row in range(len(subject))])
    return pd.factorize(own)[0].astype(np.int64)


def _codings(properties: pd.DataFrame) -> list[Cells]:
    """The values of a property as cells 0, 1, …: of each column, and of all together. Constant ones are left out."""
    columns = [_cells(properties[name]) for name in properties]
    together = pd.factorize(pd.Series(list(zip(*columns, strict=True))))[0].astype(np.int64)
    codings = [*columns, together] if len(columns) > 1 else columns
    return [cells for cells in codings if cells.max() > 0]


def _cells(values: pd.Series) -> Cells:
    """A value that a twentieth of the files have is a cell. The other values are put into ranges."""
    common = values.map(values.value_counts()) * 20 >= len(values)
    cells = pd.factorize(values.where(common, None))[0].astype(np.int64)  # -1 for the others
    if not common.all():
        rare = values[~common]
        ranges = np.zeros(len(rare), int)
        if pd.api.types.is_numeric_dtype(rare):
            edges = np.quantile(rare, np.arange(1, RANGES) / RANGES)
            ranges = np.searchsorted(edges, rare, side="right")
        cells[~common.to_numpy()] = cells.max() + 1 + ranges
    return pd.factorize(cells)[0].astype(np.int64)


def _significant_accuracy(
    codings: Sequence[Cells], answer: Answers, subject: Cells, level: float, rng: np.random.Generator
) -> float | None:
    """The cross-validated balanced accuracy where it is over `LIMIT` and its p-value at most `level`; else None."""
    fold = (rng.permutation(subject.max() + 1) % FOLDS)[subject]

    def score(labels: Answers) -> float:
        return max(_cross_validated(cells, labels, fold) for cells in codings)

    found = score(answer)
    if found <= LIMIT:
        return None
    # If k of n shuffles do as well, the p-value is (k + 1) / (n + 1) [1]. With this n, k must be 0.
    for _ in range(int(np.ceil(1.0 / level)) - 1):
        if score(_shuffle_labels(answer, subject, rng)) >= found:
            return None
    return found


def _cross_validated(cells: Cells, answer: Answers, fold: Cells) -> float:
    """Balanced accuracy on each fold of the rule learnt from the other folds. An unknown cell counts half."""
    shape = (int(fold.max()) + 1, int(cells.max()) + 1)
    size = shape[0] * shape[1]
    place = fold * shape[1] + cells
    yes = np.bincount(place, answer, size).reshape(shape)
    no = np.bincount(place, ~answer, size).reshape(shape)
    learnt_yes, learnt_no = yes.sum(0) - yes, no.sum(0) - no
    excess = learnt_yes / np.maximum(learnt_yes.sum(1, keepdims=True), 1) - learnt_no / np.maximum(
        learnt_no.sum(1, keepdims=True), 1
    )
    vote = np.where(np.abs(excess) < 1e-12, 0.5, excess > 0)
    return float(((yes * vote).sum() / max(yes.sum(), 1) + (no * (1 - vote)).sum() / max(no.sum(), 1)) / 2)


def _shuffle_labels(answer: Answers, subject: Cells, rng: np.random.Generator) -> Answers:
    """Shuffled labels: as likely as the true ones if labels mean nothing but files of one person resemble each other.

    The labels of a person who has both are shuffled within the person's images. The labels of people who have one kind
    are shuffled among these people. If every person has as many of one kind as of the other, resemblance cancels, and
    all labels are shuffled.
    """
    yes, images = np.bincount(subject, answer), np.bincount(subject)
    if (2 * yes == images).all():
        return rng.permutation(answer)
    pure = np.flatnonzero((yes == 0) | (yes == images))
    label = yes > 0
    label[pure] = label[rng.permutation(pure)]
    shuffled_label = label[subject]
    mixed = ~np.isin(subject, pure)
    rows = np.flatnonzero(mixed)
    within = rows[np.argsort(subject[rows], kind="stable")]
    shuffled = rows[np.lexsort((rng.random(len(rows)), subject[rows]))]
    shuffled_label[within] = answer[shuffled]
    return shuffled_label

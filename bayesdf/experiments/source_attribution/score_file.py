"""Does this file hold a table of scores that the study can be made with?

Each mistake is one line. It says what is wrong, in which row or column, and what to do.
"""

import csv
import hashlib
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import xarray as xr

import bayesdf.analysis as analysis
import bayesdf.data as data
from bayesdf.analysis.scores import Kind
from bayesdf.analysis.tree import IMAGE_COORDS
from bayesdf.cli import console
from bayesdf.errors import BayesdfError, BayesdfWarning

KINDS: tuple[str, ...] = get_args(Kind)
MISSING = ("refuse", "leave out")
NEEDED = ("label", "source", "subject")
_NO_SCORE = ("", "NA", "N/A", "NaN", "nan", "None", "null")
SMALLEST = 1e-6
"""Probabilities of exactly 0 and 1 are moved off by this, or by half of the smallest other distance."""


@dataclass(frozen=True)
class ScoreFile:
    """The scores of a file.

    Attributes
    ----------
    predictions
        From `bayesdf.analysis.from_scores`. Further attributes: `detectors` (how many) and `moved` (how many
        probabilities were exactly 0 or 1).
    subject_groups
        (image,) who must not be parted: people linked by images of two of them, by videos, or by the column `group`.
    fingerprint
        SHA-256 of the file.
    """

    predictions: xr.DataTree
    subject_groups: pd.Series
    fingerprint: str


def read_scores(path: Path, kind: str, detectors: Sequence[str] = (), missing: str = "refuse") -> ScoreFile:
    """Read a table of scores, a row an image.

    Parameters
    ----------
    path
        A CSV file with a column for each detector, and the columns `label`, `source` and `subject`; `path`, `donor`,
        `video` and `group` where wanted.
    kind, missing
        As `bayesdf.analysis.from_scores` takes them.
    detectors
        The columns of scores; by default all but those that describe the image.

    Raises
    ------
    BayesdfError
        The file is not such a table, or its images are not enough to name sources and to judge that.
    """
    table = _read(path)
    try:
        _refuse_unusable(table, kind)
        chosen = _columns_of_scores(table, detectors)
        _refuse_missing(table[chosen], missing)
        moved = 0
        if kind == "probability":
            # A column of whole numbers, unless it is named, is left for from_scores to refuse: it looks like labels.
            likely = [name for name in chosen if detectors or pd.api.types.is_float_dtype(table[name])]
            table, moved = _moved_off_certainty(table, likely)
        tree = analysis.from_scores(
            table[[*chosen, *(name for name in IMAGE_COORDS if name in table)]],
            kind=kind,  # type: ignore[arg-type]
            detectors=list(detectors) or None,
            missing=missing,  # type: ignore[arg-type]
        )
        tree.attrs |= {"moved": moved, "detectors": len(chosen)}
        groups = _groups(tree)
        _refuse_unlearnable(tree, groups)
        _warn_of_constant(tree)
    except BayesdfError as error:
        raise BayesdfError(f"{path}: {_as_options(str(error))}") from None
    return ScoreFile(tree, groups, hashlib.sha256(path.read_bytes()).hexdigest())


def _read(path: Path) -> pd.DataFrame:
    if not path.exists():
        raise BayesdfError(f"there is no file {path}: give a table of scores, --predictions scores.csv")
    if path.is_dir():
        raise BayesdfError(f"{path} is a folder: give a table of scores, --predictions scores.csv")
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            rows = csv.reader(lines)
            header = [name.strip() for name in next(rows, [])]
            fields = [(rows.line_num, len(row)) for row in rows if row]
    except (UnicodeDecodeError, csv.Error):
        raise BayesdfError(f"{path} is no text: give a table of comma-separated values (CSV)") from None
    if not any(header):
        raise BayesdfError(f"{path} is empty: give a table with a header and a row for each image")
    if "" in header:
        raise BayesdfError(
            f"{path}: column {header.index('') + 1} has no name in the first line: name it or leave it out, as with "
            "to_csv(index=False)"
        )
    uneven = [(line, count) for line, count in fields if count != len(header)]
    if uneven:
        raise BayesdfError(
            f"{path}: line {uneven[0][0]} has {uneven[0][1]} values and the first line names {len(header)} columns "
            f"({len(uneven)} such lines): give a value for each column, with commas between"
        )
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise BayesdfError(f"{path} has two columns {twice[0]!r}: give each a name of its own")
    texts = [name for name in header if name in IMAGE_COORDS and name != "label"]
    try:
        table = pd.read_csv(
            path,
            encoding="utf-8-sig",
            skipinitialspace=True,
            header=0,
            names=header,
            index_col=False,
            dtype=dict.fromkeys(texts, str),
            keep_default_na=False,
            na_values={name: list(_NO_SCORE) for name in header if name not in texts},
        )
    except ValueError as error:  # pandas' errors of parsing are ValueErrors
        raise BayesdfError(f"{path} cannot be read as CSV: {str(error).splitlines()[0].strip()}") from None
    return table.assign(**{name: table[name].str.strip() for name in texts})


def _refuse_unusable(table: pd.DataFrame, kind: str) -> None:
    """Refuse a table that lacks what the study is about: labels, sources and subjects of each image."""
    lacking = [name for name in NEEDED if name not in table]
    if lacking:
        raise BayesdfError(
            f"there is no column {lacking[0]!r} (the columns are {_few(table.columns)}): a table has label (0 real, 1 "
            "fake), source (real, or the generator's name), subject (who is in the image), and a column a detector"
        )
    if not len(table):
        raise BayesdfError("the table has no rows: give a row for each image")
    if kind not in KINDS:
        raise BayesdfError(f"--kind {kind!r}: say what the scores are, one of {', '.join(KINDS)}")
    nameless = np.flatnonzero(table["source"] == "")
    if len(nameless):
        raise BayesdfError(
            f"{_line(nameless[0])} has no source ({len(nameless)} such rows): give the generator's name, or real"
        )
    alone = np.flatnonzero((table["source"] == data.REAL) & (table["subject"] == ""))
    if len(alone):
        raise BayesdfError(
            f"{_line(alone[0])} is a photograph without a subject ({len(alone)} such rows): name who is in it; only a "
            "fake can be of nobody"
        )
    if "path" in table:
        twice = np.flatnonzero(table["path"].duplicated() & (table["path"] != ""))
        if len(twice):
            first = int(np.flatnonzero(table["path"] == table["path"].iloc[twice[0]])[0])
            raise BayesdfError(
                f"{table['path'].iloc[twice[0]]} is on lines {first + 2} and {twice[0] + 2} ({len(twice)} such rows): "
                "keep one row for each image"
            )
    if "group" in table:
        named = table.loc[(table["subject"] != "") & (table["group"] != ""), ["subject", "group"]].drop_duplicates()
        parted = named["subject"][named["subject"].duplicated()]
        if len(parted):
            where = named["group"][named["subject"] == parted.iloc[0]].tolist()
            raise BayesdfError(
                f"subject {parted.iloc[0]!r} is in the groups {where[0]!r} and {where[1]!r} ({parted.nunique()} such "
                "subjects), and groups are judged by maps fitted on other groups: put each subject into one group, or "
                "call the column otherwise if it says something else"
            )


def _columns_of_scores(table: pd.DataFrame, detectors: Sequence[str]) -> list[str]:
    chosen = list(dict.fromkeys(detectors)) or [str(name) for name in table if name not in IMAGE_COORDS]
    for name in chosen:
        if name not in table:
            raise BayesdfError(f"--detectors: there is no column {name!r}; the columns are {_few(table.columns)}")
        if name in IMAGE_COORDS:
            raise BayesdfError(f"--detectors: column {name!r} describes the image and holds no scores")
        if not pd.api.types.is_numeric_dtype(table[name]):
            text = pd.to_numeric(table[name], errors="coerce").isna() & table[name].notna()
            row = int(np.flatnonzero(text)[0]) if text.any() else 0
            raise BayesdfError(
                f"column {name!r} holds {table[name].iloc[row]!r} on line {row + 2}, which is no number: mend it, or "
                "name the columns of scores, --detectors a,b"
            )
    if len(chosen) < 2:
        found = f"{len(chosen)} column(s) of scores ({_few(chosen)})"
        raise BayesdfError(f"{found}: uncertainty is how detectors disagree, so give two or more")
    return chosen


def _refuse_missing(scores: pd.DataFrame, missing: str) -> None:
    if missing not in MISSING:
        raise BayesdfError(f"--missing {missing!r}: choose from {', '.join(map(repr, MISSING))}")
    lacking = scores.isna().to_numpy()
    rows = np.flatnonzero(lacking.any(axis=1))
    if len(rows) and missing == "refuse":
        column = scores.columns[lacking[rows[0]].argmax()]
        raise BayesdfError(
            f"{len(rows)} of {len(scores)} images lack a score (first: {_line(rows[0])}, column {column!r}): leave "
            'them out with --missing "leave out", or leave a detector out with --detectors'
        )
    infinite = np.argwhere(np.isinf(scores.to_numpy(dtype=np.float64)))
    if len(infinite):
        row, column = infinite[0]
        raise BayesdfError(
            f"{len(infinite)} scores are infinite (first: {_line(row)}, column {scores.columns[column]!r}): give "
            "finite numbers"
        )


def _moved_off_certainty(table: pd.DataFrame, chosen: list[str]) -> tuple[pd.DataFrame, int]:
    """Probabilities of exactly 0 or 1 look rounded, and have no log-odds. They are moved a little off, and counted."""
    values = table[chosen].to_numpy(dtype=np.float64)
    certain = (values == 0.0) | (values == 1.0)
    count = int(certain.sum())
    if not count:
        return table, 0
    inside = values[(values > 0.0) & (values < 1.0)]
    nearest = float(np.minimum(inside, 1.0 - inside).min()) if len(inside) else 1.0
    least = min(SMALLEST, 0.5 * nearest)
    moved = np.where(values == 0.0, least, np.where(values == 1.0, 1.0 - least, values))
    console.print(f"    {certainty(count, values.size)}", markup=False, highlight=False, soft_wrap=True)
    return table.assign(**{name: moved[:, number] for number, name in enumerate(chosen)}), count


def certainty(count: int, scores: int) -> str:
    """What was done to probabilities of exactly 0 and 1, as a line."""
    return (
        f"{count} of {scores} probabilities are exactly 0 or 1, as rounded ones are, and were moved off by at most "
        f"{SMALLEST:g}: log-odds would say more (--kind log-odds)"
    )


def _groups(tree: xr.DataTree) -> pd.Series:
    """The group of each image: linked people, videos and groups of the table stay together."""
    known = tree["constant_data"].to_dataset()
    paths = known["image"].to_series().astype(str).to_numpy()
    empty = np.full(len(paths), "")
    columns = {name: known[name].values if name in known else empty for name in ("subject", "donor", "video", "group")}
    once = pd.DataFrame({"path": paths, **columns})
    # A group links its people as a video does.
    again = once.assign(video=np.where(once["group"] == "", "", "group " + once["group"]))
    return data.subject_groups(pd.concat([once, again], ignore_index=True)).iloc[: len(once)]


def _refuse_unlearnable(tree: xr.DataTree, groups: pd.Series) -> None:
    """Refuse images from which nothing can be learnt: one class, one source, or a source of one subject."""
    label = tree["observed_data"].to_dataset()["label"].values
    source = tree["constant_data"].to_dataset()["source"].values
    for number, name in enumerate(("real (label 0)", "fake (label 1)")):
        if not (label == number).any():
            raise BayesdfError(f"no image is {name}: recalibration and detection need real images and fakes")
    strange = np.unique(source[(label == 0) & (source != data.REAL)])
    if len(strange):
        raise BayesdfError(
            f"images of source {str(strange[0])!r} have label 0: the source of photographs is {data.REAL!r}"
        )
    names = np.unique(source[label == 1])
    if len(names) < 2:
        raise BayesdfError(f"all fakes are of source {str(names[0])!r}: naming a source takes two generators or more")
    for name in (data.REAL, *names):
        if groups[source == name].nunique() < 2:
            raise BayesdfError(
                f"source {str(name)!r} shows a single subject or group of linked ones, and judging takes two or more: "
                "add images of other subjects, or leave the source out"
            )


def _warn_of_constant(tree: xr.DataTree) -> None:
    """Warn of a column that says the same of every image, as a column about the table does."""
    scores = tree["posterior_predictive"].to_dataset()
    logits = scores["logits"].values  # (chain, draw, image, class)
    constant = (logits == logits[:, :, :1]).all(axis=(0, 2, 3))
    if constant.any():
        name = str(scores["detector"].values[int(np.argmax(constant))])
        warnings.warn(
            f"column {name!r} says the same of all images: if it is no detector, name those that are with --detectors",
            BayesdfWarning,
            stacklevel=3,
        )


def _as_options(message: str) -> str:
    """A message of `from_scores` in the words of the command line: options, and lines of the file."""
    message = re.sub(r"kind='([\w-]+)'", r"--kind \1", message)
    message = re.sub(r"\bimage (\d+)\b", lambda found: _line(int(found[1])), message)
    message = re.sub(r"detectors=\[[^]]*\]", "--detectors a,b", message)
    return message.replace("missing='leave out'", '--missing "leave out"')


def _line(row: int) -> str:
    return f"line {row + 2}"


def _few(names: Sequence[str] | pd.Index, most: int = 12) -> str:
    shown = ", ".join(map(str, list(names)[:most])) or "none"
    return f"{shown}, …" if len(names) > most else shown

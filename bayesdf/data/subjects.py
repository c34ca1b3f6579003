"""Who is in each image of a folder, as its names or a table say?

If there is a table `subjects.csv` at the root, it decides. It has the columns `path` (relative to the root) and
`subject`, and optionally `donor` (a second person in the image), `video`, `split`, and the landmarks of the face
(`bayesdf.data.landmarks`). Without a table the names decide, by the first rule that fits:

- *pair*: a fake named ``<target>_<source>`` shows two people. Both parts must be names from `real`, or recur as targets
  and as sources (FaceForensics++ ``071_054``, Celeb-DF ``id0_id1_0007``, DeepFakeDetection ``01_02__scene__id``).
- *folder*: the first folder below the source names the subject (``real/alice/01.png``).
- *number*: numbered files of one name show one subject (``anna_0.png``, ``anna_1.png``). Without a sign between name
  and number this holds only if three words or more come with several numbers (``anna1.png``, ``anna2.png``,
  ``bo1.png``, …).
- *general*: a word that names no person (`GENERAL`, or the source's own name) with a number is a subject of its own
  (``img_0001.png``).
- *name*: the file's name is the subject, so ``real/01.png`` and ``vae/01.jpg`` belong together.

If a name can be read in two ways, the reading that keeps more images together is taken. Too large a group costs images
in a split. Too small a group puts a person into two splits.
"""

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from bayesdf.data.landmarks import COLUMNS
from bayesdf.data.manifest import REAL, SPLITS, subject_groups
from bayesdf.errors import BayesdfError, BayesdfWarning

TABLE = "subjects.csv"
REQUIRED = ("path", "subject")
OPTIONAL = ("donor", "video", "split")
_WORDS = """
    actor capture case clip crop download dsc dscf dscn face fake file frame gen generated id im image img imgp item man
    mvi new no nr num number out output people person photo photograph pic picture pxl real render result sample scan
    screenshot seed subject test train untitled user val vid video woman
"""
GENERAL = frozenset(_WORDS.split())
"""Words that do not name a person. The number after such a word names the subject."""

_COUNTED = re.compile(r"^([^\W\d_][^\d]*[^\W\d_])\d+$")
_NUMBERED = re.compile(r"^(.+?)[ _.-]+\(?\d+\)?$")
_RULES = {
    "table": f"a row of {TABLE}",
    "pair": "both parts of a fake's name <target>_<source>",
    "folder": "the first folder below the source",
    "number": "the name before a number",
    "general": "every number after a general word",
    "name": "the file's name",
}


def find_people(root: Path, paths: Sequence[str]) -> pd.DataFrame:
    """Subject, donor, video and split of every image below a root.

    Parameters
    ----------
    paths
        Of the images, relative to the root: ``<source>/**/<file>``.

    Returns
    -------
    DataFrame
        Indexed by `path`: `subject`, `donor`, `video`, `split`, the landmarks if the table has all their columns (each
        a str, empty where unknown), and `rule`, by which the subject was found.

    Raises
    ------
    BayesdfError
        The table cannot be read, or lacks a column or an image, or has some columns of landmarks but not all. Or it
        names an image twice, an image that does not exist, or an unknown split.
    """
    table = root / TABLE
    return _from_table(table, paths) if table.is_file() else _from_names(paths)


def describe_people(manifest: pd.DataFrame) -> str:
    """One line: how many images and people there are, and by which rules people were found, each with an example.

    Parameters
    ----------
    manifest
        Of a `Collection`. Folders have the rules in the column `rule`.
    """
    people = {*manifest["subject"], *manifest["donor"]} - {""}
    nobody = int((manifest["subject"] == "").sum())
    counts = f"{len(manifest)} images: {len(manifest) - nobody} show {len(people)} people"
    counts += f", {nobody} show new faces, of nobody" if nobody else ""
    if (manifest["donor"] != "").any():
        linked = subject_groups(manifest)[manifest["subject"] != ""].nunique()
        counts += ". Some images show two people. People linked in this way stay in one split: there are "
        counts += f"{linked} such groups"
    examples = []
    for rule, text in _RULES.items() if "rule" in manifest else ():
        own = manifest[manifest["rule"] == rule]
        if len(own):
            first = own.iloc[0]
            second = f" and {first['donor']}" if first["donor"] else ""
            examples.append(
                f"{text} ({len(own)} images, such as {first['path']}: {first['subject'] or 'nobody'}{second})"
            )
    otherwise = "" if "table" in set(manifest.get("rule", ())) else f". A table {TABLE} in the folder can say otherwise"
    return counts + (f". Taken for a person: {'; '.join(examples)}{otherwise}" if examples else "")


def people_cautions(manifest: pd.DataFrame) -> list[str]:
    """What to know where most photographs are named by numbers alone, so that each counts as a person of its own.

    Nothing is said where a table or names of pairs say who is in the images.

    Parameters
    ----------
    manifest
        As `describe_people` takes it.
    """
    rules = set(manifest.get("rule", ()))
    if not rules or "pair" in rules:
        return []
    photographs = manifest[manifest["source"] == REAL]
    numbered = (photographs["rule"] == "name") & photographs["subject"].str.isdecimal()
    alone = photographs[numbered | (photographs["rule"] == "general")]
    if 2 * len(alone) <= len(photographs):
        return []
    return [
        f"each of {len(alone)} photographs such as {alone['path'].iloc[0]} was taken for a person of its own, since a "
        "number names nobody: a person whom several of them show may be in training and test alike, and the figures "
        f"are too good then. Put each person's images into a folder ({REAL}/anna/001.png), or say who is in each image "
        f"in {TABLE}"
    ]


def explain_link(rows: pd.DataFrame) -> str:
    """The end of a message: why these rows of a manifest are linked, and what to do if that is wrong."""
    linked = rows[rows["donor"] != ""]
    example, people = (linked if len(linked) else rows).iloc[0], {*rows["subject"], *rows["donor"]} - {""}
    what = (
        f"{len(people)} people in {len(rows)} images are linked by images of two of them, such as {example['path']}"
        if len(linked)
        else f"{len(rows)} image(s) such as {example['path']} were taken for one person, {example['subject']!r}"
    )
    return (
        f"{what}, by {_RULES[example['rule']]}; where that is wrong, say who is in each image in {TABLE} at the root "
        f"(columns {', '.join(REQUIRED)}; {', '.join(OPTIONAL)} where wanted)"
    )


def _from_table(table: Path, paths: Sequence[str]) -> pd.DataFrame:
    try:
        rows = pd.read_csv(table, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    except (OSError, ValueError) as error:  # pandas' errors of parsing are ValueErrors
        raise BayesdfError(f"{table} cannot be read as a table: {str(error).splitlines()[0]}") from None
    rows.columns = [str(name).strip().lower() for name in rows.columns]
    missing = [name for name in REQUIRED if name not in rows]
    if missing:
        raise BayesdfError(
            f"{table} lacks the column(s) {', '.join(missing)} (it has {', '.join(rows.columns)}): name them in the "
            "first line, with commas between"
        )
    marks = [name for name in COLUMNS if name in rows]
    lacking = [name for name in COLUMNS if name not in rows]
    if marks and lacking:
        raise BayesdfError(
            f"{table} has landmarks ({marks[0]}, …) but lacks the column(s) {', '.join(lacking)}: give all "
            f"{len(COLUMNS)} or none"
        )
    unused = sorted(set(rows.columns) - {*REQUIRED, *OPTIONAL, *marks})
    if unused:
        warnings.warn(f"{table.name}: column(s) {', '.join(unused)} are not used", BayesdfWarning, stacklevel=5)
    for name in OPTIONAL:
        if name not in rows:
            rows[name] = ""
    rows = rows[[*REQUIRED, *OPTIONAL, *marks]].apply(lambda column: column.str.strip())
    rows["path"] = [PurePosixPath(path.replace("\\", "/")).as_posix() for path in rows["path"]]
    line = pd.Series(np.arange(len(rows)) + 2, rows["path"])
    twice = rows["path"].duplicated()
    if twice.any():
        path = rows["path"][twice].iloc[0]
        places = " and ".join(map(str, line.loc[path].tolist()[:2]))
        raise BayesdfError(f"{table} names {path} on lines {places} ({int(twice.sum())} such rows): keep one")
    strange = sorted(set(rows["path"]) - set(paths), key=lambda path: line[path])
    if strange:
        raise BayesdfError(
            f"{table} line {line[strange[0]]} names {strange[0]}, which is no image below {table.parent} "
            f"({len(strange)} such rows): give paths relative to that folder, such as {paths[0]}"
        )
    absent = [path for path in paths if path not in line.index]
    if absent:
        raise BayesdfError(
            f"{table} has no row for {absent[0]} ({len(absent)} of {len(paths)} images lack one): add them"
        )
    alone = rows["path"][(rows["subject"] == "") & rows["path"].str.startswith(f"{REAL}/")]
    if len(alone):
        raise BayesdfError(
            f"{table} line {line[alone.iloc[0]]}: the photograph {alone.iloc[0]} has no subject ({len(alone)} such "
            "rows); only a fake can be of nobody"
        )
    wrong = rows["path"][~rows["split"].isin(SPLITS)]
    if (rows["split"] != "").any() and len(wrong):
        found = rows["split"][wrong.index[0]]
        raise BayesdfError(
            f"{table} line {line[wrong.iloc[0]]}: split {found!r} of {wrong.iloc[0]} is none of {', '.join(SPLITS)} "
            f"({len(wrong)} such rows): give every image one, or leave the column out"
        )
    return rows.assign(rule="table").set_index("path").loc[list(paths)]


def _from_names(paths: Sequence[str]) -> pd.DataFrame:
    files = [PurePosixPath(path) for path in paths]
    # Folders named train, val and test below every source are splits, not people.
    split = {len(file.parts) > 2 and file.parts[1] in SPLITS: file for file in files}
    if len(split) == 2:
        raise BayesdfError(
            f"{split[True]} lies in a folder named as a split and {split[False]} does not: put all images of all "
            f"sources below {', '.join(SPLITS)}, or none, or say who is where in {TABLE}"
        )
    below = 2 if True in split else 1
    frame = pd.DataFrame(
        {
            "source": [file.parts[0] for file in files],
            "folder": [file.parts[below] if len(file.parts) > below + 1 else "" for file in files],
            "stem": [file.stem for file in files],
            "video": [file.with_suffix("").as_posix() for file in files],
            "split": [file.parts[1] if True in split else "" for file in files],
        },
        index=pd.Index(paths, name="path"),
    )
    frame["unit"] = frame["folder"].where(frame["folder"] != "", frame["stem"])
    found = [
        (without_scene(folder), "folder") if folder else _without_number(stem, source)
        for source, folder, stem in zip(frame["source"], frame["folder"], frame["stem"], strict=True)
    ]
    frame["subject"], frame["rule"], frame["donor"] = [name for name, _ in found], [rule for _, rule in found], ""
    known = set(frame["subject"][frame["source"] == REAL])
    pairs: dict[str, tuple[str, str]] = {}
    for _, own in frame[frame["source"] != REAL].groupby("source"):
        pairs |= _pairs(own, frame[frame["source"] == REAL], known)
    if pairs:
        frame.loc[list(pairs), ["subject", "donor", "rule"]] = [[*pair, "pair"] for pair in pairs.values()]
    words = _numbered_words(frame["subject"][frame["rule"] == "name"], {*frame["source"].str.lower(), *GENERAL})
    frame.loc[frame["subject"].isin(words) & (frame["rule"] == "name"), "rule"] = "number"
    for column in ("subject", "donor"):
        frame[column] = [words.get(name, name) for name in frame[column]]
    return frame[["subject", "donor", "video", "split", "rule"]]


def without_scene(name: str) -> str:
    """The part before a double underscore: ``01__hugging_happy`` is a scene of the actor 01."""
    return name.split("__")[0] or name


def _without_number(stem: str, source: str) -> tuple[str, str]:
    """A file's name without its number, and the rule that was applied."""
    name = without_scene(stem)
    for word in (source, "fake", REAL):
        if name.lower().endswith(f"_{word.lower()}"):
            name = name[: -len(word) - 1]
    rule = "name"
    while match := _NUMBERED.match(name):
        if match[1].lower() in GENERAL | {source.lower()}:
            return name, rule if rule == "number" else "general"
        name, rule = match[1], "number"
    return name, rule


def _numbered_words(names: Iterable[str], general: set[str]) -> dict[str, str]:
    """The word of each name that is a word and a number. Empty unless three such words come with several numbers."""
    found = {
        name: match[1] for name in set(names) if (match := _COUNTED.match(name)) and match[1].lower() not in general
    }
    several = {word for word, count in Counter(found.values()).items() if count > 1}
    return {name: word for name, word in found.items() if word in several} if len(several) >= 3 else {}


def _pairs(fakes: pd.DataFrame, real: pd.DataFrame, known: set[str]) -> dict[str, tuple[str, str]]:
    """Target and source of those fakes of one generator whose names give both, by path."""
    units = set(fakes["unit"])
    shaped = {unit for unit in units if "_" in without_scene(unit)}
    # If photographs have the name too, it is a numbered name of the same photograph, not a pair.
    if 2 * len(shaped & set(real["unit"])) >= len(shaped):
        return {}
    two = [tuple(without_scene(unit).split("_")) for unit in shaped if without_scene(unit).count("_") == 1]
    recurring = {one for one, _ in two} & {other for _, other in two}
    pairs = {
        unit: _pair_of_names(without_scene(unit), str(fakes["source"].iloc[0]), known | recurring) for unit in shaped
    }
    return {str(path): pair for path, unit in fakes["unit"].items() if (pair := pairs.get(unit)) is not None}


def _pair_of_names(name: str, source: str, known: set[str]) -> tuple[str, str] | None:
    """The two people of ``<target>_<source>``, each with or without a number. None if it is not such a name."""
    tokens = name.split("_")
    for cut in range(1, len(tokens)):
        pair = []
        for part in ("_".join(tokens[:cut]), "_".join(tokens[cut:])):
            pair.append(part if part in known else _without_number(part, source)[0])
        if pair[0] in known and pair[1] in known and pair[0] != pair[1]:
            return pair[0], pair[1]
    return None

"""Which images are there, who made them, who is in them, and in which split are they?

A manifest is a `pandas.DataFrame` with a row for each image. Every reader returns one with the columns of `COLUMNS`. It
may have more.
"""

from typing import Literal, get_args

import numpy as np
import pandas as pd

from bayesdf.errors import BayesdfError

Task = Literal["binary", "multiclass", "source"]
TASKS: tuple[str, ...] = get_args(Task)
SPLITS = ("train", "val", "test")
REAL = "real"

COLUMNS = {
    "path": "where the image came from: a file relative to the root, or the photograph's name",
    "source": "who made it: `real`, or a generator's name",
    "subject": "who is in it, empty for a new face; splits never share a subject",
    "donor": "a second person it was made from, or empty; in the same split",
    "video": "the source video, or the photograph where there is none",
    "split": "train, val or test",
    "bytes": "size of the JPEG file of the common path",
    "mask": "which pixels were changed: none (photographs), part, whole or unknown (see `bayesdf.data.masks`)",
}


def class_names(sources: list[str], task: Task) -> list[str]:
    """The names of a task's classes, in the order of their labels.

    Parameters
    ----------
    sources
        All sources of the data.
    """
    generators = sorted(set(sources) - {REAL})
    return {"binary": [REAL, "fake"], "multiclass": [REAL, *generators], "source": generators}[task]


def labels(manifest: pd.DataFrame, task: Task) -> np.ndarray:
    """The label of each image for a task: (N,) int64, -1 where the image is not used.

    `binary`: 0 real, 1 fake. `multiclass`: 0 real, then the generators by name. `source`: generators by name; real
    images are not used.
    """
    names = class_names(manifest["source"].unique().tolist(), task)
    if task == "binary":
        return (manifest["source"] != REAL).to_numpy(np.int64)
    number = {name: label for label, name in enumerate(names)}
    return manifest["source"].map(number).fillna(-1).to_numpy(np.int64)


def subject_groups(manifest: pd.DataFrame) -> pd.Series:
    """The group of linked people in each image, by name (image,).

    Two images are in one group if they show the same person, as subject or donor, or are of the same video. Links go on
    from image to image. The group of an image of nobody is named by its path, so images of different parts of a data
    set never share it. An image of another part may link people, so give all parts that you compare at once.
    """
    own = manifest["subject"].where(manifest["subject"] != "", "image " + manifest["path"])
    parent = {subject: subject for subject in pd.concat([own, manifest["donor"]]) if subject}
    home: dict[str, str] = {}

    def root(subject: str) -> str:
        while parent[subject] != subject:
            parent[subject] = subject = parent[parent[subject]]
        return subject

    videos = manifest["video"] if "video" in manifest else [""] * len(manifest)
    for subject, donor, video in zip(own, manifest["donor"], videos, strict=True):
        if donor:
            parent[root(donor)] = root(subject)
        if video:
            parent[root(home.setdefault(video, subject))] = root(subject)
    return own.map(root)


def check_manifest(manifest: pd.DataFrame, task: Task) -> None:
    """Refuse a manifest that cannot be learnt from, or whose splits share people.

    Raises
    ------
    BayesdfError
        A column is missing, a split lacks a class of the task, or a subject or video is in two splits.
    """
    missing = [column for column in COLUMNS if column not in manifest]
    if missing:
        raise BayesdfError(f"the manifest lacks the column(s) {', '.join(missing)}")
    people = pd.concat(
        [manifest[["subject", "split"]], manifest[["donor", "split"]].rename(columns={"donor": "subject"})]
    )
    videos = manifest[["video", "split"]].rename(columns={"video": "subject"})
    for what, named in {"subject": people, "video": videos}.items():
        found = named[named["subject"] != ""].drop_duplicates()
        shared = found["subject"][found["subject"].duplicated()]
        if len(shared):
            raise BayesdfError(
                f"{what} {shared.iloc[0]!r} is in more than one split; splits must not share people or videos"
            )
    label = labels(manifest, task)
    names = class_names(manifest["source"].unique().tolist(), task)
    if len(names) < 2:
        raise BayesdfError(
            f"task {task!r} needs at least two classes and found {names or 'none'}: add a folder for another source"
        )
    for split in SPLITS:
        present = np.unique(label[(manifest["split"] == split).to_numpy()])
        for number, name in enumerate(names):
            if number not in present:
                raise BayesdfError(f"split {split!r} has no image of class {name!r}: add images or subjects")

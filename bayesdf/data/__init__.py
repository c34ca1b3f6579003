"""Images with labels: one call for the embedded data and for a user's own."""

import os
from numbers import Integral, Real
from pathlib import Path
from typing import Literal

from bayesdf.data import embedded, folder
from bayesdf.data.augment import augment
from bayesdf.data.dataset import Collection, ImageDataset, collect, leave_out, relabel, thin
from bayesdf.data.landmarks import face_regions
from bayesdf.data.manifest import COLUMNS, REAL, SPLITS, TASKS, Task, subject_groups
from bayesdf.data.pixel_labels import PixelLabels, pixel_labels
from bayesdf.data.preprocessing import QUALITY, common_path, common_path_grey
from bayesdf.data.splits import MOST_FOLDS
from bayesdf.data.subjects import describe_people, people_cautions
from bayesdf.data.unlabelled import UnlabelledImages, unlabelled
from bayesdf.errors import BayesdfError
from bayesdf.faces import CREDIT, SIZE
from bayesdf.faces.people import FOLDS

__all__ = [
    "COLUMNS",
    "QUALITY",
    "REAL",
    "SPLITS",
    "TASKS",
    "Collection",
    "ImageDataset",
    "PixelLabels",
    "Task",
    "UnlabelledImages",
    "augment",
    "collect",
    "common_path",
    "common_path_grey",
    "describe_people",
    "face_regions",
    "leave_out",
    "load",
    "people_cautions",
    "pixel_labels",
    "relabel",
    "subject_groups",
    "thin",
    "unlabelled",
]


def load(
    name_or_path: str | Path | Literal["embedded"],
    task: Task = "binary",
    *,
    size: int = SIZE,
    quality: int | None = QUALITY,
    fractions: tuple[float, float, float] | None = None,
    seed: int = 0,
    skip_unreadable: float = 0.0,
    fold: int = 0,
    folds: int = 1,
) -> Collection:
    """Read a data set and split it into train, val and test, which share no person and no source video.

    Parameters
    ----------
    name_or_path
        `embedded`: 400 photographs of 40 people and nine generators' fakes. They are made on first use and kept in the
        cache. Otherwise a folder ``<root>/<source>/**`` with the photographs in ``<root>/real`` (see
        `bayesdf.data.folder`).
    task
        `binary` (real, fake), `multiclass` (real and every generator) or `source` (generators only, fakes only).
    size
        Side of the images in pixels. Every image is cropped to a centred square and resized to it.
    quality
        Quality of the JPEG compression that every image goes through, 1 to 95; None leaves it out.
    fractions
        Shares of train, val and test when subjects are assigned to splits at random. None: 0.6, 0.15 and 0.25, with two
        subjects of a source in the test if it has five. The split of the embedded data is fixed. So is a split that the
        folder itself gives (`bayesdf.data.subjects`).
    seed
        Of the random split.
    skip_unreadable
        The share of unreadable files that may be skipped, 0 to 1, each with a warning.
    fold
        Which fold of a cross-fit, from 0. Every person is in the test of exactly one fold. The embedded data has the
        folds 0 to 3, which never change. Fold 0 is the split of a study of a single fold.
    folds
        How many folds there are of a folder, 1 to 10. With more than one, its people are dealt into so many test parts,
        and those outside a fold's test into train and val in the proportion of their fractions
        (`bayesdf.data.splits.split_fold`). The embedded data has four, whatever is given.

    Returns
    -------
    Collection
        `.train .val .test` are torch datasets, `.manifest` is a DataFrame.

    Raises
    ------
    BayesdfError
        The folder is missing or empty, a class or source has too few images, files are unreadable, the task is
        unknown, a table of subjects does not fit, fractions or several folds are asked for where the split is fixed,
        there is no such fold, or there are too few people for so many folds.
    """
    if task not in TASKS:
        raise BayesdfError(f"unknown task {task!r}: choose one of {', '.join(TASKS)}")
    if not isinstance(name_or_path, str | os.PathLike):
        raise BayesdfError(f"data.load was given {name_or_path!r}, but needs 'embedded' or the path of a folder")
    numbers = {"size": size, "quality": quality, "seed": seed, "fold": fold, "folds": folds}
    for name, value in (*numbers.items(), ("skip_unreadable", skip_unreadable)):
        wanted: type = Real if name == "skip_unreadable" else Integral
        if (value is not None or name != "quality") and (not isinstance(value, wanted) or isinstance(value, bool)):
            what = "a number" if wanted is Real else "a whole number"
            raise BayesdfError(f"{name} is {value!r}, but must be {what}{', or None' * (name == 'quality')}")
    if size < 16 or (quality is not None and not 1 <= quality <= 95):
        raise BayesdfError(f"size {size}, quality {quality}: size must be at least 16, quality None or 1 to 95")
    if not 0.0 <= skip_unreadable <= 1.0:
        raise BayesdfError(f"skip_unreadable is {skip_unreadable}: it is a share, 0 to 1")
    if seed < 0:
        raise BayesdfError(f"seed is {seed}: it must be at least 0")
    if not 1 <= folds <= MOST_FOLDS:
        raise BayesdfError(f"folds is {folds}: give 1 to {MOST_FOLDS}")
    if fractions is not None and not (len(fractions) == 3 and min(fractions) > 0 and abs(sum(fractions) - 1.0) <= 1e-6):
        raise BayesdfError(f"fractions {fractions}: three positive numbers that add up to 1 are needed")
    if str(name_or_path) == "embedded":
        if fractions is not None:
            raise BayesdfError("the embedded data's split is fixed: leave the fractions (--split) out")
        if folds > FOLDS:
            raise BayesdfError(
                f"folds is {folds}: the embedded data has {FOLDS} folds, which are fixed: give 1 to {FOLDS}"
            )
        images, manifest, masks = embedded.read(size, quality, fold=fold)
        manifest.attrs["common_path"] = {"size": size, "quality": quality}
        return collect(images, manifest, task, "embedded", CREDIT, fold, masks)
    root = Path(name_or_path)
    if not 0 <= fold < folds:
        raise BayesdfError(f"fold is {fold}: with folds={folds} there are the folds 0 to {folds - 1}")
    images, manifest, masks = folder.read(root, size, quality, fractions, seed, skip_unreadable, fold, folds)
    manifest.attrs["common_path"] = {"size": size, "quality": quality}
    if task != "source" and REAL not in set(manifest["source"]):
        found = ", ".join(sorted(manifest["source"].unique()))
        raise BayesdfError(f"no folder named `real` below {root} (found {found}): name the photographs' folder `real`")
    return collect(images, manifest, task, str(root.resolve()), "", fold, masks)

"""Images with labels: one call for the embedded data and for a user's own."""

import os
from numbers import Integral, Real
from pathlib import Path
from typing import Literal

from bayesdf.data import embedded, folder
from bayesdf.data.augment import augment
from bayesdf.data.dataset import Collection, ImageDataset, collect, leave_out, relabel, thin
from bayesdf.data.manifest import COLUMNS, REAL, SPLITS, TASKS, Task, subject_groups
from bayesdf.data.preprocessing import QUALITY, common_path, common_path_grey
from bayesdf.data.subjects import describe_people, people_cautions
from bayesdf.data.unlabelled import UnlabelledImages, unlabelled
from bayesdf.errors import BayesdfError
from bayesdf.faces import CREDIT, SIZE

__all__ = [
    "COLUMNS",
    "QUALITY",
    "REAL",
    "SPLITS",
    "TASKS",
    "Collection",
    "ImageDataset",
    "Task",
    "UnlabelledImages",
    "augment",
    "collect",
    "common_path",
    "common_path_grey",
    "describe_people",
    "leave_out",
    "load",
    "people_cautions",
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

    Returns
    -------
    Collection
        `.train .val .test` are torch datasets, `.manifest` is a DataFrame.

    Raises
    ------
    BayesdfError
        The folder is missing or empty, a class or source has too few images, files are unreadable, the task is
        unknown, a table of subjects does not fit, or fractions are given where the split is fixed.
    """
    if task not in TASKS:
        raise BayesdfError(f"unknown task {task!r}: choose one of {', '.join(TASKS)}")
    if not isinstance(name_or_path, str | os.PathLike):
        raise BayesdfError(f"data.load was given {name_or_path!r}, but needs 'embedded' or the path of a folder")
    for name, value in (("size", size), ("quality", quality), ("seed", seed), ("skip_unreadable", skip_unreadable)):
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
    if fractions is not None and not (len(fractions) == 3 and min(fractions) > 0 and abs(sum(fractions) - 1.0) <= 1e-6):
        raise BayesdfError(f"fractions {fractions}: three positive numbers that add up to 1 are needed")
    if str(name_or_path) == "embedded":
        if fractions is not None:
            raise BayesdfError("the embedded data's split is fixed: leave the fractions (--split) out")
        images, manifest = embedded.read(size, quality)
        manifest.attrs["common_path"] = {"size": size, "quality": quality}
        return collect(images, manifest, task, "embedded", CREDIT)
    root = Path(name_or_path)
    images, manifest = folder.read(root, size, quality, fractions, seed, skip_unreadable)
    manifest.attrs["common_path"] = {"size": size, "quality": quality}
    if task != "source" and REAL not in set(manifest["source"]):
        found = ", ".join(sorted(manifest["source"].unique()))
        raise BayesdfError(f"no folder named `real` below {root} (found {found}): name the photographs' folder `real`")
    return collect(images, manifest, task, str(root.resolve()), "")

"""Which people are in the images, and which images belong together?"""

from collections.abc import Hashable
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesdf.analysis.predictions import REAL
from bayesdf.analysis.tree import Predictions, image_coords, is_missing
from bayesdf.errors import BayesdfError


class Design(TypedDict):
    """The design of a study, as `cluster_bootstrap` takes it: each (image,), or None where the tree does not say."""

    clusters: NDArray
    donors: NDArray | None
    strata: NDArray | None


def design(predictions: Predictions, images: int) -> Design:
    """The design of a study: who is in each image (`subject`, `donor`), and its source.

    A study chooses how many images of each source there are. Intervals keep that:
    ``cluster_bootstrap(statistic, arrays, **design(tree, images))``.
    """
    found = {name: values for name, (_, values) in image_coords(predictions).items()}
    subject = found.get("subject")
    for name in ("subject", "donor", "source"):
        if name in found and len(found[name]) != images:
            raise BayesdfError(f"{len(found[name])} values of {name!r} for {images} images; give one an image")
    return Design(
        clusters=np.full(images, "") if subject is None else subject,
        donors=None if subject is None else found.get("donor"),
        strata=found.get("source"),
    )


def select_images(people: Design, images: NDArray) -> Design:
    """The design of some of the images, chosen by a mask or by row numbers."""
    donors, strata = people["donors"], people["strata"]
    return Design(
        clusters=people["clusters"][images],
        donors=None if donors is None else donors[images],
        strata=None if strata is None else strata[images],
    )


def count_people(clusters: ArrayLike, donors: ArrayLike | None = None) -> int:
    """How many people there are among subjects and donors. Images of nobody add none."""
    named = np.asarray(clusters, dtype=object).ravel()
    if donors is not None:
        named = np.concatenate([named, np.asarray(donors, dtype=object).ravel()])
    return len(set(named[~is_missing(named)]))


def kinds_of_fake(subjects: ArrayLike, sources: ArrayLike | None) -> dict[str, NDArray[np.bool_]]:
    """Which images are manipulations (fakes of a person) and which are new faces (fakes of nobody): bool (image,).

    The result is empty unless there are both kinds.
    """
    if sources is None:
        return {}
    fake = np.asarray(sources).astype(str) != REAL
    nobody = is_missing(subjects)
    found = {"manipulations": fake & ~nobody, "new_faces": fake & nobody}
    return found if all(own.any() for own in found.values()) else {}


def cluster_numbers(subjects: object, images: int) -> NDArray:
    """A cluster number for each image. Images of one subject share it; an image without ('', None, NaN) has its own.

    Returns
    -------
    int64 (image,), numbered from 0 in the order of first appearance.
    """
    if subjects is None:
        return np.arange(images, dtype=np.int64)
    values = np.asarray(subjects, dtype=object).ravel()
    if len(values) != images:
        raise BayesdfError(f"{len(values)} subjects given for {images} images; give one an image")
    numbers: dict[Hashable, int] = {}
    result = np.empty(images, dtype=np.int64)
    for index, (value, nobody) in enumerate(zip(values, is_missing(values), strict=True)):
        result[index] = numbers.setdefault(("image", index) if nobody else ("subject", value), len(numbers))
    return result

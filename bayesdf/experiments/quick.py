"""What does a quick look cut from the images and from the settings of a method, in every study that fits methods?"""

from dataclasses import replace
from typing import Any

import bayesdf.data as data
from bayesdf.cli import console
from bayesdf.inference.training import Training

IMAGES = 400
"""A quick look takes about so many images, and up to twice as many."""
_GRADIENT_CHAINS = {"chains": 2, "sampling_epochs": 30, "cycles": 1, "stored_draws": 10}
_AT_THE_START = {"epochs": 0}  # from one epoch, Newton's steps to the maximum take minutes
CUTS: dict[str, dict[str, Any]] = {
    "deep_ensemble": {"members": 2},
    "swag": {"collect_epochs": 10, "snapshots": 20, "rank": 10},
    "laplace_full": _AT_THE_START,
    "laplace_kron": _AT_THE_START,
    "sgld": _GRADIENT_CHAINS,
    "sghmc": _GRADIENT_CHAINS,
    "nuts": {"chains": 2, "warmup": 10, "samples": 5},
}
"""By the names of methods on the command line: enough for ten draws, on however few images."""


def cut(name: str, method: Training) -> Training:
    """The method as a quick look uses it."""
    return replace(method, **CUTS.get(name, {}))


def thin(*collections: data.Collection) -> list[data.Collection]:
    """The images of a quick look, from each of several folds of the same data."""
    every = max(1, len(collections[0].manifest) // IMAGES)
    if every > 1:
        console.print(f"    a quick look: one image in {every}", highlight=False)
    return [data.thin(collection, every) for collection in collections]

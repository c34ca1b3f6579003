"""What are methods, attacks and figures called, and how is a part of a run taken?"""

import xarray as xr

from bayesdf.analysis import Estimate

METHODS = {
    "inversion": "inversion",
    "inversion_augmented": "inversion, calibrated on disturbed pictures too",
    "smallest_error": "inversion, smallest error alone",
    "classifier": "classifier",
    "classifier_augmented": "classifier, trained on disturbed pictures too",
    "clean": "inversion, pictures of 8 bits without JPEG",
    "clean_smallest_error": "smallest error alone, without JPEG",
}
"""Methods as they are called in text, by their names in the run."""
INVERTING = ("inversion", "inversion_augmented")
COMPARED = {"inversion": "classifier", "inversion_augmented": "classifier_augmented"}
"""Which classifier each attribution by inversion is measured by: the one that saw as much."""
ATTACKS = {
    "classifier": "on the classifier",
    "classifier_augmented": "on the augmented one",
    "inversion": "on inversion",
}
"""What the attacks are made against, in the order of the study."""
FIGURES = ("accuracy_candidates", "accuracy", "log_loss", "ece")


def estimate(tree: xr.DataTree, method: str, name: str) -> Estimate:
    """One of `FIGURES` of a method, with its interval."""
    summary = part_of(tree, "attribution")
    return Estimate(*(float(value) for value in summary[name].sel({"method": method}).values))


def part_of(tree: xr.DataTree, path: str) -> xr.Dataset:
    """The variables of a group of the run, without those of the groups above it."""
    node = tree[path]
    assert isinstance(node, xr.DataTree)
    return node.to_dataset(inherit=False)

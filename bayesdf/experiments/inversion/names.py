"""What are methods, attacks and scores called, and how is a group of a run taken?"""

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
BY_INVERSION = ("inversion", "inversion_augmented")
COUNTERPARTS = {"inversion": "classifier", "inversion_augmented": "classifier_augmented"}
"""The classifier that each attribution by inversion is compared with: the one that saw the same pictures."""
ATTACKS = {
    "classifier": "on the classifier",
    "classifier_augmented": "on the augmented one",
    "inversion": "on inversion",
}
"""What the attacks are made against, in the order of the study."""
SCORES = ("accuracy_candidates", "accuracy", "log_loss", "ece")


def estimate(tree: xr.DataTree, method: str, name: str) -> Estimate:
    """One of `SCORES` of a method, with its interval."""
    summary = group_of(tree, "attribution")
    return Estimate(*(float(value) for value in summary[name].sel({"method": method}).values))


def group_of(tree: xr.DataTree, path: str) -> xr.Dataset:
    """The variables of a group of the run, without those of the groups above it."""
    node = tree[path]
    assert isinstance(node, xr.DataTree)
    return node.to_dataset(inherit=False)

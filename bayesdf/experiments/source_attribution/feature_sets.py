"""From what is the source told: a posterior's uncertainty, and controls that have none of it?

A control has the same form as what it stands beside: as many numbers, the same classifiers, the same people. What a
control names as well is no merit of the posterior.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

import bayesdf.analysis as analysis
import bayesdf.data as data

MAIN = "uncertainty"
SCALARS = "uncertainty_scalars"
MEAN = "mean_probability"
SETS = {
    MAIN: "uncertainty: scalars and profile",
    "noise": "control: noise of the same size, not fitted",
    "untrained": "control: untrained network, the same noise",
    "random_projection": "control: random projection of the features",
    SCALARS: "uncertainty: scalars alone",
    "noise_scalars": "control: scalars of the noise, not fitted",
    "untrained_scalars": "control: scalars of the untrained network",
    "random_projection_scalars": "control: small random projection",
    MEAN: "control: mean probability alone",
    "penultimate_features": "ceiling: the network's features",
}
"""The feature sets from which the source is told, and how they are called in tables and figures."""
RIVALS = {
    SCALARS: ("noise_scalars", "untrained_scalars", "random_projection_scalars", MEAN),
    MAIN: ("noise", "untrained", "random_projection", MEAN),
}
"""The controls of each set of the posterior: they have its form, or fewer numbers. The ceiling has more."""
FORMS = {SCALARS: "scalars", MAIN: "scalars and profile"}
"""What the sets of the posterior are called in a sentence."""

Trees = Sequence[xr.DataTree]
"""What the draws say of the validation and of the test people."""


def feature_sets(own: Trees, noise: Trees, untrained: Trees, seed: int) -> dict[str, xr.DataArray]:
    """The features of the fakes of all parts by the names in `SETS`, each (image, feature).

    Parameters
    ----------
    own
        Predictions by the posterior, with the group `features`.
    noise, untrained
        Predictions of the same images by the controls, with as many draws.
    seed
        Of the random projection.
    """
    made = {}
    for name, trees in {"uncertainty": own, "noise": noise, "untrained": untrained}.items():
        scalars, both = zip(*map(of_uncertainty, trees), strict=True)
        made[f"{name}_scalars"], made[name] = fakes_of(scalars), fakes_of(both)
    made[MEAN] = fakes_of([analysis.mean_probability(tree) for tree in own])
    made["penultimate_features"] = fakes_of(
        [of_images(tree["features"].to_dataset()["penultimate"].values, tree) for tree in own]
    )
    for name, numbers in (
        ("random_projection", analysis.profile(own[0]).sizes["feature"]),
        ("random_projection_scalars", made[SCALARS].sizes["feature"]),
    ):
        made[name] = random_projection(made["penultimate_features"], numbers, seed)
    return {name: made[name] for name in SETS}


def random_projection(features: xr.DataArray, numbers: int, seed: int) -> xr.DataArray:
    """Features seen along random directions (image, `numbers`): normal ones, the same for all images."""
    size = features.sizes["feature"]
    directions = np.random.default_rng(seed).standard_normal((size, numbers)) / np.sqrt(size)
    coords = {name: coord for name, coord in features.coords.items() if coord.dims == ("image",)}
    return xr.DataArray(features.values @ directions, coords, ("image", "feature"), name="random_projection")


def of_uncertainty(tree: xr.DataTree) -> tuple[xr.DataArray, xr.DataArray]:
    """The scalars alone, and with the profile. None is a function of the mean probability alone: that is a control."""
    scalars = analysis.beyond_mean_probability(analysis.scalars(tree))
    return scalars, analysis.combine(scalars, analysis.profile(tree))


def of_images(values: NDArray[np.floating], tree: xr.DataTree) -> xr.DataArray:
    """Numbers (image, feature) with what is known of the images of a tree."""
    known = analysis.mean_probability(tree).coords
    coords = {name: coord for name, coord in known.items() if coord.dims == ("image",)}
    return xr.DataArray(values, coords, ("image", "feature"))


def fakes_of(parts: Sequence[xr.DataArray]) -> xr.DataArray:
    """The fakes of several parts together, with what attribution needs to know of them."""
    known = {"image", "feature", "source", "path", "subject", "donor", "split"}
    slim = [part.drop_vars([name for name in part.coords if name not in known]) for part in parts]
    return xr.concat([part[(part["source"] != data.REAL).values] for part in slim], "image")

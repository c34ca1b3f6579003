"""Do maps and regions betray the source, and do they add to the uncertainty of the whole image?

The rivals see the same pictures and have no uncertainty, or none that was inferred: maps of noise without inference, of
an untrained network, of P(fake) in one network, and as many random directions of the network's features.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

import bayesdf.analysis as analysis
import bayesdf.data as data
from bayesdf.experiments.posteriors import draws_per_chain
from bayesdf.experiments.source_attribution.feature_sets import of_images, of_uncertainty, random_projection
from bayesdf.experiments.source_attribution.gain import gains
from bayesdf.experiments.source_attribution.study import linked
from bayesdf.experiments.uncertainty_maps.setting import Setting, pixels
from bayesdf.inference import Posterior
from bayesdf.inference.maps.regions import region_uncertainty

MAP_METHODS = ("evidence", "gradient")
"""Methods that are fast enough for all images."""
SETS = {
    "maps_regions": "uncertainty: maps and regions",
    "maps": "uncertainty: maps alone",
    "regions": "uncertainty: regions alone",
    "maps_regions_noise": "control: maps and regions of the noise, not fitted",
    "maps_regions_untrained": "control: maps and regions of the untrained network",
    "maps_single": "control: maps of P(fake) in one network",
    "random_projection": "control: random projection of the features",
    "mean_probability": "control: mean probability alone",
    "image": "the image's uncertainty: scalars and profile",
    "image_maps_regions": "the image's uncertainty, maps and regions",
    "image_noise": "control: the image's noise, maps and regions of noise",
    "image_single": "control: the image's uncertainty, and maps of P(fake) in one network",
    "penultimate_features": "ceiling: the network's features",
}
"""The feature sets, and how they are called in tables and figures."""
RIVALS = {
    "maps_regions": (
        "maps_regions_noise",
        "maps_regions_untrained",
        "maps_single",
        "random_projection",
        "mean_probability",
    ),
    "image_maps_regions": ("image", "image_noise", "image_single"),
}
"""What each set of the posterior is compared with."""


def work(setting: Setting) -> xr.DataTree:
    """Uncertainty by region, and the source from maps and regions.

    Returns
    -------
    xr.DataTree
        `regions`: what `region_uncertainty` says of the test people, and `share`, how much of the gradient map lies in
        each region. `average`: `<method>:<quantity>` (source, y, x), mean maps of the test people. `attribution`: a
        row for each feature set, and below it what `analysis.attribute` says. `gain`: paired differences.
    """
    posterior = setting.posterior()
    parts = (setting.collection.val, setting.collection.test)
    if setting.quick:
        parts = tuple(setting.some(part) for part in parts)
    own = [_of_part(setting, posterior, part) for part in parts]
    noise = [_of_part(setting, setting.noise(posterior), part) for part in parts]
    untrained = [_of_part(setting, setting.untrained(posterior), part) for part in parts]
    single = [_of_part(setting, setting.deterministic(), part, regions=False) for part in parts]
    features = _feature_sets(own, noise, untrained, single, setting.seed)
    together = linked([part.manifest for part in parts])
    attributions = {
        name: analysis.attribute(part, subject_groups=together, fit_only=part["split"].values != "test", seed=setting.seed)
        for name, part in features.items()
    }
    summary = analysis.summarise(attributions, against="mean_probability", seed=setting.seed)
    last = own[-1]
    return xr.DataTree.from_dict(
        {
            "/regions": last["regions"],
            "/average": _averages(last["maps"]),
            "/attribution": xr.Dataset.from_dataframe(summary),
            **{f"/attribution/{name}": part for name, part in attributions.items()},
            "/gain": xr.Dataset.from_dataframe(gains(attributions, RIVALS, setting.seed)),
        }
    )


def _of_part(
    setting: Setting, posterior: Posterior, images: data.ImageDataset, *, regions: bool = True
) -> dict[str, xr.Dataset | xr.DataArray | xr.DataTree]:
    """What a posterior says of some images: as a whole, by maps and by regions."""
    own: dict[str, xr.Dataset | xr.DataArray | xr.DataTree] = {}
    made = {name: setting.maps(posterior, images, name) for name in MAP_METHODS}
    masks = setting.region_masks(images)
    own["maps"] = xr.merge(
        [maps.rename({key: f"{name}:{key}" for key in maps.data_vars}) for name, maps in made.items() if name == "x"]
    )
    return own

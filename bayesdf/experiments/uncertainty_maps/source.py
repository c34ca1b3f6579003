"""Do maps and regions betray the source, and do they add to the uncertainty of the whole image?

The rivals see the same pictures and have no uncertainty, or none that was inferred: maps of noise without inference, of
an untrained network, of one network without draws, and as many random directions of the network's features.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from rich.progress import track

import bayesdf.analysis as analysis
import bayesdf.data as data
from bayesdf.experiments.posteriors import draws_per_chain
from bayesdf.experiments.source_attribution.feature_sets import fakes_of, of_images, of_uncertainty, random_projection
from bayesdf.experiments.source_attribution.gain import gains
from bayesdf.experiments.source_attribution.study import linked
from bayesdf.experiments.uncertainty_maps.localisation import MADE
from bayesdf.experiments.uncertainty_maps.setting import Setting
from bayesdf.faces import REGIONS
from bayesdf.inference import Posterior
from bayesdf.inference.maps.regions import region_uncertainty

MAP_METHODS = ("evidence", "gradient")
"""Methods that are fast enough for all images."""
SETS = {
    "maps_regions": "uncertainty: maps and regions",
    "maps": "uncertainty: maps alone",
    "regions": "uncertainty: regions alone",
    "maps_regions_noise": "control: maps and regions of noise",
    "maps_regions_untrained": "control: maps and regions, untrained",
    "maps_single": "control: maps and regions of one network",
    "random_projection": "control: random projection of the features",
    "mean_probability": "control: mean probability alone",
    "image": "the image's uncertainty: scalars and profile",
    "image_maps_regions": "the image's uncertainty, maps and regions",
    "image_noise": "control: all three of the noise",
    "image_single": "control: image, maps and regions of one",
    "penultimate_features": "control: the network's features",
}
"""The feature sets, and how they are called in tables and figures."""
SMALLEST = 1e-12
"""Uncertainties below this, in nats, count as this."""
RIVALS = {
    "maps_regions": (
        "maps_regions_noise",
        "maps_regions_untrained",
        "maps_single",
        "random_projection",
        "mean_probability",
        "penultimate_features",
    ),
    "image_maps_regions": ("image", "image_noise", "image_single", "random_projection", "penultimate_features"),
}
"""What each set of the posterior is compared with."""


@dataclass(frozen=True)
class Seen:
    """What a posterior says of some images."""

    predictions: xr.DataTree
    maps: Mapping[str, xr.Dataset]
    regions: xr.Dataset
    """Uncertainty with each region alone, and without it (image, region)."""
    masks: xr.DataArray
    """The regions (image, region, y, x)."""


def work(setting: Setting) -> xr.DataTree:
    """Uncertainty by region, and the source from maps and regions.

    Returns
    -------
    xr.DataTree
        `regions`: what `region_uncertainty` says of the test people, and `share`, how much of each map lies in each
        region. `average/<method>`: mean maps of each source (source, y, x). `attribution`: a row for each feature set,
        and below it what `analysis.attribute` says. `gain`: paired differences.
    """
    posterior = setting.posterior()
    parts = [
        setting.some(part) if setting.quick else part for part in (setting.collection.val, setting.collection.test)
    ]
    own, noise, untrained, single = (
        [see(setting, one, part) for part in parts]
        for one in (posterior, setting.noise(posterior), setting.untrained(posterior), setting.deterministic())
    )
    features = feature_sets(own, noise, untrained, single, setting.seed)
    together = linked([part.manifest for part in parts])
    attributions = {
        name: analysis.attribute(
            features[name],
            subject_groups=together,
            fit_only=features[name]["split"].values != "test",
            seed=setting.seed,
        )
        for name in track(SETS, "naming sources", transient=True)
    }
    summary = analysis.summarise(attributions, against="mean_probability", seed=setting.seed)
    return xr.DataTree.from_dict(
        {
            "/regions": regions_of(own[-1]),
            **{f"/average/{name}": analysis.average_map(maps) for name, maps in own[-1].maps.items()},
            "/attribution": xr.Dataset.from_dataframe(summary),
            **{f"/attribution/{name}": part for name, part in attributions.items()},
            "/gain": xr.Dataset.from_dataframe(gains(attributions, RIVALS, setting.seed)),
        }
    )


def see(setting: Setting, posterior: Posterior, images: data.ImageDataset) -> Seen:
    """Predictions, maps by the fast methods, and uncertainty by region."""
    draws = draws_per_chain(posterior, setting.draws)
    masks = setting.region_masks(images)
    regions = region_uncertainty(posterior, images, masks.values, REGIONS, draws, setting.seed, device=setting.device)
    return Seen(
        posterior.predict(images, draws, setting.seed, device=setting.device, penultimate=True),
        {name: setting.maps(posterior, images, MADE[name]) for name in MAP_METHODS},
        regions["uncertainty"].to_dataset(),
        masks,
    )


def regions_of(seen: Seen) -> xr.Dataset:
    """Uncertainty by region, and the share of each map inside: `share` (method, quantity, image, region)."""
    shares = [analysis.region_shares(maps, seen.masks) for maps in seen.maps.values()]
    names = xr.DataArray(list(seen.maps), dims="method", name="method")
    joined = xr.concat(shares, names, coords="minimal", compat="override")
    return seen.regions.assign(share=joined["share"], area=shares[0]["area"])


def feature_sets(
    own: Sequence[Seen], noise: Sequence[Seen], untrained: Sequence[Seen], single: Sequence[Seen], seed: int
) -> dict[str, xr.DataArray]:
    """The features of the fakes of all parts by the names in `SETS`, each (image, feature)."""

    def of(parts: Sequence[Seen], *families: Callable[[Seen], xr.DataArray]) -> xr.DataArray:
        return fakes_of([analysis.combine(*(family(part) for family in families)) for part in parts])

    made = {
        "maps": of(own, of_maps),
        "regions": of(own, of_regions),
        "maps_regions": of(own, of_maps, of_regions),
        "maps_regions_noise": of(noise, of_maps, of_regions),
        "maps_regions_untrained": of(untrained, of_maps, of_regions),
        "maps_single": of(single, of_single),
        "mean_probability": of(own, lambda part: analysis.mean_probability(part.predictions)),
        "image": of(own, of_image),
        "image_maps_regions": of(own, of_image, of_maps, of_regions),
        "image_noise": of(noise, of_image, of_maps, of_regions),
        "penultimate_features": of(
            own,
            lambda part: of_images(part.predictions["features"].to_dataset()["penultimate"].values, part.predictions),
        ),
    }
    made["image_single"] = analysis.combine(made["image"], made["maps_single"])
    made["random_projection"] = random_projection(
        made["penultimate_features"], made["maps_regions"].sizes["feature"], seed
    )
    return {name: made[name] for name in SETS}


def of_maps(seen: Seen) -> xr.DataArray:
    """Maps of uncertainty as features: P(fake) is none."""
    return _side_by_side({name: maps.drop_vars("p_fake") for name, maps in seen.maps.items()}, seen)


def of_single(seen: Seen) -> xr.DataArray:
    """Maps and regions of P(fake) and of its entropy as features, in a network without draws."""
    maps = _side_by_side({name: maps[["p_fake", "total"]] for name, maps in seen.maps.items()}, seen)
    return analysis.combine(maps, _by_region(("p_fake_", "total_"), seen))


def _side_by_side(made: Mapping[str, xr.Dataset], seen: Seen) -> xr.DataArray:
    """The features of the maps of several methods."""
    families = {name: analysis.map_features(maps, seen.masks) for name, maps in made.items()}
    names = [f"{method}:{name}" for method, family in families.items() for name in family["feature"].values]
    values = np.concatenate([family.values for family in families.values()], 1)
    return of_images(values, seen.predictions).assign_coords(feature=names)


def of_regions(seen: Seen) -> xr.DataArray:
    """Uncertainty by region as features."""
    return _by_region(("total_", "aleatoric_", "epistemic_"), seen)


def _by_region(prefixes: tuple[str, ...], seen: Seen) -> xr.DataArray:
    """Figures by region as features: logarithms, since uncertainties span orders of magnitude."""
    figures = [name for name in seen.regions.data_vars if str(name).startswith(prefixes)]
    names = [f"{figure}:{region}" for figure in figures for region in seen.regions["region"].values]
    values = np.concatenate([seen.regions[figure].transpose("image", "region").values for figure in figures], 1)
    return of_images(np.log(np.maximum(values, SMALLEST)), seen.predictions).assign_coords(feature=names)


def of_image(seen: Seen) -> xr.DataArray:
    """Scalars and profile of the whole image."""
    return of_uncertainty(seen.predictions)[1]

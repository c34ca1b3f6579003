"""Do maps rise where the picture was changed? Each method beside rivals that look at no uncertainty.

Generators change the same pixels in nearly every aligned face. So a map that never looks at the picture finds them,
and the maps are judged twice: on the fakes as they are, and on fakes of which only a random half was changed
(`halves`), where position says nothing. The map of another picture, made by the same method, knows where masks usually
lie and nothing of this picture. Which map is the best is chosen on validation people.
"""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from torch import Tensor

import bayesdf.analysis as analysis
import bayesdf.data as data
from bayesdf.experiments.uncertainty_maps.halves import halves, named
from bayesdf.experiments.uncertainty_maps.setting import Setting, masks_of, pixels
from bayesdf.inference import Posterior
from bayesdf.inference.maps.evidence import Evidence
from bayesdf.inference.maps.gradient import Gradient
from bayesdf.inference.maps.integrated_gradient import IntegratedGradient
from bayesdf.inference.maps.method import MapMethod
from bayesdf.inference.maps.occlusion import Occlusion
from bayesdf.inference.maps.smooth_gradient import SmoothGradient
from bayesdf.inference.maps.superpixels import Superpixels

MADE: dict[str, MapMethod] = {
    "evidence": Evidence(),
    "gradient": Gradient(),
    "smooth_gradient": SmoothGradient(copies=8),
    "integrated_gradient": IntegratedGradient(),
    "occlusion": Occlusion(),
    "superpixels": Superpixels(),
}
"""Methods as this study sets them: fewer noisy copies than by default, for many images."""
METHODS = {
    "evidence": "evidence",
    "gradient": "gradient",
    "smooth_gradient": "smooth gradient",
    "integrated_gradient": "integrated gradient",
    "occlusion": "occlusion",
    "superpixels": "superpixels",
}
"""Methods of maps, and how they are called in tables."""
RIVALS = {
    "centred": "rival: centred Gaussian",
    "smoothness": "rival: smoothness of the picture",
    "deterministic": "rival: gradient of P(fake) in one network",
    "deterministic_evidence": "rival: evidence of P(fake) in one network",
    "chance": "rival: random order",
}
"""Maps that show no uncertainty. Smoothness needs no network: it is minus the local mean of the absolute Laplacian."""
SMOOTH = 2.0
"""Standard deviation in pixels over which the smoothness is a mean."""
OTHER = "other_image"
"""Prefix of the rival that is the map of another picture."""
SETS = {"whole": "whole fakes", "halves": "half-changed fakes"}
"""What the maps are judged on."""


def work(setting: Setting) -> xr.DataTree:
    """Maps of test people by all methods, and how well each finds the changed pixels.

    Returns
    -------
    xr.DataTree
        `pictures`: `picture` uint8 (image, y, x, channel) and `mask` (image, y, x). `maps/<method>`: the maps of these
        test images. `<split>/<set>`: `auroc` and `pointing` (map, image), where `map` is `<method>:<quantity>`, the
        same with the prefix `other_image:`, or a rival; split is `val` or `test`, set is `whole` or `halves`.
    """
    posterior, single = setting.posterior(), setting.deterministic()
    groups: dict[str, xr.Dataset] = {}
    for split in ("val", "test"):
        everything = getattr(setting.collection, split)
        images = setting.some(everything)
        made = {name: setting.maps(posterior, images, method) for name, method in MADE.items()}
        if split == "test":
            groups["/pictures"] = pictures(images)
            groups |= {f"/maps/{name}": maps for name, maps in made.items()}
        rows = {"image": np.flatnonzero((images.manifest["mask"] == "part").to_numpy())}
        masks = masks_of(images).isel(rows)
        others = {name: maps.isel(rows) for name, maps in rivals(setting, single, images, masks_of(images)).items()}
        own = {name: maps.isel(rows) for name, maps in made.items()}
        groups[f"/{split}/whole"] = scores(own, others, masks, None)
        half = halves(images, everything, setting.seed)
        if half is not None:
            own = {name: named(setting.maps(posterior, half.images, method), half) for name, method in MADE.items()}
            others = rivals(setting, single, half.images, half.masks)
            groups[f"/{split}/halves"] = scores(own, others, half.masks, half.within)
    groups["/sample_stats"] = xr.Dataset(attrs=posterior.sample_stats.attrs)
    return xr.DataTree.from_dict(groups)


def pictures(images: data.ImageDataset) -> xr.Dataset:
    """The pictures and their masks."""
    masks = masks_of(images)
    values = (pixels(images).permute(0, 2, 3, 1).numpy() * 255.0).round().astype(np.uint8)
    return xr.Dataset(
        {"picture": (("image", "y", "x", "channel"), values), "mask": masks},
        {"label": ("image", images.labels.numpy())},
    )


def rivals(
    setting: Setting, single: Posterior, images: data.ImageDataset | Tensor, masks: xr.DataArray
) -> dict[str, xr.DataArray]:
    """The maps of `RIVALS` of some images.

    Parameters
    ----------
    single
        The network that the posterior starts from, as a posterior of a single point.
    masks
        Of the images, whose names the maps take.
    """
    from scipy.ndimage import gaussian_filter, laplace

    values = (images if isinstance(images, Tensor) else pixels(images)).mean(1).numpy().astype(np.float64)
    detail = np.stack([gaussian_filter(np.abs(laplace(one)), SMOOTH) for one in values])
    coords = {name: coord for name, coord in masks.coords.items() if coord.dims == ("image",)}
    return {
        "centred": analysis.centred_gaussian(masks),
        "smoothness": masks.copy(data=-detail),
        "deterministic": setting.maps(single, images, MADE["gradient"])["p_fake"].assign_coords(coords),
        "deterministic_evidence": setting.maps(single, images, MADE["evidence"])["p_fake"].assign_coords(coords),
        "chance": analysis.random_order(masks, setting.seed),
    }


def scores(
    made: Mapping[str, xr.Dataset],
    others: Mapping[str, xr.DataArray],
    masks: xr.DataArray,
    within: xr.DataArray | None,
) -> xr.Dataset:
    """Localisation of all maps and rivals: `auroc` and `pointing` (map, image)."""
    flat = {f"{name}:{quantity}": maps[quantity] for name, maps in made.items() for quantity in maps.data_vars}
    everything = {**flat, **{f"{OTHER}:{name}": _of_others(maps) for name, maps in flat.items()}, **others}
    found = [analysis.localisation(maps, masks, within=within) for maps in everything.values()]
    names = xr.DataArray(list(everything), dims="map", name="map")
    return xr.concat(found, names, coords="minimal", compat="override", combine_attrs="override")


def _of_others(maps: xr.DataArray) -> xr.DataArray:
    """For each picture the map of another: the next one of another person and the same source, where there is one."""
    source, subject = maps["source"].values, maps["subject"].values
    count = len(source)
    rows = []
    for row in range(count):
        after = (row + np.arange(1, count + 1)) % count
        apart = (source[after] == source[row]) & (subject[after] != subject[row])
        rows.append(after[apart][0] if apart.any() else (row + 1) % count)
    return maps.copy(data=maps.values[rows])

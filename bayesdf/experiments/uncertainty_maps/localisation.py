"""Do maps rise where the picture was changed? Each method beside rivals that look at no uncertainty.

Masks of aligned faces lie in the middle of the picture. So a centred Gaussian finds them without looking, and the maps
are judged twice: over whole pictures, and in windows at random positions. The map of another picture, made by the same
method, knows where masks usually lie and nothing of this picture. Which map is the best is chosen on validation people.
"""

import numpy as np
import xarray as xr

import bayesdf.analysis as analysis
import bayesdf.data as data
from bayesdf.experiments.uncertainty_maps.setting import Setting, masks_of, pixels
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
    "integrated_gradient": IntegratedGradient(steps=8),
    "occlusion": Occlusion(),
    "superpixels": Superpixels(),
}
"""Methods as this study sets them: fewer copies and steps than by default, for many images."""
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
    "deterministic": "rival: gradient of P(fake) in one network",
    "chance": "rival: random order",
}
"""Maps that show no uncertainty."""
OTHER = "other_image"
"""Prefix of the rival that is the map of another picture."""
WINDOW = 0.25
"""Side of a window, as a share of the picture's."""
SETS = ("whole", "windows")


def work(setting: Setting) -> xr.DataTree:
    """Maps of test people by all methods, and how well each finds the changed pixels.

    Returns
    -------
    xr.DataTree
        `pictures`: `picture` uint8 (image, y, x, channel) and `mask` (image, y, x). `maps/<method>`: the maps of these
        test images. `<split>/<set>`: `auroc` and `pointing` (image, map), where `map` is `<method>:<quantity>`, the
        same with the prefix `other_image:`, or a rival; split is `val` or `test`, set is `whole` or `windows`.
    """
    posterior, single = setting.posterior(), setting.deterministic()
    groups: dict[str, xr.Dataset] = {}
    for split in ("val", "test"):
        images = setting.some(getattr(setting.collection, split))
        made = {name: setting.maps(posterior, images, MADE[name]) for name in METHODS}
        if split == "test":
            groups["/pictures"] = pictures(images)
            groups |= {f"/maps/{name}": maps for name, maps in made.items()}
        gradient = setting.maps(single, images, MADE["gradient"])["p_fake"]
        masks = masks_of(images)
        partly = np.flatnonzero((images.manifest["mask"] == "part").to_numpy())
        groups |= scores(
            {name: maps.isel(image=partly) for name, maps in made.items()},
            gradient.isel(image=partly),
            masks.isel(image=partly),
            split,
            setting.seed,
        )
    return xr.DataTree.from_dict(groups)


def pictures(images: data.ImageDataset) -> xr.Dataset:
    """The pictures and their masks."""
    masks = masks_of(images)
    values = (pixels(images).permute(0, 2, 3, 1).numpy() * 255.0).round().astype(np.uint8)
    return xr.Dataset(
        {"picture": (("image", "y", "x", "channel"), values), "mask": masks},
        {"label": ("image", images.labels.numpy())},
    )


def scores(
    made: dict[str, xr.Dataset], gradient: xr.DataArray, masks: xr.DataArray, split: str, seed: int
) -> dict[str, xr.Dataset]:
    """Localisation of all maps and rivals, over whole pictures and in windows."""
    rivals = {
        "centred": analysis.centred_gaussian(masks),
        "deterministic": gradient,
        "chance": analysis.random_order(masks, seed),
    }
    flat = {f"{name}:{quantity}": maps[quantity] for name, maps in made.items() for quantity in maps.data_vars}
    everything = {**flat, **{f"{OTHER}:{name}": _of_others(maps) for name, maps in flat.items()}, **rivals}
    side = max(round(WINDOW * min(masks.shape[1:])), 2)
    found: dict[str, xr.Dataset] = {}
    parts: dict[str, list[xr.Dataset]] = {name: [] for name in SETS}
    for name, maps in everything.items():
        parts["whole"].append(analysis.localisation(maps, masks))
        if name == "centred":  # of the window, not of the picture
            _, cut_masks = analysis.windows(masks, masks, side, seed=seed)
            cut = analysis.centred_gaussian(cut_masks)
        else:
            found_maps, cut_masks = analysis.windows(maps.rename("map"), masks, side, seed=seed)
            cut = found_maps["map"]
        parts["windows"].append(analysis.localisation(cut, cut_masks))
    names = xr.DataArray(list(everything), dims="map", name="map")
    for name, own in parts.items():
        found[f"/{split}/{name}"] = xr.concat(own, names, coords="minimal", compat="override", combine_attrs="override")
    return found


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

"""Does the epistemic map rise where something was put that the detector has never seen, and the aleatoric one not?

A patch is pasted into photographs of test people. Nothing like it was in the training images. What the detector does
not know is then known to be there. Each map is judged by its rise: the map with the patch less the map without.
"""

import numpy as np
import torch
import xarray as xr
from torch import Tensor

import bayesdf.analysis as analysis
from bayesdf.experiments.seeds import rng_of
from bayesdf.experiments.uncertainty_maps import dense
from bayesdf.experiments.uncertainty_maps.localisation import MADE
from bayesdf.experiments.uncertainty_maps.setting import Setting, pixels, with_names

PATCHES = {
    "noise": "independent random grey values",
    "checks": "black and white squares of two pixels",
    "colour": "one saturated colour",
}
"""Kinds of patches, and what they are made of."""
SIDE = 0.25
"""Of a patch, as a share of the picture's."""


def work(setting: Setting) -> xr.DataTree:
    """Conveyance of each method, and of the dense detector, for each kind of patch.

    Returns
    -------
    xr.DataTree
        `auroc` (method, patch, image, quantity) and `difference` (method, patch, image): see `analysis.conveyance`.
        `example/<patch>`: `picture` (image, y, x, channel) of the first image.
    """
    test = setting.collection.test
    photographs = setting.some(test.take(test.labels.numpy() == 0))
    posterior, of_pixels = setting.posterior(), dense.fit(setting)
    makers = {**{name: (posterior, made) for name, made in MADE.items()}, dense.DENSE: (of_pixels, MADE["evidence"])}
    plain = {name: setting.maps(who, photographs, made) for name, (who, made) in makers.items()}
    groups, rows = {}, []
    for kind in PATCHES:
        patched, place = paste(pixels(photographs), kind, setting.seed)
        where = with_names(place.numpy().astype(np.float64), photographs)
        groups[f"/example/{kind}"] = xr.Dataset(
            {"picture": (("y", "x", "channel"), (patched[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy())}
        )
        found = []
        for name, before in plain.items():
            who, made = makers[name]
            after = setting.maps(who, patched, made)
            rise = before.copy(data={key: after[key].values - before[key].values for key in before.data_vars})
            found.append(analysis.conveyance(rise, where))
        rows.append(
            xr.concat(
                found, xr.DataArray(list(makers), dims="method", name="method"), coords="minimal", compat="override"
            )
        )
    joined = xr.concat(
        rows, xr.DataArray(list(PATCHES), dims="patch", name="patch"), coords="minimal", compat="override"
    )
    return xr.DataTree.from_dict({"/": joined, **groups})


def paste(images: Tensor, kind: str, seed: int) -> tuple[Tensor, Tensor]:
    """A patch at a random place of each image: images (N, 3, H, W), and where it is, bool (N, H, W)."""
    rng = rng_of(seed, "patch", kind)
    height, width = images.shape[2:]
    side = max(round(SIDE * min(height, width)), 2)
    patched, place = images.clone(), torch.zeros(len(images), height, width, dtype=torch.bool)
    for row in range(len(images)):
        top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        patched[row, :, top : top + side, left : left + side] = torch.from_numpy(_patch(kind, side, rng)).float()
        place[row, top : top + side, left : left + side] = True
    return patched, place


def _patch(kind: str, side: int, rng: np.random.Generator) -> np.ndarray:
    """(3, side, side) in [0, 1]"""
    if kind == "noise":
        return np.repeat(rng.random((1, side, side)), 3, axis=0)
    if kind == "checks":
        y, x = np.mgrid[:side, :side]
        return np.repeat(((y // 2 + x // 2) % 2)[None].astype(float), 3, axis=0)
    colour = rng.permutation([0.0, rng.random(), 1.0])
    return np.broadcast_to(colour[:, None, None], (3, side, side)).copy()

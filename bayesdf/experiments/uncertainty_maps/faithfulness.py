"""Does the uncertainty fall when the marked pixels go, and faster than in a random or a centred order?

Pixels are blurred away in the order of each map (deletion), or come back into a blurred picture (insertion). A map that
marks what makes the detector unsure has a low deletion curve of the uncertainty.
"""

import xarray as xr

import bayesdf.analysis as analysis
from bayesdf.experiments.posteriors import draws_per_chain
from bayesdf.experiments.uncertainty_maps.localisation import MADE
from bayesdf.experiments.uncertainty_maps.setting import Setting, masks_of
from bayesdf.inference.maps.perturbation import deletion, insertion

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
"""Shares of the pixels that have gone or come."""
QUANTITY = "epistemic"
"""The uncertainty whose maps and curves these are."""
IMAGES = 10
"""Images of each source."""


def work(setting: Setting) -> xr.DataTree:
    """Curves of the epistemic uncertainty in the order of its maps, and of the rivals.

    Returns
    -------
    xr.DataTree
        `deletion_curve`, `insertion_curve` (order, image, share), nats. `deletion`, `insertion` (order, image): the
        areas below them, nats. `order` is a method of maps, `centred` or `chance`.
    """
    images = setting.some(setting.collection.test, min(IMAGES, setting.images))
    posterior = setting.posterior()
    masks = masks_of(images)
    orders = {name: setting.maps(posterior, images, made)[QUANTITY] for name, made in MADE.items()}
    orders |= {"centred": analysis.centred_gaussian(masks), "chance": analysis.random_order(masks, setting.seed)}
    draws = draws_per_chain(posterior, setting.draws)
    found = xr.Dataset()
    names = xr.DataArray(list(orders), dims="order", name="order")
    for name, curve in {"deletion": deletion, "insertion": insertion}.items():
        parts = [
            curve(posterior, images, maps, SHARES, draws, setting.seed, quantities=(QUANTITY,), device=setting.device)[
                QUANTITY
            ].reset_coords(drop=True)
            for maps in orders.values()
        ]
        found[f"{name}_curve"] = xr.concat(parts, names, coords="minimal", compat="override")
        found[name] = analysis.area_under(found[f"{name}_curve"], "share")
    known = {name: coord for name, coord in masks.coords.items() if coord.dims == ("image",)}
    return xr.DataTree.from_dict({"/": found.assign_coords(known)})

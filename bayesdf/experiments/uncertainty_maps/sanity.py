"""Does a map change when the network's weights are replaced by random ones, layer by layer from the classifier?

A map that stays the same shows edges of the picture, and not what the network learnt (Adebayo et al. 2018, "Sanity
Checks for Saliency Maps", cascading randomisation).
"""

import numpy as np
import xarray as xr

import bayesdf.analysis as analysis
from bayesdf.experiments.uncertainty_maps.localisation import MADE, METHODS
from bayesdf.experiments.uncertainty_maps.setting import Setting
from bayesdf.inference.maps.sanity import layers, randomised

IMAGES = 4
"""Images of each source."""
STEPS = 5
"""How many numbers of layers are tried."""


def work(setting: Setting) -> xr.DataTree:
    """Rank correlation of each map with that of the whole network, by how many layers are random; and how stable it is.

    Returns
    -------
    xr.DataTree
        `randomised`: `correlation` (method, layers, image, quantity), Spearman's over pixels. `agreement`:
        `correlation` (method, other, image, quantity), of two methods. `repeats`: `correlation` (method, what, image,
        quantity), of other draws of the posterior (and other noise of smooth gradients) and of another fit.
        `sample_stats`: the verdict of that fit.
    """
    images = setting.some(setting.collection.test, min(IMAGES, setting.images))
    posterior = setting.posterior()
    made = {name: setting.maps(posterior, images, MADE[name]) for name in METHODS}
    count = len(layers(posterior))
    numbers = sorted({max(round(share * count), 1) for share in np.linspace(0, 1, STEPS)})
    randoms = [randomised(posterior, number, setting.seed) for number in numbers]
    again = setting.another_fit()
    correlation = {
        "randomised": _joined(
            {
                name: _joined(
                    {
                        number: analysis.agreement(maps, setting.maps(one, images, MADE[name]))
                        for number, one in zip(numbers, randoms, strict=True)
                    },
                    "layers",
                )
                for name, maps in made.items()
            },
            "method",
        ),
        "agreement": _joined(
            {
                name: _joined({other: analysis.agreement(maps, made[other]) for other in METHODS}, "other")
                for name, maps in made.items()
            },
            "method",
        ),
        "repeats": _joined(
            {
                name: _joined(
                    {
                        "other draws": analysis.agreement(
                            maps, setting.maps(posterior, images, MADE[name], setting.seed + 1)
                        ),
                        "another fit": analysis.agreement(maps, setting.maps(again, images, MADE[name])),
                    },
                    "what",
                )
                for name, maps in made.items()
            },
            "method",
        ),
    }
    groups = {f"/{name}": one.to_dataset(name="correlation") for name, one in correlation.items()}
    return xr.DataTree.from_dict({**groups, "/sample_stats": xr.Dataset(attrs=again.sample_stats.attrs)})


def _joined(parts: dict, dim: str) -> xr.DataArray:
    """DataArrays along a new dimension, by the keys."""
    return xr.concat(
        list(parts.values()), xr.DataArray(list(parts), dims=dim, name=dim), coords="minimal", compat="override"
    )

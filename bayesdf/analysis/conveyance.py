"""Does epistemic uncertainty appear where it was put, and aleatoric uncertainty not?

A patch of a kind that the detector has never seen is pasted into pictures. What it does not know is then known to be
there. The epistemic map should rise at the patch. Nothing makes the patch ambiguous, so the aleatoric map should not. A
patch also has edges, and any map of edges rises there. So the figure that counts is the difference of the two.

The rise itself is a difference of maps: `conveyance(maps_with_patch - maps_without, patches)`.
"""

import xarray as xr

from bayesdf.analysis.localisation import localisation
from bayesdf.analysis.map_grid import Maps, find_maps
from bayesdf.analysis.tree import listed
from bayesdf.errors import BayesdfError


def conveyance(maps: Maps, patches: xr.DataArray) -> xr.Dataset:
    """AUROC of each quantity's map against the patch, and the paired difference epistemic - aleatoric.

    Parameters
    ----------
    maps
        Maps of pictures with a patch, with the quantities `epistemic` and `aleatoric` at least.
    patches
        (image, y, x): 1 at the pixels of the patch, 0 elsewhere. As `masks` in `localisation`.

    Returns
    -------
    xr.Dataset
        `auroc` (`image`, `quantity`), 0 … 1, and `difference` (`image`), -1 … 1. Images without a patch have NaN. Give
        it to `mean_over_images` for intervals.

    Raises
    ------
    BayesdfError
        As `localisation`, or a quantity is missing.
    """
    found = find_maps(maps)
    if isinstance(found, xr.DataArray) or not {"epistemic", "aleatoric"} <= set(found.data_vars):
        given = [found.name] if isinstance(found, xr.DataArray) else found.data_vars
        raise BayesdfError(
            f"the maps are of {listed(given)}; conveyance compares 'epistemic' with 'aleatoric': give both"
        )
    auroc = localisation(found, patches)["auroc"]
    difference = auroc.sel(quantity="epistemic", drop=True) - auroc.sel(quantity="aleatoric", drop=True)
    return xr.Dataset({"auroc": auroc, "difference": difference})

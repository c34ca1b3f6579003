"""How large is the area under a deletion, an insertion or a sparsification curve?

A deletion curve tells the uncertainty left when a share of the pixels is gone, in the order of a map [1]. A map that
marks what causes the uncertainty has a small area under deletion and a large one under insertion. The areas of a random
and of a centred order (`random_order`, `centred_gaussian`) stand beside it. All are of the same images, so the paired
difference is a subtraction:

    mean_over_images(area_under(random_curve, "share") - area_under(map_curve, "share"))

References
----------
1. Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018 (deletion
   and insertion).
"""

from typing import TypeVar

import numpy as np
import xarray as xr

from bayesdf.analysis.tree import listed, wrong_input
from bayesdf.errors import BayesdfError

Curve = TypeVar("Curve", xr.DataArray, xr.Dataset)


def area_under(curve: Curve, dim: str) -> Curve:
    """The area under a curve by the trapezoidal rule.

    Parameters
    ----------
    curve
        A DataArray, or a Dataset of which every variable has the dimension.
    dim
        The dimension to integrate over, such as `share`. It has a rising coordinate.

    Returns
    -------
    xr.DataArray or xr.Dataset
        As `curve` without `dim`. With a share of 0 … 1 it is the mean height of the curve. NaN where the curve is NaN.

    Raises
    ------
    BayesdfError
        No such dimension or coordinate, fewer than two points, or a coordinate that does not rise.
    """
    if not isinstance(curve, xr.DataArray | xr.Dataset):
        raise BayesdfError(f"{wrong_input(curve, 'a curve')}; give a DataArray with a dimension {dim!r}")
    parts = [curve] if isinstance(curve, xr.DataArray) else list(curve.data_vars.values())
    for part in parts:
        if dim not in part.dims or dim not in part.coords:
            raise BayesdfError(
                f"{part.name or 'the curve'} has dimensions {listed(part.dims)} and coordinates {listed(part.coords)}; "
                f"an area over {dim!r} needs both"
            )
    at = np.asarray(curve[dim].values, dtype=np.float64)
    if len(at) < 2 or not (np.diff(at) > 0).all():
        raise BayesdfError(f"{dim} = {listed(at[:5])}; an area needs two points or more, in rising order")
    return curve.integrate(dim)

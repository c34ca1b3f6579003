"""What is the mean of a figure over images, for each generator, and how far may it be off on other people?

Everything that is told image by image goes through here: AUROC of maps, shares of regions, areas under curves. A paired
difference of two maps, two methods or two quantities is a subtraction before the mean.
"""

import numpy as np
import xarray as xr

from bayesdf.analysis.intervals import Estimate, cluster_bootstrap
from bayesdf.analysis.people import Design, design, select_images
from bayesdf.analysis.tree import wrong_input
from bayesdf.errors import BayesdfError


def mean_over_images(
    figures: xr.Dataset | xr.DataArray, by: str | None = None, *, resamples: int = 1000, seed: int = 0
) -> xr.Dataset:
    """Means over images with 95 % intervals over people.

    Parameters
    ----------
    figures
        Numbers over `image` and any other dimensions, such as what `localisation` returns. Intervals resample people by
        the coordinates `subject` and `donor`, and keep the number of images of each `source`. NaN: the image is left
        out of the mean of that number.
    by
        A coordinate of `image`, such as `source`: the mean of each of its values, along a dimension of this name.
    resamples, seed
        See `cluster_bootstrap`.

    Returns
    -------
    xr.Dataset
        A variable for each given one that has the dimension `image`, over the other dimensions, `by` and `estimate` =
        value, low, high. `low` and `high` are NaN with a single person, and where all images have the same figure:
        resampling then says nothing about others. All are NaN where no image has a figure. Each variable has beside it
        `<name>_images`: how many images are in the mean.

    Raises
    ------
    BayesdfError
        No variable over images, or no coordinate `by`.

    Examples
    --------
    How much better than a centred Gaussian does a map find its mask?

    >>> import numpy as np, xarray as xr
    >>> from bayesdf.analysis import centred_gaussian, localisation
    >>> known = {"subject": ("image", ["ann", "bob", "cem"]), "source": ("image", ["swap"] * 3)}
    >>> masks = xr.DataArray(np.zeros((3, 8, 8)), dims=("image", "y", "x"), coords=known)
    >>> masks[0, :3], masks[1, 2:6, 2:6], masks[2, 6:] = 1, 1, 1
    >>> better = localisation(masks, masks) - localisation(centred_gaussian(masks), masks)
    >>> found = mean_over_images(better, by="source")["auroc"]
    >>> found.dims, float(found.sel(source="swap", estimate="value").round(2))
    (('source', 'estimate'), 0.45)
    """
    if isinstance(figures, xr.DataArray):
        figures = figures.to_dataset(name=figures.name or "mean")
    if not isinstance(figures, xr.Dataset):
        raise BayesdfError(
            f"{wrong_input(figures, 'a Dataset of figures (image, …)')}; give what localisation returned"
        )
    chosen = {name: array for name, array in figures.data_vars.items() if "image" in array.dims}
    if not chosen:
        raise BayesdfError(f"{wrong_input(figures, 'a Dataset of figures (image, …)')}; none of them is over images")
    images = figures.sizes["image"]
    people = design(figures.coords.to_dataset(), images)
    if by is None:
        groups = {"": np.arange(images)}
    elif by in figures.coords and figures[by].dims == ("image",):
        named = figures[by].values.astype(str)
        groups = {str(name): np.flatnonzero(named == name) for name in np.unique(named)}
    else:
        raise BayesdfError(
            f"the images have no coordinate {by!r}; their coordinates are {', '.join(map(str, figures.coords))}"
        )

    parts = []
    for rows in groups.values():
        own = select_images(people, rows)
        part = xr.Dataset()
        for name, array in chosen.items():
            other = [dim for dim in array.dims if dim != "image"]
            values = array.transpose("image", *other).values[rows].astype(np.float64)
            columns = values.reshape(len(rows), -1).T
            found = np.array([_mean(column, own, resamples, seed) for column in columns])
            shape = values.shape[1:]
            part[name] = ((*other, "estimate"), found.reshape(*shape, 3))
            part[f"{name}_images"] = (other, np.isfinite(columns).sum(axis=1).reshape(shape))
        parts.append(part)
    whole = parts[0] if by is None else xr.concat(parts, xr.DataArray(list(groups), dims=by, name=by))
    kept = {name: coord for name, coord in figures.coords.items() if "image" not in coord.dims}
    return whole.assign_coords({**kept, "estimate": list(Estimate._fields)})


def _mean(values: np.ndarray, people: Design, resamples: int, seed: int) -> Estimate:
    there = np.isfinite(values)
    if not there.any():
        return Estimate(np.nan, np.nan, np.nan)
    values = values[there]
    if (values == values[0]).all():
        return Estimate(float(values[0]), np.nan, np.nan)
    return cluster_bootstrap(np.mean, [values], **select_images(people, there), resamples=resamples, seed=seed)

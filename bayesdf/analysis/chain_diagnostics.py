"""Have the Markov chains found the same distribution, and how many independent draws are theirs worth?

ArviZ computes both figures after Vehtari, Gelman, Simpson, Carpenter and Bürkner, "Rank-normalization, folding, and
localization: An improved R-hat for assessing convergence of MCMC", 2021. Every chain is split into halves of n draws.
Every draw is replaced by the normal quantile of its rank r among all S draws, ``z = Φ⁻¹((r - 3/8) / (S + 1/4))``. With
B / n the variance of the chains' means, W the mean variance within chains and ρ_t the autocorrelation at lag t of all
chains together,

    R-hat = sqrt(((n - 1) / n W + B / n) / W),        ESS = S / (-1 + 2 Σ_t ρ_t)

R-hat is the larger one of two: that of z, and that of the z of ``|draw - median|``, which compares scales. The authors
advise an R-hat of at most 1.01 and, with four chains, an ESS of at least 400.
"""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesdf.analysis.tree import wrong_input
from bayesdf.errors import BayesdfError

LEAST_DRAWS = 4
"""Halves of chains of fewer draws have no variance."""


def convergence(draws: xr.DataTree | xr.Dataset) -> xr.Dataset:
    """R-hat and bulk effective sample size of every number of every site.

    Parameters
    ----------
    draws : xr.DataTree or xr.Dataset
        What ``Posterior.draws()`` returns, whose draws are in the order in which they were made, or its group
        ``posterior``: variables (chain, draw, …). One chain is compared with itself, half with half.

    Returns
    -------
    xr.Dataset
        A variable a site (statistic, …) with ``statistic`` ``r_hat`` and ``ess``. Numbers that never change or are not
        finite have NaN.

    Raises
    ------
    BayesdfError
        There is no group ``posterior``, a site lacks a dimension, or there are fewer than four draws a chain.
    """
    found = {}
    for name, site in _sites(draws).data_vars.items():
        if not {"chain", "draw"} <= set(site.dims):
            raise BayesdfError(f"site {name} has dimensions {site.dims}, but chain and draw are needed")
        site = site.transpose("chain", "draw", ...)
        if site.sizes["draw"] < LEAST_DRAWS:
            raise BayesdfError(
                f"site {name} has {site.sizes['draw']} draws a chain, but R-hat needs {LEAST_DRAWS}: draw more"
            )
        numbers = site.values.reshape(*site.shape[:2], -1)
        values = [[r_hat(number), ess(number)] for number in np.moveaxis(numbers, -1, 0)]
        shape = (2, *site.shape[2:])
        found[name] = (("statistic", *site.dims[2:]), np.array(values).reshape(-1, 2).T.reshape(shape))
    return xr.Dataset(found, coords={"statistic": ["r_hat", "ess"]})


def r_hat(values: NDArray[np.floating]) -> float:
    """Rank-normalised split R-hat of one number, bulk and tail together.

    Parameters
    ----------
    values : ndarray (chain, draw)
        At least four draws.

    Returns
    -------
    float
        1 where all chains agree. NaN where nothing ever changes, where a value is not finite, and for a single chain of
        fewer than eight draws.
    """
    import arviz

    values = _checked(values)
    if not _varies(values):
        return float("nan")
    with np.errstate(divide="ignore", invalid="ignore"):  # every chain stands still: infinite
        if len(values) > 1:
            return float(arviz.rhat(values))
        # ArviZ refuses a single chain, so its halves are compared as two chains that are not split again.
        half = values.shape[1] // 2
        if half < LEAST_DRAWS:
            return float("nan")
        halves = np.stack([values[0, :half], values[0, -half:]])
        folded = np.abs(halves - np.median(halves))
        return float(np.fmax(*(arviz.rhat(_rank_normalised(part), method="identity") for part in (halves, folded))))


def ess(values: NDArray[np.floating]) -> float:
    """Bulk effective sample size of one number: of the rank-normalised, split chains.

    Parameters
    ----------
    values : ndarray (chain, draw)
        At least four draws.

    Returns
    -------
    float
        At most ``S log10(S)``. NaN where nothing ever changes or a value is not finite.
    """
    import arviz

    values = _checked(values)
    return float(arviz.ess(values, method="bulk")) if _varies(values) else float("nan")


def _sites(draws: xr.DataTree | xr.Dataset) -> xr.Dataset:
    if isinstance(draws, xr.Dataset):
        return draws
    if not isinstance(draws, xr.DataTree):
        raise wrong_input(draws, "the DataTree of Posterior.draws(), or a Dataset (chain, draw, …),")
    if "posterior" not in draws.children:
        raise BayesdfError(
            f"the tree holds no group 'posterior' (it has {', '.join(map(str, draws.children)) or 'nothing'}): "
            "pass what Posterior.draws() returns"
        )
    return draws.children["posterior"].to_dataset()


def _checked(given: NDArray[np.floating]) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.asarray(given, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] < LEAST_DRAWS:
        raise BayesdfError(f"values have shape {values.shape}, but (chain, draw) with {LEAST_DRAWS} draws is needed")
    return values


def _varies(values: NDArray[np.float64]) -> bool:
    return bool(np.isfinite(values).all() and np.ptp(values) > 0)


def _rank_normalised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.special import ndtri
    from scipy.stats import rankdata

    ranks = rankdata(values, method="average").reshape(values.shape)
    normal: NDArray[np.float64] = ndtri((ranks - 0.375) / (values.size + 0.25))
    return normal

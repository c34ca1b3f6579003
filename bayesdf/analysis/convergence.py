"""Have the Markov chains found the same distribution, and how many independent draws are theirs worth?

After Vehtari, Gelman, Simpson, Carpenter and Bürkner, "Rank-normalization, folding, and localization: An improved R-hat
for assessing convergence of MCMC", 2021. Every chain is split into halves of n draws, and every draw is replaced by the
normal quantile of its rank r among all S draws, ``z = Φ⁻¹((r - 3/8) / (S + 1/4))``. With B / n the variance of the
chains' means, W the mean variance within chains and ρ_t the autocorrelation at lag t of all chains together,

    R-hat = sqrt(((n - 1) / n W + B / n) / W),        ESS = S / (-1 + 2 Σ_t ρ_t)

R-hat is the larger one of z and of the z of ``|draw - median|``, which compares scales; the sum over t ends and falls
as Geyer's initial monotone sequence ("Practical Markov Chain Monte Carlo", 1992). The authors advise R-hat at most 1.01
and, with four chains, an ESS of at least 400.
"""

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from bayesdf.analysis._groups import mistaken
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
        1 where all chains agree; NaN where nothing ever changes or a value is not finite.
    """
    halves = _halves(values)
    if halves is None:
        return float("nan")
    folded = np.abs(halves - np.median(halves))
    return float(np.nanmax([_r_hat(_rank_normalised(part)) for part in (halves, folded)]))


def ess(values: NDArray[np.floating]) -> float:
    """Bulk effective sample size of one number: of the rank-normalised, split chains.

    Parameters
    ----------
    values : ndarray (chain, draw)
        At least four draws.

    Returns
    -------
    float
        At most ``S log10(S)``; NaN where nothing ever changes or a value is not finite.
    """
    halves = _halves(values)
    if halves is None:
        return float("nan")
    z = _rank_normalised(halves)
    chains, length = z.shape
    covariance = _autocovariance(z).mean(0)
    within = covariance[0] * length / (length - 1)
    total = covariance[0] + z.mean(1).var(ddof=1)
    rho = 1 - (within - covariance) / total
    rho[0] = 1.0
    # Sums of neighbours are positive and fall, as those of a reversible chain do; the first that is not is noise, and
    # so are all after it.
    pairs = rho[0 : length - length % 2].reshape(-1, 2).sum(1)
    last = max(0, (length - 3) // 2)
    noise = np.flatnonzero(pairs[: last + 1] <= 0)
    end = int(noise[0]) if len(noise) else last
    time = -1 + 2 * np.minimum.accumulate(pairs[:end]).sum() + max(0.0, float(rho[2 * end]))
    size = chains * length
    return float(size / max(time, 1 / np.log10(size)))


def _sites(draws: xr.DataTree | xr.Dataset) -> xr.Dataset:
    if isinstance(draws, xr.Dataset):
        return draws
    if not isinstance(draws, xr.DataTree):
        raise mistaken(draws, "the DataTree of Posterior.draws(), or a Dataset (chain, draw, …),")
    if "posterior" not in draws.children:
        raise BayesdfError(
            f"the tree holds no group 'posterior' (it has {', '.join(map(str, draws.children)) or 'nothing'}): "
            "pass what Posterior.draws() returns"
        )
    return draws.children["posterior"].to_dataset()


def _halves(values: NDArray[np.floating]) -> NDArray[np.float64] | None:
    """Chains cut in half (2 chains, draw // 2); None where they have no spread to speak of."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] < LEAST_DRAWS:
        raise BayesdfError(f"values have shape {values.shape}, but (chain, draw) with {LEAST_DRAWS} draws is needed")
    half = values.shape[1] // 2
    if not np.isfinite(values).all() or np.ptp(values) == 0:
        return None
    return np.concatenate([values[:, :half], values[:, -half:]])


def _rank_normalised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    ranks = rankdata(values, method="average").reshape(values.shape)
    return norm.ppf((ranks - 0.375) / (values.size + 0.25))


def _r_hat(z: NDArray[np.float64]) -> float:
    length = z.shape[1]
    within, between = z.var(1, ddof=1).mean(), z.mean(1).var(ddof=1)
    if within == 0:
        # Every chain stands still: each where it is, or all at one place, as folded values of a number that has two.
        return float("inf") if between else float("nan")
    return float(np.sqrt((length - 1) / length + between / within))


def _autocovariance(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """At every lag (chain, draw), divided by the number of draws."""
    length = z.shape[1]
    spectrum = np.fft.rfft(z - z.mean(1, keepdims=True), n=2 * length, axis=1)
    return np.fft.irfft(np.abs(spectrum) ** 2, n=2 * length, axis=1)[:, :length] / length

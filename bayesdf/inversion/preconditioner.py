"""From which inverse curvature does L-BFGS start? One measured once for a generator, with random probes."""

import torch
from torch import Tensor

from bayesdf.inversion.loss import Loss

PROBES = 256
"""Random probes of the generator, each one evaluation."""
CACHE_SIZE = 2**25
"""Most numbers of preconditioners kept in memory."""

_CACHE: dict[str, Tensor] = {}


def inverse_curvature(loss: Loss, seed: int) -> Tensor:
    """The matrix of `measure`, cached: measuring it costs as much as many searches."""
    key = loss.fingerprint((seed, PROBES))
    found = _CACHE.pop(key, None)
    if found is None:
        found = measure(loss, seed)
    _CACHE[key] = found
    while sum(kept.numel() for kept in list(_CACHE.values())) > CACHE_SIZE:
        _CACHE.pop(next(iter(_CACHE), key), None)  # the least recently used one
    return found


def measure(loss: Loss, seed: int) -> Tensor:
    """Inverse of the mean Gauss-Newton curvature of the loss (latent, latent), from random probes.

    With signs v drawn at random, E[Jᵀv vᵀJ] = JᵀJ. The sample covariance is shrunk towards its diagonal, by the amount
    that its own scatter implies (Schäfer and Strimmer 2005, equation 8). This matters where a generator has more latent
    values than there are probes.
    """
    source = torch.Generator().manual_seed(seed)
    slopes = []
    for _ in range(PROBES // 32):
        latent = torch.randn(32, loss.latent_dim, generator=source).requires_grad_(True)
        with torch.enable_grad():
            made = loss.make(latent)
            residuals = loss.residuals(latent, made, made.detach())
            signs = [torch.randint(2, part.shape, generator=source) * 2.0 - 1.0 for part in residuals[:3]]
            total = sum(
                (part * sign).sum() * weight.sqrt()
                for part, sign, weight in zip(residuals, signs, loss.weights, strict=False)
            )
            slope = loss.slope(total, made, latent)
        slopes.append(slope)
    g = torch.cat(slopes).double()
    covariance = g.T @ g / len(g)
    scatter = ((g**2).T @ (g**2) / len(g) - covariance**2) / (len(g) - 1)
    diagonal = covariance.diagonal().diag()
    off = (covariance - diagonal).pow(2).sum()
    shrinkage = ((scatter.sum() - scatter.diagonal().sum()) / off.clamp_min(1e-300)).clamp(0.0, 1.0)
    shrunk = covariance + shrinkage * (diagonal - covariance)
    floor = loss.weights[3] / loss.latent_dim + 1e-6 * shrunk.diagonal().max()
    curvature = 2.0 * (shrunk + floor * torch.eye(loss.latent_dim))
    return torch.cholesky_inverse(torch.linalg.cholesky(curvature)).float()

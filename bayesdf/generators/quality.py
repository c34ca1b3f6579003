"""How far are a generator's faces from photographs of people it has not seen?

The Fréchet distance of Heusel et al. 2017 ("GANs trained by a two time-scale update rule", FID) and the kernel distance
of Binkowski et al. 2018 ("Demystifying MMD GANs", KID), with features that need no download: the scattering transform
of `bayesdf.generators.perceptual`, reduced to its principal components over the photographs. The values are not
comparable with distances in Inception features.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import linalg

from bayesdf.faces import photographs
from bayesdf.generators import perceptual

Array = NDArray[np.floating]
COMPONENTS = 32


def features(images: Array) -> NDArray[np.float64]:
    """The first 32 principal components, over the 400 photographs, of the scattering transform.

    Parameters
    ----------
    images
        (N, 64, 64) in [0, 1].

    Returns
    -------
    (N, 32), scaled to unit mean variance over the photographs.
    """
    photos = _scattering(photographs().images)
    middle = photos.mean(0)
    _, _, axes = np.linalg.svd(photos - middle, full_matrices=False)
    scale = ((photos - middle) @ axes[:COMPONENTS].T).std()
    return (_scattering(images) - middle) @ axes[:COMPONENTS].T / scale


def frechet(one: Array, other: Array) -> float:
    """Fréchet distance between Gaussians fitted to two sets of features, (N, D) and (M, D).

    Biased upwards where N or M is not much larger than D: compare equal numbers only.
    """
    gap = one.mean(0) - other.mean(0)
    a, b = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    root = np.real(linalg.sqrtm(a @ b))
    return float(gap @ gap + np.trace(a + b - 2.0 * root))


def kernel(one: Array, other: Array) -> float:
    """Squared maximum mean discrepancy with the kernel (x·y / D + 1)³, unbiased; about 0 for equal distributions."""

    def similarity(x: Array, y: Array) -> Array:
        return (x @ y.T / x.shape[1] + 1.0) ** 3

    def within(x: Array) -> float:
        full = similarity(x, x)
        return float((full.sum() - np.trace(full)) / (len(x) * (len(x) - 1)))

    return within(one) + within(other) - 2.0 * float(similarity(one, other).mean())


@torch.no_grad()
def _scattering(images: Array) -> NDArray[np.float64]:
    pictures = torch.from_numpy(np.array(images, np.float32))[:, None]
    return torch.cat([perceptual.features(part) for part in pictures.split(64)]).double().numpy()

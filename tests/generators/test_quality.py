"""Distances between sets of images: known values, and an order that eyes agree with."""

import numpy as np
from scipy import ndimage

from bayesdf.faces import people, photographs
from bayesdf.generators import quality


def test_frechet_distance_of_gaussians_is_the_closed_form() -> None:
    """For diagonal covariances: |gap|² + sum of (difference of deviations)²."""
    rng = np.random.default_rng(0)
    one = rng.normal(0.0, [1.0, 2.0, 3.0], (200_000, 3))
    other = rng.normal([1.0, 0.0, 0.0], [2.0, 2.0, 1.0], (200_000, 3))
    assert abs(quality.frechet(one, other) - (1.0 + 1.0 + 0.0 + 4.0)) < 0.05
    assert abs(quality.frechet(one, one)) < 1e-6


def test_kernel_distance_is_unbiased() -> None:
    """Two samples of one distribution: 0 on average, below it as often as above; of two distributions: above."""
    rng = np.random.default_rng(0)
    same = [quality.kernel(rng.normal(size=(40, 4)), rng.normal(size=(40, 4))) for _ in range(300)]
    assert abs(np.mean(same)) < 3 * np.std(same) / 300**0.5 and 0.3 < np.mean(np.array(same) > 0) < 0.6
    assert quality.kernel(rng.normal(size=(40, 4)), rng.normal(1.0, 1.0, size=(40, 4))) > np.quantile(same, 0.99)


def test_the_more_blurred_the_farther() -> None:
    held_out = np.isin(photographs().subject, people()["test"])
    target, others = quality.features(photographs().images[held_out]), photographs().images[~held_out][::3]
    blurred = [quality.features(ndimage.gaussian_filter(others, (0, s, s))) for s in (0.0, 1.0, 2.0, 4.0)]
    for distance in (quality.frechet, quality.kernel):
        found = [distance(features, target) for features in blurred]
        assert found == sorted(found)

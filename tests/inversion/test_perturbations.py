"""Perturbations change pictures by as much as their strength says."""

import numpy as np
import pytest

from bayesdf.data import common_path_grey
from bayesdf.errors import BayesdfError
from bayesdf.faces import photographs
from bayesdf.inversion import PERTURBATIONS, perturb


def test_strength_zero_changes_nothing() -> None:
    images = photographs().images[:2]
    for name in PERTURBATIONS:
        np.testing.assert_array_equal(perturb(images, name, 0.0), images)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_the_stronger_the_further_from_the_picture(name: str) -> None:
    images = common_path_grey(photographs().images[::100])
    way = PERTURBATIONS[name]
    made = [perturb(images, name, strength, seed=3) for strength in (0.0, *way.strengths)]
    away = [np.abs(one - images).mean((1, 2)) for one in made]
    assert (np.diff(away, axis=0) > 0).all()
    for one in made:
        assert one.min() >= 0.0 and one.max() <= 1.0 and one.dtype == np.float32
        np.testing.assert_allclose(255 * one, np.round(255 * one), atol=1e-3)
    np.testing.assert_array_equal(made[-1], perturb(images, name, way.strengths[-1], seed=3))


def test_perturbations_refuse_nonsense() -> None:
    images = photographs().images[:1]
    with pytest.raises(BayesdfError, match="unknown perturbation 'fog': choose from blur"):
        perturb(images, "fog", 1.0)
    for strength in (-1.0, float("nan")):
        with pytest.raises(BayesdfError, match="0 or more"):
            perturb(images, "blur", strength)

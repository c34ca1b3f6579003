import numpy as np
import pytest
from sklearn.metrics import roc_curve

from bayesdf.analysis import false_positive_rate
from bayesdf.errors import BayesdfError


def test_the_example_of_torch_uncertainty() -> None:
    score = np.array([0.9, 0.8, 0.7, 0.6, 0.4, 0.2, 0.1])
    assert false_positive_rate(np.array([1, 0, 1, 0, 0, 1, 0]) == 1, score) == 0.75


@pytest.mark.parametrize("decimals", [1, 12])
def test_it_is_the_first_point_of_the_roc_curve_with_enough_recall(decimals: int) -> None:
    rng = np.random.default_rng(decimals)
    for images in (10, 60, 400):
        positive = rng.uniform(size=images) < 0.5
        score = np.round(positive + rng.normal(size=images), decimals)
        wrong, found, _ = roc_curve(positive, score, drop_intermediate=False)
        for recall in (0.5, 0.95, 1.0):
            first = np.flatnonzero(found >= recall - 1e-12)[0]
            assert false_positive_rate(positive, score, recall=recall) == pytest.approx(wrong[first])


def test_ties_are_called_together() -> None:
    positive = np.array([True] * 20 + [False] * 10)
    assert false_positive_rate(positive, np.zeros(30)) == 1.0
    assert false_positive_rate(positive, positive.astype(float)) == 0.0
    score = np.where(positive, 1.0, 0.0)
    score[0] = -1.0  # 19 of 20 are 95 %
    assert false_positive_rate(positive, score) == 0.0


def test_one_class_has_none_and_recall_is_a_share() -> None:
    assert np.isnan(false_positive_rate(np.ones(3, bool), np.arange(3.0)))
    assert np.isnan(false_positive_rate(np.zeros(3, bool), np.arange(3.0)))
    with pytest.raises(BayesdfError, match="recall=95"):
        false_positive_rate(np.array([True, False]), np.arange(2.0), recall=95)

import numpy as np
import pytest
from sklearn.isotonic import isotonic_regression

from bayesdf.analysis.venn_abers import venn_abers_bounds, venn_abers_probability


def fitted_with(score: float, label: int, scores: np.ndarray, labels: np.ndarray) -> float:
    """Isotonic regression with one more image, at that image: the definition."""
    knots, which = np.unique(np.append(scores, score), return_inverse=True)
    count = np.bincount(which)
    share = np.bincount(which, np.append(labels, label)) / count
    return isotonic_regression(share, sample_weight=count)[np.searchsorted(knots, score)]


@pytest.mark.parametrize("images", [2, 5, 30, 80])
def test_it_is_two_isotonic_fits_of_each_image(images: int) -> None:
    rng = np.random.default_rng(images)
    for _ in range(10):
        scores = np.round(rng.normal(size=images), 1)  # with ties
        labels = rng.uniform(size=images) < 1 / (1 + np.exp(-2 * scores))
        new = np.concatenate([scores, np.round(rng.normal(size=20), 2), [-9, 9]])
        p0, p1 = (np.array([fitted_with(one, label, scores, labels) for one in new]) for label in (0, 1))
        assert (p0 <= p1 + 1e-12).all()
        found = venn_abers_probability(new, *venn_abers_bounds(scores, labels))
        np.testing.assert_allclose(found, p1 / (1 - p0 + p1), atol=1e-12)


def test_turning_scores_and_labels_round_turns_the_answer_round() -> None:
    rng = np.random.default_rng(0)
    scores, new = rng.normal(size=50), rng.normal(size=20)
    labels = rng.uniform(size=50) < 0.4
    one = venn_abers_probability(new, *venn_abers_bounds(scores, labels))
    other = venn_abers_probability(-new, *venn_abers_bounds(-scores, ~labels))
    np.testing.assert_allclose(one, 1 - other)

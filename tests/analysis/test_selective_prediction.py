"""Risk and coverage: by brute force, by cases known exactly, and whatever the order of images."""

from itertools import pairwise, permutations

import numpy as np
import pytest
import xarray as xr

from bayesdf.analysis import aurc, decompose, risk_coverage
from bayesdf.analysis.selective_prediction import risks
from bayesdf.errors import BayesdfError


def tree(margin: np.ndarray, label: np.ndarray) -> xr.DataTree:
    """Predictions of one draw from log-odds."""
    logits = np.stack([-margin / 2, margin / 2], axis=-1)[None, None]
    return xr.DataTree.from_dict(
        {
            "posterior_predictive": xr.Dataset({"logits": (("chain", "draw", "image", "class"), logits)}),
            "observed_data": xr.Dataset({"label": ("image", label)}),
        }
    )


def test_ties_are_the_mean_over_all_orders():
    score = np.array([0.9, 0.5, 0.5, 0.9, 0.5, 0.1])
    wrong = np.array([0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    total, orders = np.zeros(6), 0
    for order in permutations(range(6)):
        if all(score[a] >= score[b] for a, b in pairwise(order)):
            total += wrong[list(order)].cumsum() / np.arange(1, 7)
            orders += 1
    assert orders == 2 * 6
    np.testing.assert_allclose(risks(score, wrong), total / orders)


def test_the_order_of_images_does_not_matter():
    rng = np.random.default_rng(0)
    margin, label = rng.integers(-3, 4, 60).astype(float), rng.integers(2, size=60)
    for _ in range(5):
        order = rng.permutation(60)
        assert aurc(tree(margin[order], label[order]), resamples=1).value == pytest.approx(
            aurc(tree(margin, label), resamples=1).value, abs=1e-15
        )


def test_known_areas():
    label = np.array([1, 1, 1, 1])
    right = np.array([4.0, 3.0, 2.0, 1.0])
    assert aurc(tree(right, label), resamples=1).value == 0.0
    assert aurc(tree(-right, label), resamples=1).value == 1.0
    last = np.array([4.0, 3.0, 2.0, -1.0])  # one wrong, the least sure: 0, 0, 0, 1/4
    assert aurc(tree(last, label), resamples=1).value == pytest.approx(1 / 16)
    first = np.array([-4.0, 3.0, 2.0, 1.0])  # one wrong, the surest: 1, 1/2, 1/3, 1/4
    assert aurc(tree(first, label), resamples=1).value == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    same = np.array([1.0, 1.0, 1.0, -1.0])  # no order: the error rate at every coverage
    np.testing.assert_allclose(risk_coverage(tree(same, label))["risk"], 0.25)


def test_the_curve_ends_at_the_error_rate(predictions):
    curve = risk_coverage(predictions)
    told = decompose(predictions)
    wrong = (told["prediction"] != told["label"]).values
    assert curve["coverage"].iloc[-1] == 1.0 and len(curve) == len(wrong)
    assert curve["risk"].iloc[-1] == pytest.approx(wrong.mean())
    order = np.argsort(-told["confidence"].values, kind="stable")
    np.testing.assert_allclose(curve["risk"], wrong[order].cumsum() / np.arange(1, len(wrong) + 1))


def test_two_classes_rank_alike_by_confidence_and_by_total(predictions):
    by = {name: aurc(predictions, by=name, resamples=1).value for name in ("confidence", "total", "epistemic")}
    assert by["confidence"] == pytest.approx(by["total"], abs=1e-12) and by["epistemic"] != by["confidence"]


def test_probabilities_that_round_to_one_are_ranked():
    margin, label = np.array([60.0, 80.0, 100.0]), np.array([0, 1, 1])
    assert aurc(tree(margin, label), resamples=1).value == pytest.approx(1 / 9)


def test_the_interval_holds_the_value(predictions):
    value, low, high = aurc(predictions, resamples=100)
    assert low <= value <= high and low < high
    assert aurc(predictions, resamples=100) == (value, low, high)


def test_an_unknown_score_is_named(predictions):
    with pytest.raises(BayesdfError, match="unknown score 'entropy'"):
        aurc(predictions, by="entropy")
    with pytest.raises(BayesdfError, match="no true labels"):
        risk_coverage(predictions["posterior_predictive"].to_dataset())

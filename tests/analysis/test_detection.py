import numpy as np
import pytest
import xarray as xr
from sklearn.metrics import balanced_accuracy_score, brier_score_loss, log_loss, roc_auc_score

from bayesdf.analysis import (
    balanced_weights,
    classwise_calibration_error,
    estimate,
    evaluate,
    expected_calibration_error,
    reliability,
    reliability_table,
)
from bayesdf.analysis.detection import balanced_accuracy, brier_score, negative_log_likelihood
from bayesdf.analysis.expected_calibration_error import binned, binned_error
from bayesdf.analysis.roc import auroc
from bayesdf.errors import BayesdfError


def binary(seed=0, images=500):
    """Probabilities and labels that are calibrated by construction."""
    rng = np.random.default_rng(seed)
    fake = rng.uniform(size=images)
    label = (rng.uniform(size=images) < fake).astype(np.int64)
    return np.stack([1 - fake, fake], axis=1), label


@pytest.mark.parametrize("bins", [1, 7, 15])
@pytest.mark.parametrize("weigh", [lambda label: None, balanced_weights])
def test_the_error_of_binned_images_is_the_ece(bins, weigh):
    probability, label = binary()
    which, gap = binned(probability, label, bins)
    rows = np.random.default_rng(1).integers(len(label), size=300)
    expected = expected_calibration_error(probability[rows], label[rows], bins=bins, weights=weigh(label[rows]))
    assert binned_error(which[rows], gap[rows], weigh(label[rows])) == pytest.approx(expected, abs=1e-14)


def test_a_shift_hides_from_the_top_label():
    """P(fake) too high by 0.1: images of either predicted class err in opposite directions."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.0, 0.9, 40_000)
    label = (rng.uniform(size=len(truth)) < truth).astype(np.int64)
    claimed = np.stack([0.9 - truth, truth + 0.1], axis=1)
    assert expected_calibration_error(claimed, label) < 0.03
    assert classwise_calibration_error(claimed, label) > 0.08


def test_ece_by_hand():
    probability = np.array([[0.1, 0.9], [0.1, 0.9], [0.3, 0.7], [0.8, 0.2]])
    label = np.array([1, 0, 1, 0])
    # Bins of a tenth: 0.9 twice, half right; 0.7 right; 0.8 right.
    expected = 0.5 * 0.4 + 0.25 * 0.3 + 0.25 * 0.2
    assert expected_calibration_error(probability, label, bins=10) == pytest.approx(expected)
    # Class-balanced: reals (images 1 and 3) weigh 1/4 each, fakes (0 and 2) as well.
    weights = balanced_weights(label)
    assert expected_calibration_error(probability, label, bins=10, weights=weights) == pytest.approx(expected)
    assert expected_calibration_error(probability, label, bins=1) == pytest.approx(abs(0.75 - 0.825))


def test_ece_tells_calibrated_from_overconfident():
    probability, label = binary(images=20_000)
    for binning in ("width", "mass"):
        assert expected_calibration_error(probability, label, binning=binning) < 0.015
    odds = 3 * np.log(probability[:, 1] / probability[:, 0])
    sharp = np.stack([1 / (1 + np.exp(odds)), 1 / (1 + np.exp(-odds))], axis=1)
    for binning in ("width", "mass"):
        assert expected_calibration_error(sharp, label, binning=binning) > 0.1


def test_balanced_weights_make_few_reals_count():
    # 100 fakes, sure and right; 10 reals, sure and wrong.
    label = np.repeat([1, 0], [100, 10])
    probability = np.tile([0.0, 1.0], (110, 1))
    assert expected_calibration_error(probability, label) == pytest.approx(10 / 110)
    assert expected_calibration_error(probability, label, weights=balanced_weights(label)) == pytest.approx(0.5)


@pytest.mark.parametrize("binning", ["width", "mass"])
def test_table_accounts_for_every_image(binning):
    probability, label = binary()
    table = reliability_table(probability, label, binning=binning, bins=10)
    assert table["count"].sum() == len(label)
    assert table["weight"].sum() == pytest.approx(1)
    assert (table["weight"] * table["accuracy"]).sum() == pytest.approx((probability.argmax(1) == label).mean())
    assert (table["weight"] * table["confidence"]).sum() == pytest.approx(probability.max(1).mean())
    assert ((table["confidence"] >= table["low"] - 1e-12) & (table["confidence"] <= table["high"] + 1e-12)).all()
    if binning == "mass":
        assert table["count"].max() - table["count"].min() <= 2


def test_ties_fill_one_bin():
    probability, label = np.tile([0.2, 0.8], (9, 1)), np.ones(9, dtype=np.int64)
    for binning in ("width", "mass"):
        table = reliability_table(probability, label, binning=binning)
        assert list(table["count"]) == [9]


def test_agrees_with_scikit_learn():
    probability, label = binary()
    log_p = np.log(probability)
    assert negative_log_likelihood(log_p, label) == pytest.approx(log_loss(label, probability))
    assert brier_score(probability, label) == pytest.approx(2 * brier_score_loss(label, probability[:, 1]))
    assert auroc(label, log_p) == pytest.approx(roc_auc_score(label, probability[:, 1]))
    prediction = probability.argmax(1)
    assert balanced_accuracy(label, prediction) == pytest.approx(balanced_accuracy_score(label, prediction))
    rng = np.random.default_rng(0)
    many, truth = rng.dirichlet(np.ones(4), size=300), rng.integers(4, size=300)
    assert auroc(truth, np.log(many)) == pytest.approx(roc_auc_score(truth, many, multi_class="ovr"))


def test_auroc_ranks_probabilities_that_round_to_one():
    log_p = np.array([[-50.0, -1e-22], [-60.0, -1e-26]])
    assert auroc(np.array([0, 1]), log_p) == 1.0
    assert np.isnan(auroc(np.array([1, 1]), log_p))


def test_evaluate_reads_a_whole_tree(predictions):
    metrics = evaluate(predictions, resamples=50)
    logits = predictions["posterior_predictive/logits"].values[0].astype(np.float64)
    probability = (np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)).mean(0)
    label = predictions["observed_data/label"].values
    assert metrics.attrs["images"] == len(label) and metrics.attrs["clusters"] == 12
    assert estimate(metrics, "ece").value == pytest.approx(expected_calibration_error(probability, label))
    assert estimate(metrics, "nll").value == pytest.approx(log_loss(label, probability))
    for name in ("accuracy", "balanced_accuracy", "auroc", "nll", "brier"):
        value, low, high = estimate(metrics, name)
        assert low <= value <= high and low < high
    table = reliability(predictions, balanced=True)
    assert (table["weight"] * table["gap"].abs()).sum() == pytest.approx(estimate(metrics, "ece_balanced").value)
    xr.testing.assert_identical(metrics, evaluate(predictions, resamples=50))
    some = evaluate(predictions, only=["nll", "ece"], resamples=50)
    xr.testing.assert_identical(some, metrics[["nll", "ece"]])


def test_bad_arguments_are_named(predictions):
    probability, label = binary()
    with pytest.raises(BayesdfError, match="unknown binning 'equal'"):
        reliability_table(probability, label, binning="equal")
    with pytest.raises(BayesdfError, match="bins=0"):
        reliability_table(probability, label, bins=0)
    with pytest.raises(BayesdfError, match="do not fit"):
        brier_score(probability, label[:3])
    with pytest.raises(BayesdfError, match="no figure 'mce'; choose from accuracy"):
        evaluate(predictions, only=["mce"])
    with pytest.raises(BayesdfError, match="no true labels"):
        evaluate(xr.DataTree.from_dict({"posterior_predictive": predictions["posterior_predictive"].to_dataset()}))
    wrong = predictions.copy(deep=True)
    wrong["observed_data/label"] = wrong["observed_data/label"] + 1
    with pytest.raises(BayesdfError, match="integers from 0 to 1"):
        evaluate(wrong)

"""Classwise and smooth calibration errors: identities, and other implementations of the same formulas."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from sklearn.calibration import calibration_curve

from bayesdf.analysis import (
    classwise_calibration_error,
    estimate,
    evaluate,
    expected_calibration_error,
    smooth_calibration_error,
)
from bayesdf.analysis.calibration_errors import smooth_error_of_pairs


def calibrated(images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.uniform(size=images)
    return p, rng.uniform(size=images) < p


def two_classes(p: np.ndarray) -> np.ndarray:
    return np.stack([1 - p, p], axis=1)


def smooth_error_by_quadrature(p: np.ndarray, happened: np.ndarray) -> float:
    """The fixed point from the definition: a Gaussian and its mirror images at 0 and 1, integrated."""
    residual = (happened - p) / len(p)

    def error(width: float) -> float:
        def smoothed(t: float) -> float:
            mirrored = np.concatenate([[2 * k + p, 2 * k - p] for k in range(-4, 5)])
            kernel = np.exp(-0.5 * ((t - mirrored) / width) ** 2).sum(axis=0) / (width * np.sqrt(2 * np.pi))
            return abs(float((residual * kernel).sum()))

        return quad(smoothed, 0, 1, limit=400, epsabs=1e-6)[0]

    return brentq(lambda width: error(width) - width, 0.01, 1.0, xtol=1e-5)


def test_classwise_error_by_hand() -> None:
    probability = two_classes(np.array([0.9, 0.9, 0.7, 0.2]))
    label = np.array([1, 0, 1, 0])
    # Of fake, tenths: 0.9 twice, half of them fake; 0.7 and fake; 0.2 and real. Of real it is the same, mirrored.
    assert classwise_calibration_error(probability, label, bins=10) == pytest.approx((2 * 0.4 + 0.3 + 0.2) / 4)


def test_classwise_error_is_the_mean_over_classes_of_a_binary_one() -> None:
    rng = np.random.default_rng(0)
    probability, label = rng.dirichlet(np.ones(4), size=500), rng.integers(4, size=500)
    errors = []
    for one in range(4):
        share, claimed = calibration_curve(label == one, probability[:, one], n_bins=15)
        count = np.histogram(probability[:, one], 15, (0, 1))[0]
        errors.append((count[count > 0] / 500 * np.abs(share - claimed)).sum())
    assert classwise_calibration_error(probability, label) == pytest.approx(np.mean(errors))


def test_adaptive_error_is_that_of_equal_parts() -> None:
    """As torch-uncertainty computes it: images sorted by confidence, cut into parts of equal size."""
    p, happened = calibrated(600)
    probability, label = two_classes(p), happened.astype(np.int64)
    confidence, right = probability.max(axis=1), probability.argmax(axis=1) == label
    parts = np.array_split(np.argsort(confidence), 15)
    by_hand = sum(abs(right[part].mean() - confidence[part].mean()) * len(part) / 600 for part in parts)
    assert expected_calibration_error(probability, label, binning="mass") == pytest.approx(by_hand, abs=1e-9)


def test_smooth_error_is_the_fixed_point_of_its_definition() -> None:
    rng = np.random.default_rng(3)
    for images, power in ((60, 2.0), (200, 0.5)):
        p = rng.beta(0.7, 0.7, size=images)
        happened = rng.uniform(size=images) < p**power
        assert smooth_error_of_pairs(p, happened) == pytest.approx(smooth_error_by_quadrature(p, happened), abs=2e-3)


def test_residuals_of_one_sign_give_their_mean() -> None:
    """Smoothing keeps the sum, so the area is the mean residual, whatever the width."""
    p = np.linspace(0.1, 0.8, 50)
    for happened, mean in ((np.ones(50, bool), 1 - p.mean()), (np.zeros(50, bool), p.mean())):
        assert smooth_error_of_pairs(p, happened) == pytest.approx(mean, abs=1e-5)


def test_what_is_calibrated_has_little_error_and_a_constant_shift_its_size() -> None:
    p, happened = calibrated(40_000)
    assert smooth_error_of_pairs(p, happened) < 0.01
    assert classwise_calibration_error(two_classes(p), happened.astype(np.int64)) < 0.015
    shifted = 0.9 * p + 0.1  # 0.05 too much on average, and nowhere too little
    assert smooth_error_of_pairs(shifted, happened) == pytest.approx(0.05, abs=0.005)


def test_names_of_the_classes_do_not_matter() -> None:
    p, happened = calibrated(500)
    probability, label = two_classes(p**2), happened.astype(np.int64)
    for error in (smooth_calibration_error, classwise_calibration_error):
        assert error(probability, label) == pytest.approx(error(probability[:, ::-1], 1 - label), abs=1e-9)


def test_evaluate_has_them_with_intervals(predictions) -> None:
    found = evaluate(predictions, resamples=50)
    logits = predictions["posterior_predictive/logits"].values[0].astype(np.float64)
    probability = (np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)).mean(0)
    label = predictions["observed_data/label"].values
    assert estimate(found, "ece_smooth").value == pytest.approx(smooth_calibration_error(probability, label))
    assert estimate(found, "ece_classwise").value == pytest.approx(classwise_calibration_error(probability, label))
    mass = expected_calibration_error(probability, label, binning="mass")
    assert estimate(found, "ece_adaptive").value == pytest.approx(mass)
    for name in ("ece_smooth", "ece_classwise", "ece_adaptive", "fpr_at_95_tpr"):
        assert np.isfinite(estimate(found, name)).all()


def test_many_classes_have_no_false_positives(make_predictions) -> None:
    found = evaluate(make_predictions(classes=("real", "a", "b")), resamples=5)
    assert "fpr_at_95_tpr" not in found and 0 <= estimate(found, "ece_smooth").value <= 1

"""Figures of pixels against those of images with pixels in their place, against scikit-learn, and their refusals."""

import numpy as np
import pytest
import xarray as xr
from sklearn.metrics import f1_score, jaccard_score, roc_auc_score

from bayesdf.analysis import (
    balanced_weights,
    classwise_calibration_error,
    expected_calibration_error,
    pixel_calibration,
    pixel_reliability,
    pixel_scores,
)
from bayesdf.analysis.detection import brier_score
from bayesdf.analysis.pixel_calibration import _area, _levels
from bayesdf.errors import BayesdfError

DIMS = ("image", "y", "x")


@pytest.fixture
def probability():
    values = np.random.default_rng(0).beta(0.4, 1.2, size=(12, 16, 16)).round(2)
    person = np.repeat(list("abcdef"), 2)
    return xr.DataArray(values, dims=DIMS, coords={"subject": ("image", person), "source": ("image", ["swap"] * 12)})


@pytest.fixture
def masks(probability):
    found = (np.random.default_rng(1).random(probability.shape) < probability**1.5).astype(np.float64)
    found[5] = 0.0
    found[7] = np.nan
    return found.drop_vars(["subject", "source"])


def value(figures, name):
    return float(figures[name].sel(estimate="value"))


def flattened(probability, masks):
    known = ~np.isnan(masks.values).any(axis=(1, 2))
    p, label = probability.values[known].ravel(), masks.values[known].ravel().astype(int)
    return np.stack([1 - p, p], axis=1), label


def test_figures_are_those_of_images_with_pixels_in_their_place(probability, masks):
    found = pixel_calibration(probability, masks, resamples=50)
    p, label = flattened(probability, masks)
    called = p[:, 1] > 0.5
    expected = {
        "ece": expected_calibration_error(p, label),
        "ece_balanced": expected_calibration_error(p, label, weights=balanced_weights(label)),
        "ece_classwise": classwise_calibration_error(p, label),
        "brier": brier_score(p, label),
        "auroc": roc_auc_score(label, p[:, 1]),
        "f1": f1_score(label, called),
        "iou": jaccard_score(label, called),
    }
    assert set(found) == set(expected)
    for name, figure in expected.items():
        assert value(found, name) == pytest.approx(figure, abs=1e-12), name
        _, low, high = found[name].values
        assert low < high, name
    assert found["auroc"].values[1] < found["auroc"].values[0] < found["auroc"].values[2]
    assert found.attrs["images"] == 11 and found.attrs["pixels"] == 11 * 256 and found.attrs["unknown_masks"] == 1
    assert found.attrs["people"] == 6 and found.attrs["changed"] == pytest.approx(label.mean())


def test_the_levels_of_the_interval_lose_nothing_that_counts(probability, masks):
    p, label = flattened(probability, masks)
    level = _levels(p[:, 1].reshape(11, -1), label.reshape(11, -1).astype(bool)).sum(axis=0)
    assert _area(level) == pytest.approx(roc_auc_score(label, p[:, 1]), abs=1e-3)
    fine = np.random.default_rng(2).normal(size=(4, 4096))
    truth = fine + np.random.default_rng(3).normal(size=fine.shape) > 1
    assert _area(_levels(fine, truth).sum(axis=0)) == pytest.approx(
        roc_auc_score(truth.ravel(), fine.ravel()), abs=1e-4
    )


def test_calibrated_pixels_have_no_error_and_sure_ones_have_it_all():
    rng = np.random.default_rng(4)
    p = xr.DataArray(rng.random((200, 16, 16)), dims=DIMS)
    masks = (xr.DataArray(rng.random(p.shape), dims=DIMS) < p).astype(float)
    assert value(pixel_calibration(p, masks, resamples=2), "ece") < 0.01
    wrong = pixel_calibration(1.0 - masks, masks, resamples=2)
    assert value(wrong, "ece") == 1.0 and value(wrong, "auroc") == 0.0 and value(wrong, "f1") == 0.0
    right = pixel_calibration(masks, masks, resamples=2)
    assert value(right, "ece") == 0.0 and value(right, "brier") == 0.0 and value(right, "iou") == 1.0


def test_the_interval_is_wider_where_images_of_a_person_are_alike():
    rng = np.random.default_rng(5)
    person = np.repeat(np.arange(10), 6)
    p = xr.DataArray(rng.random((60, 8, 8)), dims=DIMS, coords={"subject": ("image", person.astype(str))})
    shift = np.where(person % 2, 0.0, 0.5)[:, None, None]
    masks = (xr.DataArray(rng.random(p.shape), dims=DIMS) < p.drop_vars("subject") + shift).astype(float)
    width = [np.diff(pixel_calibration(given, masks)["brier"].values[1:])[0] for given in (p, p.drop_vars("subject"))]
    assert width[0] > 1.5 * width[1]


def test_scores_of_each_image(probability, masks):
    found = pixel_scores(probability, masks)
    for image in range(12):
        truth, p = masks.values[image].ravel(), probability.values[image].ravel()
        if image in (5, 7):
            assert np.isnan(found["f1"][image]) and np.isnan(found["iou"][image])
            continue
        assert float(found["f1"][image]) == pytest.approx(f1_score(truth, p > 0.5))
        assert float(found["iou"][image]) == pytest.approx(jaccard_score(truth, p > 0.5))
        assert float(found["brier"][image]) == pytest.approx(brier_score(np.stack([1 - p, p], 1), truth.astype(int)))
    assert np.isnan(found["brier"][7]) and np.isfinite(found["brier"][5]) and found.attrs["unknown_masks"] == 1
    assert list(found["subject"].values) == list(probability["subject"].values)


def test_reliability_is_of_pixels(probability, masks):
    table = pixel_reliability(probability, masks)
    assert table["count"].sum() == 11 * 256
    ece = (table["weight"] * table["gap"].abs()).sum()
    assert ece == pytest.approx(value(pixel_calibration(probability, masks, resamples=2), "ece"))


def test_a_coarse_detector_is_judged_at_the_pixels(masks):
    coarse = xr.DataArray(np.random.default_rng(6).random((12, 4, 4)), dims=DIMS)
    found = pixel_calibration(coarse, masks, resamples=2)
    assert found.attrs["pixels"] == 11 * 256 and 0.0 < value(found, "ece") < 1.0


def test_single_precision_may_round_above_one(masks):
    p = masks.fillna(0.0).astype(np.float32) * np.float32(1.0000001)
    assert p.max() > 1.0
    assert value(pixel_calibration(p, masks, resamples=2), "brier") == 0.0


def test_without_a_changed_pixel_there_is_no_ranking(probability):
    found = pixel_calibration(probability, xr.zeros_like(probability), resamples=20)
    assert np.isnan(value(found, "auroc")) and value(found, "f1") == 0.0 and np.isfinite(value(found, "ece"))
    assert value(found, "ece_balanced") == pytest.approx(value(found, "ece"))
    none = pixel_calibration(probability * 0.1, xr.zeros_like(probability), resamples=20)
    assert np.isnan(value(none, "f1")) and np.isnan(value(none, "iou"))


def test_bad_input_gets_one_line(probability, masks):
    for message, arguments in [
        ("pixel probabilities run from -", (probability - 0.5, masks)),
        ("give maps\\['p_fake'\\]", (probability.to_dataset(name="p_fake"), masks)),
        ("mask of every image is unknown", (probability, masks * np.nan)),
        ("maps of 12 images and masks of 3", (probability, masks[:3])),
        ("masks of another size", (probability, masks[:, :8, :8])),
    ]:
        for function in (pixel_calibration, pixel_scores, pixel_reliability):
            with pytest.raises(BayesdfError, match=message) as caught:
                function(*arguments)
            assert "\n" not in str(caught.value)
    with pytest.raises(BayesdfError, match="bins=0"):
        pixel_calibration(probability, masks, bins=0)

"""Maps of the mean prediction: agreement with scikit-learn, what stays as it was, and whom each map has seen."""

import numpy as np
import pytest
import xarray as xr
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from bayesdf.analysis import (
    compare_calibration,
    cross_fit_recalibration,
    decompose,
    estimate,
    evaluate,
    expected_calibration_error,
    fit_recalibration,
    from_scores,
    mean_probability,
    profile,
    recalibrate,
    reliability,
    rescale,
    scalars,
)
from bayesdf.analysis import mean_recalibration as module
from bayesdf.errors import BayesdfError

METHODS = module.METHODS


def underconfident(images: int = 3000, draws: int = 5, seed: int = 0, people: int = 60) -> xr.DataTree:
    """Draws that disagree, of half the right log-odds, and too ready to say fake."""
    rng = np.random.default_rng(seed)
    truth = 2.0 * rng.normal(size=images)
    label = (rng.uniform(size=images) < 1 / (1 + np.exp(-truth))).astype(np.int64)
    odds = 0.5 * truth[:, None] + 1.0 + 0.3 * rng.normal(size=(images, draws))
    subject = [f"p{number % people}" for number in range(images)]
    return from_scores(odds, kind="log-odds", labels=label, subjects=subject)


def truth_of(tree: xr.DataTree) -> np.ndarray:
    return tree["observed_data/label"].values


def probability(tree: xr.DataTree) -> np.ndarray:
    return decompose(tree)["probability"].values[:, 1]


def test_the_maps_are_those_of_scikit_learn() -> None:
    tree, others = underconfident(20_000), underconfident(500, seed=1)
    odds, label, new = module.mean_log_odds(tree), truth_of(tree), module.mean_log_odds(others)

    def terms(m: np.ndarray) -> np.ndarray:
        p = 1 / (1 + np.exp(-m))
        return np.stack([np.log(p), -np.log(1 - p)], axis=1)

    platt = LogisticRegression(C=np.inf).fit(odds[:, None], label)
    beta = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(terms(odds), label)
    isotonic = IsotonicRegression(out_of_bounds="clip").fit(odds, label)
    expected = {
        "platt": platt.predict_proba(new[:, None])[:, 1],
        "beta": beta.predict_proba(terms(new))[:, 1],
        "isotonic": isotonic.predict(new),
    }
    for method, by_hand in expected.items():
        found = probability(recalibrate(others, fit_recalibration(tree, method=method)))
        np.testing.assert_allclose(found, by_hand, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_others_are_predicted_truly_afterwards(method: str) -> None:
    found = fit_recalibration(underconfident(), method=method)
    others = underconfident(seed=1)
    after = recalibrate(others, found)
    before, now = (evaluate(tree, resamples=5) for tree in (others, after))
    assert estimate(before, "ece").value > 0.08 > 0.04 > estimate(now, "ece").value
    assert estimate(now, "nll").value < estimate(before, "nll").value
    table = reliability(after)
    assert (table["weight"] * table["gap"].abs()).sum() == pytest.approx(estimate(now, "ece").value)
    assert others.identical(underconfident(seed=1))


@pytest.mark.parametrize("method", METHODS)
def test_order_and_disagreement_stay(method: str) -> None:
    tree = underconfident(400)
    after = recalibrate(tree, fit_recalibration(underconfident(), method=method))
    order = np.argsort(probability(tree))
    assert (np.diff(probability(after)[order]) >= -1e-9).all()
    np.testing.assert_allclose(profile(after), profile(tree), atol=1e-9)
    for name in ("log_margin_sd", "margin_kurtosis", "log_margin_range_90"):
        np.testing.assert_allclose(scalars(after).sel(feature=name), scalars(tree).sel(feature=name), atol=1e-6)
    split = decompose(after)
    np.testing.assert_allclose(split["total"], split["aleatoric"] + split["epistemic"], atol=1e-12)
    assert (split["epistemic"] > 0).all()


def test_one_draw_holds_the_same_mean() -> None:
    tree = underconfident(300)
    found = fit_recalibration(tree)
    kept, single = recalibrate(tree, found), recalibrate(tree, found, keep_draws=False)
    assert single["posterior_predictive"].sizes["draw"] == 1
    np.testing.assert_allclose(mean_probability(kept), mean_probability(single), atol=1e-9)
    assert estimate(evaluate(single, resamples=5), "ece").value == pytest.approx(
        estimate(evaluate(kept, resamples=5), "ece").value
    )


def test_a_calibrated_mean_is_left_nearly_alone() -> None:
    tree = underconfident(20_000)
    once = recalibrate(tree, fit_recalibration(tree, method="platt"))
    again = fit_recalibration(once, method="platt")
    assert float(again["slope"]) == pytest.approx(1.0, abs=0.01)
    assert float(again["intercept"]) == pytest.approx(0.0, abs=0.01)


def test_a_map_never_falls() -> None:
    """Scores that are the wrong way round give a constant, not a map that turns them."""
    tree = underconfident(500)
    wrong = tree.copy(deep=True)
    wrong["observed_data/label"] = 1 - wrong["observed_data/label"]
    found = fit_recalibration(wrong, method="beta")
    assert float(found["a"]) == 0.0 and float(found["b"]) == 0.0
    for constant in (found, fit_recalibration(wrong, method="platt")):
        np.testing.assert_allclose(probability(recalibrate(tree, constant)), 1 - truth_of(tree).mean(), atol=0.01)


@pytest.mark.parametrize("method", METHODS)
def test_classes_that_separate_stay_finite(method: str) -> None:
    odds = np.linspace(-8, 8, 40)[:, None] + [[0.0, 0.5]]
    tree = from_scores(odds, kind="log-odds", labels=(odds[:, 0] > 0).astype(int))
    p = probability(recalibrate(tree, fit_recalibration(tree, method=method)))
    assert ((p > 0) & (p < 1)).all() and p[0] < 0.1 and p[-1] > 0.9


@pytest.mark.parametrize("method", [*METHODS, "scaling"])
def test_no_image_is_judged_by_a_map_that_saw_its_people(method: str) -> None:
    """Labels of one person change nothing of what is predicted for that person, only for others."""
    tree = underconfident(600, people=12)
    own = tree["constant_data/subject"].values == "p3"
    first = cross_fit_recalibration(tree, method=method, seed=1)
    fold = first["recalibration/fold"].values
    assert all(len(set(fold[tree["constant_data/subject"].values == f"p{n}"])) == 1 for n in range(12))
    changed = tree.copy(deep=True)
    label = truth_of(tree).copy()
    label[own] = np.random.default_rng(0).permutation(label[own])
    changed["observed_data"]["label"][:] = label
    second = cross_fit_recalibration(changed, method=method, seed=1)
    # The same fold numbers: a permutation within a person keeps the counts by which folds are dealt.
    np.testing.assert_array_equal(second["recalibration/fold"].values, fold)
    same = fold == fold[own][0]
    np.testing.assert_array_equal(probability(first)[same], probability(second)[same])
    assert np.abs(probability(first)[~same] - probability(second)[~same]).max() > 0


def test_cross_fitting_is_a_fit_on_the_other_folds() -> None:
    tree = underconfident(600, people=12)
    found = cross_fit_recalibration(tree, method="beta", folds=3)
    fold = found["recalibration/fold"].values
    logits = tree["posterior_predictive/logits"]
    for number in range(3):
        held_out = from_scores(
            (logits[0, :, :, 1] - logits[0, :, :, 0]).values.T[fold != number],
            kind="log-odds",
            labels=truth_of(tree)[fold != number],
        )
        by_hand = recalibrate(tree, fit_recalibration(held_out))
        np.testing.assert_allclose(probability(found)[fold == number], probability(by_hand)[fold == number])


def test_linked_people_stay_together() -> None:
    tree = underconfident(600, people=12)
    linked = np.array([int(name[1:]) // 2 for name in tree["constant_data/subject"].values])
    fold = cross_fit_recalibration(tree, linked)["recalibration/fold"].values
    assert all(len(set(fold[linked == one])) == 1 for one in range(6))
    donors = tree.copy()
    donors["constant_data"] = tree["constant_data"].to_dataset().assign(donor=("image", np.repeat(["", "p1"], 300)))
    with pytest.raises(BayesdfError, match="some images show two people"):
        cross_fit_recalibration(donors)
    cross_fit_recalibration(donors, linked)


def test_votes_have_a_mean_that_can_be_recalibrated() -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(2, size=400)
    votes = (rng.uniform(size=(400, 3)) < np.where(label, 0.7, 0.1)[:, None]).astype(float)
    tree = from_scores(votes, kind="vote", labels=label)
    with pytest.raises(BayesdfError, match="keep_draws=False"):
        recalibrate(tree, fit_recalibration(tree))
    after = cross_fit_recalibration(tree, method="isotonic", keep_draws=False)
    found = evaluate(after, resamples=5)
    assert estimate(found, "ece").value < 0.06 and np.isfinite(estimate(found, "nll").value)
    with pytest.raises(BayesdfError, match="exactly 0"):
        cross_fit_recalibration(tree, method="scaling")


def test_the_difference_is_paired() -> None:
    tree = underconfident(900)
    after = cross_fit_recalibration(tree)
    found = compare_calibration(after, tree, resamples=100)
    one, other = (evaluate(part, resamples=5) for part in (after, tree))
    for name in ("ece", "nll"):
        value, low, high = estimate(found, f"{name}_difference")
        assert value == pytest.approx(estimate(one, name).value - estimate(other, name).value)
        assert low <= value <= high < 0
    same = compare_calibration(tree, tree, resamples=5)
    assert all((same[name] == 0).all() for name in same)
    p = probability(after)
    assert estimate(one, "ece").value == pytest.approx(
        expected_calibration_error(np.stack([1 - p, p], 1), truth_of(tree))
    )
    with pytest.raises(BayesdfError, match="different images"):
        compare_calibration(tree, underconfident(10))


def test_bad_arguments_are_named() -> None:
    tree = underconfident(60)
    with pytest.raises(BayesdfError, match="method is 'temperature'; choose from 'platt', 'beta'"):
        fit_recalibration(tree, method="temperature")
    one = tree.copy(deep=True)
    one["observed_data/label"] = 0 * one["observed_data/label"]
    with pytest.raises(BayesdfError, match="both classes"):
        fit_recalibration(one)
    with pytest.raises(BayesdfError, match="the Dataset of fit_recalibration"):
        recalibrate(tree, xr.Dataset({"scale": 1.0}))
    with pytest.raises(BayesdfError, match="the Dataset of fit_scaling"):
        rescale(tree, fit_recalibration(tree))
    three = xr.DataTree.from_dict(
        {
            "posterior_predictive": xr.Dataset(
                {
                    "logits": xr.DataArray(
                        np.random.default_rng(0).normal(size=(4, 6, 3)), dims=("draw", "image", "class")
                    )
                }
            )
        }
    )
    with pytest.raises(BayesdfError, match="of 3 classes"):
        fit_recalibration(three)
    apart = from_scores(np.arange(8.0) - 3, kind="log-odds", labels=[0] * 4 + [1] * 4, subjects=["a"] * 4 + ["b"] * 4)
    with pytest.raises(BayesdfError, match="all images of a class show people of one group"):
        cross_fit_recalibration(apart)

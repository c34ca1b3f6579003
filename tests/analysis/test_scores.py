"""Scores from elsewhere give, in every function, what the formulas give of the scores themselves."""

import math

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from bayesdf import analysis, store
from bayesdf.analysis import from_scores
from bayesdf.errors import BayesdfError, BayesdfWarning

IMAGES, DETECTORS = 90, 4
GOOD = [[0.2, 0.9], [0.6, 0.7], [0.1, 0.3]]


def nats(share):
    """Entropy of shares over the last axis, with 0 log 0 = 0."""
    share = np.asarray(share, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return -np.where(share > 0, share * np.log(share), 0.0).sum(axis=-1)


@pytest.fixture
def table():
    """Detectors' P(fake) of images of three sources and six people, better than chance, and what is known of them."""
    rng = np.random.default_rng(0)
    source = np.array(["real", "vae", "swap"])[np.arange(IMAGES) % 3]
    label = (source != "real").astype(int)
    odds = 2.0 * (2 * label[:, None] - 1) + rng.normal(size=(IMAGES, DETECTORS)) + (source == "vae")[:, None]
    frame = pd.DataFrame(1 / (1 + np.exp(-odds)), columns=["cnn", "vit", "clip", "freq"])
    subject = np.array([f"s{k}" for k in np.arange(IMAGES) // 3 % 6])
    return frame.assign(label=label, source=source, subject=subject, path=[f"{k}.png" for k in range(IMAGES)])


@pytest.fixture
def p(table):
    return table[["cnn", "vit", "clip", "freq"]].to_numpy()


@pytest.fixture
def tree(table):
    return from_scores(table, kind="probability")


def test_the_parts_of_uncertainty_are_those_of_the_probabilities(p, tree):
    both = np.stack([1 - p, p], axis=-1)
    found = analysis.decompose(tree)
    np.testing.assert_allclose(found["total"], nats(both.mean(axis=1)), rtol=1e-12)
    np.testing.assert_allclose(found["aleatoric"], nats(both).mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found["epistemic"], nats(both.mean(axis=1)) - nats(both).mean(axis=1), rtol=1e-9)
    np.testing.assert_allclose(found["probability"], both.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found["epistemic_variance"].sel({"class": "fake"}), p.var(axis=1), rtol=1e-9)
    assert list(found["class"].values) == ["real", "fake"]


def test_figures_are_those_of_the_mean_probability(p, table, tree):
    label, mean = table["label"].to_numpy(), p.mean(axis=1)
    found = analysis.evaluate(tree, resamples=20).sel(estimate="value")
    assert found.attrs["clusters"] == 6
    assert float(found["accuracy"]) == pytest.approx(((mean > 0.5) == label).mean())
    assert float(found["auroc"]) == pytest.approx(roc_auc_score(label, mean))
    assert float(found["nll"]) == pytest.approx(log_loss(label, mean))
    assert float(found["brier"]) == pytest.approx(2 * brier_score_loss(label, mean))
    both = np.stack([1 - mean, mean], axis=1)
    assert float(found["ece"]) == pytest.approx(analysis.expected_calibration_error(both, label))
    pd.testing.assert_frame_equal(analysis.reliability(tree), analysis.reliability_table(both, label))
    order = np.argsort(-both.max(axis=1), kind="stable")
    wrong = ((mean > 0.5) != label)[order]
    risk = wrong.cumsum() / np.arange(1, IMAGES + 1)
    np.testing.assert_allclose(analysis.risk_coverage(tree)["risk"], risk)
    assert analysis.aurc(tree, resamples=5).value == pytest.approx(risk.mean())


def test_features_are_those_of_the_log_odds(p, tree):
    odds = np.log(p) - np.log1p(-p)
    np.testing.assert_allclose(analysis.profile(tree), odds - odds.mean(axis=1, keepdims=True), atol=1e-12)
    found = analysis.scalars(tree)
    np.testing.assert_allclose(found.sel(feature="log_margin_sd"), np.log(odds.std(axis=1)), rtol=1e-9)
    both = np.stack([1 - p, p], axis=-1)
    np.testing.assert_allclose(found.sel(feature="log_aleatoric"), np.log(nats(both).mean(axis=1)), rtol=1e-9)
    mean = p.mean(axis=1)
    np.testing.assert_allclose(analysis.mean_probability(tree)[:, 0], np.log(mean / (1 - mean)), atol=1e-12)


def test_sources_are_told_from_them(tree):
    features = analysis.combine(analysis.scalars(tree), analysis.profile(tree))
    fakes = features[(features["source"] != "real").values]
    found = analysis.attribute(fakes)
    assert list(found["source"].values) == ["swap", "vae"] and found.sizes["image"] == IMAGES * 2 // 3
    analysis.score(found, resamples=5)
    assert analysis.confusion(found).to_numpy().sum() == IMAGES * 2 // 3


def test_recalibration_is_of_the_log_odds(p, tree):
    scaling = analysis.fit_scaling(tree)
    scale, (low, high) = float(scaling["scale"]), scaling["shift"].values
    odds = scale * (np.log(p) - np.log1p(-p)) + high - low
    expected = (1 / (1 + np.exp(-odds))).mean(axis=1)
    found = analysis.decompose(analysis.rescale(tree, scaling))["probability"]
    np.testing.assert_allclose(found.sel({"class": "fake"}), expected, rtol=1e-9)


def test_unknown_images_are_told_by_doubt(p, table):
    known, unknown = (
        from_scores(part, kind="probability") for _, part in table.groupby(table["source"] == "vae", sort=True)
    )
    both = np.stack([1 - p, p], axis=-1)
    total = nats(both.mean(axis=1))
    expected = roc_auc_score((table["source"] == "vae").to_numpy(), total)
    assert analysis.ood_auroc(known, unknown, by="total", resamples=5).value == pytest.approx(expected)


def test_probabilities_log_odds_and_logits_are_one_thing(p, table, tree):
    odds = np.log(p) - np.log1p(-p)
    by_odds = from_scores(odds, kind="log-odds", labels=table["label"])
    by_class = from_scores(np.stack([1 - p, p], axis=-1).swapaxes(0, 1), kind="probability")
    as_logits = xr.DataArray(np.stack([0 * odds, odds], axis=-1), dims=("image", "draw", "class"))
    for other in (by_odds, by_class, as_logits):
        for name in ("total", "epistemic"):
            expected = analysis.decompose(tree)[name].values
            np.testing.assert_allclose(analysis.decompose(other)[name].values, expected, rtol=1e-9)


def test_log_odds_far_out_keep_their_digits():
    found = analysis.decompose(from_scores([[60.0, 62.0]], kind="log-odds"))
    q = np.exp(-np.array([60.0, 62.0]))
    assert float(found["epistemic"][0]) == pytest.approx(np.mean(q * np.log(q)) - q.mean() * np.log(q.mean()), rel=1e-9)


def test_votes_are_all_epistemic_and_exact():
    votes = np.array([[0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0, 1, 0, 1, 0], [1, 1, 1, 1, 1]])
    tree = from_scores(votes, kind="vote", labels=[0, 0, 1, 1], subjects=list("abcd"))
    found = analysis.decompose(tree)
    share = votes.mean(axis=1)
    expected = nats(np.stack([share, 1 - share], axis=1))
    assert (found["aleatoric"] == 0).all()
    np.testing.assert_allclose(found["epistemic"], expected, rtol=1e-15, atol=0)
    np.testing.assert_array_equal(found["total"], found["epistemic"])
    np.testing.assert_allclose(found["probability"].sel({"class": "fake"}), share, rtol=1e-15)
    np.testing.assert_allclose(found["epistemic_variance"][:, 1], share * (1 - share), rtol=1e-14, atol=0)
    for family in (analysis.scalars(tree), analysis.profile(tree), analysis.mean_probability(tree)):
        assert np.isfinite(family).all()
    figures = analysis.evaluate(tree, resamples=5).sel(estimate="value")
    assert float(figures["accuracy"]) == 0.75 and float(figures["nll"]) == pytest.approx(
        -np.log(share_of(votes)).mean()
    )


def share_of(votes):
    """The share of votes for the true class of the four images above."""
    share = votes.mean(axis=1)
    return np.array([1 - share[0], 1 - share[1], share[2], share[3]])


def test_what_is_sure_and_wrong_has_an_infinite_log_loss():
    tree = from_scores([[1, 1], [0, 1], [0, 0]], kind="vote", labels=[0, 1, 0])
    found = analysis.evaluate(tree, resamples=5)["nll"].values
    assert found[0] == math.inf and np.isnan(found[1:]).all()


def test_equal_shares_of_votes_are_ties_whoever_casts_them():
    """Five voters, two of whom say fake: the same doubt, by sums in another order."""
    pairs = [(a, b) for a in range(5) for b in range(a)]
    votes = np.zeros((10, 5))
    for row, pair in enumerate(pairs):
        votes[row, list(pair)] = 1
    one, other = (from_scores(part, kind="vote", labels=[0, 1] * (len(part) // 2)) for part in (votes[:4], votes[4:]))
    for by in ("epistemic", "total"):
        assert analysis.ood_auroc(one, other, by=by, resamples=2).value == 0.5
    probabilities = np.where(votes == 1, 0.7, 0.1)
    whole = from_scores(probabilities, kind="probability", labels=[0, 1] * 5)
    assert float(analysis.evaluate(whole, resamples=2)["auroc"][0]) == 0.5
    for by in ("confidence", "epistemic", "aleatoric"):
        assert analysis.risk_coverage(whole, by=by)["risk"].nunique() == 1


def test_sure_scores_stay_sure_when_rescaled_and_cannot_be_scaled(tree):
    with pytest.warns(BayesdfWarning, match="2 of 4 probabilities are exactly 0 or 1"):
        sure = from_scores([[0.0, 0.3], [1.0, 0.8]], kind="probability", labels=[0, 1])
    assert sure.attrs["certain"] == 2
    with pytest.raises(BayesdfError, match="clip"):
        analysis.fit_scaling(sure)
    scaling = analysis.fit_scaling(tree)
    again = analysis.rescale(sure, scaling)["posterior_predictive/logits"].values[0, 0]
    assert np.isneginf(again[0, 1]) and np.isneginf(again[1, 0]) and np.isfinite(again[[0, 1], [0, 1]]).all()
    odds = from_scores([[-np.inf, np.log(0.3 / 0.7)], [np.inf, np.log(4)]], kind="log-odds")
    np.testing.assert_allclose(analysis.decompose(odds)["total"], analysis.decompose(sure)["total"], rtol=1e-14)


def test_several_classes():
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(3), size=(4, 10))
    tree = from_scores(p, kind="probability", labels=["b"] * 5 + ["c"] * 5, classes=["a", "b", "c"])
    found = analysis.decompose(tree)
    np.testing.assert_allclose(found["total"], nats(p.mean(axis=0)), rtol=1e-12)
    np.testing.assert_allclose(found["aleatoric"], nats(p).mean(axis=0), rtol=1e-12)
    assert tree["observed_data/label"].values.tolist() == [1] * 5 + [2] * 5
    votes = np.eye(3)[rng.integers(3, size=(6, 10))]
    share = votes.mean(axis=0)
    np.testing.assert_allclose(
        analysis.decompose(from_scores(votes, kind="vote"))["total"], nats(share), rtol=1e-14, atol=1e-15
    )


def test_what_is_known_of_the_images_comes_along(table, p):
    by_values = from_scores(
        p, kind="probability", labels=table["label"], sources=table["source"], subjects=table["subject"]
    )
    renamed = table.rename(columns={"label": "is_fake", "source": "maker", "subject": "who"})
    by_name = from_scores(
        renamed.drop(columns="path"), kind="probability", labels="is_fake", sources="maker", subjects="who"
    )
    for name in ("observed_data/label", "constant_data/source", "constant_data/subject"):
        np.testing.assert_array_equal(by_values[name], by_name[name])
    assert list(by_name["posterior_predictive/detector"].values) == ["cnn", "vit", "clip", "freq"]
    kinds = np.array(["c23", "c40"])[np.arange(IMAGES) % 2]
    by_kind = analysis.decompose(from_scores(table, kind="probability", groups=kinds)).groupby("group").mean()
    assert list(by_kind["group"].values) == ["c23", "c40"]
    indexed = analysis.decompose(from_scores(table.set_index("path"), kind="probability"))
    assert float(indexed["total"].sel(image="7.png")) == float(indexed["total"][7])


@pytest.mark.parametrize(
    "labels",
    [
        [0, 1, 1],
        ["real", "fake", "fake"],
        [False, True, True],
        [0.0, 1.0, 1.0],
        pd.Series([0, 1, 1], dtype="Int64"),
        pd.Series(["real", "fake", "fake"], dtype="category"),
        pd.Series(["real", "fake", "fake"], dtype="string"),
    ],
)
def test_labels_may_be_numbers_or_names(labels):
    tree = from_scores(GOOD, kind="probability", labels=labels)
    assert tree["observed_data/label"].values.tolist() == [0, 1, 1]


def test_a_tree_is_kept_and_read(table, tmp_path):
    table.loc[3, "vit"] = np.nan
    with pytest.warns(BayesdfWarning, match="1 of 90 images lack a score"):
        tree = from_scores(table, kind="probability", missing="leave out")
    again = store.open_tree(store.write_tree(tree, tmp_path / "tree.zarr"))
    xr.testing.assert_identical(analysis.decompose(again), analysis.decompose(tree))
    assert again.attrs == tree.attrs


def test_images_without_a_score_are_named_and_may_be_left_out(table):
    table.loc[[3, 8], "vit"] = np.nan
    with pytest.raises(BayesdfError, match=r"2 of 90 images lack a score \(first: image 3, column 'vit'\)"):
        from_scores(table, kind="probability")
    with pytest.warns(BayesdfWarning, match="coverage 0.978"):
        tree = from_scores(table, kind="probability", missing="leave out")
    assert tree.attrs["coverage"] == pytest.approx(88 / 90)
    assert tree["left_out/path"].values.tolist() == ["3.png", "8.png"]
    whole = from_scores(table.dropna(), kind="probability")
    xr.testing.assert_equal(analysis.decompose(tree), analysis.decompose(whole))


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (GOOD, {"kind": "logit"}, "'probability', 'log-odds', 'vote'"),
        ([[87.0, 3.0]], {"kind": "probability"}, "first: 87 of image 0, column 0.*percentages"),
        ([[-0.1, 0.3]], {"kind": "probability"}, "between 0 and 1"),
        ([[0.5, 1.0]], {"kind": "vote"}, "0 or 1"),
        ([[0.1, 0.9], [0.7, 0.3]], {"kind": "probability"}, r"add to 1.*scores\[:, 1\]"),
        ([[0.1, 0.2, 0.7], [0.7, 0.1, 0.2]], {"kind": "probability"}, r"scores\[None\]"),
        (np.full((2, 3, 3), 0.4), {"kind": "probability"}, "do not add to 1"),
        (np.full((2, 3, 3), 0.4), {"kind": "log-odds"}, "real against fake"),
        (np.full((2, 3, 1), 0.4), {"kind": "probability"}, "single class"),
        (np.zeros((0, 3)), {"kind": "probability"}, "at least one image"),
        ([[0.1, "x"]], {"kind": "probability"}, "numbers"),
        ([[0.1], [0.1, 0.2]], {"kind": "probability"}, "numbers"),
        (0.3, {"kind": "probability"}, "a float"),
        ("scores.csv", {"kind": "probability"}, "a str"),
        (xr.Dataset({"a": 1}), {"kind": "probability"}, "a Dataset of a"),
        (GOOD, {"kind": "probability", "labels": [0, 1]}, r"label has shape \(2,\)"),
        (GOOD, {"kind": "probability", "labels": "truth"}, "no table"),
        (
            pd.DataFrame(GOOD, index=["a", "b", "c"]),
            {"kind": "probability", "labels": pd.Series([0, 1, 1], index=["b", "a", "c"])},
            r"another order.*labels\.loc",
        ),
        (GOOD, {"kind": "probability", "labels": [0, 1, 2]}, "integers from 0 to 1"),
        (GOOD, {"kind": "probability", "labels": [0, 1, np.nan]}, "integers from 0 to 1"),
        (GOOD, {"kind": "probability", "labels": ["real", "fake", "?"]}, "'?'"),
        (GOOD, {"kind": "probability", "detectors": ["a"]}, "1 names"),
        (GOOD, {"kind": "probability", "classes": ["a", "b", "c"]}, "classes are a, b, c"),
        (GOOD, {"kind": "probability", "classes": ["fake", "real"]}, "turn them round"),
        (GOOD, {"kind": "probability", "missing": "drop"}, "'leave out'"),
        (
            GOOD,
            {"kind": "probability", "labels": [1, 0, 0], "sources": ["real", "x", "y"]},
            "3 of 3 labels contradict.*0 is real",
        ),
        (pd.DataFrame({"a": [0.1, 0.2], "b": ["x", "y"]}), {"kind": "probability"}, "column 'b'.*detectors"),
        (pd.DataFrame({"a": [0.1, 0.2], "y": [0, 1]}), {"kind": "probability"}, "labels='y'"),
        (pd.DataFrame({"a": [0.1, 2.0], "frame": [7, 8]}), {"kind": "log-odds"}, "column 'frame'"),
        (pd.DataFrame({"a": [0.1], "b": [0.2]}), {"kind": "probability", "detectors": ["c"]}, "no column 'c'"),
        (pd.DataFrame({"a": [0.1], "b": [0.2]}), {"kind": "probability", "labels": "c"}, "columns are a, b"),
        (pd.DataFrame({"label": [1], "path": ["x"]}), {"kind": "probability"}, "no column of scores"),
        (pd.DataFrame([[0.1, 0.2]], columns=["a", "a"]), {"kind": "probability"}, "two columns 'a'"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(given, options, message):
    with pytest.raises(BayesdfError, match=message) as caught:
        from_scores(given, **options)
    assert "\n" not in str(caught.value)


def test_log_odds_that_look_like_probabilities_are_doubted():
    with pytest.warns(BayesdfWarning, match="kind='probability'"):
        from_scores(GOOD, kind="log-odds")


def test_one_detector_is_a_column():
    column = pd.Series([0.1, 0.7], index=["a.png", "b.png"])
    for given in (column, [0.1, 0.7], np.array([[0.1], [0.7]])):
        found = analysis.decompose(from_scores(given, kind="probability"))
        np.testing.assert_allclose(found["probability"][:, 1], [0.1, 0.7])
        assert (found["epistemic"] == 0).all()
    assert list(analysis.decompose(from_scores(column, kind="probability"))["image"].values) == ["a.png", "b.png"]


def test_detectors_settles_what_a_column_is():
    tree = from_scores({"a": [0.1, 0.4], "b": [0.9, 0.6]}, kind="probability", detectors=["a", "b"])
    assert tree["posterior_predictive/logits"].sizes["draw"] == 2
    tree = from_scores(pd.DataFrame({"a": [0.1, 0.2], "b": [0.3, 0.6]}), kind="probability", detectors="b")
    np.testing.assert_allclose(analysis.decompose(tree)["probability"][:, 1], [0.3, 0.6])

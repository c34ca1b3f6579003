import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.metrics import balanced_accuracy_score, f1_score

from bayesdf.analysis import (
    attribute,
    combine,
    compare,
    confusion,
    estimate,
    from_probability,
    mean_probability,
    profile,
    scalars,
    score,
    summarise,
)
from bayesdf.errors import BayesdfError, BayesdfWarning


def fakes(features):
    return features[(features["source"] != "real").values]


@pytest.fixture(scope="module")
def attributions(predictions):
    families = {
        "mean probability": mean_probability(predictions),
        "scalars": scalars(predictions),
        "all": combine(scalars(predictions), profile(predictions)),
    }
    return {name: attribute(fakes(family), folds=4) for name, family in families.items()}


def blobs(subjects=6, each=3, sources=("a", "b", "c"), seed=0):
    """Features in which sources are plain: (frame, sources, subjects)."""
    rng = np.random.default_rng(seed)
    rows = [(s, f"p{p}") for s in sources for p in range(subjects) for _ in range(each)]
    source, subject = (np.array(column) for column in zip(*rows, strict=True))
    centre = 4.0 * (source[:, None] == np.array(sources))
    return pd.DataFrame(centre + rng.normal(size=centre.shape)), source, subject


def test_uncertainty_tells_more_than_mean_probability(attributions):
    accuracy = {name: estimate(score(one, resamples=50), "accuracy").value for name, one in attributions.items()}
    assert accuracy["mean probability"] < accuracy["scalars"] < accuracy["all"]
    assert accuracy["all"] > 0.9
    ratio = estimate(compare(attributions["all"], attributions["mean probability"]), "accuracy_ratio")
    assert ratio.low > 1.3 and ratio.low < ratio.value < ratio.high


def test_no_subject_is_judged_by_a_classifier_that_saw_it(attributions):
    one = attributions["scalars"]
    folds = pd.Series(one["fold"].values).groupby(one["subject"].values).nunique()
    assert (folds == 1).all() and one.attrs["folds"] == 4 == len(one.attrs["classifiers"])
    np.testing.assert_allclose(one["probability"].sum("source"), 1)
    np.testing.assert_array_equal(one["source"].values[one["probability"].argmax("source")], one["prediction"])


def test_a_subject_that_gives_its_source_away_is_no_help():
    """Features that name the person and nothing else; each person appears under one source only."""
    person = np.repeat(np.arange(24), 6)
    source = np.array(list("abcd"))[person % 4]
    features = 5 * np.random.default_rng(0).normal(size=(24, 8))[person]
    unseen = attribute(pd.DataFrame(features), source, person, folds=3)
    seen = attribute(pd.DataFrame(features), source, folds=3)  # every image its own group
    assert estimate(score(unseen, resamples=10), "accuracy").value < 0.5
    assert estimate(score(seen, resamples=10), "accuracy").value > 0.9


def test_noise_scores_at_chance():
    _, source, subject = blobs(subjects=12, each=5)
    right = []
    for seed in range(5):
        noise = pd.DataFrame(np.random.default_rng(seed).normal(size=(len(source), 6)))
        found = score(attribute(noise, source, subject, folds=2), resamples=10)
        right.append(estimate(found, "accuracy").value)
    assert np.mean(right) == pytest.approx(1 / 3, abs=0.05)
    assert found.attrs["chance"] == pytest.approx(1 / 3) and found.attrs["majority"] == pytest.approx(1 / 3)


def test_images_to_fit_on_are_not_judged():
    frame, source, subject = blobs(subjects=8)
    extra = np.isin(subject, ["p0", "p1"])
    found = attribute(frame, source, subject, fit_only=extra, folds=3)
    assert found.sizes["image"] == (~extra).sum() and found.attrs["fitted_only"] == extra.sum()
    assert estimate(score(found, resamples=10), "accuracy").value > 0.9


def test_images_to_fit_on_never_teach_their_own_subject():
    frame, source, subject = blobs()
    frame["mark"] = np.where(subject == "p2", 9.0, 0.0)
    helpers = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 3)) + 2.0).assign(mark=9.0)
    found = attribute(
        pd.concat([frame, helpers], ignore_index=True),
        np.concatenate([source, np.full(40, "c")]),  # a fit that saw them would call all of p2 "c"
        np.concatenate([subject, np.full(40, "p2")]),
        fit_only=np.arange(len(source) + 40) >= len(source),
    )
    own = found.isel(image=subject == "p2")
    assert (own["truth"] == own["prediction"]).mean() > 0.8


def test_few_subjects_make_few_folds():
    frame, source, subject = blobs(subjects=2)
    found = attribute(frame, source, subject, folds=6)
    assert found.attrs["folds"] == 2
    assert estimate(score(found, resamples=10), "accuracy").value > 0.8


def test_images_without_subject_stand_alone():
    frame, source, _ = blobs()
    assert len(np.unique(attribute(frame, source, folds=2)["cluster"])) == len(source)


def test_the_same_seed_gives_the_same_run():
    first, again = (attribute(*blobs(), folds=2, seed=3) for _ in range(2))
    xr.testing.assert_identical(first, again)


def test_figures_agree_with_scikit_learn(attributions):
    one = attributions["scalars"]
    found = score(one, resamples=100)
    truth, named = one["truth"].values, one["prediction"].values
    assert estimate(found, "accuracy").value == pytest.approx((truth == named).mean())
    assert estimate(found, "balanced_accuracy").value == pytest.approx(balanced_accuracy_score(truth, named))
    assert estimate(found, "macro_f1").value == pytest.approx(f1_score(truth, named, average="macro"))
    counts = confusion(one)
    assert counts.to_numpy().sum() == len(truth)
    assert counts.loc["vae", "swap"] == ((truth == "vae") & (named == "swap")).sum()


def test_pairing_narrows_the_difference(attributions):
    one = attributions["scalars"]
    same = estimate(compare(one, one), "accuracy_difference")
    assert same == (0, 0, 0)


def test_only_the_same_images_are_compared(attributions):
    """Truth and subjects alone may agree by chance of the order: two photographs of one person, say."""
    one = attributions["scalars"]
    with pytest.raises(BayesdfError, match="different images, 240 and 239"):
        compare(one, one.isel(image=slice(None, -1)))
    swapped = np.arange(one.sizes["image"])
    swapped[:2] = 1, 0
    assert one["truth"][0] == one["truth"][1] and one["cluster"][0] == one["cluster"][1]
    with pytest.raises(BayesdfError, match=r"at row 0 the path is 'vae/.*png' in one.*\(2 such rows\)"):
        compare(one, one.isel(image=swapped))
    with pytest.raises(BayesdfError, match="the image is"):
        compare(one.drop_vars("path"), one.isel(image=swapped))
    with pytest.warns(BayesdfWarning, match="nothing says whether"):
        compare(one.drop_vars(["path", "image"]), one, resamples=10)
    with pytest.raises(BayesdfError, match="the truth is"):
        compare(one, one.isel(image=slice(None, None, -1)).assign_coords(path=one["path"], image=one["image"]))


def test_a_classifier_of_the_judged_images_alone_can_be_compared():
    """Numbers of clusters depend on the images that were only fitted on; who is with whom does not."""
    frame, source, subject = blobs(subjects=8)
    frame.index = pd.Index([f"{n}.png" for n in range(len(frame))])
    extra = np.isin(subject, ["p0", "p3"])
    ours = attribute(frame, source, subject, fit_only=extra, folds=3)
    theirs = from_probability(
        pd.DataFrame(np.eye(3)[np.unique(source, return_inverse=True)[1]], frame.index, list("abc"))[~extra],
        source[~extra],
        subject[~extra],
    )
    assert estimate(compare(theirs, ours, resamples=20), "accuracy_difference").value >= 0


def test_manipulations_and_new_faces_are_told_apart():
    """Manipulations half right, new faces all: the pooled figure lies between, and says neither."""
    truth = np.repeat(["swap", "vae"], 40)
    named = np.where(np.arange(80) < 20, "vae", truth)
    subject = np.concatenate([np.repeat([f"p{n}" for n in range(8)], 5), np.full(40, "")])
    donor = np.concatenate([np.roll(subject[:40], 5), np.full(40, "")])
    probability = pd.DataFrame({name: (named == name).astype(float) for name in ("swap", "vae")})
    found = score(from_probability(probability, truth, subject, donor), resamples=100)
    assert estimate(found, "accuracy_manipulations").value == 0.5
    assert estimate(found, "accuracy_new_faces") == pytest.approx((1, 0.025 ** (1 / 40), 1))  # Clopper and Pearson
    assert estimate(found, "accuracy").value == 0.75
    assert found.attrs["people"] == 8 and found.attrs["clusters"] == 48
    alone = score(from_probability(probability[:40], truth[:40], subject[:40]), resamples=10)
    assert "accuracy_manipulations" not in alone


def test_a_fold_is_fitted_on_all_who_share_nobody_with_it():
    """Named groups of two parts of a data set: only who is in the judged group is left out."""
    frame, source, subject = blobs(subjects=6)
    helper = subject == "p5"
    group = np.where(helper, [f"image {n}" for n in range(len(subject))], subject)
    found = attribute(frame, source, np.where(helper, "", subject), subject_groups=group, fit_only=helper, folds=5)
    judged = pd.Series(found["fold"].values).value_counts().sort_index()
    assert found.attrs["fitted"] == [len(subject) - count for count in judged]


def test_summary_has_a_row_a_feature_set(attributions):
    table = summarise(attributions, against="mean probability", resamples=50)
    assert list(table.index) == list(attributions)
    assert table.loc["mean probability", "accuracy_ratio"] == 1
    assert (table["accuracy.low"] <= table["accuracy"]).all() and (table["chance"] == 0.2).all()
    json.dumps(table.to_dict())
    with pytest.raises(BayesdfError, match="no feature set 'chance'"):
        summarise(attributions, against="chance")


def test_a_direct_classifier_stands_beside():
    probability = pd.DataFrame({"b": [0.1, 0.7, 0.8], "a": [0.9, 0.3, 0.2]})
    found = from_probability(probability, ["a", "b", "a"], ["p", "q", "q"])
    assert list(found["source"].values) == ["a", "b"]
    assert list(found["prediction"].values) == ["a", "b", "b"]
    assert estimate(score(found, resamples=10), "accuracy").value == pytest.approx(2 / 3)
    array = xr.DataArray(
        probability.to_numpy(),
        dims=("image", "source"),
        coords={"source": ["b", "a"], "truth": ("image", ["a", "b", "a"])},
    )
    np.testing.assert_array_equal(from_probability(array)["prediction"], found["prediction"])
    with pytest.raises(BayesdfError, match="'c' has no column"):
        from_probability(probability, ["a", "b", "c"])


def spoil(frame, source, subject):
    frame.iloc[4, 2] = np.nan
    return frame, source, subject


def single_image(frame, source, subject):
    keep = (source != "c") | (np.cumsum(source == "c") == 1)
    return frame[keep], source[keep], subject[keep]


def single_subject(frame, source, subject):
    keep = (source != "c") | (subject == "p0")
    return frame[keep], source[keep], subject[keep]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoil, "feature '2' of image 4 is nan"),
        (single_image, "source 'c' has a single image"),
        (single_subject, "source 'c' shows a single subject"),
        (lambda f, s, p: (f, np.full(len(s), "a"), p), "all images come from source 'a'"),
        (lambda f, s, p: (f, s[:5], p), "5 sources given for 54 images"),
        (lambda f, s, p: (f, s, p[:5]), "5 subjects given for 54 images"),
        (lambda f, s, p: (f.iloc[:0], s, p), "shape"),
        (lambda f, s, p: (f, None, p), "the source of each image is unknown"),
    ],
)
def test_what_cannot_be_learnt_is_said_in_one_line(change, message):
    with pytest.raises(BayesdfError, match=message) as caught:
        attribute(*change(*blobs()))
    assert "\n" not in str(caught.value)


def test_bad_settings_are_named():
    frame, source, subject = blobs()
    with pytest.raises(BayesdfError, match="folds=1"):
        attribute(frame, source, subject, folds=1)
    with pytest.raises(BayesdfError, match="covers every image"):
        attribute(frame, source, subject, fit_only=np.ones(len(source), dtype=bool))
    with pytest.raises(BayesdfError, match="one bool for each"):
        attribute(frame, source, subject, fit_only=[True])


def test_subject_groups_keep_linked_subjects_out_of_each_others_fit() -> None:
    """A feature that gives away the group helps if subjects alone are kept apart, and not if groups are."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(4), 40)
    subject = group * 2 + np.tile([0, 1], 80)
    truth = np.where(rng.uniform(size=160) < np.where(group % 2, 0.95, 0.05), "a", "b")
    features = pd.DataFrame({f"group {one}": (group == one) + 0.01 * rng.normal(size=160) for one in range(4)})
    apart = attribute(features, truth, subject, subject_groups=group)
    mixed = attribute(features, truth, subject, folds=8)
    right = {name: float((one["prediction"] == one["truth"]).mean()) for name, one in [("a", apart), ("m", mixed)]}
    assert right["m"] > 0.85 and right["a"] < 0.65
    assert len(np.unique(apart["cluster"])) == 8

import numpy as np
import pytest
import xarray as xr
from scipy.stats import kurtosis, skew

from bayesdf.analysis import FEATURES, combine, decompose, describe_feature, mean_probability, profile, scalars
from bayesdf.errors import BayesdfError


def margin(predictions):
    logits = predictions["posterior_predictive/logits"].values[0].astype(np.float64)
    return logits[..., 1] - logits[..., 0]


def tree(margins):
    """Two classes whose margins are given: (draw, image)."""
    margins = np.asarray(margins, dtype=np.float64)
    logits = xr.DataArray(np.stack([np.zeros_like(margins), margins], -1), dims=("draw", "image", "class"))
    return xr.DataTree.from_dict({"posterior_predictive": xr.Dataset({"logits": logits})})


def test_scalars_mean_what_they_say(predictions):
    found, parts, m = scalars(predictions), decompose(predictions), margin(predictions)
    expected = {
        "log_total": np.log(parts["total"]),
        "log_aleatoric": np.log(parts["aleatoric"]),
        "log_epistemic": np.log(parts["epistemic"]),
        "logit_epistemic_share": np.log(parts["epistemic"] / parts["aleatoric"]),
        "log_aleatoric_variance": np.log(parts["aleatoric_variance"].sum("class")),
        "log_epistemic_variance": np.log(parts["epistemic_variance"].sum("class")),
        "log_margin_sd": np.log(m.std(axis=0)),
        "margin_skewness": skew(m),
        "margin_kurtosis": kurtosis(m),
        "log_margin_range_50": np.log(np.subtract(*np.quantile(m, (0.75, 0.25), axis=0))),
        "log_margin_range_90": np.log(np.subtract(*np.quantile(m, (0.95, 0.05), axis=0))),
        "disagreement": np.minimum((m > 0).mean(axis=0), (m < 0).mean(axis=0)),
    }
    assert set(found.feature.values) == set(expected) | {"margin_tail_balance"}
    for name, values in expected.items():
        np.testing.assert_allclose(found.sel(feature=name), values, rtol=1e-6, atol=1e-9, err_msg=name)


def test_every_feature_is_described(predictions):
    for family in (scalars(predictions), profile(predictions), mean_probability(predictions)):
        for name in family.feature.values:
            assert describe_feature(str(name)) in FEATURES.values()
    assert [
        name for name in scalars(predictions).feature.values if describe_feature(str(name)).mean_probability_alone
    ] == ["log_total"]
    with pytest.raises(BayesdfError, match="unknown feature 'mood'"):
        describe_feature("mood")


def test_only_what_says_so_is_a_function_of_the_mean_probability():
    # Both images have mean probability 1/2 by symmetry; their draws spread by 0.5 and by 6.
    spread = np.array([-1.0, -0.5, 0.5, 1.0])[:, None] * np.array([0.5, 6.0])
    found = scalars(tree(spread)).to_pandas()
    np.testing.assert_allclose(mean_probability(tree(spread)), 0.0, atol=1e-15)
    differs = (found.loc[0] - found.loc[1]).abs() > 1e-6
    moved = {"log_aleatoric", "log_epistemic", "logit_epistemic_share", "log_aleatoric_variance"}
    moved |= {"log_epistemic_variance", "log_margin_sd", "log_margin_range_50", "log_margin_range_90"}
    assert set(differs[differs].index) == moved


def test_scalars_stay_finite_and_distinct_near_certainty():
    base = np.array([0.0, 1.0, -1.0, 2.0])[:, None]
    found = scalars(tree(base + np.array([60.0, 62.0, 300.0])))
    assert np.isfinite(found).all()
    epistemic = found.sel(feature="log_epistemic").values
    np.testing.assert_allclose(np.diff(epistemic), [-2.0, -238.0], rtol=0.05)


def test_draws_that_do_not_vary_have_no_shape():
    found = scalars(tree(np.full((5, 2), 3.7)))
    assert np.isfinite(found).all()
    assert (found.sel(feature=["margin_skewness", "margin_kurtosis", "disagreement"]) == 0).all()
    assert (profile(tree(np.full((5, 2), 3.7)), standardise=True) == 0).all()


def test_profile_is_the_deviation_of_each_draw(predictions):
    found, m = profile(predictions), margin(predictions)
    np.testing.assert_allclose(found, (m - m.mean(axis=0)).T, atol=1e-12)
    np.testing.assert_allclose(found.sum("feature"), 0, atol=1e-10)
    np.testing.assert_allclose((found**2).mean("feature"), m.var(axis=0))
    standard = profile(predictions, standardise=True)
    np.testing.assert_allclose((standard**2).mean("feature"), 1)


def test_profile_holds_no_mean_margin(predictions):
    """Adding a constant to all draws of an image moves its mean probability and leaves its profile."""
    moved = predictions.copy(deep=True)
    logits = moved["posterior_predictive/logits"]
    shift = np.linspace(-5, 5, logits.sizes["image"])[:, None] * np.array([0.0, 1.0])
    moved["posterior_predictive/logits"] = logits.astype(np.float64) + shift
    np.testing.assert_allclose(profile(moved), profile(predictions), atol=1e-12)
    assert (abs(mean_probability(moved) - mean_probability(predictions)) > 1).any()


def test_more_classes_have_a_profile_each(make_predictions):
    many = make_predictions(subjects=4, draws=6, classes=("real", "vae", "swap"))
    found = profile(many)
    assert found.sizes == {"image": 96, "feature": 18}
    assert list(found.feature.values[:4]) == ["draw_0:real", "draw_0:vae", "draw_0:swap", "draw_1:real"]
    logits = many["posterior_predictive/logits"].values[0].astype(np.float64)
    centred = logits - logits.mean(axis=-1, keepdims=True)
    np.testing.assert_allclose(found.sel(feature="draw_1:swap"), (centred - centred.mean(0))[1, :, 2], atol=1e-12)
    assert np.isfinite(scalars(many)).all()
    p = decompose(many)["probability"]
    np.testing.assert_allclose(mean_probability(many), np.log(p / (1 - p)), rtol=1e-6)


def test_control_is_the_log_odds_of_the_mean(predictions):
    p = decompose(predictions)["probability"].sel({"class": "fake"})
    found = mean_probability(predictions)
    assert list(found.feature.values) == ["mean_log_odds:fake"]
    np.testing.assert_allclose(found.squeeze("feature"), np.log(p / (1 - p)), rtol=1e-6)


def test_families_stand_side_by_side(predictions):
    joined = combine(scalars(predictions), profile(predictions))
    assert joined.dims == ("image", "feature") and joined.sizes["feature"] == 13 + 40
    np.testing.assert_array_equal(joined[:, :13], scalars(predictions))
    np.testing.assert_array_equal(joined["subject"], predictions["constant_data/subject"])
    with pytest.raises(BayesdfError, match="cannot stand side by side"):
        combine(scalars(predictions), profile(predictions)[:5])


def test_one_draw_has_no_spread():
    for family in (scalars, profile):
        with pytest.raises(BayesdfError, match="single draw"):
            family(tree([[1.0, 2.0]]))

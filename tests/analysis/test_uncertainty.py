import math

import arviz
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from scipy.special import log_softmax

from bayesdf.analysis import decompose
from bayesdf.analysis.uncertainty import entropies, log_mean_probabilities, log_probabilities, variances
from bayesdf.errors import BayesdfError


def draws(seed=0, shape=(7, 11, 3), scale=3.0):
    return scale * np.random.default_rng(seed).normal(size=shape)


def slow_decomposition(logits):
    """Entropies by the definition, one number at a time."""
    total, aleatoric = [], []
    for image in range(logits.shape[1]):
        mean = [0.0] * logits.shape[2]
        entropy = 0.0
        for draw in range(logits.shape[0]):
            exponentials = [math.exp(z) for z in logits[draw, image]]
            p = [e / sum(exponentials) for e in exponentials]
            entropy -= sum(q * math.log(q) for q in p) / logits.shape[0]
            mean = [m + q / logits.shape[0] for m, q in zip(mean, p, strict=True)]
        total.append(-sum(m * math.log(m) for m in mean))
        aleatoric.append(entropy)
    return np.array(total), np.array(aleatoric)


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_agrees_with_the_definition(classes):
    logits = draws(shape=(9, 13, classes))
    total, aleatoric = slow_decomposition(logits)
    found = entropies(logits)
    np.testing.assert_allclose(found.total, total, rtol=1e-12)
    np.testing.assert_allclose(found.aleatoric, aleatoric, rtol=1e-12)
    np.testing.assert_allclose(found.epistemic, total - aleatoric, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0, 500.0])
def test_identities_and_bounds(scale):
    logits = draws(shape=(5, 200, 4), scale=scale)
    found = entropies(logits)
    np.testing.assert_array_equal(found.total, found.aleatoric + found.epistemic)
    for part in found:
        assert (part >= 0).all() and (part <= np.log(4)).all()
    variance = variances(logits)
    np.testing.assert_array_equal(variance.total, variance.aleatoric + variance.epistemic)
    for part in variance:
        assert (part >= 0).all() and (part <= 0.25 + 1e-15).all()
    p = np.exp(log_mean_probabilities(logits))
    np.testing.assert_allclose(p.sum(axis=-1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(variance.total, p * (1 - p), atol=1e-15)


def test_one_draw_or_equal_draws_leave_nothing_epistemic():
    one = draws(shape=(1, 50, 3), scale=20.0)
    for logits in (one, np.repeat(one, 8, axis=0)):
        assert entropies(logits).epistemic.max() < 1e-28
        assert variances(logits).epistemic.max() < 1e-28
    assert (entropies(one).epistemic == 0).all()


def test_draws_that_contradict_each_other_surely_are_all_epistemic():
    logits = np.array([[[80.0, 0.0]], [[0.0, 80.0]]])
    found = entropies(logits)
    assert found.total[0] == pytest.approx(np.log(2), rel=1e-15)
    assert found.aleatoric[0] == pytest.approx(80 * np.exp(-80), rel=0.02)


def test_does_not_depend_on_the_order_of_draws_or_classes_or_on_a_constant():
    logits = draws()
    rng = np.random.default_rng(1)
    for other in (logits[rng.permutation(7)], logits[..., rng.permutation(3)], logits + draws(2, (7, 11, 1))):
        for a, b in zip(entropies(logits), entropies(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)


def test_keeps_its_digits_where_probabilities_round_to_one():
    # Two draws with margins 60 and 62: p = exp(-m) to all digits, and to first order in p
    # epistemic = E[p log p] - E[p] log E[p]; total - aleatoric in doubles would give 0 or 1e-17.
    p = np.exp(-np.array([60.0, 62.0]))
    expected = np.mean(p * np.log(p)) - p.mean() * np.log(p.mean())
    logits = np.array([[[0.0, 60.0]], [[0.0, 62.0]]])
    assert entropies(logits).epistemic[0] == pytest.approx(expected, rel=1e-10)
    assert variances(logits).epistemic[0] == pytest.approx([p.var()] * 2, rel=1e-10)
    assert log_mean_probabilities(logits)[0, 1] == pytest.approx(-p.mean(), rel=1e-12)


def test_log_probabilities_are_a_log_softmax():
    logits = draws(shape=(4, 6, 5), scale=10)
    np.testing.assert_allclose(log_probabilities(logits), log_softmax(logits, axis=-1), rtol=1e-9)
    assert log_probabilities(np.array([0.0, 100.0]))[1] == pytest.approx(-np.exp(-100.0))


def test_reads_a_whole_tree(predictions):
    found = decompose(predictions)
    logits = predictions["posterior_predictive/logits"].values[0].astype(np.float64)
    np.testing.assert_allclose(found["total"], slow_decomposition(logits)[0], rtol=1e-6)
    assert set(found["total"].dims) == {"image"}
    assert found["epistemic_variance"].dims == ("image", "class")
    assert list(found["class"].values) == ["real", "fake"]
    np.testing.assert_array_equal(found["source"], predictions["constant_data/source"])
    np.testing.assert_array_equal(found["prediction"], found["probability"].argmax("class"))
    np.testing.assert_array_equal(found["confidence"], found["probability"].max("class"))
    assert found["total"].attrs["units"] == "nats"


def test_chains_count_as_draws(predictions):
    logits = predictions["posterior_predictive/logits"]
    split = xr.DataArray(
        logits.values.reshape(4, 10, *logits.shape[2:]), dims=logits.dims, coords={"class": logits["class"]}
    )
    np.testing.assert_allclose(decompose(split)["epistemic"], decompose(logits)["epistemic"], rtol=1e-12)
    np.testing.assert_allclose(
        decompose(split.transpose("class", "image", "draw", "chain"))["total"], decompose(logits)["total"]
    )


def logits_of(values):
    return xr.DataArray(np.asarray(values), dims=("chain", "draw", "image", "class"))


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        (xr.DataTree(), "no group 'posterior_predictive'"),
        (xr.DataTree.from_dict({"svi/posterior_predictive": xr.Dataset()}), r"tree\['svi'\]"),
        (xr.DataTree.from_dict({"posterior_predictive": xr.Dataset()}), "not 'logits'"),
        (xr.Dataset({"other": 1}), "not 'logits'"),
        (logits_of(np.zeros((1, 0, 3, 2))), "zero draws"),
        (logits_of(np.zeros((1, 2, 0, 2))), "zero images"),
        (logits_of(np.zeros((1, 2, 3, 1))), "1 class"),
        (logits_of([[[[0.0, 0.0], [np.nan, 0.0]]]]), "first image 1 at draw 0"),
        (xr.DataArray(np.zeros((2, 2)), dims=("image", "class")), "dimensions"),
        (logits_of(np.full((1, 2, 3, 2), 0.5)), "probabilities.*from_scores"),
        (logits_of(np.full((1, 2, 3, 2), -np.inf)), "not finite"),
        (logits_of(np.full((1, 2, 3, 2), "x")), "dtype"),
        (xr.DataArray(np.zeros((2, 2)), dims=("draw", "image")), "from_scores"),
        (xr.DataArray(np.zeros((2, 2)), dims=("image", "class")), "expand_dims"),
        (xr.Dataset({"total": 1, "aleatoric": 1, "epistemic": 0}), "what decompose returned"),
        (np.zeros((1, 2, 3, 2)), r"shape \(1, 2, 3, 2\).*'chain', 'draw'.*from_scores"),
        (np.zeros((2, 3, 2)), r"'draw', 'image', 'class'.*from_scores"),
        (pd.DataFrame({"a": [0.1]}), "a DataFrame.*from_scores"),
        (torch.zeros(2, 3, 2), r"tensor.numpy\(force=True\).*from_scores"),
        ([[[0.0, 1.0]]], "a list.*from_scores"),
        (arviz.from_dict(posterior={"x": np.zeros((1, 2))}), "to_datatree"),
        ("runs/study", "open_run"),
        (None, "a NoneType"),
    ],
)
def test_what_cannot_be_analysed_is_said_in_one_line(predictions, message):
    with pytest.raises(BayesdfError, match=message) as caught:
        decompose(predictions)
    assert "\n" not in str(caught.value)


def test_pieces_may_be_kept_in_a_list(predictions):
    logits = predictions["posterior_predictive/logits"][0]
    pieces = [logits[:, :100], logits[:, 100:]]
    xr.testing.assert_identical(decompose(pieces), decompose(iter(pieces)))


def test_log_probabilities_are_logits(predictions):
    log_p = log_softmax(predictions["posterior_predictive/logits"], axis=-1)
    found = decompose(predictions["posterior_predictive/logits"].copy(data=log_p))
    np.testing.assert_allclose(found["epistemic"], decompose(predictions)["epistemic"], rtol=1e-4, atol=1e-7)


def test_a_class_that_is_ruled_out_has_no_probability():
    """A logit of -inf: the entropies are those of the classes that are left."""
    logits = draws(shape=(5, 4, 3))
    masked = np.concatenate([logits, np.full((5, 4, 1), -np.inf)], axis=-1)
    dims = ("draw", "image", "class")
    found, expected = (decompose(xr.DataArray(values, dims=dims)) for values in (masked, logits))
    for name in ("total", "aleatoric", "epistemic"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-12)
    assert (found["probability"][:, 3] == 0).all()


def test_locations_are_as_many_images():
    """Logits (chain, draw, image, y, x, class), in any order of dimensions, whole or in pieces."""
    values = np.random.default_rng(3).normal(scale=3, size=(2, 5, 4, 3, 2, 3))
    dims = ("chain", "draw", "image", "y", "x", "class")
    dense = xr.DataArray(values, {"y": [3.5, 11.5, 19.5], "x": [3.5, 11.5]}, dims)
    found = decompose(dense.transpose("y", "class", "image", "draw", "x", "chain"))
    images = decompose(xr.DataArray(values.reshape(2, 5, 24, 3), dims=("chain", "draw", "image", "class")))
    for name in images.data_vars:
        assert found[name].dims[:3] == ("image", "y", "x")
        np.testing.assert_allclose(found[name].values.reshape(images[name].shape), images[name].values, rtol=1e-12)
    assert found["y"].values.tolist() == [3.5, 11.5, 19.5]
    flat = dense.stack(all=("draw", "chain")).transpose("all", ...).drop_vars(["all", "draw", "chain"])
    pieces = [
        flat.rename(all="draw").isel(draw=part).assign_coords(image=np.arange(4)) for part in (slice(3), slice(3, 10))
    ]
    merged = decompose(pieces)
    np.testing.assert_allclose(merged["epistemic"].values, found["epistemic"].values, rtol=1e-9)
    dense[0, 2, 1, 0, 0, 0] = np.nan
    with pytest.raises(BayesdfError, match="1 images have logits that are not finite, first image 1 at draw 2"):
        decompose(dense)


@pytest.mark.parametrize("dims", [("draw", "image", "y", "class"), ("draw", "image", "y", "z", "class")])
def test_half_a_grid_is_refused(dims):
    with pytest.raises(BayesdfError, match="logits have dimensions"):
        decompose(xr.DataArray(np.zeros([2] * len(dims)), dims=dims))

"""Labels and logits are found where users put them; what is neither is refused with one line."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from bayesdf import analysis
from bayesdf.analysis.detection import brier_score, negative_log_likelihood
from bayesdf.errors import BayesdfError

LABEL = np.arange(6) % 2


@pytest.mark.parametrize(
    "function",
    [
        analysis.evaluate,
        analysis.reliability,
        analysis.scalars,
        analysis.profile,
        analysis.mean_probability,
        analysis.risk_coverage,
        analysis.aurc,
        analysis.fit_scaling,
        lambda given: analysis.ood_auroc(given, given),
        lambda given: analysis.rescale(given, xr.Dataset()),
    ],
)
def test_the_same_is_said_by_every_function(function):
    for given in (np.zeros((2, 3, 2)), pd.DataFrame({"a": [0.1]}), torch.zeros(2, 3, 2), None):
        with pytest.raises(BayesdfError, match="given where the DataTree of Posterior"):
            function(given)
    with pytest.raises(BayesdfError, match=r"tree\['svi'\]"):
        function(xr.DataTree.from_dict({"svi/posterior_predictive": xr.Dataset()}))


def tree_of(**places):
    """Logits of six images, and what stands in other groups or, as `beside`, next to the logits."""
    logits = np.random.default_rng(0).normal(size=(1, 3, 6, 2))
    dims = ("chain", "draw", "image", "class")
    predictive = xr.Dataset({"logits": (dims, logits)}, {"class": ["real", "fake"], "image": np.arange(6)})
    predictive = predictive.merge(places.pop("beside", xr.Dataset()))
    root = places.pop("root", xr.Dataset())
    return xr.DataTree.from_dict({"/": root, "posterior_predictive": predictive, **places})


def known(label=LABEL):
    return xr.Dataset({"label": ("image", label)})


@pytest.mark.parametrize(
    "places",
    [
        {"constant_data": known()},
        {"root": known()},
        {"beside": known()},
        {"beside": known().set_coords("label")},
        {"observed_data": known(), "constant_data": known(), "root": known()},
        {"observed_data": known(np.array(["real", "fake"])[LABEL])},
        {"observed_data": known(np.array(["real", "fake"], dtype=object)[LABEL])},
        {"observed_data": known(LABEL == 1)},
        {"observed_data": known(LABEL.astype(float))},
    ],
)
def test_labels_are_found_where_they_are_put(places):
    right = analysis.evaluate(tree_of(observed_data=known()), resamples=2)
    xr.testing.assert_identical(analysis.evaluate(tree_of(**places), resamples=2), right)


def test_labels_are_found_on_logits_alone():
    right = analysis.evaluate(tree_of(observed_data=known()), resamples=2)
    dataset = tree_of()["posterior_predictive"].to_dataset()
    for given in (
        dataset["logits"].assign_coords(label=("image", LABEL)),
        dataset.assign(label=("image", LABEL)),
        dataset.assign_coords(label=("image", LABEL)),
    ):
        xr.testing.assert_identical(analysis.evaluate(given, resamples=2), right)


def test_what_a_prior_says_is_taken_apart_like_what_a_posterior_says():
    tree = tree_of(observed_data=known())
    prior = xr.DataTree.from_dict({"prior_predictive": tree["posterior_predictive"].to_dataset()})
    expected = analysis.decompose(tree["posterior_predictive"].to_dataset())
    xr.testing.assert_identical(analysis.decompose(prior), expected)


def test_places_that_contradict_each_other_are_refused():
    tree = tree_of(observed_data=known(), constant_data=known(1 - LABEL))
    with pytest.raises(BayesdfError, match="observed_data and in constant_data contradict each other at 6 images"):
        analysis.decompose(tree)


@pytest.mark.parametrize(
    ("observed", "message"),
    [
        (xr.Dataset({"label": ("image", LABEL[:4])}), "label in observed_data has 4 values, the logits hold 6 images"),
        (xr.Dataset({"label": ("image", LABEL)}, {"image": np.arange(6)[::-1]}), "in another order"),
        (xr.Dataset({"label": ("image", LABEL)}, {"image": np.arange(6) + 1}), "under other names"),
        (xr.Dataset({"labels": ("image", LABEL)}), "no true labels.*observed_data has 'labels'"),
        (xr.Dataset({"label": (("image", "one"), LABEL[:, None])}), "no true labels.*dimensions image, one"),
        (xr.Dataset({"label": ("image", LABEL + 1)}), "integers from 0 to 1.*holds 2 at image 1"),
        (xr.Dataset({"label": ("image", LABEL - 1)}), "holds -1 at image 0"),
        (xr.Dataset({"label": ("image", LABEL * 0.5)}), "holds 0.5 at image 1"),
        (xr.Dataset({"label": ("image", ["real", "fake", "fake", "swap", "real", "real"])}), "'swap'"),
    ],
)
def test_labels_that_do_not_fit_are_refused_in_one_line(observed, message):
    tree = tree_of(observed_data=observed)
    with pytest.raises(BayesdfError, match=message) as caught:
        analysis.evaluate(tree, resamples=2)
    assert "\n" not in str(caught.value)


NO_FEATURES = "family of features"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda tree: analysis.attribute(tree), f"a DataTree.*{NO_FEATURES}.*scalars"),
        (lambda tree: analysis.attribute(analysis.decompose(tree)), f"a Dataset.*{NO_FEATURES}.*scalars"),
        (lambda tree: analysis.attribute(np.zeros((6, 2))), f"an array.*{NO_FEATURES}.*DataFrame"),
        (lambda tree: analysis.attribute(tree["posterior_predictive/logits"]), "dimensions"),
        (lambda tree: analysis.combine(tree), f"a DataTree.*{NO_FEATURES}.*scalars"),
        (lambda tree: analysis.combine(), "none|cannot stand"),
        (lambda tree: analysis.from_probability(np.zeros((6, 2))), "an array.*table of probabilities.*DataFrame"),
        (lambda tree: analysis.score(tree), "a DataTree.*attribution"),
        (lambda tree: analysis.confusion(analysis.decompose(tree)), "a Dataset.*attribution"),
        (lambda tree: analysis.compare(tree, tree), "a DataTree.*attribution"),
        (lambda tree: analysis.summarise({"a": tree}, against="a"), "a DataTree.*attribution"),
        (lambda tree: analysis.rescale(tree, None), "a NoneType.*fit_scaling"),
        (lambda tree: analysis.rescale(tree["posterior_predictive"].to_dataset(), xr.Dataset()), "a Dataset.*DataTree"),
        (lambda tree: analysis.rescale(tree, xr.Dataset({"scale": 1.0, "shift": ("class", [0.0] * 3)})), "3 classes"),
        (lambda tree: analysis.reliability_table([[0.5, 0.5]], [2]), "integers from 0 to 1"),
        (lambda tree: analysis.reliability_table([[2.5, -1.5]], [1]), "softmax"),
        (lambda tree: analysis.expected_calibration_error(np.array([[0.5, 0.2]]), [1]), "add to 1"),
        (lambda tree: brier_score(np.array([[3.0, 0.2]]), [1]), "add to 1"),
        (lambda tree: negative_log_likelihood(np.array([[0.6, 0.4]]), [1]), "np.log"),
        (lambda tree: analysis.from_probability(pd.DataFrame({"a": [0.3], "b": [2.0]}), ["a"]), "add to 1"),
        (lambda tree: analysis.reliability_table([0.5, 0.5], [1]), "shape"),
    ],
)
def test_what_the_other_functions_do_not_take_is_said_in_one_line(call, message):
    with pytest.raises(BayesdfError, match=message) as caught:
        call(tree_of(observed_data=known()))
    assert "\n" not in str(caught.value)

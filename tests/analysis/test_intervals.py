import json

import numpy as np
import pytest
from scipy.stats import binomtest

from bayesdf.analysis import Estimate, cluster_bootstrap, estimate, flatten, wilson
from bayesdf.analysis.intervals import to_dataset
from bayesdf.errors import BayesdfError


def test_singletons_give_the_textbook_interval_of_a_mean():
    values = np.random.default_rng(0).normal(size=400)
    found = cluster_bootstrap(np.mean, [values], np.arange(400), resamples=4000)
    half = 1.96 * values.std() / 20
    assert found.value == values.mean()
    assert found.low == pytest.approx(values.mean() - half, abs=0.01)
    assert found.high == pytest.approx(values.mean() + half, abs=0.01)


def test_intervals_widen_by_the_clusters():
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(30), 20)
    values = rng.normal(size=30)[cluster] + 0.1 * rng.normal(size=600)
    by_image = cluster_bootstrap(np.mean, [values], np.arange(600))
    by_person = cluster_bootstrap(np.mean, [values], cluster)
    ratio = (by_person.high - by_person.low) / (by_image.high - by_image.low)
    assert ratio == pytest.approx(np.sqrt(20), rel=0.2)


def test_covers_the_truth_about_as_often_as_it_says():
    """95 % are claimed; percentiles of 25 clusters fall short by 3 %, and 200 trials have an error of 2 %."""
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(25), 4)
    hits = 0
    for trial in range(200):
        values = rng.normal(size=25)[cluster] + rng.normal(size=100)
        found = cluster_bootstrap(np.mean, [values], cluster, resamples=200, seed=trial)
        hits += found.low <= 0 <= found.high
    assert 0.85 <= hits / 200 <= 0.99


def test_arrays_are_resampled_together():
    values = np.random.default_rng(0).normal(size=60)
    found = cluster_bootstrap(lambda a, b: (a - b).mean(), [values, values + 1], np.repeat(np.arange(6), 10))
    assert found == pytest.approx((-1, -1, -1))


def test_the_seed_decides():
    values, cluster = np.arange(40.0), np.repeat(np.arange(8), 5)
    assert cluster_bootstrap(np.mean, [values], cluster) == cluster_bootstrap(np.mean, [values], cluster)
    assert cluster_bootstrap(np.mean, [values], cluster) != cluster_bootstrap(np.mean, [values], cluster, seed=1)


def test_the_names_of_clusters_do_not_matter():
    values, cluster = np.arange(6.0), np.array(["b", "a", "b", "a", "c", "c"])
    statistic = lambda v: v.sum()  # noqa: E731
    seen = cluster_bootstrap(statistic, [values], cluster)
    assert seen.value == 15 and 6 <= seen.low <= seen.high <= 27


def test_no_interval_from_one_person_or_an_undefined_statistic():
    one = cluster_bootstrap(np.mean, [np.arange(5.0)], np.zeros(5))
    assert one.value == 2 and np.isnan(one.low) and np.isnan(one.high)
    undefined = cluster_bootstrap(lambda v: np.nan, [np.arange(5.0)], np.arange(5))
    assert np.isnan(undefined).all()


@pytest.mark.parametrize("lengths", [(3, 4), (0, 0)])
def test_lengths_must_fit(lengths):
    with pytest.raises(BayesdfError, match="one length"):
        cluster_bootstrap(np.mean, [np.zeros(lengths[0])], np.zeros(lengths[1]))


def test_figures_travel_through_a_dataset_to_flat_names():
    metrics = to_dataset({"accuracy": Estimate(0.9, 0.8, 0.95)})
    assert estimate(metrics, "accuracy") == Estimate(0.9, 0.8, 0.95)
    flat = flatten(metrics, "svi.")
    assert flat == {"svi.accuracy": 0.9, "svi.accuracy.low": 0.8, "svi.accuracy.high": 0.95}
    assert json.loads(json.dumps(flat)) == flat
    assert str(Estimate(0.9, 0.8, 0.95)) == "0.900 (0.800 to 0.950)"


def test_images_of_nobody_stand_alone() -> None:
    """New faces have no subject: each is a cluster of its own, not all of them one."""
    values = np.random.default_rng(0).normal(size=60)
    nobody = cluster_bootstrap(np.mean, [values], [""] * 60)
    apart = cluster_bootstrap(np.mean, [values], np.arange(60))
    assert nobody == apart and nobody.low < nobody.value < nobody.high


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (1, 1), (0, 50), (50, 50), (5, 10), (3, 97), (700, 701)])
def test_a_share_has_the_interval_of_wilson(successes: int, trials: int) -> None:
    truth = binomtest(successes, trials).proportion_ci(method="wilson")
    found = wilson(successes, trials)
    assert found.value == successes / trials
    assert (found.low, found.high) == pytest.approx((truth.low, truth.high), abs=1e-12)
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0


def test_a_share_of_rates_lies_between_those_of_whole_numbers() -> None:
    below, between, above = (wilson(successes, 20) for successes in (3, 3.5, 4))
    assert all(a < b < c for a, b, c in zip(below, between, above, strict=True))


def test_a_share_of_nothing_is_a_mistake() -> None:
    with pytest.raises(BayesdfError, match="at least one trial"):
        wilson(0, 0)

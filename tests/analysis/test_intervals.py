import json

import numpy as np
import pytest
from scipy.stats import binomtest

from bayesdf.analysis import Estimate, cluster_bootstrap, clustered_share, estimate, flatten, intervals, wilson
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
    """95 % are claimed. Percentiles of 25 clusters fall short by 3 %, and 100 trials have a standard error of 3 %."""
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(25), 4)
    hits = 0
    for trial in range(100):
        values = rng.normal(size=25)[cluster] + rng.normal(size=100)
        found = cluster_bootstrap(np.mean, [values], cluster, resamples=100, seed=trial)
        hits += found.low <= 0 <= found.high
    assert 0.84 <= hits / 100 <= 0.99


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


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_share_without_variation_has_the_interval_of_clopper_and_pearson(value: float) -> None:
    cluster = np.repeat(np.arange(6), [1, 2, 3, 4, 5, 6])
    images = len(cluster)
    found = cluster_bootstrap(np.mean, [np.full(images, value)], cluster, share=np.ones(images))
    np.testing.assert_allclose(found, clustered_share([value] * images, cluster))
    equal = cluster_bootstrap(np.mean, [np.full(images, value)], cluster, share=1 / np.bincount(cluster)[cluster])
    np.testing.assert_allclose(equal, clustered_share([value] * 6, range(6)))
    pairs = np.arange(6)  # each image shows a person and the next one: still six people
    swapped = cluster_bootstrap(np.mean, [np.full(6, value)], pairs, donors=(pairs + 1) % 6, share=np.ones(6))
    np.testing.assert_allclose(swapped, equal)
    other = cluster_bootstrap(np.mean, [np.full(images, value)], cluster)  # which may be no share
    assert other.low == other.high == value


def test_a_share_that_varies_keeps_its_interval() -> None:
    values = np.random.default_rng(0).integers(0, 2, 60).astype(float)
    cluster = np.arange(60) // 6
    assert cluster_bootstrap(np.mean, [values], cluster, share=np.ones(60)) == cluster_bootstrap(
        np.mean, [values], cluster
    )


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


PEOPLE = 10
"""In groups of 3, 3 and 4, as the embedded test: two manipulations of each of them, and two kinds of new faces."""


def studied(rng: np.random.Generator, spread: float) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A figure of each image, 0 of a manipulation and 2 of a new face but for chance, and the design."""
    person = spread * rng.normal(size=PEOPLE)
    rows = []
    for group in np.array_split(np.arange(PEOPLE), 3):
        for source in ("swap", "mouth"):
            for one in np.repeat(group, 3):
                donor = rng.choice(group[group != one])
                rows.append((source, f"p{one}", f"p{donor}", person[one] + person[donor]))
    rows += [(source, "", "", 2.0) for source in ("vae", "flow") for _ in range(40)]
    source, subject, donor, value = (np.array(column) for column in zip(*rows, strict=True))
    return value + rng.normal(size=len(rows)), {"clusters": subject, "donors": donor, "strata": source}


TRUTH = 2.0 * 80 / (80 + 6 * PEOPLE)


@pytest.mark.parametrize(("spread", "wrongly"), [(0.1, "not stratified"), (1.0, "donors forgotten")])
def test_the_design_gives_intervals_that_hold(spread: float, wrongly: str) -> None:
    """They hold for manipulations and new faces together, and for manipulations alone; not so without strata or donors.

    Of 60 intervals that hold in 95 %, at least 52 do, by three standard errors. Ten people cost some more.
    """
    hold = dict.fromkeys(("pooled", "manipulations", wrongly), 0)
    for trial in range(60):
        value, people = studied(np.random.default_rng([trial, 1]), spread)
        faked = people["clusters"] != ""
        own = {key: names[faked] for key, names in people.items()}
        intervals = {
            "pooled": (TRUTH, [value], people),
            "manipulations": (0.0, [value[faked]], own),
            "donors forgotten": (0.0, [value[faked]], {"clusters": own["clusters"]}),
            "not stratified": (TRUTH, [value], {"clusters": people["clusters"]}),
        }
        for name in hold:
            truth, arrays, design = intervals[name]
            found = cluster_bootstrap(np.mean, arrays, **design, resamples=80, seed=trial)
            hold[name] += found.low <= truth <= found.high
    assert hold["pooled"] >= 51 and hold["manipulations"] >= 51
    if wrongly == "not stratified":
        assert hold[wrongly] == 60  # far too long: resamples vary the share that the design fixes
    else:
        assert hold[wrongly] < 48  # far too short


def test_resamples_keep_the_numbers_of_the_design() -> None:
    _, people = studied(np.random.default_rng(0), 1.0)
    source = people["strata"]
    seen = []

    def counted(given: np.ndarray) -> float:
        seen.append([int((given == name).sum()) for name in np.unique(source)])
        return 0.0

    cluster_bootstrap(counted, [source], **people, resamples=20)
    assert len(seen) == 21 and all(row == seen[0] for row in seen)


def test_a_swapped_face_is_drawn_with_both_its_people() -> None:
    """Where b is not drawn, no image of b is left; images of a alone stay."""
    pairs = [("a", "b"), ("a", ""), ("b", ""), ("c", "b"), ("c", ""), ("d", "a"), ("d", "")] * 3
    first, second = (np.array(column) for column in zip(*pairs, strict=True))

    def checked(one: np.ndarray, other: np.ndarray) -> float:
        there = {name for name, donor in zip(one, other, strict=True) if donor == ""}
        assert set(other) - {""} <= there and set(one[other != ""]) <= there
        return float(len(there))

    found = cluster_bootstrap(checked, [first, second], first, donors=second, resamples=200)
    assert found.value == 4 and found.high <= 3  # three of four are drawn


def test_equal_resamples_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four people make few different resamples. The interval is that of all of them, one by one."""
    values, people = np.random.default_rng(0).normal(size=40), np.repeat(np.arange(4), 10)
    calls: list[float] = []

    def mean(given: np.ndarray) -> float:
        calls.append(float(given.mean()))
        return calls[-1]

    once = cluster_bootstrap(mean, [values], people)
    assert len(set(calls)) <= len(calls) < 400
    monkeypatch.setattr(intervals, "KEPT", 0)
    calls.clear()
    assert cluster_bootstrap(mean, [values], people) == once and len(calls) == 1001


def test_the_variance_is_that_of_a_mean_of_few_people(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing n of n people makes the variance too small by (n - 1) / n, drawing n - 1 does not."""
    monkeypatch.setattr(intervals, "KEPT", 0)  # equal resamples are counted as often as they are drawn
    value = np.random.default_rng(0).normal(size=5)
    drawn: list[float] = []

    def mean(v: np.ndarray) -> float:
        drawn.append(float(v.mean()))
        return drawn[-1]

    cluster_bootstrap(mean, [np.repeat(value, 400)], np.repeat(np.arange(5), 400), resamples=4000)
    # The variance of a variance from 4000 draws is about 2 / 4000 of its square, somewhat more for so few people.
    assert np.var(drawn[1:]) == pytest.approx(value.var(ddof=1) / 5, rel=0.12)


def test_two_people_in_every_image_give_no_interval() -> None:
    found = cluster_bootstrap(np.mean, [np.arange(6.0)], ["a", "b"] * 3, donors=["b", "a"] * 3)
    assert found.value == 2.5 and np.isnan(found.low) and np.isnan(found.high)


def test_a_person_of_one_source_alone_is_drawn_with_others() -> None:
    """A stratum that holds a single person of its own must not stand still."""
    subject = ["a", "a", "b", "b", "c", "c", "d"]
    source = ["real", "swap"] * 3 + ["real"]
    picked = set()

    def seen(name: np.ndarray) -> float:
        picked.add(int((name == "d").sum()))
        return 0.0

    cluster_bootstrap(seen, [np.array(subject)], subject, strata=source, resamples=100)
    assert len(picked) > 1

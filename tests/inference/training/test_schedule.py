"""A search ends when its objective is flat, and not before."""

import numpy as np
import pytest

from bayesdf.inference.training.schedule import FALL, Schedule, budget


def losses(steps, start, time, noise, images, seed=0):
    """Losses an image of a search that comes down by `start` nats, a factor of e in so many steps."""
    rng = np.random.default_rng(seed)
    return list((start * np.exp(-np.arange(steps) / time) + noise * rng.normal(size=steps)) / images)


def run(schedule, values):
    """How many steps a search takes that sees these losses."""
    step = 0
    while step < schedule.total:
        step += schedule.batches
        schedule.end_of_epoch(values[:step])
    return step


def test_rates_rise_stay_and_fall_to_nearly_nothing():
    schedule = Schedule(100, 10, 100)
    shares = [schedule.share(step) for step in range(1001)]
    assert shares[0] == pytest.approx(1 / 50) and shares[49] == shares[699] == 1
    assert np.diff(shares[699:]).max() < 0 and shares[999] < 1e-4 and shares[1000] == pytest.approx(0)


@pytest.mark.parametrize("noise", [0.0, 1.0, 3.0])
def test_it_ends_when_little_is_left_and_says_so(noise):
    """What is left of an exponential fall is known: at most the limit, one nat, in each of twenty seeds."""
    for seed in range(20):
        schedule = Schedule(None, 4, 100)
        values = losses(budget(4) * 4, 200.0, 150.0, noise, 100, seed)
        steps = run(schedule, values)
        assert steps < 6000
        assert 200 * np.exp(-schedule.fall / 150) <= 1.0
        assert schedule.slope(values[:steps]).flat
        assert steps == pytest.approx(schedule.fall / (1 - FALL), abs=8)


def test_a_search_that_never_is_flat_takes_the_budget_and_says_so():
    schedule = Schedule(None, 4, 100)
    values = losses(budget(4) * 4, 5000.0, 5000.0, 1.0, 100)
    assert run(schedule, values) == budget(4) * 4 == 6000
    slope = schedule.slope(values)
    assert not slope.flat and slope.gain > 100


def test_noise_that_hides_a_slope_is_no_flatness():
    schedule = Schedule(10, 4, 100)
    assert not schedule.slope(losses(40, 0.0, 1.0, 30.0, 100)).flat
    assert not schedule.slope(losses(12, 0.0, 1.0, 0.0, 100)).flat  # too few steps to tell


def test_at_a_tiny_rate_nothing_is_flat():
    """A slope of 1 nat in 1000 steps is much for a search that needs 100,000 to cross the reach of a parameter."""
    values = [(10 - step / 1000) / 100 for step in range(1000)]
    assert Schedule(100, 10, 100, crossing=50).slope(values).flat
    assert not Schedule(100, 10, 100, crossing=100_000).slope(values).flat


def test_what_the_rate_could_not_settle_is_seen():
    """The objective falls only while the rate does, to its end: the rate was too large."""
    schedule = Schedule(100, 10, 100)
    values = [100 * max(schedule.share(step), 0.0) ** 0.5 / 100 for step in range(1000)]
    slope = schedule.slope(values)
    assert slope.flat and not slope.settled
    assert schedule.slope([1.0] * 1000).settled


def test_a_state_goes_on_as_it_was():
    one, other = Schedule(None, 4, 100), Schedule(None, 4, 100)
    run(one, losses(6000, 200.0, 150.0, 1.0, 100))
    other.load_state_dict(one.state_dict())
    assert [one.share(step) for step in range(one.total)] == [other.share(step) for step in range(one.total)]


def test_noise_alone_is_rarely_called_still_falling():
    """One in 200 searches at rest, by Student's t; what is seen may be four standard errors more."""
    schedule = Schedule(100, 4, 100)
    falling = [not schedule.slope(losses(400, 0.0, 1.0, 5.0, 100, seed)).settled for seed in range(400)]
    assert sum(falling) <= 2 + 4 * np.sqrt(2)
    assert not schedule.slope(losses(400, 400.0, 500.0, 5.0, 100)).settled

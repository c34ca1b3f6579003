"""Simultaneous intervals hold together as often as they say; one by one they are Student's."""

import numpy as np
import pytest
from scipy.stats import t as student

from bayesdf.analysis.simultaneous import simultaneous


def test_one_figure_has_students_interval() -> None:
    values = np.random.default_rng(0).normal(size=12)
    found = simultaneous(lambda rows: [values[rows].mean()], range(12))
    half = student.ppf(0.975, 11) * values.std(ddof=1) / np.sqrt(12)
    assert found.value[0] == pytest.approx(values.mean())
    assert found.high[0] - found.value[0] == pytest.approx(half, rel=0.03)


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_none_of_eleven_false_differences_is_told(correlation: float) -> None:
    """Ten people of twelve images, eleven differences that are none: 5 % of 200 studies tell one, and three errors."""
    rng = np.random.default_rng(1)
    person = np.repeat(np.arange(10), 12)
    false = uncorrected = 0
    for _ in range(200):
        common = np.sqrt(correlation) * rng.normal(size=(10, 1)) + np.sqrt(1 - correlation) * rng.normal(size=(10, 11))
        images = common[person] + rng.normal(size=(120, 11))
        found = simultaneous(lambda rows, images=images: images[rows].mean(0), person)  # type: ignore[misc]
        false += found.excludes_zero.any()
        means = images.reshape(10, 12, 11).mean(1)
        t = means.mean(0) / (means.std(0, ddof=1) / np.sqrt(10))
        uncorrected += bool((np.abs(t) > student.ppf(0.975, 9)).any())
    assert false <= 10 + 3 * np.sqrt(200 * 0.05 * 0.95)
    assert uncorrected > 2 * false


def test_a_difference_that_is_there_is_told_and_nothing_is_not() -> None:
    rng = np.random.default_rng(2)
    values = np.stack([np.zeros(50), rng.normal(size=50), 5.0 + rng.normal(size=50)], 1)
    person = np.arange(50) % 10
    found = simultaneous(lambda rows: values[rows].mean(0), person)
    assert list(found.excludes_zero) == [False, False, True] and found.low[0] == found.high[0] == 0.0
    assert np.isnan(simultaneous(lambda rows: values[rows].mean(0), [1] * 50).low).all()

"""A share of clustered images has the coverage that it claims, whatever the correlation within clusters."""

import numpy as np
import pytest

from bayesdf.analysis.proportion import clustered_share
from bayesdf.errors import BayesdfError


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5])
@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.95])
def test_the_upper_bound_covers(share: float, correlation: float) -> None:
    """Ten people with 3 to 8 photographs, five alterations of each; a person's rate is beta, so is a photograph's.

    Of 400 studies at most 2.5 % may miss on either side: that and three standard errors is 2.5 + 2.3 %.
    """
    rng = np.random.default_rng(int(1000 * share + 10 * correlation))
    person = np.repeat(np.arange(10), 5 * np.array([6, 4, 4, 5, 8, 5, 6, 3, 4, 5]))
    above = below = 0
    for _ in range(400):
        if correlation:
            spread = (1.0 - correlation) / correlation
            rate = rng.beta(share * spread, (1.0 - share) * spread, size=10)[person]
        else:
            rate = np.full(len(person), share)
        found = clustered_share((rng.uniform(size=len(person)) < rate).astype(float), person)
        above += found.low > share
        below += found.high < share
    assert above <= 19 and below <= 19


def test_known_answers() -> None:
    """None of n: the bound solves (1 - p)^n = 0.025. Copies of an image are that image."""
    for n in (1, 10, 50):
        assert clustered_share([0.0] * n, range(n)).high == pytest.approx(1.0 - 0.025 ** (1.0 / n))
    alone = clustered_share([1, 0, 0, 1, 0], range(5))
    copied = clustered_share(np.repeat([1, 0, 0, 1, 0], 19), np.repeat(np.arange(5), 19))
    np.testing.assert_allclose(copied, alone)
    turned = clustered_share([0, 1, 1, 0, 1], range(5))
    np.testing.assert_allclose([alone.low, alone.high], [1.0 - turned.high, 1.0 - turned.low])
    assert clustered_share([1.0, 1.0], ["", ""]).low == pytest.approx(0.025**0.5)


def test_bad_input() -> None:
    for values in ([], [0.5, 2.0], [np.nan]):
        with pytest.raises(BayesdfError, match="a share needs"):
            clustered_share(values, range(len(values)))

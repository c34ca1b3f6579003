"""What the tests of methods share: a cheap k̂ where nothing is said about it."""

from collections.abc import Iterator

import pytest

from bayesdf.inference import pareto_k


@pytest.fixture(scope="module", autouse=True)
def few_draws_for_k_hat(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every fit of a small model ends with 500 evaluations for k̂, and these take longer than most fits here.

    k̂ has random numbers of its own, so that nothing else depends on it. `test_convergence` holds its value.
    """
    with pytest.MonkeyPatch.context() as patch:
        if request.module.__name__.rpartition(".")[2] != "test_convergence":
            patch.setattr(pareto_k, "DRAWS", 25)
        yield

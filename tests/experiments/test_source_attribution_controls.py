"""The controls of the main job: what they know of the posterior, and that sentence and table say the same."""

import re

import numpy as np
import pytest
import xarray as xr

from bayesdf.experiments.source_attribution import feature_sets as sets
from bayesdf.experiments.source_attribution.gain import best, claim, gains


def attribution(right: np.ndarray) -> xr.Dataset:
    """Ten images of each of ten people, named rightly where `right` is."""
    truth = np.array(["a", "b"])[np.arange(100) % 2]
    other = np.array(["b", "a"])[np.arange(100) % 2]
    subject = [f"person {index // 10}" for index in range(100)]
    coords = {
        "source": ["a", "b"],
        "cluster": ("image", np.arange(100) // 10),
        "subject": ("image", subject),
        "path": ("image", [f"{index}.png" for index in range(100)]),
    }
    return xr.Dataset({"truth": ("image", truth), "prediction": ("image", np.where(right, truth, other))}, coords)


def attributions(**shares: float) -> dict[str, xr.Dataset]:
    """The first images of every person are right: the sets differ for all people alike."""
    place = np.arange(100) % 10 / 10
    return {name: attribution(place < shares.get(name, 0.5) - 1e-9) for name in sets.SETS}


def test_the_difference_is_to_the_best_control_and_its_interval_is_paired() -> None:
    table = gains(attributions(uncertainty=0.9, noise=0.7, untrained=0.4), sets.RIVALS, seed=0)
    control, difference = best(table, sets.MAIN)
    assert control == "noise" and difference.value == pytest.approx(0.2)
    # Of each person the same two images decide: a paired interval is as narrow as rounding lets it be.
    assert difference.low == pytest.approx(0.2, abs=0.03) and difference.high == pytest.approx(0.2, abs=0.03)
    assert set(table["control"][table["features"] == sets.MAIN]) == {*sets.RIVALS[sets.MAIN]}


def test_no_interval_is_no_verdict() -> None:
    found = {name: one.assign_coords(subject=("image", ["one"] * 100)) for name, one in attributions().items()}
    table = gains(found, sets.RIVALS, seed=0)
    said = claim(table, dict.fromkeys(sets.SETS, 0.5))
    assert said.count("(too few people for an interval).") == 2 and "nan" not in said and "zero" not in said


@pytest.mark.parametrize(
    ("shares", "verdict"),
    [
        ({"noise_scalars": 0.8}, "the control names more"),
        ({"uncertainty_scalars": 0.8}, "the posterior names more"),
        ({}, "holds zero"),
    ],
)
def test_sentence_and_table_agree(shares: dict[str, float], verdict: str) -> None:
    found = attributions(**shares)
    table = gains(found, sets.RIVALS, seed=0)
    accuracy = {name: float((one["truth"] == one["prediction"]).mean()) for name, one in found.items()}
    scalars, profile = re.findall(r"From .*?\.(?= From|$)", claim(table, accuracy))
    assert verdict in scalars and "holds zero" in profile
    control, difference = best(table, sets.SCALARS)
    assert f"{100 * difference.value:+.1f} points" in scalars and f"{accuracy[control]:.1%}" in scalars


def test_a_random_projection_keeps_distances_and_knows_no_labels() -> None:
    """Johnson and Lindenstrauss: with many directions, squared distances stay as they are, to 1 / sqrt(directions)."""
    rng = np.random.default_rng(0)
    features = xr.DataArray(rng.normal(size=(20, 30)), {"source": ("image", ["a", "b"] * 10)}, ("image", "feature"))
    seen = sets.random_projection(features, 20_000, seed=1)
    assert seen.shape == (20, 20_000) and "source" in seen.coords
    gaps = [((part[1:] - part[0]) ** 2).sum(1) / part.shape[1] for part in (seen.values, features.values)]
    np.testing.assert_allclose(gaps[0], gaps[1], rtol=0.1)

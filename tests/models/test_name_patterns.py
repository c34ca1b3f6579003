"""Which pattern wins, and what a pattern without a match says."""

import pytest

from bayesdf.errors import BayesdfError
from bayesdf.models.name_patterns import assign, select

NAMES = [
    "conv1.weight",
    "layer4.0.conv2.weight",
    "layer4.1.conv2.weight",
    "layer4.1.bn2.bias",
    "fc.weight",
    "fc.bias",
]


@pytest.mark.parametrize("flip", [False, True])
def test_the_most_specific_pattern_wins_whatever_the_order(flip):
    patterns = {"*": 0, "*.bias": 1, "layer4": 2, "layer4.*.conv2": 3, "fc": 4, "fc.bias": 5}
    if flip:
        patterns = dict(reversed(patterns.items()))
    assert assign(patterns, NAMES) == {
        "conv1.weight": 0,
        "layer4.0.conv2.weight": 3,
        "layer4.1.conv2.weight": 3,
        "layer4.1.bn2.bias": 1,
        "fc.weight": 4,
        "fc.bias": 5,
    }


def test_only_matched_names_in_the_order_of_the_network():
    assert list(assign({"fc.bias": 1, "conv1": 2}, NAMES)) == ["conv1.weight", "fc.bias"]


def test_module_names_match_whole_components():
    with pytest.raises(BayesdfError):
        assign({"layer": 1}, NAMES)
    assert assign({"layer4.1": 1}, NAMES).keys() == {"layer4.1.conv2.weight", "layer4.1.bn2.bias"}


def test_no_match_names_the_closest():
    with pytest.raises(BayesdfError, match=r"'layer4\.2\.conv2' matches no .*layer4\.1\.conv2"):
        assign({"layer4.2.conv2": 1}, NAMES)


def test_select_takes_one_pattern_or_several():
    assert select("layer4.*", ["layer4.0", "layer4.1", "fc"]) == ["layer4.0", "layer4.1"]
    assert select(["fc", "layer4.1"], ["layer4.0", "layer4.1", "fc"]) == ["layer4.1", "fc"]
    with pytest.raises(BayesdfError, match="matches no module"):
        select("fd", ["fc"])

"""The README's first figures: its sentences say what its table says."""

import re
from pathlib import Path

import pytest

from bayesdf.experiments.source_attribution.feature_sets import FORMS, RIVALS, SETS

README = (Path(__file__).parents[2] / "README.md").read_text()
SENTENCE = (
    r"From {form} of the posterior's uncertainty the source of ([\d.]+)% of the fakes is named, and of ([\d.]+)% from "
    r"its best control \((.*?)\): a difference of ([+-][\d.]+) points \(95 % interval ([+-][\d.]+) to ([+-][\d.]+)\); "
    r"(.*?)\."
)
VERDICTS = {
    "the posterior names more": lambda low, high: low > 0,
    "the control names more": lambda low, high: high < 0,
    "the interval holds zero, so the posterior is not shown to name more": lambda low, high: low <= 0 <= high,
}


def row(features: str) -> float:
    """The share of a row of the table, in its first column of figures."""
    found = re.search(rf"^\| \**{re.escape(SETS[features])}\** \| \**([\d.]+)\** \(", README, flags=re.MULTILINE)
    assert found, f"README.md has no row {SETS[features]!r}"
    return float(found[1])


@pytest.mark.parametrize("features", RIVALS)
def test_a_sentence_says_what_the_table_says(features: str) -> None:
    text = " ".join(README.split())
    said = re.search(SENTENCE.format(form=re.escape(FORMS[features])), text)
    assert said, f"README.md does not say what {FORMS[features]} add"
    own, other, control, *interval, verdict = said.groups()
    difference, low, high = map(float, interval)
    best = max(RIVALS[features], key=row)
    assert control == SETS[best].removeprefix("control: ")
    assert float(own) / 100 == pytest.approx(row(features), abs=6e-4)
    assert float(other) / 100 == pytest.approx(row(best), abs=6e-4)
    assert difference == pytest.approx(float(own) - float(other), abs=0.11)
    assert low <= difference <= high and VERDICTS[verdict](low, high)

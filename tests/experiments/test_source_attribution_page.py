"""What the source attribution's page says before its answer, from invented results."""

from collections import defaultdict
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pandas as pd
import pytest
import torch
import xarray as xr

from bayesdf.analysis.intervals import Estimate, to_dataset
from bayesdf.experiments.source_attribution import figures
from bayesdf.experiments.source_attribution import page as presentation
from bayesdf.experiments.source_attribution.feature_sets import RIVALS, SETS
from bayesdf.report.methods import METHODS, verdicts
from bayesdf.report.page import QUICK

FLAT = {"converged": 1, "verdict": "converged: flat"}
STEEP = {"converged": 0, "verdict": "NOT converged: 40 nats to gain: raise epochs"}
ECE = Estimate(0.1, 0.05, 0.2)
NOTHING = Estimate(0.01, -0.02, 0.03)


def result(
    accuracy: float, people: int = 10, ece: Estimate = ECE, difference: Estimate = NOTHING, **stats: Any
) -> xr.DataTree:
    """A method's tree, with what the page reads of it."""
    row = {"accuracy": accuracy, "accuracy_ratio": 2.0}
    row |= {f"{name}.{end}": row[name] for name in list(row) for end in ("low", "high")} | {"chance": 0.5}
    summary = pd.DataFrame([row] * len(SETS), index=pd.Index(SETS, name="features"))
    metrics = to_dataset({"balanced_accuracy": Estimate(0.9, 0.8, 1.0), "ece": ece}).assign_attrs(people=people)
    pairs = [(own, name) for own, rivals in RIVALS.items() for name in rivals]
    gain = pd.DataFrame(pairs, columns=["features", "control"])
    gain["best"] = (~gain["features"].duplicated()).astype(int)
    gain[["difference", "difference.low", "difference.high"]] = difference
    groups = {"/metrics": metrics, "/attribution": xr.Dataset.from_dataframe(summary)}
    groups["/gain"] = xr.Dataset.from_dataframe(gain.rename_axis("pair"))
    return xr.DataTree.from_dict(groups | {"/sample_stats": xr.Dataset(attrs=stats or FLAT)})


def said(monkeypatch: pytest.MonkeyPatch, results: dict[str, xr.DataTree], **settings: object) -> dict[str, Any]:
    """What is given to the page: its answer, its cautions and all paragraphs."""
    found: dict[str, Any] = {}
    monkeypatch.setattr(
        presentation, "write_page", lambda path, title, sections, **named: found.update(named, at=sections)
    )
    tables = defaultdict(pd.DataFrame, verdicts=verdicts({METHODS[name]: one for name, one in results.items()}))
    presentation.page(Path("x"), results, defaultdict(bytes), tables, settings, [], "", ["who is who is doubtful"])
    texts = [block for section in found["at"] for block in section.content if isinstance(block, str)]
    return {"answer": found["answer"], "cautions": found["cautions"], "texts": " ".join(texts)}


def test_nothing_is_said_of_a_sound_run(monkeypatch: pytest.MonkeyPatch) -> None:
    page = said(monkeypatch, {"svi": result(0.6), "mc_dropout": result(0.7)}, quick=False)
    assert page["cautions"] == ["Who is who is doubtful."] and "do not contain" not in page["texts"]
    assert page["answer"].startswith("By SVI, mean field, the first method of this run: From scalars of the")


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [
        (NOTHING, "+1.0 points (95 % interval -2.0 to +3.0); the interval holds zero, so the posterior is not shown"),
        (Estimate(0.05, 0.01, 0.08), "+5.0 points (95 % interval +1.0 to +8.0); the posterior names more"),
        (Estimate(-0.05, -0.08, -0.01), "-5.0 points (95 % interval -8.0 to -1.0); the control names more"),
        (Estimate(0.0, 0.0, 0.0), "the interval holds zero"),
    ],
)
def test_the_first_sentence_says_what_the_table_says(
    monkeypatch: pytest.MonkeyPatch, difference: Estimate, verdict: str
) -> None:
    answer = said(monkeypatch, {"svi": result(0.6, difference=difference)})["answer"]
    assert answer.count(verdict) == 2  # for scalars and for scalars with the profile
    assert "its best control (scalars of the noise, not fitted)" in answer


def test_what_makes_figures_doubtful_stands_first(monkeypatch: pytest.MonkeyPatch) -> None:
    biased = Estimate(0.1, 0.12, 0.3)
    page = said(monkeypatch, {"svi": result(0.6, 4, biased, **STEEP), "swag": result(0.6, 4)}, quick=True)
    quick, _, fit, people = page["cautions"]
    assert quick == QUICK
    assert fit == "The fit by SVI, mean field has not converged: 40 nats to gain: raise epochs."
    assert (
        people
        == "Few people: intervals over 4 people are too short: add people, or give the test more of them (--split)."
    )
    assert "do not contain their own figure: expected calibration error (SVI, mean field)." in page["texts"]
    assert "few people" in page["texts"]


def test_the_page_says_on_how_many_folds_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    one, four = result(0.6), result(0.6)
    four.attrs["folds"] = 4
    assert "fold" not in said(monkeypatch, {"svi": one})["answer"]
    page = said(monkeypatch, {"svi": four})
    assert "These figures stand on 10 people in 4 folds; each person was judged once" in page["answer"]
    four["metrics"].attrs["people"] = 4
    (_, few) = said(monkeypatch, {"svi": four})["cautions"]
    assert few == "Few people: intervals over 4 people are too short: add people."


@pytest.mark.parametrize(("ece", "said"), [(ECE, ""), (Estimate(0.1, 0.12, 0.3), "do not contain their own figure")])
def test_the_screen_says_which_intervals_lack_their_figure(
    ece: Estimate, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tables", "metrics", "headline"):
        monkeypatch.setattr(presentation, name, lambda *_: {})
    monkeypatch.setattr(figures, "figures", lambda *_: {})
    images = MagicMock(manifest=pd.DataFrame())
    images.__len__.return_value = 1
    images.__getitems__ = lambda rows: [(torch.zeros(3, 2, 2), 0) for _ in rows]
    shown = presentation.present(xr.DataTree.from_dict({"svi": result(0.6, ece=ece)}), [MagicMock(test=images)], {})
    assert said in shown.summary.answer and bool(said) == bool(shown.summary.answer)

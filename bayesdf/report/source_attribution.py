"""What a run of the source attribution study shows: figures, tables, flat metrics, and the page.

`results` maps the name of a method to its DataTree, as `bayesdf.experiments.source_attribution.study` returns it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

import bayesdf.analysis as analysis
from bayesdf.analysis import Estimate
from bayesdf.report.figures import (
    certainty_sheet,
    confusion_matrix,
    reliability_diagram,
    sample_sheet,
    source_accuracy,
    uncertainty_by_source,
)
from bayesdf.report.methods import EXPLAINED, METHODS, converged, unconverged, verdict, verdicts
from bayesdf.report.page import GLOSSARY, Drawing, Picture, Section, Table, of_quick, write_page

MAIN = "uncertainty"
CONTROL = "mean_probability"
SETS = {
    "uncertainty": "uncertainty: scalars and profile",
    "uncertainty_scalars": "uncertainty: scalars alone",
    "mean_probability": "control: mean probability alone",
    "penultimate_features": "ceiling: the network's features",
}
"""The feature sets from which the source is told, and how they are called in figures."""

DETECTION = {
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "accuracy_manipulations": "accuracy on manipulations (fakes of people)",
    "accuracy_new_faces": "accuracy on new faces (fakes of nobody)",
    "auroc": "AUROC",
    "ece": "expected calibration error",
    "ece_balanced": "expected calibration error, balanced",
    "nll": "negative log-likelihood (nats)",
    "brier": "Brier score",
}
"""Figures of detection, and how they are called on the page."""
DRAWN = (
    "Intervals are those of a bootstrap that draws people, a swapped face with both of its people, and keeps the "
    "number of images of each source."
)
"""What the intervals stand on."""
KINDS = {"manipulations": "manipulations", "new_faces": "new faces"}
"""Kinds of fakes, and how they are called; a pooled figure depends on how many there are of each."""
FEW = 5
"""Fewer people than these are worth a warning: see `bayesdf.analysis.intervals`."""

Results = Mapping[str, xr.DataTree]


def metrics(results: Results) -> dict[str, float | int | str]:
    """All figures under flat names: ``svi.detection.ece``, ``svi.source.uncertainty.accuracy.low``, …"""
    flat: dict[str, float | int | str] = {}
    for name, tree in results.items():
        detection = tree["metrics"].to_dataset()
        flat |= analysis.flatten(detection, f"{name}.detection.")
        flat |= {f"{name}.detection.{key}": detection.attrs[key] for key in ("images", "clusters", "people")}
        flat |= {f"{name}.fit.converged": int(converged(tree)), f"{name}.fit.verdict": verdict(tree)}
        for row, values in _sources(tree).iterrows():
            flat |= {f"{name}.source.{row}.{key}": float(value) for key, value in values.items()}
        for source, share in _caught(tree).iterrows():
            flat |= {f"{name}.detection.{source}.{key}": float(value) for key, value in share.items()}
    return flat


def tables(results: Results, manifest: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tables by name; a method's are called after it."""
    counts = manifest.groupby(["source", "split"]).size().unstack(fill_value=0)
    people = manifest[manifest["subject"] != ""].groupby("split")["subject"].nunique()
    made = {"images": pd.concat([counts, people.rename("subjects").to_frame().T])}
    detection = {METHODS[name]: analysis.flatten(tree["metrics"].to_dataset()) for name, tree in results.items()}
    made["verdicts"] = verdicts({METHODS[name]: tree for name, tree in results.items()})
    made["detection"] = pd.DataFrame.from_dict(detection, orient="index")
    for name, tree in results.items():
        made[f"{name}_detection_by_source"] = _caught(tree)
        made[f"{name}_source"] = _sources(tree)
        made[f"{name}_confusion"] = analysis.confusion(tree[f"attribution/{MAIN}"].to_dataset())
        made[f"{name}_uncertainty"] = _per_image(tree)
    return made


def figures(results: Results, images: NDArray[np.floating], manifest: pd.DataFrame) -> dict[str, Figure]:
    """Figures by name; a method's are called after it.

    Parameters
    ----------
    images
        The test images, float (N, H, W, 3) in [0, 1], in the order of the results.
    manifest
        Their rows.
    """
    made = {"samples": sample_sheet(images, manifest["source"], title="Photographs and fakes of the test people")}
    for name, tree in results.items():
        label = METHODS[name]
        uncertainty = tree["uncertainty"].to_dataset()
        made[f"{name}_source"] = source_accuracy(
            _sources(tree).rename(index=SETS),
            title=f"{label}: how often a fake's generator is named",
            unit="fakes",
        )
        made[f"{name}_confusion"] = confusion_matrix(
            analysis.confusion(tree[f"attribution/{MAIN}"].to_dataset()),
            title=f"{label}: generators named from uncertainty",
        )
        made[f"{name}_uncertainty"] = uncertainty_by_source(uncertainty, title=f"{label}: why the detector is unsure")
        made[f"{name}_reliability"] = reliability_diagram(
            analysis.reliability(tree),
            analysis.estimate(tree["metrics"].to_dataset(), "ece"),
            title=f"{label}: is the detector right as often as it claims?",
        )
        made[f"{name}_faces"] = certainty_sheet(
            images, uncertainty, title=f"{label}: the faces the detector is most and least sure of"
        )
    return made


def people(results: Results) -> int:
    """How many people the figures stand on: those of the test images."""
    return int(next(iter(results.values()))["metrics"].attrs["people"])


def few(people: int) -> str:
    """What to know of intervals over fewer people than `FEW`, and what to do."""
    return f"intervals over {people} people are too short: add people, or give the test more of them (--split)"


def headline(results: Results) -> dict[str, list[str]]:
    """The figures that answer the question, a list over methods for each: text as printed."""

    def figures_of(tree: xr.DataTree) -> dict[str, str]:
        detection = tree["metrics"].to_dataset()
        sources = _sources(tree)
        cells = {
            "the fit": "converged" if converged(tree) else "NOT converged",
            "real against fake: balanced accuracy": str(analysis.estimate(detection, "balanced_accuracy")),
            **{
                f"{KINDS[kind]} called fake": str(analysis.estimate(detection, f"accuracy_{kind}"))
                for kind in KINDS
                if f"accuracy_{kind}" in detection
            },
            "real against fake: AUROC": str(analysis.estimate(detection, "auroc")),
            "expected calibration error": str(analysis.estimate(detection, "ece")),
        }
        for key, label in SETS.items():
            cells[f"source from {label}"] = str(_estimate(sources, key, "accuracy"))
            if key == MAIN:
                cells |= {f"    of {KINDS[kind]}": str(share) for kind, share in _by_kind(sources).items()}
        cells["uncertainty over mean probability"] = str(_estimate(sources, MAIN, "accuracy_ratio"))
        cells["chance"] = f"{_chance(sources):.3f}"
        return cells

    columns = [figures_of(tree) for tree in results.values()]
    return {label: [column[label] for column in columns] for label in columns[0]}


def page(
    path: Path,
    results: Results,
    figures: Mapping[str, Drawing],
    tables: Mapping[str, pd.DataFrame],
    settings: Mapping[str, Any],
    notes: Sequence[str],
    credit: str,
) -> None:
    """Write the report.

    Parameters
    ----------
    notes
        What a reader must know of how this run was made, a sentence or two each.
    """
    named = {name: _estimate(_sources(tree), MAIN, "accuracy").value for name, tree in results.items()}
    best = max(named, key=lambda name: named[name])
    tree = results[best]
    sources = _sources(tree)
    accuracy, ratio = _estimate(sources, MAIN, "accuracy"), _estimate(sources, MAIN, "accuracy_ratio")
    detection = tree["metrics"].to_dataset()
    answer = (
        f"From its uncertainty alone, {METHODS[best]}{_standing(best, named)} "
        f"names the generator of {accuracy.value:.0%} of the fakes of people never seen before "
        f"(95 % interval {accuracy.low:.0%} to {accuracy.high:.0%}); guessing would name "
        f"{_chance(sources):.0%}, and the mean probability alone "
        f"{_estimate(sources, CONTROL, 'accuracy').value:.0%}, so uncertainty names {ratio.value:.2f} times as many. "
        f"{_kinds_apart(sources)}"
        f"The detector tells real from fake with a balanced accuracy of "
        f"{analysis.estimate(detection, 'balanced_accuracy').value:.2f}."
    )
    sections = [
        Section(
            "The images",
            [
                *notes,
                Picture(figures["samples"], "A row for each source, drawn at random from the test people."),
                Table(tables["images"], "Images by source and split, and the number of people in each split."),
            ],
        ),
        Section(
            "Real or fake",
            [
                "How well each method tells photographs from fakes of people that it never saw. Balanced accuracy "
                "counts photographs and fakes alike; the calibration error says how far claimed confidence is from "
                "the share that is right: once with all images weighing alike, once with photographs and fakes as "
                "classes weighing alike (balanced), since there are more fakes than photographs.",
                Table(
                    _side_by_side(results), f"Each figure with its 95 % interval over {people(results)} people. {DRAWN}"
                ),
                *_outside(results),
                Table(tables["verdicts"], EXPLAINED),
                *(part for name in results for part in _detection(name, figures, tables)),
            ],
        ),
        *(_method(name, figures, tables) for name in results),
    ]
    write_page(
        path,
        "Who made this fake? Attribution from uncertainty",
        sections,
        question="A detector answers real or fake. Does it betray, by how unsure it is, who made a fake?",
        answer=answer,
        cautions=[
            *of_quick(settings),
            *unconverged(tables["verdicts"]),
            *([f"Few people: {few(people(results))}."] if people(results) < FEW else []),
        ],
        highlights={
            f"{METHODS[name]}: source from uncertainty": _estimate(_sources(tree), MAIN, "accuracy")
            for name, tree in results.items()
        },
        settings=settings,
        credits=[f"Photographs: {credit}."] if credit else [],
        glossary=GLOSSARY,
    )


def _standing(best: str, named: Mapping[str, float]) -> str:
    """How the method that names most sources stands beside the others, in brackets; nothing where it is alone."""
    level = [METHODS[name] for name, value in named.items() if value == named[best] and name != best]
    if level:
        return f" (no better here than {', '.join(level)})"
    return f" (the {'better' if len(named) == 2 else 'best'} method here)" if len(named) > 1 else ""


def _outside(results: Results) -> list[str]:
    """A note on the intervals that do not contain their own figure, if there are any."""
    found = []
    for name, tree in results.items():
        detection = tree["metrics"].to_dataset()
        for key, label in DETECTION.items():
            if key in detection:
                value, low, high = analysis.estimate(detection, key)
                if value < low or value > high:
                    found.append(f"{label} ({METHODS[name]})")
    if not found:
        return []
    return [
        f"These intervals do not contain their own figure: {', '.join(found)}. This happens with few people: a "
        "resample holds fewer different people than the test, and figures such as the calibration error grow when "
        "people are fewer. Read such an interval as too high or too low by that much."
    ]


def _by_kind(sources: pd.DataFrame) -> dict[str, Estimate]:
    """The share named rightly of manipulations and of new faces, from uncertainty; nothing unless there are both."""
    return {kind: _estimate(sources, MAIN, f"accuracy_{kind}") for kind in KINDS if f"accuracy_{kind}" in sources}


def _kinds_apart(sources: pd.DataFrame) -> str:
    """The two kinds of fakes as a sentence; nothing unless there are both."""
    shares = [
        f"{share.value:.0%} of {KINDS[kind]} ({share.low:.0%} to {share.high:.0%})"
        for kind, share in _by_kind(sources).items()
    ]
    return f"It names {' and '.join(shares)}. " if shares else ""


def _detection(name: str, figures: Mapping[str, Drawing], tables: Mapping[str, pd.DataFrame]) -> list[Picture | Table]:
    label = METHODS[name]
    return [
        Table(tables[f"{name}_detection_by_source"], f"{label}: share judged rightly, source by source."),
        Picture(
            figures[f"{name}_reliability"],
            "Above: the share of images judged rightly against the confidence claimed for them. Below: how many images "
            "each bar stands on.",
        ),
    ]


def _method(name: str, figures: Mapping[str, Drawing], tables: Mapping[str, pd.DataFrame]) -> Section:
    return Section(
        f"The source, by {METHODS[name]}",
        [
            "A classifier learns the generators from figures of the posterior draws alone and is judged on people that "
            "neither it nor the detector has seen. It is given two kinds: scalars, such as aleatoric and epistemic "
            "uncertainty and the spread of the draws, and the profile, which says draw by draw how far the log-odds "
            "lie from their mean: not what the detector believes, but which of its draws dissent, and which way. "
            "None of them is a function of the mean probability, which stands beside them as a control: all that a "
            "detector without uncertainty would report. The ceiling is a classifier on the network's own features; the "
            "profile sees these through the eyes of the posterior, as some tens of random projections.",
            Picture(
                figures[f"{name}_source"],
                f"Bars: share of fakes whose generator is named; lines: 95 % intervals over people. {DRAWN}",
            ),
            Picture(figures[f"{name}_confusion"], "Rows: who made the fake. Columns: who was named."),
            Picture(
                figures[f"{name}_uncertainty"],
                "Right: the draws find the image ambiguous. Up: the draws disagree. A generator with a place of its "
                "own can be told by it.",
            ),
            Picture(
                figures[f"{name}_faces"],
                "The extremes, to be looked at: what makes the detector sure or unsure.",
            ),
            Table(tables[f"{name}_source"], "All figures of the attribution, by what the classifier was given."),
        ],
    )


def _sources(tree: xr.DataTree) -> pd.DataFrame:
    """A row a feature set, as `bayesdf.analysis.summarise` made it."""
    return tree.children["attribution"].to_dataset(inherit=False).to_dataframe().loc[list(SETS)]


def _estimate(sources: pd.DataFrame, features: str, name: str) -> Estimate:
    """A figure of a feature set, with its interval."""
    return Estimate(*(float(sources[column][features]) for column in (name, f"{name}.low", f"{name}.high")))


def _chance(sources: pd.DataFrame) -> float:
    return float(sources["chance"][MAIN])


def _per_image(tree: xr.DataTree) -> pd.DataFrame:
    """A row an image: where it is from, and how sure the detector is."""
    uncertainty = tree["uncertainty"].to_dataset()
    one = [name for name, variable in uncertainty.variables.items() if variable.dims == ("image",)]
    frame = uncertainty[one].to_dataframe()
    frame["p_fake"] = uncertainty["probability"].sel({"class": "fake"}).values
    return frame


def _side_by_side(results: Results) -> pd.DataFrame:
    """A row a figure of detection, a column a method: text as printed."""
    columns = {}
    for name, tree in results.items():
        detection = tree["metrics"].to_dataset()
        columns[METHODS[name]] = {
            label: str(analysis.estimate(detection, key)) for key, label in DETECTION.items() if key in detection
        }
    return pd.DataFrame(columns).rename_axis("figure")


def _caught(tree: xr.DataTree) -> pd.DataFrame:
    """For each source the number of test images and the share judged rightly, with its interval over people."""
    uncertainty = tree["uncertainty"].to_dataset()
    right = (uncertainty["prediction"] == uncertainty["label"]).values.astype(float)
    rows = {}
    for source in np.unique(uncertainty["source"].values):
        own = np.flatnonzero(uncertainty["source"].values == source)
        people = analysis.design(uncertainty.isel(image=own), len(own))
        share = analysis.cluster_bootstrap(np.mean, [right[own]], **people)
        rows[str(source)] = {
            "images": len(own),
            "right": share.value,
            "right.low": share.low,
            "right.high": share.high,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("source")

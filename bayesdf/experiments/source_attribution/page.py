"""What does the page of a run say, and what the screen?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

import bayesdf.analysis as analysis
import bayesdf.data as data
from bayesdf.analysis import Estimate
from bayesdf.experiments.experiment import Presentation, Summary
from bayesdf.experiments.source_attribution.feature_sets import FORMS, MAIN, SCALARS, SETS
from bayesdf.experiments.source_attribution.gain import best, claim
from bayesdf.experiments.source_attribution.notes import notes
from bayesdf.experiments.source_attribution.tables import (
    Results,
    basis,
    by_feature_set,
    chance,
    estimate,
    folds,
    gain,
    metrics,
    people,
    raw_metrics,
    tables,
)
from bayesdf.report.methods import EXPLAINED, METHODS, converged, unconverged
from bayesdf.report.page import GLOSSARY, Drawing, Picture, Section, Table, of_quick, sentence, write_page

DETECTION = {
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "accuracy_manipulations": "accuracy on manipulations (fakes of people)",
    "accuracy_new_faces": "accuracy on new faces (fakes of nobody)",
    "auroc": "AUROC",
    "ece": "expected calibration error",
    "ece_balanced": "expected calibration error, balanced",
    "ece_smooth": "smooth calibration error",
    "nll": "negative log-likelihood (nats)",
    "brier": "Brier score",
    "fpr_at_95_tpr": "photographs called fake where 95 % of fakes are found",
}
"""Figures of detection, and how they are called on the page."""
BEFORE = "before recalibration"
"""Said of figures of the predictions as the posterior made them."""
DRAWN = (
    "Intervals are those of a bootstrap that draws people, a swapped face with both of its people, and keeps the "
    "number of images of each source."
)
"""What the intervals stand on."""
BY_FOLD = (
    "fold by fold, the number of images and people judged, and the fold's own figures. They differ by who is judged "
    "and by who was learnt from."
)
KINDS = {"manipulations": "manipulations", "new_faces": "new faces"}
"""Kinds of fakes, and how they are called; a pooled figure depends on how many there are of each."""
FEW = 5
"""Fewer people than these are worth a warning: see `bayesdf.analysis.intervals`."""


def present(tree: xr.DataTree, collections: Sequence[data.Collection], settings: Mapping[str, Any]) -> Presentation:
    """What a run shows, from its DataTree.

    Parameters
    ----------
    collections
        The images of each fold.
    settings
        As the page shows them.
    """
    from bayesdf.experiments.source_attribution.figures import figures

    results = dict(tree.children)
    first = next(iter(results.values()))
    made = tables(results, collections)
    images = np.concatenate([_pictures(collection.test) for collection in collections])
    manifest = pd.concat([collection.test.manifest for collection in collections], ignore_index=True)

    def write(path: Path, pictures: Mapping[str, bytes]) -> None:
        cautions = data.people_cautions(collections[0].manifest)
        page(path, results, pictures, made, settings, notes(collections, settings), collections[0].credit, cautions)

    return Presentation(
        metrics=metrics(results),
        tables=made,
        figures=figures(results, images, manifest),
        page=write,
        summary=Summary(
            title=f"People the detector never saw (95 % intervals over {basis(first)})",
            columns=("", *(METHODS[name] for name in results)),
            rows=[(label, *cells) for label, cells in headline(results).items()],
            answer=" ".join(_outside(results)),
            warnings=[few(first)] if people(first) < FEW else [],
        ),
    )


def few(tree: xr.DataTree) -> str:
    """What to know of intervals over fewer people than `FEW`, and what to do."""
    more = "" if folds(tree) > 1 else ", or give the test more of them (--split)"
    return f"intervals over {people(tree)} people are too short: add people{more}"


def _pictures(images: data.ImageDataset) -> NDArray[np.float32]:
    """All images of a data set, (N, H, W, 3) in [0, 1]."""
    rows = list(range(len(images)))
    return np.stack([image.permute(1, 2, 0).numpy() for image, _ in images.__getitems__(rows)])


def headline(results: Results) -> dict[str, list[str]]:
    """The figures that answer the question, a list over methods for each: text as printed."""

    def figures_of(tree: xr.DataTree) -> dict[str, str]:
        detection = tree["metrics"].to_dataset()
        sources = by_feature_set(tree)
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
            **{f"    {BEFORE}": str(analysis.estimate(raw, "ece")) for raw in [raw_metrics(tree)] if "ece" in raw},
        }
        for key, label in SETS.items():
            cells[f"source from {label}"] = str(estimate(sources, key, "accuracy"))
            if key == MAIN:
                cells |= {f"    of {KINDS[kind]}": str(share) for kind, share in _by_kind(sources).items()}
        cells["scalars over mean probability (ratio)"] = str(estimate(sources, SCALARS, "accuracy_ratio"))
        for features, form in FORMS.items():
            control, difference = best(gain(tree), features)
            cells[f"{form} less their best control"] = str(difference)
            cells[f"    the best control of {form}"] = SETS[control].removeprefix("control: ")
        cells["chance"] = f"{chance(sources):.3f}"
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
    cautions: Sequence[str] = (),
) -> None:
    """Write the report.

    Parameters
    ----------
    notes
        What a reader must know of how this run was made, a sentence or two each.
    cautions
        What makes the images doubtful.
    """
    first = next(iter(results))
    tree = results[first]
    sources = by_feature_set(tree)
    detection = tree["metrics"].to_dataset()
    named = {str(name): float(value) for name, value in sources["accuracy"].items()}
    answer = (
        f"By {METHODS[first]}{', the first method of this run' if len(results) > 1 else ''}: "
        f"{claim(gain(tree), named)} Guessing would name {chance(sources):.1%}, and the network's "
        f"own features {estimate(sources, 'penultimate_features', 'accuracy').value:.1%}. {_kinds_apart(sources)}"
        f"The detector tells real from fake with a balanced accuracy of "
        f"{analysis.estimate(detection, 'balanced_accuracy').value:.2f}. {_cross_fitted(tree)}".strip()
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
                "classes weighing alike (balanced), since there are more fakes than photographs. It is told after "
                f"recalibration on the validation people, and {BEFORE}: with few such people it may be the better one.",
                Table(_side_by_side(results), f"Each figure with its 95 % interval over {basis(tree)}. {DRAWN}"),
                *_outside(results),
                Table(tables["verdicts"], EXPLAINED),
                *(part for name in results for part in _detection(name, figures, tables)),
                *(Table(tables[f"{name}_folds"], f"{METHODS[name]}: {BY_FOLD}") for name in results if folds(tree) > 1),
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
            *map(sentence, cautions),
            *unconverged(tables["verdicts"]),
            *([f"Few people: {few(tree)}."] if people(tree) < FEW else []),
        ],
        highlights={
            f"{METHODS[name]}: source from uncertainty": estimate(by_feature_set(tree), MAIN, "accuracy")
            for name, tree in results.items()
        },
        settings=settings,
        credits=[f"Photographs: {credit}."] if credit else [],
        glossary=GLOSSARY,
    )


def _cross_fitted(tree: xr.DataTree) -> str:
    """On how many folds the answer stands, as a sentence; nothing for a single one."""
    if folds(tree) == 1:
        return ""
    return (
        f"These figures stand on {people(tree)} people in {folds(tree)} folds; each person was judged once, by a "
        "detector that learnt from others. "
    )


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
    return {kind: estimate(sources, MAIN, f"accuracy_{kind}") for kind in KINDS if f"accuracy_{kind}" in sources}


def _kinds_apart(sources: pd.DataFrame) -> str:
    """The two kinds of fakes as a sentence; nothing unless there are both."""
    shares = [
        f"{share.value:.0%} of {KINDS[kind]} ({share.low:.0%} to {share.high:.0%})"
        for kind, share in _by_kind(sources).items()
    ]
    return f"Scalars and profile name {' and '.join(shares)}. " if shares else ""


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
            "A classifier learns the generators from figures of the posterior draws alone. It is judged on people that "
            "neither it nor the detector has seen. It is given two kinds of figures. Scalars are aleatoric and "
            "epistemic uncertainty, the spread of the draws and others. The profile says draw by draw how far the "
            "log-odds lie from their mean. None of them is a function of the mean probability.",
            "Controls go through the same steps. The noise has the size of this posterior's spread, around the weights "
            "that the fit began with: nothing was fitted. The untrained network has the same noise. The random "
            "projection has as many numbers of the network's features as the profile has, and the small one as many as "
            "there are scalars: features seen along random directions, with no draws. The mean probability is all "
            "that a detector without uncertainty would report. The ceiling is a classifier on all of the features.",
            Table(
                tables[f"{name}_gain"],
                "What the posterior adds over each control: the difference of the shares named, with a paired 95 % "
                "interval over people. Best: the control that names most.",
            ),
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
                figures[f"{name}_maps"],
                "Where in the picture these detectors see a fake, and where they are unsure. How true such maps are is "
                "another question: `python -m bayesdf.experiments.uncertainty_maps` asks it.",
            ),
            Picture(
                figures[f"{name}_faces"],
                "The extremes, to be looked at: what makes the detector sure or unsure.",
            ),
            Table(tables[f"{name}_source"], "All figures of the attribution, by what the classifier was given."),
        ],
    )


def _side_by_side(results: Results) -> pd.DataFrame:
    """A row a figure of detection, a column a method: text as printed."""
    columns = {}
    for name, tree in results.items():
        detection = tree["metrics"].to_dataset()
        columns[METHODS[name]] = {
            f"{label}{of}": str(analysis.estimate(part, key))
            for key, label in DETECTION.items()
            for part, of in ((detection, ""), (raw_metrics(tree), f", {BEFORE}"))
            if key in part
        }
    return pd.DataFrame(columns).rename_axis("figure")

"""What does the page of a run say, and what the screen?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

import bayesdf.analysis as analysis
import bayesdf.data as data
from bayesdf.analysis import Estimate
from bayesdf.experiments import warm_start
from bayesdf.experiments.experiment import Presentation, Summary
from bayesdf.experiments.source_attribution.tables import (
    CONTROL,
    MAIN,
    SETS,
    Results,
    by_feature_set,
    chance,
    estimate,
    metrics,
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
LACKING = (
    "Two controls are not in this run: noise of the same size without inference, and a start that has never seen the "
    "sources. Without them it does not show what inference adds."
)
"""What to know before the answer is taken for a merit of the posterior."""
KINDS = {"manipulations": "manipulations", "new_faces": "new faces"}
"""Kinds of fakes, and how they are called; a pooled figure depends on how many there are of each."""
FEW = 5
"""Fewer people than these are worth a warning: see `bayesdf.analysis.intervals`."""


def present(tree: xr.DataTree, collection: data.Collection, settings: Mapping[str, Any]) -> Presentation:
    """What a run shows, from its DataTree.

    Parameters
    ----------
    collection
        The images it was made with.
    settings
        As the page shows them.
    """
    from bayesdf.experiments.source_attribution.figures import figures

    results = dict(tree.children)
    made = tables(results, collection.manifest)
    rows = list(range(len(collection.test)))
    images = np.stack([image.permute(1, 2, 0).numpy() for image, _ in collection.test.__getitems__(rows)])

    def write(path: Path, pictures: Mapping[str, bytes]) -> None:
        cautions = data.people_cautions(collection.manifest)
        page(path, results, pictures, made, settings, _notes(collection, settings), collection.credit, cautions)

    count = people(results)
    return Presentation(
        metrics=metrics(results),
        tables=made,
        figures=figures(results, images, collection.test.manifest),
        page=write,
        summary=Summary(
            title=f"People the detector never saw (95 % intervals over {count} people)",
            columns=("", *(METHODS[name] for name in results)),
            rows=[(label, *cells) for label, cells in headline(results).items()],
            answer=" ".join(_outside(results)),
            warnings=[few(count)] if count < FEW else [],
        ),
    )


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
        cells["uncertainty over mean probability"] = str(estimate(sources, MAIN, "accuracy_ratio"))
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
    named = {name: estimate(by_feature_set(tree), MAIN, "accuracy").value for name, tree in results.items()}
    best = max(named, key=lambda name: named[name])
    tree = results[best]
    sources = by_feature_set(tree)
    accuracy, ratio = estimate(sources, MAIN, "accuracy"), estimate(sources, MAIN, "accuracy_ratio")
    detection = tree["metrics"].to_dataset()
    answer = (
        f"From its uncertainty alone, {METHODS[best]}{_standing(best, named)} "
        f"names the generator of {accuracy.value:.0%} of the fakes of people never seen before "
        f"(95 % interval {accuracy.low:.0%} to {accuracy.high:.0%}); guessing would name "
        f"{chance(sources):.0%}, and the mean probability alone "
        f"{estimate(sources, CONTROL, 'accuracy').value:.0%}, so uncertainty names {ratio.value:.2f} times as many. "
        f"{_kinds_apart(sources)}"
        f"The detector tells real from fake with a balanced accuracy of "
        f"{analysis.estimate(detection, 'balanced_accuracy').value:.2f}. {LACKING}"
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
            *map(sentence, cautions),
            *unconverged(tables["verdicts"]),
            *([f"Few people: {few(people(results))}."] if people(results) < FEW else []),
        ],
        highlights={
            f"{METHODS[name]}: source from uncertainty": estimate(by_feature_set(tree), MAIN, "accuracy")
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
    return {kind: estimate(sources, MAIN, f"accuracy_{kind}") for kind in KINDS if f"accuracy_{kind}" in sources}


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


def _notes(collection: data.Collection, settings: Mapping[str, Any]) -> list[str]:
    """What a reader must know of the images and of the start, to judge the figures."""
    notes = [
        f"{data.describe_people(collection.manifest)}. Train, validation and test share none of these people. Every "
        "image, real or fake, went through the same crop, resize, 8-bit and JPEG steps before the training."
    ]
    if collection.name == "embedded":
        notes.append(
            "The photographs are 400 pictures of 40 people; nine generators made as many fakes each. Five draw new "
            "faces, of nobody, and were trained on the 30 people of training and validation; four work on the "
            "photographs, and the two of these that have a network were trained on all 40 people, as a forger's would "
            "be on his victims. The second person of a swap comes from the same split, and within the test from the "
            "same group of three or four people."
        )
    notes.append(
        "All logits were multiplied by one number and shifted by another before anything else was computed from them, "
        "as makes the validation people's images most probable (`recalibration` in run.zarr): a detector is surer of "
        "the people it was trained on than of strangers. `posteriors/` holds the posteriors as fitted."
    )
    if warm_start.ships(str(settings["detector"]), collection):
        notes.append(
            "The network started from weights trained beforehand on the training people alone (a warm start, which "
            "comes with the package), to tell their sources, photographs being one. No validation or test person was "
            "seen by those weights."
        )
    else:
        notes.append(
            "The network was trained from scratch on the training split, to tell the sources, before the posteriors of "
            "real against fake were fitted."
        )
    notes.append(
        "SVI's posterior is over the classifier's weights and the gains and shifts of the normalisation before it, "
        "those with priors centred on the start; MC dropout's is over masks of the channels of the last stage. All "
        "weights before the first of these stay as they were."
    )
    return notes

"""What does the page of a run over a table of scores say, and what the screen?"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr

import bayesdf.analysis as analysis
from bayesdf.experiments.experiment import Presentation, Summary
from bayesdf.experiments.source_attribution.feature_sets import MAIN, MEAN, SCALARS
from bayesdf.experiments.source_attribution.gain import best, claim
from bayesdf.experiments.source_attribution.page import DETECTION, DRAWN, FEW
from bayesdf.experiments.source_attribution.score_file import certainty
from bayesdf.experiments.source_attribution.score_tables import (
    CELL,
    GIVEN,
    RECALIBRATED,
    SETS,
    by_feature_set,
    calibration,
    metrics,
    tables,
)
from bayesdf.experiments.source_attribution.tables import chance, estimate, gain
from bayesdf.report.page import GLOSSARY, Drawing, Picture, Section, Table, sentence, write_page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WORDS = {
    **{word: text for word, text in GLOSSARY.items() if word not in ("posterior", "draw", "detector")},
    "detector": "What gave the scores of one column of the table.",
    "aleatoric uncertainty": (
        "Mean entropy of the detectors' own predictions, in nats: what every detector finds ambiguous in the image."
    ),
    "epistemic uncertainty": "Total less aleatoric: how much the detectors disagree about the image.",
    "epistemic profile": (
        "How far each detector's log-odds lie from their mean over detectors: which detectors dissent about an image, "
        "and which way. Its mean is zero for every image."
    ),
    "mean probability": (
        "The average over detectors of the probability that an image is fake: what they say together, without their "
        "disagreement."
    ),
    "recalibration": (
        "The mean prediction is mapped to the share of fakes among images of such a prediction (beta calibration; "
        "isotonic regression for votes). The map of each image was fitted on images of other people. All detectors' "
        "log-odds of an image are shifted alike, so their disagreement stays."
    ),
    "smooth calibration error": (
        "A calibration error of P(fake) without bins: residuals are smoothed by a kernel whose width equals the error."
    ),
}


def present(tree: xr.DataTree, settings: Mapping[str, Any]) -> Presentation:
    """What a run shows, from its DataTree."""
    result = tree.children[CELL]
    made = tables(result)

    def write(path: Path, pictures: Mapping[str, bytes]) -> None:
        page(path, result, pictures, made, settings)

    count = people(result)
    return Presentation(
        metrics=metrics(result),
        tables=made,
        figures=figures(result),
        page=write,
        summary=Summary(
            title=f"Scores of {result.attrs['detectors']} detectors (95 % intervals over {count} people)",
            columns=("", "figure"),
            rows=list(headline(result).items()),
            answer=first_sentence(result),
            warnings=[few(count)] if count < FEW else [],
        ),
    )


def figures(tree: xr.DataTree) -> dict[str, "Figure"]:
    """Figures by name."""
    from bayesdf.experiments.source_attribution.figures import source_accuracy, uncertainty_by_source
    from bayesdf.report.reliability_and_confusion import confusion_matrix, reliability_diagram

    return {
        "source": source_accuracy(
            by_feature_set(tree).rename(index=SETS), title="How often a fake's generator is named", unit="fakes"
        ),
        "confusion": confusion_matrix(
            analysis.confusion(tree[f"attribution/{MAIN}"].to_dataset()),
            title="Generators named from the detectors' disagreement",
        ),
        "uncertainty": uncertainty_by_source(
            tree["uncertainty"].to_dataset(), title="Why the detectors together are unsure"
        ),
        "reliability": reliability_diagram(
            analysis.reliability(tree),
            analysis.estimate(tree["metrics"].to_dataset(), "ece"),
            title="Is the recalibrated mean right as often as it claims?",
        ),
    }


def people(tree: xr.DataTree) -> int:
    """How many people the figures stand on."""
    return int(tree["metrics"].attrs["people"])


def few(people: int) -> str:
    """What to know of intervals over fewer people than `FEW`."""
    return f"intervals over {people} people are too short: add people"


def first_sentence(tree: xr.DataTree) -> str:
    """Whether the disagreement of detectors names more than the best control that has none of it."""
    accuracy = {str(name): float(value) for name, value in by_feature_set(tree)["accuracy"].items()}
    return claim(gain(tree), accuracy, sets=SETS, of="the detectors' disagreement", who="the disagreement")


def headline(tree: xr.DataTree) -> dict[str, str]:
    """The figures that answer the question, as printed."""
    detection, sources, table = tree["metrics"].to_dataset(), by_feature_set(tree), calibration(tree)
    cells = {
        "real against fake: AUROC": str(analysis.estimate(detection, "auroc")),
        **{f"calibration error, {name}": str(estimate(table, str(name), "ece")) for name in table.index},
    }
    for key, label in SETS.items():
        cells[f"source from {label}"] = str(estimate(sources, key, "accuracy"))
    for key in (SCALARS, MAIN):
        label = SETS[key].removeprefix("uncertainty: ")
        control, difference = best(gain(tree), key)
        cells[f"{label}, less the best control"] = str(difference)
        cells[f"    the best control of {label}"] = SETS[control].removeprefix("control: ")
    cells["chance"] = f"{chance(sources):.3f}"
    return cells


def page(
    path: Path,
    tree: xr.DataTree,
    figures: Mapping[str, Drawing],
    tables: Mapping[str, pd.DataFrame],
    settings: Mapping[str, Any],
) -> None:
    """Write the report."""
    sources, detection = by_feature_set(tree), tree["metrics"].to_dataset()
    shown = {label: str(analysis.estimate(detection, key)) for key, label in DETECTION.items() if key in detection}
    sections = [
        Section("The scores", [_of_scores(tree), Table(tables["images"], "Images and subjects of each source.")]),
        Section(
            "Real or fake",
            [
                "The mean prediction of the detectors, as given; with all detectors' log-odds scaled and shifted "
                "alike, photographs and fakes weighing alike; and with the mean itself recalibrated, which goes on. "
                "Each map was fitted on other people. Differences are from the predictions as given, paired by image; "
                "negative is better.",
                Table(tables["calibration"], f"Calibration errors and log loss in nats. {DRAWN}"),
                Picture(
                    figures["reliability"],
                    "Above: the share of images judged rightly against the confidence claimed for them. Below: how "
                    "many images each bar stands on.",
                ),
                Table(
                    pd.DataFrame({RECALIBRATED: shown}).rename_axis("figure"),
                    f"Each figure with its 95 % interval over {people(tree)} people.",
                ),
                Table(tables["detection_by_source"], "Share judged rightly, source by source."),
            ],
        ),
        Section(
            "The source",
            [
                "A classifier learns the generators from figures of the scores alone, and is judged on people that it "
                "has not seen. Scalars, such as aleatoric and epistemic uncertainty, say how the detectors disagree, "
                "whoever of them it is. The profile says which detector dissents, and which way. None of them is a "
                "function of the mean probability. The rows below are what could look the same without disagreement: "
                "the mean probability; the one detector that tells real from fake best; and each detector's scores "
                "shuffled among images of the same label, which leaves all but what a score says of its own image. The "
                "ceiling is a classifier on all scores, of which the profile lacks the mean.",
                Picture(
                    figures["source"], f"Bars: share of fakes whose generator is named; lines: 95 % intervals. {DRAWN}"
                ),
                Table(
                    tables["source"].rename(index=SETS),
                    "All figures of the attribution. Ratios and differences are "
                    "to the mean probability, paired by image.",
                ),
                Picture(figures["confusion"], "Rows: who made the fake. Columns: who was named."),
                Picture(
                    figures["uncertainty"],
                    "Right: the detectors find the image ambiguous. Up: the detectors disagree.",
                ),
            ],
        ),
    ]
    write_page(
        path,
        "Who made this fake? Attribution from the disagreement of detectors",
        sections,
        question="Several detectors answer real or fake. Do they betray, by how they disagree, who made a fake?",
        answer=f"{first_sentence(tree)} {_rest(sources, calibration(tree))}",
        cautions=cautions(tree),
        highlights={SETS[key]: estimate(sources, key, "accuracy") for key in (SCALARS, MAIN, MEAN)},
        settings=settings,
        glossary=WORDS,
    )


def _rest(sources: pd.DataFrame, table: pd.DataFrame) -> str:
    """What stands after the first sentence of the answer."""
    shuffled, sharpest, ceiling = (
        estimate(sources, key, "accuracy").value for key in ("shuffled_scores", "best_detector", "detector_scores")
    )
    difference = estimate(table, RECALIBRATED, "ece_difference")
    moved = "lowers" if difference.high < 0 else "raises" if difference.low > 0 else "does not measurably change"
    return (
        f"Guessing would name {chance(sources):.1%}, the best detector alone names {sharpest:.1%}, shuffled scores "
        f"{shuffled:.1%}, and all scores themselves {ceiling:.1%}. The mean probability and the best detector are one "
        "number each: a set of more numbers may name more by that alone. Recalibrating the mean prediction on other "
        f"people {moved} its calibration error: {estimate(table, GIVEN, 'ece').value:.3f} as given, "
        f"{estimate(table, RECALIBRATED, 'ece').value:.3f} afterwards (a difference of {difference.value:+.3f}, "
        f"95 % interval {difference.low:+.3f} to {difference.high:+.3f})."
    )


def cautions(tree: xr.DataTree) -> list[str]:
    """What a reader must know before believing the answer."""
    sources = by_feature_set(tree)
    found = []
    coverage = float(tree.attrs["coverage"])
    if coverage < 1.0:
        found.append(
            f"{1.0 - coverage:.1%} of the images lack a score of some detector and were left out. All figures are of "
            "the others, and hold for images on which every detector works."
        )
    moved = int(tree.attrs["moved"])
    if moved:
        scores = tree["constant_data"].sizes["image"] * int(tree.attrs["detectors"])
        found.append(sentence(certainty(moved, scores)))
    if tree.attrs["scores"] == "vote":
        found.append(
            "Votes have no aleatoric uncertainty, and their scalars are functions of the share of votes. So scalars "
            "can say no more than the mean probability; the profile says who voted how."
        )
    guess = max(chance(sources), float(sources["majority"][MAIN]))
    if estimate(sources, "shuffled_scores", "accuracy").low > guess:
        found.append(
            f"Shuffled scores name more sources than guessing ({guess:.1%}), which should not be: something beside the "
            "scores tells the sources apart, and the other figures are too good by as much."
        )
    if people(tree) < FEW:
        found.append(f"Few people: {few(people(tree))}.")
    return found


def _of_scores(tree: xr.DataTree) -> str:
    """How many images, detectors and people there are, and how the people were kept apart."""
    images, count = tree["constant_data"].sizes["image"], int(tree.attrs["detectors"])
    names = ", ".join(map(str, tree["posterior_predictive"].to_dataset()["detector"].values))
    return (
        f"{count} detectors ({names}) scored {images} images ({tree.attrs['scores']}); {people(tree)} people are in "
        "them. Each detector counts as a draw. Nobody in a judged image, as subject or donor, was in the images on "
        "which its recalibration and its classifier were fitted. Images of one video, or of one group of the table, "
        "stayed together."
    )

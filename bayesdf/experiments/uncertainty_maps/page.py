"""What does the page of a run say, and what the screen?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

import bayesdf.analysis as analysis
import bayesdf.data as data
from bayesdf.analysis import Estimate
from bayesdf.experiments.experiment import Presentation, Summary
from bayesdf.experiments.source_attribution.gain import best as best_control
from bayesdf.experiments.source_attribution.page import FEW
from bayesdf.experiments.uncertainty_maps.conveyance import PATCHES
from bayesdf.experiments.uncertainty_maps.dense import DENSE, DETECTORS, PRIOR
from bayesdf.experiments.uncertainty_maps.halves import NO_HALVES
from bayesdf.experiments.uncertainty_maps.localisation import OTHER, RIVALS
from bayesdf.experiments.uncertainty_maps.source import SETS as SOURCE_SETS
from bayesdf.experiments.uncertainty_maps.tables import (
    best,
    decisive,
    estimate_at,
    estimate_of,
    is_own,
    label,
    metrics,
    tables,
)
from bayesdf.report.page import GLOSSARY, Picture, Section, Table, of_quick, write_page

WORDS = {
    **{
        name: GLOSSARY[name]
        for name in (
            "source",
            "detector",
            "posterior",
            "draw",
            "total uncertainty",
            "aleatoric uncertainty",
            "epistemic uncertainty",
            "95 % interval",
            "nats",
        )
    },
    "map": "A number for each place of a picture, such as how unsure the detector is there.",
    "evidence": "The classifier applied at each location of the last feature map. The mean of its logits over "
    "locations is the image's.",
    "half-changed fake": "A line at a random angle divides the changed pixels. On one side the picture is the fake, on "
    "the other the photograph. Only the changed pixels count, so position alone scores 1/2.",
    "AUROC": "How often a changed pixel has a higher value than one that was not changed: 1 is perfect, 1/2 is chance.",
    "deletion, insertion": "Pixels are blurred, or come back into a blurred picture, in the order of a map. The figure "
    "is the area below the curve of the uncertainty. Deletion: lower is better. Insertion: higher is better.",
    "rank correlation": "Spearman's, of two maps of one picture, over its pixels: 1 for the same order, 0 for "
    "no relation.",
    "random layers": "So many of the last layers have random weights. A map that stays alike does not depend on what "
    "the network has learnt, but on edges of the picture.",
    "ECE": GLOSSARY["expected calibration error"],
    "ece_classwise": "The calibration error of P(changed) itself, at all pixels.",
    "F1, IoU": "Of the pixels called changed (P above 1/2) with those that were changed: 1 is perfect.",
    "best": "Which control of a set names most: 1 for that one.",
    "pointing": "The share of images whose highest pixel is a changed one; where several are highest, the "
    "share of them.",
}
COLUMNS = {
    "auroc": "AUROC, whole fakes",
    "halves_auroc": "AUROC, halves",
    "pointing": "pointing, whole fakes",
    "over_centred": "over the centred Gaussian",
    "halves_over_centred": "over the Gaussian, halves",
    "halves_over_smoothness": "over smoothness, halves",
    "halves_over_deterministic": "over the gradient of P(fake) in one network, halves",
    "halves_over_deterministic_evidence": "over the evidence of P(fake) in one network, halves",
    "halves_over_other_image": "over the map of another picture, halves",
}
"""Columns of the table of localisation that the page shows."""


def present(tree: xr.DataTree, collection: data.Collection, settings: Mapping[str, Any]) -> Presentation:
    """What a run shows, from its DataTree."""
    from bayesdf.experiments.uncertainty_maps.figures import figures

    made = tables(tree)
    return Presentation(
        metrics=metrics(made, tree),
        tables=made,
        figures=figures(tree, made),
        page=lambda path, pictures: page(path, tree, pictures, made, settings, collection),
        summary=Summary(
            title="Test people (95 % intervals over people)",
            columns=("", "figure"),
            rows=list(headline(tree, made).items()),
            answer=answer(tree, made),
            warnings=[_few(tree)] if _people(tree) < FEW else [],
        ),
    )


def _people(tree: xr.DataTree) -> int:
    """How many people the maps were judged on."""
    judged = tree["localisation/test/whole"].to_dataset()
    return analysis.count_people(judged["subject"].values, judged["donor"].values)


def _few(tree: xr.DataTree) -> str:
    """What to know of intervals over fewer people than `FEW`."""
    return f"intervals over {_people(tree)} people are too short: give the test more of them (--split)"


def headline(tree: xr.DataTree, made: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """The figures that answer the question: text as printed."""
    found, chosen, prefix = made["localisation"], best(tree), decisive(tree)
    on = "halves" if prefix else "whole fakes"
    dense, named = made["dense"], made["attribution"]
    rows = {
        f"best map of an uncertainty by validation people ({label(chosen)}): AUROC, {on}": str(
            estimate_of(found, chosen, f"{prefix}auroc")
        ),
        "    less the smoothness of the picture": str(estimate_of(found, chosen, f"{prefix}over_smoothness")),
        "    less the gradient of P(fake) in one network": str(
            estimate_of(found, chosen, f"{prefix}over_deterministic")
        ),
        "    AUROC, whole fakes (position helps)": str(estimate_of(found, chosen, "auroc")),
        f"map of P(fake) by evidence: AUROC, {on}": str(estimate_of(found, "evidence:p_fake", f"{prefix}auroc")),
    }
    for name, called in DETECTORS.items():
        rows[f"{called}: AUROC of pixels"] = str(estimate_of(dense, name, "auroc"))
        rows[f"    {name.replace('_', ' ')}: calibration error of pixels"] = str(estimate_of(dense, name, "ece"))
    for name in ("maps_regions", "maps_regions_noise", "maps_single", "image", "image_maps_regions"):
        rows[f"source from {SOURCE_SETS[name]}"] = str(estimate_of(named, name, "accuracy"))
    rows["chance"] = f"{float(named['chance'].iloc[0]):.3f}"
    return rows


def answer(tree: xr.DataTree, made: Mapping[str, pd.DataFrame]) -> str:
    """What was found, in sentences that the tables decide: also where maps fail."""
    chosen = best(tree)
    table, prefix = made["localisation"], decisive(tree)
    on = "half-changed" if prefix else "whole"

    def compared(name: str) -> str:
        parts = [
            f"{label(name)} has an AUROC of {estimate_of(table, name, f'{prefix}auroc')} on {on} fakes of test people"
        ]
        parts += [
            _verdict(estimate_of(table, name, f"{prefix}{column}"), rival)
            for column, rival in (
                ("over_smoothness", "the smoothness of the picture"),
                ("over_deterministic", "the gradient of P(fake) in one network without draws"),
                ("over_deterministic_evidence", "its evidence of P(fake)"),
            )
        ]
        return ", ".join(parts)

    pixels = made["dense"]
    conveyed = made["conveyance"]["epistemic"].idxmax()
    highest = made["conveyance"].sort_values("epistemic").iloc[-1]
    control, difference = best_control(made["gain"], "maps_regions")
    added, gain = best_control(made["gain"], "image_maps_regions")
    own = estimate_of(made["gain"], "image_maps_regions.image", "difference")
    share = made["attribution"]["accuracy"]
    return " ".join(
        [
            f"Of the maps of uncertainty, the best on validation people, {compared(chosen)}.",
            f"The map of P(fake) by {compared('evidence:p_fake')}.",
            f"The dense detector has a pixel AUROC of {estimate_of(pixels, DENSE, 'auroc')}, the mean mask of the "
            f"training "
            f"images {estimate_of(pixels, PRIOR, 'auroc')}; image by image on whole fakes it is "
            f"{estimate_of(pixels, DENSE, 'image_auroc')} and {estimate_of(pixels, PRIOR, 'image_auroc')}.",
            f"A patch that was never seen raises the epistemic map most by {conveyed} (patch of {highest['patch']}): "
            f"an "
            f"AUROC of {estimate_at(highest, 'epistemic')}.",
            f"From maps and regions of the uncertainty the source of {share['maps_regions']:.1%} of the fakes is named "
            f"(chance {made['attribution']['chance'].iloc[0]:.1%}); the best control "
            f"({SOURCE_SETS[control].removeprefix('control: ')}) names {share[control]:.1%}, "
            f"{_verdict(difference, 'it', points=True)}.",
            f"Added to the image's own uncertainty they give {_verdict(own, 'that alone', points=True)}, and "
            f"{_verdict(gain, f'the best control ({SOURCE_SETS[added]})', points=True)}.",
        ]
    )


def _verdict(difference: Estimate, rival: str, points: bool = False) -> str:
    """A paired difference in words."""
    factor, unit, digits = (100.0, " points", 1) if points else (1.0, "", 2)
    value, low, high = (factor * one for one in difference)
    text = f"{value:+.{digits}f}{unit} from {rival}"
    if np.isnan(low):
        return f"{text} (too few people for an interval)"
    word = "above" if low > 0 else "below" if high < 0 else "the interval holds zero"
    return f"{text} ({low:+.{digits}f} to {high:+.{digits}f}: {word})"


def page(
    path: Path,
    tree: xr.DataTree,
    pictures: Mapping[str, bytes],
    made: Mapping[str, pd.DataFrame],
    settings: Mapping[str, Any],
    collection: data.Collection,
) -> None:
    """Write the report."""
    verdicts = {
        name: str(tree[f"{group}/sample_stats"].attrs.get("verdict", "no verdict"))
        for name, group in {
            "detector": "localisation",
            "detector with another seed": "sanity",
            "dense detector": "dense",
        }.items()
    }
    sections = [
        Section(
            "Maps",
            [
                Picture(
                    pictures["maps"],
                    "Left to right: picture, pixels that the generator changed, P(fake) and both uncertainties at each "
                    "location.",
                ),
                Picture(pictures["methods"], "Where the methods agree, their maps have the same bright places."),
                Picture(pictures["average"], "A generator with a pattern of its own can be told by it."),
            ],
        ),
        Section(
            "Are the maps true?",
            [
                "Generators change the same pixels in nearly every aligned face, so a map that never looks at the "
                "picture finds them. The rivals look at no uncertainty. The map of another picture, by the same "
                "method, knows where masks usually lie and nothing of this one: the table has the difference from "
                "it. With two "
                "classes, the gradient of the total uncertainty is that of P(fake) but for a factor of the image.",
                *(
                    [
                        "Therefore maps are judged twice: on the fakes as they are, and on fakes of which only a "
                        "random half was changed, where position says nothing."
                    ]
                    if decisive(tree)
                    else []
                ),
                Picture(
                    pictures["localisation"],
                    "Right: what the maps know of this picture."
                    if decisive(tree)
                    else "Position alone may explain this.",
                ),
                Table(
                    _localisation(made["localisation"]),
                    "Mean over fakes of which a part was changed. Differences are paired, image by image.",
                ),
                Picture(
                    pictures["curves"],
                    "Lines are of the maps, grey ones of rivals. A blurred picture is more uncertain than any. "
                    "Occlusion "
                    "and superpixels hide parts by the same blur, so the curves favour them.",
                ),
                Table(
                    _named(made["faithfulness"]),
                    "Areas under the curves (nats), and paired differences. Deletion: lower is better. "
                    "Insertion: higher is better.",
                ),
                "Sanity: rank correlation of each map with the same map of other draws, of another fit, and of "
                "networks whose last layers have random weights (Adebayo et al. 2018). A map that survives "
                "shows edges.",
                Table(made["sanity"], "Spearman's rank correlation, mean over images."),
                Table(made["agreement"], "Agreement of methods: rank correlation of their epistemic maps."),
                "Conveyance: " + "; ".join(f"{name}: {what}" for name, what in PATCHES.items()) + ".",
                Picture(
                    pictures["conveyance"],
                    "Epistemic (orange) should be high and aleatoric (blue) should not.",
                ),
                Table(made["conveyance"], "AUROC of the rise against the patch; difference: epistemic less aleatoric."),
            ],
        ),
        Section(
            "A dense detector",
            [
                "It was trained on the masks of the training people, and judged on photographs and on fakes of which a "
                f"part was changed. Its fit: {verdicts['dense detector']}.",
                Picture(pictures["dense"], "Red: the detector takes the location for changed."),
                Table(
                    made["dense"].rename(
                        index={**DETECTORS, "evidence:p_fake": "detector of images: evidence of P(fake)"}
                    ),
                    "Figures of pixels, with 95 % intervals over people. The rival knows where masks usually lie.",
                ),
                Picture(
                    pictures["reliability"],
                    "Above: the share of pixels judged rightly against the confidence claimed for them.",
                ),
                "Image by image the mean mask finds the changed pixels of whole fakes, since masks are alike. Halves "
                "show "
                "what the detector sees. The last column is of photographs of which a random half was blurred a "
                "little, "
                "and nothing was faked: what it finds there is lost detail.",
                Table(made["sparsification"], "Area between the curve of the error and the oracle's: lower is better."),
                Picture(pictures["sparsification"], "The nearer to the dashed line, the better the order."),
            ],
        ),
        Section(
            "Regions and the source",
            [
                Picture(pictures["regions"], "Bars of one colour: one source."),
                "A classifier learns the generators from maps and regions, and is judged on people that neither it nor "
                "the detector has seen. Controls go through the same steps.",
                Table(
                    _gain(made["gain"]),
                    "What the posterior's maps and regions add over each control, with a paired 95 % interval.",
                ),
                Picture(pictures["source"], "Bars: share of fakes whose generator is named."),
            ],
        ),
    ]
    write_page(
        path,
        "Where is the detector unsure, and is the place true?",
        sections,
        question="Where in the picture is the detector unsure, is that place true, and does it betray the generator?",
        answer=answer(tree, made),
        cautions=[
            *of_quick(settings),
            *([] if decisive(tree) else [f"There are {NO_HALVES}."]),
            *([f"Few people: {_few(tree)}."] if _people(tree) < FEW else []),
            *(
                f"The fit of the {name} has not converged: {text.removeprefix('NOT converged: ')}."
                for name, text in verdicts.items()
                if text.startswith("NOT")
            ),
        ],
        settings=settings,
        credits=[f"Photographs: {collection.credit}."] if collection.credit else [],
        glossary=WORDS,
    )


def _localisation(table: pd.DataFrame) -> pd.DataFrame:
    """The maps and rivals with the columns of the page."""
    chosen = [name for name in table.index if is_own(name) or name in RIVALS or not name.startswith(OTHER)]
    columns = [f"{name}{end}" for name in COLUMNS if name in table for end in ("", ".low", ".high")]
    own = table.loc[chosen, columns].rename(index=label)
    return own.rename(
        columns={f"{name}{end}": f"{text}{end}" for name, text in COLUMNS.items() for end in ("", ".low", ".high")}
    )


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """Orders by the names of their maps, differences by the names of what is subtracted."""
    names = {"over_chance": ", less that of a random order", "over_centred": ", less that of a centred order"}

    def called(column: str) -> str:
        for short, text in names.items():
            column = column.replace(f"_{short}", text)
        return column

    return table.rename(index=lambda name: name.replace("_", " "), columns=called)


def _gain(table: pd.DataFrame) -> pd.DataFrame:
    """The pairs by their names."""
    own = table.replace({"features": SOURCE_SETS, "control": SOURCE_SETS})
    return own.set_index("features")[["control", "difference", "difference.low", "difference.high", "best"]]

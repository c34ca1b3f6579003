"""What does the page of a run say, and what the screen?"""

from ast import literal_eval
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import pandas as pd
import xarray as xr

from bayesdf.experiments.experiment import Presentation, Summary
from bayesdf.experiments.inversion.figures import figures
from bayesdf.experiments.inversion.names import BY_INVERSION, COUNTERPARTS, METHODS, estimate, group_of
from bayesdf.experiments.inversion.plan import Plan
from bayesdf.experiments.inversion.tables import metrics, tables
from bayesdf.faces import CREDIT
from bayesdf.report.page import GLOSSARY, Drawing, Picture, Section, Table, of_quick, write_page
from bayesdf.report.style import in_order

WORDS = {
    **GLOSSARY,
    "candidate": "A generator that is inverted: asked to make the picture again.",
    "inversion": "The search for the latent from which a generator makes a picture most like a given one.",
    "latent": "The random values of which a generator makes a picture.",
    "none of these": "The answer that no source known to the attribution made the picture.",
    "log loss": "Mean of minus the logarithm of the probability given to the true source, in nats: 0 is perfect.",
    "AUC": "How often a picture of the unknown generator is more probably `none of these` than another: 0.5 by chance.",
    "95 % interval": (
        "The range in which 95 % of the results lie when people (or pictures, where they show nobody) are drawn again "
        "and again with replacement (bootstrap). Where all are right or all wrong it has no width, although the truth "
        "may be some per cent off."
    ),
}

TEXTS = ("bayesdf", "candidates", "weights")
SETTINGS = (*TEXTS[:2], *(field.name for field in fields(Plan)), TEXTS[2], "quick")
"""Attributes of a run that the page shows as its settings. All but the `TEXTS` are numbers, lists and booleans."""


def present(tree: xr.DataTree) -> Presentation:
    """What a run shows, from its DataTree."""
    made = tables(tree)
    return Presentation(
        metrics=metrics(tree, made),
        tables=made,
        figures=figures(tree, made),
        page=lambda path, pictures: page(path, tree, pictures, made),
        summary=Summary(
            title="Sources named rightly (95 % intervals)",
            columns=("", "candidates' samples", "all sources"),
            rows=[(label, *cells) for label, cells in headline(tree).items()],
        ),
    )


def headline(tree: xr.DataTree) -> dict[str, list[str]]:
    """Label of a method -> accuracy of the candidates' samples, and over all sources: text as printed."""
    rows = {}
    for method in ("clean", *BY_INVERSION, *COUNTERPARTS.values()):
        rows[METHODS[method]] = [str(estimate(tree, method, key)) for key in ("accuracy_candidates", "accuracy")]
    return rows


def page(
    path: Path,
    tree: xr.DataTree,
    figures: Mapping[str, Drawing],
    tables: Mapping[str, pd.DataFrame],
) -> None:
    """Write the report."""
    settings = {name: tree.attrs[name] if name in TEXTS else literal_eval(tree.attrs[name]) for name in SETTINGS}
    write_page(
        path,
        "Who made this picture? Attribution by inversion",
        [
            _pictures(tree, figures),
            _attribution(figures, tables),
            _unknown(figures, tables),
            _comparison(
                "Perturbations",
                "A picture is disturbed after the common path and stored again with 8 bits. The attributions and the "
                "classifiers judge the same pictures. `inversion` was calibrated, and `classifier` trained, on "
                "pictures of the common path alone. Their counterparts also saw pictures disturbed in one of these "
                "ways, with a strength drawn at random. A classifier cannot refuse. So here and under attack the most "
                "probable source that has a name counts for inversion too. `refused` is the share for which inversion "
                "would have said `none of these`.",
                [
                    Picture(figures["perturbations"], "Two pictures, so that the strengths can be judged."),
                    Picture(
                        figures["robustness"], "Full lines: inversion; dashed: classifiers; dotted: the smallest error."
                    ),
                ],
                tables["robustness_comparison"],
                tables["robustness"],
            ),
            _comparison(
                "Attacks",
                "An attacker changes every pixel by at most the budget so that a method misjudges the picture. The "
                "attack on a classifier is projected gradient ascent of its loss, with its weights (Madry et al. "
                "2018). The attack on inversion lowers the rival's error less that of the true generator, in rounds. "
                "Before each round but the first both invert the picture again. All methods judge each attacked "
                "picture: an attack made for one may or may not work on another. Attackers of the classifier do not "
                "know of inversion, and the other way round.",
                [Picture(figures["attacks"], "Left to right: what the attack was made against.")],
                tables["attacks_comparison"],
                tables["attacks"],
            ),
            _cost(tables),
        ],
        question="Can the generator of a picture be told by asking each candidate to make the picture again, and does "
        "that stand where a classifier falls?",
        answer=_answer(tree, tables),
        cautions=of_quick(settings),
        highlights={
            "candidates' samples, 8 bits": estimate(tree, "clean", "accuracy_candidates"),
            "after JPEG quality 90": estimate(tree, "inversion", "accuracy_candidates"),
            "all sources, after JPEG": estimate(tree, "inversion", "accuracy"),
            "classifier, all sources": estimate(tree, "classifier", "accuracy"),
        },
        settings=settings,
        credits=[f"Photographs: {CREDIT}."],
        glossary=WORDS,
    )


def _answer(tree: xr.DataTree, tables: Mapping[str, pd.DataFrame]) -> str:
    clean, jpeg = (estimate(tree, name, "accuracy_candidates") for name in ("clean", "inversion"))
    classifier = estimate(tree, "classifier", "accuracy_candidates")
    parts = [
        f"Inversion names the generator of {clean.value:.1%} of the candidates' held-out samples from 8-bit pictures "
        f"and of {jpeg.value:.1%} after JPEG (95 % interval {jpeg.low:.1%} to {jpeg.high:.1%}); the classifier names "
        f"{classifier.value:.1%}."
    ]
    for name, word in (("robustness", "perturbations"), ("attacks", "attacks")):
        frame = tables[f"{name}_comparison"]
        plain_ = frame[frame["method"] == "inversion"]
        parts.append(
            f"Under {int(plain_['falls_further'].sum())} of {len(plain_)} {word} it falls further than the classifier "
            f"({int(plain_['significant'].sum())} significantly, all tested together)."
        )
    return " ".join(parts)


def _pictures(tree: xr.DataTree, figures: Mapping[str, Drawing]) -> Section:
    evidence = group_of(tree, "evidence")
    candidates = [str(name) for name in evidence["candidate"].values]
    others = [name for name in in_order(evidence["source"].values.astype(str)) if name not in candidates]
    return Section(
        "The pictures",
        [
            f"Candidates are {', '.join(candidates)}; other sources are {', '.join(others)}. Latents and photographs "
            "to judge are held out. Calibration pictures have other latents, and photographs and manipulations of "
            "them show other people: one half of the test people for calibration, the other half to judge, training "
            "people for the classifiers. The generators of whole images have seen neither half. The swapping "
            "autoencoder was trained on all 40 people, as a forger's would be on his victims.",
            Picture(
                figures["reconstructions"], "A generator makes its own pictures again, and those of others less well."
            ),
            Picture(
                figures["errors"], "The evidence in one number; attribution uses three errors and the latent's energy."
            ),
        ],
    )


def _attribution(figures: Mapping[str, Drawing], tables: Mapping[str, pd.DataFrame]) -> Section:
    return Section(
        "Attribution",
        [
            "Every candidate is inverted for every picture. Calibration pictures of all sources, also of those that "
            "cannot be inverted, show which errors pictures of each source give. Bayes' rule then gives the "
            "probability of each source, of `real`, and of `none of these`, averaged over what calibration leaves "
            "open. Pictures of one person, and copies of one picture, count as one. The smallest error alone names a "
            "candidate, as Zhang et al. do. All judged pictures went through 8 bits and JPEG of quality 90, except "
            "where it says not. Calibration pictures were treated in the same way.",
            Table(
                tables["accuracy"],
                "Share named rightly of the candidates' samples and over all sources; log loss (nats) and expected "
                "calibration error over all sources.",
            ),
            Picture(figures["confusion_inversion"], "Rows: who made the picture. Columns: who was named."),
            Picture(figures["confusion_classifier"], "The classifier, on the same pictures."),
            Picture(figures["reliability"], "Whether the probabilities mean what they say."),
        ],
    )


def _unknown(figures: Mapping[str, Drawing], tables: Mapping[str, pd.DataFrame]) -> Section:
    return Section(
        "A generator that is not known",
        [
            Picture(figures["open_set"], "Up and to the left: the unknown is noticed and others are left in peace."),
            Table(
                tables["open_set"], "Shares called `none of these`, where that is more probable than all else together."
            ),
        ],
    )


def _comparison(title: str, text: str, pictures: list[Picture], compared: pd.DataFrame, table: pd.DataFrame) -> Section:
    worse = compared[compared["falls_further"]]
    number = f"{len(worse)} of {len(compared)} comparisons"
    said: list[str | Table] = (
        [
            Table(
                worse,
                f"Where inversion falls further than the classifier that saw as much: {number}. "
                "The intervals hold for all comparisons at once; significant: the interval is above 0.",
                index=False,
            )
        ]
        if len(worse)
        else [f"Inversion falls further than the classifier that saw as much in {number}."]
    )
    return Section(
        title,
        [
            text,
            *pictures,
            *said,
            Table(table, "Share named rightly: the candidates' samples, and photographs.", index=False),
        ],
    )


def _cost(tables: Mapping[str, pd.DataFrame]) -> Section:
    return Section(
        "What it costs",
        [
            "An evaluation is a run of the generator and the loss, forward and backward, for one picture. Seconds a "
            "picture are modelled as (evaluations a picture + shared evaluations / pictures) times the seconds of one "
            "evaluation. Evaluations are at most steps times restarts (here one start, the encoder's). Shared "
            "evaluations measure the curvature, once for all pictures of a call. Two costs are measured but not "
            "counted: the encoder, and where the search may zoom, a run forward for each of four zooms. All was "
            "measured on this machine, beside whatever else it did.",
            Table(tables["throughput"], "Cost by candidate: counted, modelled, measured."),
            Table(tables["errors"], "Errors of reconstructions (of 255 grey values), and evaluations.", index=False),
        ],
    )

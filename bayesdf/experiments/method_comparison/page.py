"""What does the page of a run say, and what the screen?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

import bayesdf.data as data
from bayesdf.experiments import warm_start
from bayesdf.experiments.experiment import Presentation, Summary
from bayesdf.experiments.method_comparison.measures import COST, QUALITY
from bayesdf.experiments.method_comparison.methods import PRIOR_SCALE
from bayesdf.experiments.method_comparison.tables import PAIRED, metrics, tables
from bayesdf.report.methods import EXPLAINED, METHODS, unconverged
from bayesdf.report.page import GLOSSARY, Drawing, Picture, Section, Table, of_quick, sentence, write_page

HEADLINE = {
    "balanced_accuracy": "balanced accuracy",
    "nll": "NLL (nats)",
    "ece": "ECE",
    "aurc": "AURC",
    "ood_auroc_epistemic": "left-out AUROC",
    "fit_seconds": "training (s)",
}
"""Figures in the table on the screen, and how they are called there."""

WORDS = {
    **GLOSSARY,
    "method": "A way to a posterior.",
    "left out": "A generator none of whose images any method, nor the start of all, was trained on.",
    "AUROC": "How often an image of the one kind gets the higher score than one of the other: 0.5 by chance.",
    "negative log-likelihood": "Mean of minus the logarithm of the probability given to the truth, in nats; 0 is "
    "perfect, 0.693 is what always answering one half would get.",
    "Brier score": "Mean squared distance of the probabilities from the truth, summed over both classes: 0 to 2.",
    "risk and coverage": "A detector that may decline answers the images it is surest of: coverage is the share it "
    "answers, risk the share of these that is wrong.",
    "area under risk-coverage": "Mean risk over all coverages (AURC): 0 is perfect, lower is better.",
    "interval over seeds": "Student's t interval (95 %) of the mean over fits that differ in their seed alone. It says "
    "how much is luck in fitting, for these people and this start.",
    "interval over people": "For one fit, the people of the test set are drawn again and again with replacement "
    "(bootstrap), and the number of images of each source is kept. The interval is the range in which 95 % of the "
    "results lie. It says how much is luck in who was tested.",
}
del WORDS["95 % interval"], WORDS["epistemic profile"], WORDS["chance"]


def present(
    tree: xr.DataTree, collection: data.Collection, unseen: pd.DataFrame, settings: Mapping[str, Any]
) -> Presentation:
    """What a run shows, from its DataTree.

    Parameters
    ----------
    collection
        The images it was made with, without the generator that was left out.
    unseen
        The manifest of that generator's test images.
    settings
        As the page shows them.
    """
    from bayesdf.experiments.method_comparison.figures import figures

    made = tables(tree, collection.manifest, unseen)
    left_out, seeds = str(settings["left_out"]), int(settings["seeds"])

    def write(path: Path, pictures: Mapping[str, bytes]) -> None:
        cautions = data.people_cautions(collection.manifest)
        page(path, pictures, made, settings, _notes(collection, settings), collection.credit, cautions)

    return Presentation(
        metrics=metrics(tree, made),
        tables=made,
        figures=figures(tree, made, left_out),
        page=write,
        summary=Summary(
            title=f"People and a generator ({left_out}) the detector never saw "
            f"(mean over {seeds} seed{'s' * (seeds > 1)})",
            columns=("", *HEADLINE.values()),
            rows=headline(made["comparison"]),
        ),
    )


def headline(means: pd.DataFrame) -> list[list[str]]:
    """A row a method of the table `comparison`: its name and the figures of `HEADLINE`, as text."""
    return [
        [METHODS[str(name)], *(f"{row[key]:.1f}" if key == "fit_seconds" else f"{row[key]:.3f}" for key in HEADLINE)]
        for name, row in means.iterrows()
    ]


def page(
    path: Path,
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
    left_out = str(settings["left_out"])
    write_page(
        path,
        "Which way to a posterior?",
        [
            Section(
                "What was compared",
                [
                    *notes,
                    Table(tables["methods"], "The methods."),
                    Table(tables["verdicts"], EXPLAINED),
                    Table(tables["images"], "Images by source and split, and the number of people in each split."),
                ],
            ),
            _quality(figures, tables, int(settings["seeds"])),
            _left_out(figures, tables, left_out),
            _cost(figures, tables),
            Section("Every fit", [Table(_named(tables["seeds"]), "With 95 % intervals over people. Seconds.")]),
        ],
        question="Many methods turn the same detector into one that knows how sure it is. Which is right most often, "
        "which knows when it errs, which doubts what it has never seen, and at what price?",
        answer=answer(tables, left_out),
        cautions=[*of_quick(settings), *map(sentence, cautions), *unconverged(tables["verdicts"])],
        settings=settings,
        credits=[f"Photographs: {credit}."] if credit else [],
        glossary=WORDS,
    )


def answer(tables: Mapping[str, pd.DataFrame], left_out: str) -> str:
    """The result, and how sure it is."""
    means = tables["comparison"]
    nll, found = means["nll"], means["ood_auroc_epistemic"]
    best, doubts = str(nll.idxmin()), str(found.idxmax())
    text = (
        f"In this run people never seen before are judged best by {METHODS[best]} (negative log-likelihood "
        f"{nll[best]:.3f} nats, "
        f"balanced accuracy {means['balanced_accuracy'][best]:.2f}). The epistemic uncertainty of "
        f"{METHODS[doubts]} tells the generator it never saw ({left_out}) best from all others: "
        f"AUROC {found[doubts]:.2f}, where 0.5 is chance."
    )
    gaps = tables["differences"]
    if not len(gaps):
        return text
    told = gaps[gaps["nll.significant"] == 1.0]
    better, worse = ([METHODS[str(name)] for name in told.index[told["nll"] * sign > 0]] for sign in (-1, 1))
    said = [
        f"{way} than MAP's for {', '.join(names)}" for names, way in ((better, "lower"), (worse, "higher")) if names
    ]
    tested = f"With {len(gaps) * len(PAIRED)} differences tested together over people, the fits held as they are, "
    if not said:
        return f"{text} {tested}no method's negative log-likelihood is told from MAP's."
    return f"{text} {tested}the negative log-likelihood is told to be {' and '.join(said)}."


def _quality(figures: Mapping[str, Drawing], tables: Mapping[str, pd.DataFrame], seeds: int) -> Section:
    means = tables["comparison"]
    first, second = ["balanced_accuracy", "accuracy", "auroc", "nll"], ["brier", "ece", "aurc"]
    over = (
        f"Mean over {seeds} seeds, in brackets its 95 % interval over seeds (Student's t)."
        if seeds > 1
        else "One seed, so no interval over seeds; those over people stand below, under `Every fit`."
    )
    content: list[str | Picture | Table] = [
        "Figures of the test images of sources that the detector has learnt, of people it has not seen. Intervals over "
        "seeds are of luck in fitting; they are short where methods find nearly the same weights whatever the seed, "
        "and say nothing of other people. Intervals over people are wider, but methods judge the same images: whether "
        "two of them differ is told by the interval of their difference, in the last table.",
        Table(_named(means[_with_ends(first)]), over),
        Table(_named(means[_with_ends(second)]), "The same, continued."),
        Picture(figures["quality"], "Rows: methods. Where thick lines part, seeds do not explain the difference."),
        Picture(figures["reliability"], "On the dashed line a method is right as often as it claims."),
        Picture(figures["risk_coverage"], "The area below the line is what the table calls area under risk-coverage."),
    ]
    if len(tables["differences"]):
        content.append(
            Table(
                _with_significant(tables["differences"]),
                "How much higher than MAP's: mean over seeds, on the same images. Intervals are over people, with the "
                "fits as they are, and simultaneous: all of this table hold at once with 95 %. Told apart: figures "
                "whose interval is without 0. What other seeds would give stands in the tables above.",
            )
        )
    return Section("How good", content)


def _left_out(figures: Mapping[str, Drawing], tables: Mapping[str, pd.DataFrame], left_out: str) -> Section:
    means = tables["comparison"]
    keys = ["ood_auroc_epistemic", "ood_auroc_total", "caught"]
    return Section(
        "The generator that was left out",
        [
            f"No image of {left_out} was seen in training. A detector that knows what it does not know should be in "
            "more doubt about its images than about others: epistemic doubt, since the draws were never made to agree "
            "on them. A single point, as MAP is, has no epistemic uncertainty, and 0.5. Whether its images are called "
            "fake all the same is another matter: the last column.",
            Table(_named(means[_with_ends(keys)]), "Mean over seeds, in brackets its 95 % interval over seeds."),
            Picture(figures["left_out"], "A left-out box far to the right of the others: the generator is noticed."),
            Table(_named(tables["uncertainty"]), "Median epistemic uncertainty (nats) by source, all seeds together."),
        ],
    )


def _cost(figures: Mapping[str, Drawing], tables: Mapping[str, pd.DataFrame]) -> Section:
    means = tables["comparison"]
    frame = means[[*_with_ends([key for key in COST if means[key].notna().any()]), "draws"]].assign(
        draws=means["draws"].astype(int)
    )
    frame = frame.assign(**{key: frame[key] * 1000 for key in _with_ends(["draw_seconds"])})
    return Section(
        "What it costs",
        [
            "Training is everything from the call of `fit` to its return, the features of the training images among "
            "it: they are computed once a fit and take the same for every method. A draw is made, and run through what "
            "follows the features; whoever asks for S draws pays one run of the network and S times that. Measured on "
            "this machine, beside whatever else it did.",
            Table(
                _named(frame),
                "Mean over seeds, in brackets its 95 % interval over seeds. Training in seconds, a draw in "
                "milliseconds.",
            ),
            Picture(figures["cost"], "Left and good: cheap and good."),
            Picture(figures["draw_cost"], "A draw that costs a hundredth lets fifty draws cost half a run more."),
        ],
    )


def _with_ends(keys: Sequence[str]) -> list[str]:
    return [name for key in keys for name in (key, f"{key}.low", f"{key}.high")]


def _named(frame: pd.DataFrame) -> pd.DataFrame:
    """Methods and figures as they are called in text."""
    labels = {key: named.label for key, named in {**QUALITY, **COST}.items()}
    labels |= {f"{key}.{end}": f"{label}.{end}" for key, label in labels.items() for end in ("low", "high")}
    return frame.rename(index=METHODS, columns=labels).rename_axis("method")


def _with_significant(gaps: pd.DataFrame) -> pd.DataFrame:
    """Differences with a last column that names the figures that differ significantly from MAP's."""
    shown = gaps[[name for name in gaps if not str(name).endswith(".significant")]]
    names = [[QUALITY[key].label for key in PAIRED if row[f"{key}.significant"] == 1.0] for _, row in gaps.iterrows()]
    return _named(shown).assign(**{"significant": [", ".join(each) or "none" for each in names]})


def _notes(collection: data.Collection, settings: Mapping[str, Any]) -> list[str]:
    """What a reader must know of the images and of the start, to judge the figures."""
    start = (
        "weights that come with the package, trained beforehand on the training people alone and without "
        if warm_start.ships(str(settings["detector"]), collection, "sources")
        else "weights trained in this run on the training people alone and without "
    )
    return [
        f"{data.describe_people(collection.manifest)}. Train, validation and test share none of these people. Every "
        "image, real or fake, went through the same crop, resize, 8-bit and JPEG steps before the training.",
        f"Every fit starts from the same network: {start}{settings['left_out']}. All of it but the classifier stays as "
        f"it is. Where a method takes priors, each weight and bias of the classifier is normal around 0 with deviation "
        f"{PRIOR_SCALE}. Every method sees the same training images, not augmented, both classes weighing alike, and "
        "no validation image.",
        "Logits are judged as the methods give them, without recalibration: whether a method's doubt fits strangers is "
        "one of the things compared.",
    ]

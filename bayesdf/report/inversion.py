"""What a run of the inversion study shows: figures, tables, flat metrics, and the page.

`tree` is what `bayesdf.experiments.inversion.study.study` returns.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve

import bayesdf.analysis as analysis
from bayesdf.analysis import Estimate
from bayesdf.faces import CREDIT
from bayesdf.generators.perturb import PERTURBATIONS, perturb
from bayesdf.report.figures import confusion_matrix, face_sheet, reliability_diagram
from bayesdf.report.page import GLOSSARY, Picture, Section, Table, write_page
from bayesdf.report.style import MUTED, head, in_order, legible, palette, plain, styled

REAL = "real"
METHODS = {
    "inversion": "inversion",
    "inversion_augmented": "inversion, calibrated on disturbed pictures too",
    "smallest_error": "inversion, smallest error alone",
    "classifier": "classifier",
    "classifier_augmented": "classifier, trained on disturbed pictures too",
    "clean": "inversion, pictures of 8 bits without JPEG",
    "clean_smallest_error": "smallest error alone, without JPEG",
}
"""Methods as they are called in text, by their names in the run."""
INVERTING = ("inversion", "inversion_augmented")
COMPARED = {"inversion": "classifier", "inversion_augmented": "classifier_augmented"}
"""Which classifier each attribution by inversion is measured by: the one that saw as much."""
ATTACKS = {
    "classifier": "on the classifier",
    "classifier_augmented": "on the augmented one",
    "inversion": "on inversion",
}
"""What the attacks are made against, in the order of the study."""
FIGURES = ("accuracy_candidates", "accuracy", "log_loss", "ece")
LINES = {
    "inversion": ("#0072B2", "o", "-"),
    "inversion_augmented": ("#56B4E9", "s", "-"),
    "smallest_error": ("#009E73", "^", ":"),
    "classifier": ("#D55E00", "o", "--"),
    "classifier_augmented": ("#E69F00", "s", "--"),
}
WORDS = {
    **GLOSSARY,
    "candidate": "A generator that is inverted: asked to make the picture again.",
    "inversion": "The search for the entropy from which a generator makes a picture most like a given one.",
    "entropy": "The random values of which a generator makes a picture, also called its latent.",
    "none of these": "The answer that no source known to the attribution made the picture.",
    "log loss": "Mean of minus the logarithm of the probability given to the true source, in nats: 0 is perfect.",
    "AUC": "How often a picture of the unknown generator is more surely `none of these` than another: 0.5 by chance.",
    "95 % interval": (
        "From drawing people (or pictures, where they show nobody) again and again with replacement (bootstrap): the "
        "range in which 95 % of the results lie. Where all are right or all wrong it has no width, although the truth "
        "may be some per cent off."
    ),
}


def metrics(tree: xr.DataTree, tables: Mapping[str, pd.DataFrame]) -> dict[str, float | int | str | None]:
    """All figures under flat names: ``inversion.ece``, ``open_set.vae.auc``, ``attack.inversion.8.classifier``, …"""
    flat: dict[str, float | int | str | None] = {}
    summary = _group(tree, "attribution")
    for method in summary["method"].values:
        figures = summary.sel({"method": method})
        known = [name for name in FIGURES if np.isfinite(figures[name].values[0])]
        flat |= analysis.flatten(figures[known], f"{method}.")
    for name, row in tables["open_set"].iterrows():
        flat |= {
            f"open_set.{name}.auc{key.removeprefix('auc')}": float(row[key]) for key in ("auc", "auc.low", "auc.high")
        }
    for group, name in (("robustness", "robustness"), ("attack", "attacks")):
        for _, row in tables[name].iterrows():
            if row["of"] == "candidates":
                condition = f"{group}.{row['kind']}.{row['strength']:g}.{row['method']}"
                flat |= {
                    condition: row["right"],
                    f"{condition}.low": row["right.low"],
                    f"{condition}.high": row["right.high"],
                }
        drops = tables[f"{name}_comparison"]
        flat[f"{group}.conditions"] = len(drops)
        flat[f"{group}.conditions_inversion_falls_further"] = int(drops["falls_further"].sum())
    flat["pictures"] = _group(tree, "evidence").sizes["image"]
    return flat


def tables(tree: xr.DataTree) -> dict[str, pd.DataFrame]:
    """Tables by name."""
    judged = _group(tree, "attribution/inversion")
    made = {
        "accuracy": accuracy(tree),
        "open_set": open_set(tree),
        "robustness": shares(tree, "robustness"),
        "robustness_comparison": comparison(tree, "robustness"),
        "attacks": shares(tree, "attack"),
        "attacks_comparison": comparison(tree, "attack"),
        "throughput": _group(tree, "throughput").to_dataframe(),
        "errors": errors(tree),
    }
    for name in ("clean", *INVERTING, *COMPARED.values()):
        made[f"confusion_{name}"] = analysis.confusion(_group(tree, f"attribution/{name}"))
    probability = judged["probability"].to_pandas()
    made["probability"] = pd.DataFrame(probability).assign(
        truth=judged["truth"].values, prediction=judged["prediction"].values
    )
    return made


def accuracy(tree: xr.DataTree) -> pd.DataFrame:
    """A row a method: its figures with intervals."""
    summary = _group(tree, "attribution")
    rows = {}
    for method in summary["method"].values:
        row: dict[str, float] = {}
        for name in FIGURES:
            value, low, high = summary[name].sel({"method": method}).values
            row |= {name: float(value), f"{name}.low": float(low), f"{name}.high": float(high)}
        rows[METHODS[str(method)]] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def open_set(tree: xr.DataTree) -> pd.DataFrame:
    """For every candidate left out: how well `none of these` tells its pictures from all others."""
    group = _group(tree, "open_set")
    rows = {}
    for name in group["left_out"].values:
        unknown = group["source"].values == name
        odds = group["none"].sel(left_out=name).values

        def area(truth: NDArray[np.bool_], score: NDArray[np.float64]) -> float:
            return float(roc_auc_score(truth, score)) if 0 < truth.sum() < len(truth) else float("nan")

        auc = analysis.cluster_bootstrap(area, [unknown, odds], group["subject"].values)
        rows[str(name)] = {
            "pictures": int(unknown.sum()),
            "others": int((~unknown).sum()),
            "auc": auc.value,
            "auc.low": auc.low,
            "auc.high": auc.high,
            "called_none": float((odds[unknown] > 0).mean()),
            "others_called_none": float((odds[~unknown] > 0).mean()),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("left out")


def shares(tree: xr.DataTree, group: str) -> pd.DataFrame:
    """Share judged rightly under each condition by each method: of the candidates' samples, and of the photographs."""
    data = _group(tree, group)
    real = data["source"].values == REAL
    rows = []
    for c in range(data.sizes["condition"]):
        for method in data["method"].values:
            one = data.isel(condition=c).sel({"method": method})
            right = one["right"].values.astype(np.float64)
            for of, rows_of in (("candidates", ~real), ("photographs", real)):
                if of == "photographs" and method == "smallest_error":
                    continue
                share = analysis.cluster_bootstrap(np.mean, [right[rows_of]], data["subject"].values[rows_of])
                rows.append(
                    {
                        "kind": str(data["kind"].values[c]),
                        "strength": float(data["strength"].values[c]),
                        "method": str(method),
                        "of": of,
                        "images": int(rows_of.sum()),
                        "right": share.value,
                        "right.low": share.low,
                        "right.high": share.high,
                        "refused": float(one["refused"].values[rows_of].mean()),
                    }
                )
    return pd.DataFrame(rows)


def comparison(tree: xr.DataTree, group: str) -> pd.DataFrame:
    """Under every condition, how much further inversion falls than the classifier that saw as much.

    `difference` is the drop of inversion less that of the classifier, in share of the candidates' samples, paired.
    `falls_further` where it is above 0, `surely` where its interval is as well.
    """
    data = _group(tree, group)
    own = data["source"].values != REAL
    right = data["right"].isel(image=np.flatnonzero(own)).astype(np.float64)
    cluster = data["subject"].values[own]
    rows = []
    for ours, theirs in COMPARED.items():
        a, b = (right.sel({"method": method}).values for method in (ours, theirs))
        for c in range(1, len(a)):
            drops = [one[0] - one[c] for one in (a, b)]
            gap = analysis.cluster_bootstrap(lambda x, y: float(x.mean() - y.mean()), drops, cluster)
            rows.append(
                {
                    "kind": str(data["kind"].values[c]),
                    "strength": float(data["strength"].values[c]),
                    "method": ours,
                    "against": theirs,
                    "accuracy": a[c].mean(),
                    "accuracy_against": b[c].mean(),
                    "drop": drops[0].mean(),
                    "drop_against": drops[1].mean(),
                    "difference": gap.value,
                    "difference.low": gap.low,
                    "difference.high": gap.high,
                    "falls_further": gap.value > 1e-12,
                    "surely": gap.low > 1e-12,
                }
            )
    return pd.DataFrame(rows)


def errors(tree: xr.DataTree) -> pd.DataFrame:
    """Median pixel error, 95 % of it, and evaluations, by candidate and source (grey values of 255)."""
    data = _group(tree, "evidence")
    rows = []
    for candidate in data["candidate"].values:
        one = data.sel(candidate=candidate)
        for source in in_order(data["source"].values.astype(str)):
            mine = one["source"].values == source
            pixel = 255.0 * one["pixel"].values[mine]
            rows.append(
                {
                    "candidate": str(candidate),
                    "source": source,
                    "images": int(mine.sum()),
                    "median_error": float(np.median(pixel)),
                    "error_95": float(np.quantile(pixel, 0.95)),
                    "evaluations": float(one["evaluations"].values[mine].mean()),
                }
            )
    return pd.DataFrame(rows)


def figures(tree: xr.DataTree, tables: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
    """Figures by name."""
    made = {
        "reconstructions": reconstructions(tree),
        "errors": error_distributions(tree),
        "confusion_inversion": _confusion(tree, "inversion"),
        "confusion_classifier": _confusion(tree, "classifier"),
        "reliability": _reliability(tree),
        "perturbations": perturbation_sheet(tree),
        "robustness": robustness_curves(tree, tables["robustness"]),
        "attacks": attack_curves(tree, tables["attacks"]),
        "open_set": open_set_roc(tree, tables["open_set"]),
    }
    return made


def reconstructions(tree: xr.DataTree) -> Figure:
    """Pictures of every source, and beside each what its generator, or else the nearest, and a rival make of it."""
    data = _group(tree, "examples")
    candidates = [str(name) for name in data["candidate"].values]
    source = data["source"].values.astype(str)
    rows: dict[str, list[NDArray[Any]]] = {}
    captions: dict[str, list[str]] = {}
    colours = {}
    for name in [*candidates, *(other for other in in_order(source) if other not in candidates)]:
        heading = f"{name}: picture, made again by {name}, and by the best rival"
        if name not in candidates:
            heading = f"{name}, not inverted: picture, and made again by the two best candidates"
        colours[heading] = legible(palette(source)[name])
        cells, words = rows.setdefault(heading, []), captions.setdefault(heading, [])
        for i in np.flatnonzero(source == name):
            best = [candidates[c] for c in np.argsort(data["loss"].values[:, i])]
            shown = [name, next(other for other in best if other != name)] if name in candidates else best[:2]
            cells.append(data["picture"].values[i] / 255.0)
            words.append("picture")
            for candidate in shown:
                one = data.sel(candidate=candidate).isel(image=i)
                cells.append(one["reconstruction"].values / 255.0)
                words.append(f"{plain(candidate, 16)}\n{255.0 * float(one['pixel']):.1f}")
    return face_sheet(
        {heading: np.array(cells) for heading, cells in rows.items()},
        title="What the candidates make of pictures",
        subtitle="Pictures after the common path (8 bits, JPEG quality 90), the first of each source, not chosen.\n"
        "Under a reconstruction: who made it, and its root mean square error (of 255 grey values).",
        captions=captions,
        colours=colours,
    )


@styled
def error_distributions(tree: xr.DataTree, columns: int = 3) -> Figure:
    """How nearly each candidate makes pictures again: its own, those of other generators, and photographs."""
    data = _group(tree, "evidence")
    candidates = [str(name) for name in data["candidate"].values]
    source = data["source"].values.astype(str)
    columns = min(columns, len(candidates))
    lines = -(-len(candidates) // columns)
    figure = Figure(figsize=(3.5 * columns + 0.5, 1.9 * lines + 1.2))
    axes = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    order = ["its own", "other candidates", "not inverted", "photographs"]
    colours = dict(zip(order, ("#0072B2", "#D55E00", "#E69F00", MUTED), strict=True))
    for ax, name in zip(axes.flat, candidates, strict=False):
        kind = np.where(source == name, order[0], np.where(np.isin(source, candidates), order[1], order[2]))
        kind = np.where(source == REAL, order[3], kind)
        frame = pd.DataFrame({"error": 255.0 * data["pixel"].sel(candidate=name).values, "of": kind})
        sns.boxplot(
            frame, x="error", y="of", order=order, hue="of", hue_order=order, palette=colours, legend=False, width=0.55,
            fliersize=0, linewidth=1.0, ax=ax, boxprops={"alpha": 0.35},
        )  # fmt: skip
        sns.stripplot(
            frame, x="error", y="of", order=order, hue="of", hue_order=order, palette=colours, legend=False, size=2.2,
            jitter=0.25, ax=ax,
        )  # fmt: skip
        ax.set(xscale="log", xlabel="", ylabel="")
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_title(f"{plain(name, 24)} ({(source == name).sum()} own)", loc="left")
    for ax in axes.flat[len(candidates) :]:
        ax.set_visible(False)
    figure.supxlabel("root mean square error of the reconstruction (of 255 grey values)", fontsize=10)
    figure.supylabel("pictures made by", fontsize=10)
    head(
        figure,
        "How nearly each candidate makes pictures again",
        f"{len(source)} pictures after the common path, each inverted by all {len(candidates)} candidates. "
        "A point is a picture.\nLogarithmic axis. Far apart: the candidate tells its own from others.",
    )
    return figure


def _confusion(tree: xr.DataTree, method: str) -> Figure:
    counts = analysis.confusion(_group(tree, f"attribution/{method}"))
    figure = confusion_matrix(counts, title=f"Sources named by {METHODS[method]}")
    figure.axes[0].set_xlabel("source named")
    return figure


def _reliability(tree: xr.DataTree) -> Figure:
    answer = _group(tree, "attribution/inversion")
    names = list(answer["source"].values)
    label = np.array([names.index(name) for name in answer["truth"].values])
    table = analysis.reliability_table(answer["probability"].values, label)
    ece = _estimate(tree, "inversion", "ece")
    figure = reliability_diagram(table, ece, title="Is attribution by inversion right as often as it claims?")
    figure.axes[1].set_xlabel("confidence: probability of the source named")
    return figure


def perturbation_sheet(tree: xr.DataTree) -> Figure:
    """A photograph and a generator's picture under every perturbation and strength of the run."""
    data = _group(tree, "robustness")
    examples = _group(tree, "examples")
    shown = [
        int(np.flatnonzero(examples["source"].values == name)[0]) for name in (REAL, examples["candidate"].values[0])
    ]
    pictures = examples["picture"].values[shown] / np.float32(255.0)
    rows, captions = {}, {}
    for name, way in PERTURBATIONS.items():
        strengths = [0.0, *data["strength"].values[data["kind"].values == name]]
        if len(strengths) == 1:
            continue
        heading = f"{way.label}: {way.unit}"
        changed = [perturb(picture[None], name, strength) for picture in pictures for strength in strengths]
        rows[heading] = np.concatenate(changed)
        captions[heading] = [f"{strength:g}" for strength in strengths] * len(pictures)
    return face_sheet(
        rows,
        title="What the perturbations do",
        subtitle="Two pictures, under all strengths of the run.",
        captions=captions,
    )


@styled
def robustness_curves(tree: xr.DataTree, table: pd.DataFrame) -> Figure:
    """Accuracy against strength, a panel a perturbation."""
    data = _group(tree, "robustness")
    table = table[table["of"] == "candidates"]
    kinds = [name for name in PERTURBATIONS if name in set(table["kind"])]
    figure = Figure(figsize=(3.1 * 3 + 0.4, 2.75 * 2 + 1.0))
    axes = figure.subplots(2, 3, sharey=True)
    for ax, kind in zip(axes.flat, kinds, strict=False):
        _panel(ax, table, kind, PERTURBATIONS[kind].label, PERTURBATIONS[kind].unit)
    for ax in axes.flat[len(kinds) : -1]:
        ax.set_visible(False)
    _legend(axes.flat[-1], axes.flat[0])
    number = int((data["source"].values != REAL).sum())
    head(
        figure,
        "How well sources are named after perturbations",
        f"The same {number} samples of the candidates at every point; all sources may be named, `none of these` not. "
        "Bars: 95 % intervals.\nAt 0: after the common path (8 bits, JPEG quality 90) alone.",
    )
    return figure


@styled
def attack_curves(tree: xr.DataTree, table: pd.DataFrame) -> Figure:
    """Accuracy against the budget, a panel an attack."""
    data = _group(tree, "attack")
    table = table[table["of"] == "candidates"]
    figure = Figure(figsize=(3.0 * 4, 3.9))
    axes = figure.subplots(1, 4, sharey=True, width_ratios=[1, 1, 1, 1.15])
    for ax, (kind, label) in zip(axes.flat, ATTACKS.items(), strict=False):
        _panel(ax, table, kind, f"attack {label}", "largest change of a pixel (of 255)")
    _legend(axes.flat[-1], axes.flat[0])
    number = int((data["source"].values != REAL).sum())
    head(
        figure,
        "How well sources are named under attack",
        f"The same {number} samples of the candidates at every point; all sources may be named, `none of these` not. "
        "Bars: 95 % intervals.\nThe attacker knows the "
        "classifier's weights, or all generators and how they are inverted, and the true source.",
    )
    return figure


def _panel(ax: Axes, table: pd.DataFrame, kind: str, title: str, unit: str) -> None:
    """One perturbation or attack, from nothing done on."""
    _lines(ax, table[table["kind"].isin(["none", kind])])
    ax.set_xlabel(unit)
    ax.set_title(title, loc="left")


def _lines(ax: Axes, table: pd.DataFrame) -> None:
    offset = 0.012 * table["strength"].max()
    for number, (method, (colour, marker, line)) in enumerate(LINES.items()):
        part = table[table["method"] == method].sort_values("strength")
        spread = [(part["right"] - part["right.low"]).clip(lower=0), (part["right.high"] - part["right"]).clip(lower=0)]
        ax.errorbar(
            part["strength"] + (number - 2) * offset, part["right"], yerr=np.nan_to_num(np.array(spread)), color=colour,
            marker=marker, ms=4, ls=line, lw=1.4, elinewidth=0.9, capsize=2, label=METHODS[method],
        )  # fmt: skip
    ax.set(ylim=(-0.03, 1.05), ylabel="share named rightly" if ax.get_subplotspec().is_first_col() else "")  # type: ignore[union-attr]
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))


def _legend(blank: Axes, drawn: Axes) -> None:
    handles, labels = drawn.get_legend_handles_labels()
    blank.legend(handles, [label.replace(", ", ",\n") for label in labels], loc="center", fontsize=8.5)
    blank.set_axis_off()


@styled
def open_set_roc(tree: xr.DataTree, table: pd.DataFrame) -> Figure:
    """Pictures of an unknown generator found against others wrongly refused, a line a candidate left out."""
    data = _group(tree, "open_set")
    colours = palette(data["source"].values)
    figure = Figure(figsize=(6.6, 5.9))
    ax = figure.subplots()
    ax.plot([0, 1], [0, 1], "--", color=MUTED, lw=1)
    ax.annotate("chance", (0.62, 0.60), color=MUTED, fontsize=9)
    for name in data["left_out"].values:
        unknown = data["source"].values == name
        others, found, _ = roc_curve(unknown, data["none"].sel(left_out=name).values)
        row = table.loc[str(name)]
        label = f"{plain(name, 18)} ({unknown.sum()}): {row['auc']:.2f} ({row['auc.low']:.2f} to {row['auc.high']:.2f})"
        ax.plot(others, found, color=colours[str(name)], lw=1.7, label=label)
    ax.set(
        xlim=(-0.01, 1.01),
        ylim=(-0.01, 1.01),
        xlabel="pictures of known sources called `none of these` (share)",
        ylabel="pictures of the left-out generator found (share)",
    )
    ax.legend(loc="lower right", fontsize=8.5, title="left out (pictures): AUC (95 % interval)", title_fontsize=8.5)
    head(
        figure,
        "Does attribution notice a generator it does not know?",
        f"{len(data['source'])} pictures. Each candidate in turn is neither inverted nor calibrated;\n"
        "its pictures should be `none of these`, all others not.",
    )
    return figure


def headline(tree: xr.DataTree) -> dict[str, list[str]]:
    """Label of a method -> accuracy of the candidates' samples, and over all sources: text as printed."""
    rows = {}
    for method in ("clean", *INVERTING, *COMPARED.values()):
        rows[METHODS[method]] = [str(_estimate(tree, method, key)) for key in ("accuracy_candidates", "accuracy")]
    return rows


def page(
    path: Path,
    tree: xr.DataTree,
    figures: Mapping[str, Figure],
    tables: Mapping[str, pd.DataFrame],
    settings: Mapping[str, Any],
) -> None:
    """Write the report."""
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
                "pictures of the common path alone; their counterparts saw besides pictures disturbed in one of these "
                "ways, of a strength drawn at random. A classifier cannot refuse: here and under attack the most "
                "probable source that has a name counts for inversion too, and `refused` is the share for which it "
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
                "An attacker changes every pixel by at most the budget so that a method misjudges the picture. On a "
                "classifier by projected gradient ascent of its loss (Madry et al. 2018), with its weights. On "
                "inversion by descending the rival's error less that of the true generator, in rounds, between which "
                "the picture is inverted again by both. Each attacked picture is judged by all methods: an attack "
                "made for one may or may not carry over to another. Attackers of the classifier do not know of "
                "inversion, and the other way round.",
                [Picture(figures["attacks"], "Left to right: what the attack was made against.")],
                tables["attacks_comparison"],
                tables["attacks"],
            ),
            _cost(tables),
        ],
        question="Can the generator of a picture be told by asking each candidate to make the picture again, and does "
        "that stand where a classifier falls?",
        answer=_answer(tree, tables),
        highlights={
            "candidates' samples, 8 bits": _estimate(tree, "clean", "accuracy_candidates"),
            "after JPEG quality 90": _estimate(tree, "inversion", "accuracy_candidates"),
            "all sources, after JPEG": _estimate(tree, "inversion", "accuracy"),
            "classifier, all sources": _estimate(tree, "classifier", "accuracy"),
        },
        settings=settings,
        credits=[f"Photographs: {CREDIT}."],
        glossary=WORDS,
    )


def _answer(tree: xr.DataTree, tables: Mapping[str, pd.DataFrame]) -> str:
    clean, jpeg = (_estimate(tree, name, "accuracy_candidates") for name in ("clean", "inversion"))
    classifier = _estimate(tree, "classifier", "accuracy_candidates")
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
            f"({int(plain_['surely'].sum())} surely)."
        )
    return " ".join(parts)


def _pictures(tree: xr.DataTree, figures: Mapping[str, Figure]) -> Section:
    evidence = _group(tree, "evidence")
    candidates = [str(name) for name in evidence["candidate"].values]
    others = [name for name in in_order(evidence["source"].values.astype(str)) if name not in candidates]
    return Section(
        "The pictures",
        [
            f"Candidates are {', '.join(candidates)}; other sources are {', '.join(others)}. Entropy and photographs "
            "to judge are held out: calibration pictures have other entropy, and photographs and manipulations of "
            "them come from other people: one half of the test people for calibration, the other half to judge, "
            "training people for the classifiers. The generators of whole images have seen neither half; the swapping "
            "autoencoder was trained on all 40 people, as a forger's would be on his victims.",
            Picture(figures["reconstructions"], "A generator makes its own pictures again, and others less well."),
            Picture(
                figures["errors"], "The evidence in one number; attribution uses three errors and the entropy's energy."
            ),
        ],
    )


def _attribution(figures: Mapping[str, Figure], tables: Mapping[str, pd.DataFrame]) -> Section:
    return Section(
        "Attribution",
        [
            "Every candidate is inverted for every picture. How the errors fall out for pictures of each source was "
            "learnt from calibration pictures of all sources, also of those that cannot be inverted, and Bayes' rule "
            "gives the probability of each source, of `real`, and of `none of these`. The smallest error alone names "
            "a candidate, as Zhang et al. do. All judged pictures went through 8 bits and JPEG of quality 90, except "
            "where it says not, and calibration pictures were treated in the same way.",
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


def _unknown(figures: Mapping[str, Figure], tables: Mapping[str, pd.DataFrame]) -> Section:
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
        [Table(worse, f"Where inversion falls further than the classifier that saw as much: {number}.", index=False)]
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
            "evaluation; evaluations are at most steps times restarts (here one start: the encoder's). Shared "
            "evaluations learn the curvature, once for all pictures of a call. Measured on this machine, beside "
            "whatever else it did.",
            Table(tables["throughput"], "Cost by candidate: counted, modelled, measured."),
            Table(tables["errors"], "Errors of reconstructions (of 255 grey values), and evaluations.", index=False),
        ],
    )


def _estimate(tree: xr.DataTree, method: str, name: str) -> Estimate:
    summary = _group(tree, "attribution")
    return Estimate(*(float(value) for value in summary[name].sel({"method": method}).values))


def _group(tree: xr.DataTree, path: str) -> xr.Dataset:
    node = tree[path]
    assert isinstance(node, xr.DataTree)
    return node.to_dataset(inherit=False)

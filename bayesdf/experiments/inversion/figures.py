"""What does a run show as figures?"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

import bayesdf.analysis as analysis
from bayesdf.data import REAL
from bayesdf.experiments.inversion.names import ATTACKS, METHODS, estimate, group_of
from bayesdf.inversion.perturbations import PERTURBATIONS, perturb
from bayesdf.report.face_sheets import face_sheet
from bayesdf.report.reliability_and_confusion import confusion_matrix, reliability_diagram
from bayesdf.report.style import MUTED, head, in_order, legible, palette, plain, styled, tidy

LINES = {
    "inversion": ("#0072B2", "o", "-"),
    "inversion_augmented": ("#56B4E9", "s", "-"),
    "smallest_error": ("#009E73", "^", ":"),
    "classifier": ("#D55E00", "o", "--"),
    "classifier_augmented": ("#E69F00", "s", "--"),
}


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
    data = group_of(tree, "examples")
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
    data = group_of(tree, "evidence")
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
    tidy(axes, len(candidates))
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
    counts = analysis.confusion(group_of(tree, f"attribution/{method}"))
    figure = confusion_matrix(counts, title=f"Sources named by {METHODS[method]}")
    figure.axes[0].set_xlabel("source named")
    return figure


def _reliability(tree: xr.DataTree) -> Figure:
    answer = group_of(tree, "attribution/inversion")
    names = list(answer["source"].values)
    label = np.array([names.index(name) for name in answer["truth"].values])
    table = analysis.reliability_table(answer["probability"].values, label)
    ece = estimate(tree, "inversion", "ece")
    figure = reliability_diagram(table, ece, title="Is attribution by inversion right as often as it claims?")
    figure.axes[1].set_xlabel("confidence: probability of the source named")
    return figure


def perturbation_sheet(tree: xr.DataTree) -> Figure:
    """A photograph and a generator's picture under every perturbation and strength of the run."""
    data = group_of(tree, "robustness")
    examples = group_of(tree, "examples")
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
        captions[heading] = [way.shown(strength) for strength in strengths] * len(pictures)
    return face_sheet(
        rows,
        title="What the perturbations do",
        subtitle="Two pictures, under all strengths of the run.",
        captions=captions,
    )


@styled
def robustness_curves(tree: xr.DataTree, table: pd.DataFrame) -> Figure:
    """Accuracy against strength, a panel a perturbation."""
    data = group_of(tree, "robustness")
    table = table[table["of"] == "candidates"]
    kinds = [name for name in PERTURBATIONS if name in set(table["kind"])]
    figure = Figure(figsize=(3.1 * 3 + 0.4, 2.75 * 2 + 1.0))
    axes = figure.subplots(2, 3, sharey=True)
    for ax, kind in zip(axes.flat, kinds, strict=False):
        way = PERTURBATIONS[kind]
        _panel(ax, table, kind, way.label, way.unit)
        strengths = sorted({0.0, *table["strength"][table["kind"] == kind]})
        ax.set_xticks(strengths, [way.shown(strength) for strength in strengths])
    for ax in axes.flat[len(kinds) : -1]:
        ax.set_visible(False)
    _legend(axes.flat[-1], axes.flat[0])
    head(
        figure,
        "How well sources are named after perturbations",
        f"{_counted(data)}\nAt 0 or none: after the common path (8 bits, JPEG quality 90) alone.",
    )
    return figure


@styled
def attack_curves(tree: xr.DataTree, table: pd.DataFrame) -> Figure:
    """Accuracy against the budget, a panel an attack."""
    data = group_of(tree, "attack")
    table = table[table["of"] == "candidates"]
    figure = Figure(figsize=(3.0 * 4, 3.9))
    axes = figure.subplots(1, 4, sharey=True, width_ratios=[1, 1, 1, 1.15])
    for ax, (kind, label) in zip(axes.flat, ATTACKS.items(), strict=False):
        _panel(ax, table, kind, f"attack {label}", "largest change of a pixel (of 255)")
    _legend(axes.flat[-1], axes.flat[0])
    head(
        figure,
        "How well sources are named under attack",
        f"{_counted(data)}\nThe attacker knows the classifier's weights, or all generators and how they are inverted, "
        "and the true source.",
    )
    return figure


def _counted(data: xr.Dataset) -> str:
    """What curves are made of."""
    number = int((data["source"].values != REAL).sum())
    return (
        f"The same {number} samples of the candidates at every point; all sources may be named, `none of these` not. "
        "Bars: 95 % intervals."
    )


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
    data = group_of(tree, "open_set")
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

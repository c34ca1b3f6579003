"""The figures of a run, each readable alone: title, units and numbers of images on the figure itself.

Every function takes data and returns a `matplotlib.figure.Figure`; `bayesdf.report.save` writes it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike, NDArray

from bayesdf.analysis import Estimate
from bayesdf.errors import BayesdfError
from bayesdf.report.style import (
    ALERT,
    FAINT,
    INK,
    MUTED,
    head,
    in_order,
    legible,
    palette,
    percent,
    plain,
    styled,
    tidy,
)

FLOOR = 1e-6
"""Uncertainties below this, in nats, are drawn at it: decades of next to nothing would take up the room."""


@styled
def confusion_matrix(counts: pd.DataFrame, *, title: str = "Which source is taken for which") -> Figure:
    """Share of each source's images that were given each name.

    Parameters
    ----------
    counts
        Images, a row a true source, a column a named one, as `bayesdf.analysis.confusion` returns.
    title
        What the figure shows.
    """
    values = counts.to_numpy(dtype=np.float64)
    rows = values.sum(axis=1, keepdims=True)
    share = np.divide(values, rows, out=np.zeros_like(values), where=rows > 0)
    text = np.array(
        [[f"{percent(s)}\n{int(n)}" for s, n in zip(*pair, strict=True)] for pair in zip(share, values, strict=True)]
    )
    size = 2.2 + 0.78 * len(counts)
    figure = Figure(figsize=(size + 1.0, size + 0.3))
    ax = figure.subplots()
    sns.heatmap(
        share,
        vmin=0,
        vmax=1,
        cmap="Blues",
        annot=text,
        fmt="",
        annot_kws={"fontsize": 9},
        square=True,
        ax=ax,
        linewidths=1,
        linecolor="white",
        cbar_kws={"label": "share of the row", "format": PercentFormatter(1.0, symbol=" %"), "shrink": 0.7},
        xticklabels=[plain(name, 18) for name in counts.columns],
        yticklabels=[f"{plain(name, 18)}\n({n:.0f} images)" for name, n in zip(counts.index, rows[:, 0], strict=True)],
    )
    for label, part in zip(ax.texts, share.ravel(), strict=True):
        label.set_color("white" if part > 0.6 else INK)
    ax.set(xlabel="source named by the classifier", ylabel="true source")
    ax.tick_params(length=0)
    ax.tick_params(axis="x", rotation=35)
    ax.tick_params(axis="y", rotation=0)
    for label in ax.get_xticklabels():
        label.set(ha="right", rotation_mode="anchor")
    right = np.trace(values) / max(values.sum(), 1)
    head(figure, title, f"{int(values.sum())} images; {percent(right)} lie on the diagonal. Rows sum to 100 %.")
    return figure


@styled
def uncertainty_by_source(
    uncertainty: xr.Dataset, *, title: str = "Why the detector is unsure, by source", columns: int = 3
) -> Figure:
    """Epistemic against aleatoric uncertainty, a panel a source, all other images in grey behind.

    Parameters
    ----------
    uncertainty
        From `bayesdf.analysis.decompose`, with the coordinate `source` (image).
    title
        What the figure shows.
    columns
        Panels side by side.
    """
    if "source" not in uncertainty.coords:
        raise BayesdfError("the uncertainties have no coordinate 'source'; put it at constant_data/source")
    source = uncertainty["source"].values.astype(str)
    x = np.maximum(uncertainty["aleatoric"].values, FLOOR)
    y = np.maximum(uncertainty["epistemic"].values, FLOOR)
    classes = uncertainty.sizes.get("class", 2)
    lowest = min(x.min(), y.min()) / 2
    names, colours = in_order(source), palette(source)
    columns = min(columns, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(2.75 * columns + 0.4, 2.6 * rows + 0.95))
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for ax, name in zip(axes.flat, names, strict=False):
        own = source == name
        ax.set(xscale="log", yscale="log")
        _ceiling(ax, classes, lowest)
        sns.scatterplot(x=x[~own], y=y[~own], color=FAINT, s=7, linewidth=0, ax=ax, rasterized=True)
        sns.scatterplot(x=x[own], y=y[own], color=colours[name], s=15, alpha=0.75, linewidth=0, ax=ax)
        ax.plot(np.median(x[own]), np.median(y[own]), "P", ms=10, mfc=colours[name], mec="white", mew=1.5)
        ax.set_title(f"{plain(name, 22)} ({own.sum()})", loc="left", color=legible(colours[name]))
    tidy(axes, len(names))
    figure.supxlabel("aleatoric uncertainty: the image is ambiguous (nats)", fontsize=10)
    # One row of panels is lower than the label is long, and the middle of the axes lies below that of the figure.
    figure.supylabel(
        f"epistemic:{' ' if rows > 1 else chr(10)}the draws disagree (nats)", fontsize=10, y=0.45, ma="center"
    )
    floored = int(((x == FLOOR) | (y == FLOOR)).sum())
    note = f"; {floored} below {FLOOR:g} drawn at {FLOOR:g}" if floored else ""
    head(
        figure,
        title,
        f"{len(source)} images, number of each source in brackets{note}. Logarithmic axes.\n"
        f"Grey: all other sources. Cross: median. Dotted: their sum is log {classes}, its maximum.",
    )
    return figure


def _ceiling(ax: Axes, classes: int, lowest: float) -> None:
    top = np.log(classes)
    x = np.geomspace(lowest, top * (1 - 1e-6), 400)
    ax.plot(x, top - x, ":", color=MUTED, lw=1)
    ax.set(xlim=(lowest, 2 * top), ylim=(lowest, 2 * top))


@styled
def reliability_diagram(
    table: pd.DataFrame, ece: Estimate, *, title: str = "Is the detector right as often as it claims?"
) -> Figure:
    """Accuracy against claimed confidence, over the number of images in each bin.

    Parameters
    ----------
    table
        From `bayesdf.analysis.reliability`.
    ece
        The expected calibration error of the same bins, with its interval.
    title
        What the figure shows.
    """
    figure = Figure(figsize=(5.6, 5.9))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    low, width = table["low"], table["high"] - table["low"]
    left = float(np.floor(10 * low.min() + 1e-9) / 10)
    upper.plot([0, 1], [0, 1], "--", color=MUTED, lw=1, label="calibrated")
    upper.bar(
        low,
        table["accuracy"],
        width,
        align="edge",
        color="#0072B2",
        alpha=0.25,
        ec="white",
        label="accuracy of a bin",
    )
    upper.vlines(table["confidence"], table["confidence"], table["accuracy"], color=ALERT, lw=1.5, label="gap")
    upper.plot(table["confidence"], table["accuracy"], "o", color="#0072B2", ms=5, label="mean confidence, accuracy")
    upper.set(ylabel="share that is right", xlim=(left, 1.0), ylim=(0, 1.04))
    upper.legend(loc="lower right", fontsize=8.5, frameon=True, framealpha=0.9, edgecolor="none")
    lower.bar(low, table["count"], width, align="edge", color=MUTED, ec="white")
    for start, wide, count in zip(low, width, table["count"], strict=True):
        lower.annotate(
            f"{count}", (start + wide / 2, count), (0, 2), textcoords="offset points", ha="center", fontsize=8
        )
    lower.set(xlabel="confidence: mean probability of the predicted class", ylabel="images")
    lower.margins(y=0.25)
    interval = f" (95 % interval {ece.low:.3f} to {ece.high:.3f})" if np.isfinite(ece.low) else ""
    head(
        figure,
        title,
        f"{int(table['count'].sum())} images. Expected calibration error {ece.value:.3f}{interval}.\n"
        "Points below the dashed line: more sure than right.",
    )
    return figure


@styled
def source_accuracy(
    summary: pd.DataFrame, *, title: str = "How often the source is named rightly", unit: str = "images"
) -> Figure:
    """Accuracy of source attribution for each feature set, with intervals and the line of chance.

    Parameters
    ----------
    summary
        From `bayesdf.analysis.summarise`: a row a feature set, with `accuracy`, `accuracy.low`,
        `accuracy.high` and `chance`; where it has `accuracy_manipulations` and `accuracy_new_faces`, these are marked.
    title
        What the figure shows.
    unit
        Said in the subtitle: what is counted.
    """
    figure = Figure(figsize=(7.2, 1.75 + 0.46 * len(summary)))
    ax = figure.subplots()
    place = np.arange(len(summary))
    value = summary["accuracy"].to_numpy()
    low = np.nan_to_num(value - summary["accuracy.low"].to_numpy())
    high = np.nan_to_num(summary["accuracy.high"].to_numpy() - value)
    ax.barh(place, value, height=0.6, color="#56B4E9")
    ax.errorbar(value, place, xerr=np.maximum([low, high], 0), fmt="none", ecolor=INK, elinewidth=1.2, capsize=3)
    end, note = value + np.maximum(high, 0), ""
    for kind, marker, fill in (("manipulations", "D", INK), ("new_faces", "o", "white")):
        if f"accuracy_{kind}" in summary:
            own = summary[f"accuracy_{kind}"].to_numpy()
            ax.plot(own, place - 0.2, marker, ms=5, mfc=fill, mec=INK, ls="none")
            end = np.maximum(end, own)
            note = "\nDiamonds: manipulations, which show a person. Circles: new faces, of nobody."
    for x, y, v in zip(end, place, value, strict=True):
        ax.annotate(percent(v), (x, y), (5, 0), textcoords="offset points", va="center", fontsize=9)
    chance = float(summary["chance"].iloc[0])
    ax.axvline(chance, color=ALERT, lw=1.3, ls="--")
    ax.annotate(
        f"chance {percent(chance)}",
        (chance, 1),
        (3, 1),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        color=ALERT,
        fontsize=9,
        va="bottom",
    )
    ax.set_yticks(place, [plain(name, 44) for name in summary.index])
    ax.set(xlim=(0, 1.08), xlabel=f"accuracy on people not seen in fitting (share of {unit})")
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    ax.set_xticks(np.linspace(0, 1, 6))
    ax.tick_params(axis="y", length=0)
    ax.invert_yaxis()
    head(figure, title, f"Bars: feature sets, each with the same procedure. Lines: 95 % intervals over people.{note}")
    return figure


@styled
def face_sheet(
    rows: Mapping[str, ArrayLike],
    *,
    title: str,
    subtitle: str,
    captions: Mapping[str, Sequence[str]] | None = None,
    colours: Mapping[str, str] | None = None,
    wrong: Mapping[str, Sequence[bool]] | None = None,
) -> Figure:
    """Rows of faces under a heading each.

    Parameters
    ----------
    rows
        Heading -> images, float (N, H, W, 3) or (N, H, W) in [0, 1].
    title, subtitle
        What the figure shows.
    captions
        Heading -> a text under each image.
    colours
        Heading -> colour of the heading.
    wrong
        Heading -> whether to frame each image in the colour of errors.
    """
    images = {heading: np.clip(np.asarray(row, dtype=np.float64), 0, 1) for heading, row in rows.items()}
    columns = max((len(row) for row in images.values()), default=0)
    if not columns:
        raise BayesdfError("a sheet of faces needs at least one image")
    caption_lines = 1 + max((text.count("\n") for texts in (captions or {}).values() for text in texts), default=-1)
    cell = 1.15
    row_height = cell + 0.32 + 0.13 * caption_lines
    height = row_height * len(images) + 0.85
    figure = Figure(figsize=(cell * columns + 0.3, height))
    figure.set_layout_engine("none")
    wide = figure.get_figwidth()
    for r, (heading, row) in enumerate(images.items()):
        top = height - 0.80 - r * row_height
        colour = (colours or {}).get(heading, INK)
        figure.text(
            0.15 / wide,
            (top - 0.05) / height,
            plain(heading, 120),
            fontsize=9.5,
            fontweight="bold",
            color=colour,
            va="top",
        )
        for c, image in enumerate(row):
            box = (0.15 + c * cell, top - 0.16 - cell, cell - 0.08, cell - 0.08)
            ax = figure.add_axes((box[0] / wide, box[1] / height, box[2] / wide, box[3] / height))
            ax.imshow(image, cmap="gray" if image.ndim == 2 else None, vmin=0, vmax=1, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            framed = bool(wrong and wrong[heading][c])
            for spine in ax.spines.values():
                spine.set(visible=framed, color=ALERT, linewidth=2.5)
            if captions:
                lines = captions[heading][c].count("\n") + 1
                ax.annotate(
                    captions[heading][c],
                    (0.5, 0.0),
                    (0, -72 * (0.03 + 0.123 * lines)),
                    xycoords="axes fraction",
                    textcoords="offset points",
                    fontsize=6.8,
                    ha="center",
                    va="baseline",
                )
    figure.text(0.15 / wide, 1 - 0.12 / height, title, va="top", fontsize=12, fontweight="bold")
    figure.text(0.15 / wide, 1 - 0.38 / height, subtitle, va="top", fontsize=9, color=MUTED)
    return figure


def certainty_sheet(
    images: ArrayLike,
    uncertainty: xr.Dataset,
    *,
    columns: int = 8,
    title: str = "The faces the detector is most and least sure of",
) -> Figure:
    """The most certain faces, the most ambiguous and those on which the draws disagree most.

    Parameters
    ----------
    images
        Float (image, H, W, 3) in [0, 1], in the order of `uncertainty`.
    uncertainty
        From `bayesdf.analysis.decompose`, of a binary detector, with the coordinate `label` (0 real, 1 fake)
        and, if known, `source`.
    columns
        Faces in a row.
    title
        What the figure shows.
    """
    pictures = np.asarray(images)
    count = uncertainty.sizes["image"]
    if len(pictures) != count:
        raise BayesdfError(f"{len(pictures)} images given for {count} uncertainties; give them in the same order")
    chosen = certainty_rows(uncertainty, columns)
    captions = {heading: [_caption(uncertainty.isel(image=i)) for i in row] for heading, row in chosen.items()}
    prediction, label = uncertainty["prediction"].values, uncertainty["label"].values
    return face_sheet(
        {heading: pictures[row] for heading, row in chosen.items()},
        title=title,
        subtitle=f"{count} images judged. Under each: its truth, the probability that it is fake, "
        "its uncertainty in nats. Framed: judged wrongly.",
        captions=captions,
        wrong={heading: [bool(prediction[i] != label[i]) for i in row] for heading, row in chosen.items()},
    )


def certainty_rows(uncertainty: xr.Dataset, columns: int = 8) -> dict[str, NDArray[np.int64]]:
    """Positions of the images of `certainty_sheet`, heading by heading."""
    total, aleatoric, epistemic = (uncertainty[name].values for name in ("total", "aleatoric", "epistemic"))
    label = uncertainty["label"].values
    ranked = {
        "Most certain photographs (lowest total uncertainty)": _first(total, label == 0, columns),
        "Most certain fakes (lowest total uncertainty)": _first(total, label == 1, columns),
        "Most ambiguous (highest aleatoric uncertainty)": _first(-aleatoric, label >= 0, columns),
        "Most disputed among the draws (highest epistemic uncertainty)": _first(-epistemic, label >= 0, columns),
    }
    return {heading: row for heading, row in ranked.items() if len(row)}


def sample_sheet(
    images: ArrayLike,
    sources: ArrayLike,
    *,
    columns: int = 8,
    seed: int = 0,
    title: str = "What the images look like",
) -> Figure:
    """Faces drawn at random, a row a source.

    Parameters
    ----------
    images
        Float (image, H, W, 3) in [0, 1].
    sources
        Source of each image.
    columns
        Faces in a row, fewer where a source has fewer.
    seed
        Which faces are drawn.
    title
        What the figure shows.
    """
    pictures, source = np.asarray(images), np.asarray(sources).astype(str)
    if len(pictures) != len(source):
        raise BayesdfError(f"{len(pictures)} images given for {len(source)} sources; give one source an image")
    rng = np.random.default_rng(seed)
    rows, colours = {}, {}
    for name in in_order(source):
        own = np.flatnonzero(source == name)
        heading = f"{name} ({len(own)} images)"
        rows[heading] = pictures[rng.choice(own, min(columns, len(own)), replace=False)]
        colours[heading] = legible(palette(source)[name])
    return face_sheet(
        rows,
        title=title,
        subtitle=f"Drawn at random from {len(source)} images, a row a source.",
        colours=colours,
    )


def _first(values: NDArray, among: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """Positions of the `count` lowest values among some."""
    order = np.argsort(values, kind="stable")
    return order[among[order]][:count]


def _caption(one: xr.Dataset) -> str:
    truth = "real" if int(one["label"]) == 0 else str(one["source"].item() if "source" in one.coords else "fake")
    probability = _share(float(one["probability"][1]))
    parts = [f"{name} {_nats(one, name)}" for name in ("aleatoric", "epistemic")]
    return "\n".join([plain(truth, 18), f"P(fake) {probability}", *parts])


def _share(value: float) -> str:
    return "<0.001" if value < 0.001 else ">0.999" if value > 0.999 else f"{value:.3f}"


def _nats(one: xr.Dataset, name: str) -> str:
    value = float(one[name])
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"

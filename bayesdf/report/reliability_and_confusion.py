"""Drawn: how well are classes told, as a confusion matrix and as a reliability diagram?

Each figure can be read alone: title, units and numbers of images stand on it.
"""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from bayesdf.analysis import Estimate
from bayesdf.report.style import ALERT, INK, MUTED, head, percent, plain, styled


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
def reliability_diagram(
    table: pd.DataFrame,
    ece: Estimate,
    *,
    title: str = "Is the detector right as often as it claims?",
    unit: str = "images",
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
    unit
        What is counted.
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
    upper.plot(
        table["confidence"],
        table["accuracy"],
        "o",
        color="#0072B2",
        ms=5,
        label="mean confidence, accuracy",
        clip_on=False,
        zorder=3,
    )
    upper.set(ylabel="share that is right", xlim=(left, 1.0), ylim=(0, 1.04))
    # Above the axes: no corner is free of bars and points in every diagram.
    upper.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=4,
        fontsize=8,
        handlelength=1.3,
        handletextpad=0.5,
        columnspacing=1.2,
    )
    lower.bar(low, table["count"], width, align="edge", color=MUTED, ec="white")
    for start, wide, count in zip(low, width, table["count"], strict=True):
        written = f"{count}" if count < 100_000 else f"{count / 1000:.0f}k"
        lower.annotate(written, (start + wide / 2, count), (0, 2), textcoords="offset points", ha="center", fontsize=8)
    lower.set(xlabel="confidence: mean probability of the predicted class", ylabel=unit)
    lower.margins(y=0.25)
    interval = f" (95 % interval {ece.low:.3f} to {ece.high:.3f})" if np.isfinite(ece.low) else ""
    head(
        figure,
        title,
        f"{int(table['count'].sum()):,} {unit}. Expected calibration error {ece.value:.3f}{interval}.\n"
        "Points below the dashed line: more sure than right.",
    )
    return figure

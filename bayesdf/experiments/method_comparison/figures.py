"""What do the figures look like?"""

import textwrap
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator, PercentFormatter
from numpy.typing import NDArray

import bayesdf.analysis as analysis
from bayesdf.experiments.method_comparison.measures import COST, QUALITY
from bayesdf.experiments.method_comparison.results import dataset_at, fits
from bayesdf.experiments.method_comparison.tables import uncertainties
from bayesdf.report.methods import METHODS
from bayesdf.report.style import ALERT, FAINT, FLOOR, INK, MUTED, head, plain, styled, tidy

BLUE = "#0072B2"
SKY = "#56B4E9"
KINDS = {"photographs": MUTED, "seen fakes": SKY, "left out": ALERT}


def figures(tree: xr.DataTree, tables: Mapping[str, pd.DataFrame], left_out: str) -> dict[str, Figure]:
    """Figures by name.

    Parameters
    ----------
    tables
        As `bayesdf.experiments.method_comparison.tables.tables` makes them.
    left_out
        The generator that no fit has seen.
    """
    return {
        "quality": quality(tree, tables["comparison"], tables["seeds"], left_out),
        "reliability": reliability_curves(tree),
        "risk_coverage": risk_coverage_curves(tree),
        "left_out": left_out_uncertainty(tree, tables["comparison"], left_out),
        "cost": cost_and_quality(tree, tables["comparison"], tables["seeds"]),
        "draw_cost": draw_cost(tree, tables["comparison"], tables["seeds"]),
    }


@styled
def quality(tree: xr.DataTree, means: pd.DataFrame, each: pd.DataFrame, left_out: str) -> Figure:
    """A panel a figure of quality: every fit with its interval over people, every method with its mean over seeds."""
    known, unseen = counts(tree)
    columns = 4
    lines = -(-len(QUALITY) // columns)
    figure = Figure(figsize=(3.05 * columns + 1.3, lines * (0.7 + 0.34 * len(means)) + 1.3))
    axes = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for ax, (key, named) in zip(axes.flat, QUALITY.items(), strict=False):
        _points(ax, key, means, each)
        ax.set_title(plain(named.label, 40), loc="left")
        ax.set_xlabel(f"{named.unit}; {'higher' if named.higher_is_better else 'lower'} is better")
        if key.startswith("ood"):
            ax.axvline(0.5, color=ALERT, lw=1, ls=":")
    for ax in axes.flat[len(QUALITY) :]:
        ax.set_visible(False)
    head(
        figure,
        "How good each method is",
        f"{known} test images of people and {unseen} of a generator ({plain(left_out, 20)}) never seen. "
        f"Points: fits, {_seeds(each)} a method; thin lines: 95 % over people.\n"
        "Bars: mean over seeds; thick lines: its 95 % t interval, cut at the frame. Dotted: chance.",
    )
    return figure


def _points(ax: Axes, key: str, means: pd.DataFrame, each: pd.DataFrame) -> None:
    """One figure of every method: rows are methods, in their order from above."""
    for place, name in enumerate(means.index):
        own = each.loc[[name]]
        offsets = np.linspace(-0.22, 0.22, len(own)) if len(own) > 1 else np.zeros(1)
        if f"{key}.low" in own:
            ax.hlines(place + offsets, own[f"{key}.low"], own[f"{key}.high"], color=FAINT, lw=1.3, zorder=1)
        ax.plot(own[key], place + offsets, "o", ms=3.6, color=SKY, mec="none", zorder=3)
        low, high = means.loc[name, f"{key}.low"], means.loc[name, f"{key}.high"]
        if np.isfinite(low):
            ax.hlines(place, low, high, color=BLUE, lw=2.2, zorder=2)
        ax.plot(means.loc[name, key], place, "|", ms=12, mew=2.2, color=INK, zorder=4)
    shown = np.concatenate([each[key], *(each[f"{key}.{end}"] for end in ("low", "high") if f"{key}.{end}" in each)])
    shown = shown[np.isfinite(shown)]
    if len(shown):  # an interval over seeds may reach far beyond: it is cut, the points are not
        margin = 0.06 * max(np.ptp(shown), 0.1)
        ax.set_xlim(shown.min() - margin, shown.max() + margin)
    ax.set_yticks(range(len(means)), [METHODS[name] for name in means.index])
    ax.set_ylim(len(means) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", color="#eeeeee", lw=0.8)
    ax.set_axisbelow(True)


@styled
def reliability_curves(tree: xr.DataTree, columns: int = 4) -> Figure:
    """Accuracy against confidence in ten bins of as many images each: a panel a method, all others behind in grey."""
    tables = {(name, seed): analysis.reliability(one, bins=10, binning="mass") for name, seed, one in fits(tree)}
    lines = {key: (table["confidence"].to_numpy(), table["accuracy"].to_numpy()) for key, table in tables.items()}
    low = min(min(x.min(), y.min()) for x, y in lines.values())

    def dress(ax: Axes) -> None:
        ax.plot([0, 1], [0, 1], "--", color=MUTED, lw=1, zorder=1)
        ax.set(xlim=(low - 0.02, 1.01), ylim=(low - 0.02, 1.01))

    figure = _panels(tree, lines, dress, columns, marker="o")
    figure.supxlabel("confidence: mean probability of the predicted class (mean of a bin)", fontsize=10)
    figure.supylabel("share that is right", fontsize=10)
    head(
        figure,
        "Is each method right as often as it claims?",
        f"{counts(tree)[0]} test images of seen sources in ten bins of as many each. A line a seed; grey: the other "
        "methods.\nBelow the dashed line: more sure than right. Images of equal confidence share a bin.",
    )
    return figure


@styled
def risk_coverage_curves(tree: xr.DataTree, columns: int = 4) -> Figure:
    """Share of errors among the images answered, surest first: a panel a method, all others behind in grey."""
    curves = {(name, seed): analysis.risk_coverage(one) for name, seed, one in fits(tree)}
    lines = {key: (curve["coverage"].to_numpy(), curve["risk"].to_numpy()) for key, curve in curves.items()}
    # The first few images make a risk that jumps between 0 and 1.
    top = max(max(y[len(y) // 10 :].max() for _, y in lines.values()), 0.01)

    def dress(ax: Axes) -> None:
        ax.set(xlim=(0, 1), ylim=(0, 1.08 * top))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))

    figure = _panels(tree, lines, dress, columns)
    figure.supxlabel("coverage: share of the images answered, surest first", fontsize=10)
    figure.supylabel("risk: share in error", fontsize=10)
    head(
        figure,
        "How right is each method about the images it is surest of?",
        f"{counts(tree)[0]} test images of seen sources. A line a seed; grey: the other methods. The score is the "
        "confidence.\nLow at the left, where only the surest are answered: the method knows where it errs.",
    )
    return figure


def _panels(
    tree: xr.DataTree,
    lines: Mapping[tuple[str, int], tuple[NDArray, NDArray]],
    dress: Callable[[Axes], None],
    columns: int,
    marker: str = "",
) -> Figure:
    """A panel a method: its lines, a seed each, and those of all others in grey behind."""
    names = [str(name) for name in tree.children]
    columns = min(columns, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(2.6 * columns + 0.6, 2.35 * rows + 1.2))
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for ax, name in zip(axes.flat, names, strict=False):
        dress(ax)
        for (other, _), (x, y) in lines.items():
            if other != name:
                ax.plot(x, y, color=FAINT, lw=0.8, zorder=2)
        for (own, _), (x, y) in lines.items():
            if own == name:
                ax.plot(x, y, color=BLUE, lw=1.4, marker=marker, ms=3, zorder=3)
        ax.set_title(METHODS[name], loc="left")
    tidy(axes, len(names))
    return figure


@styled
def left_out_uncertainty(tree: xr.DataTree, means: pd.DataFrame, left_out: str, columns: int = 3) -> Figure:
    """Epistemic uncertainty of photographs, seen fakes and the left-out generator: a panel a method."""
    frames = {
        str(name): pd.concat([uncertainties(one) for method, _, one in fits(tree) if method == name])
        for name in tree.children
    }
    columns = min(columns, len(frames))
    rows = -(-len(frames) // columns)
    figure = Figure(figsize=(3.2 * columns + 1.2, 1.5 * rows + 1.3))
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    order = list(KINDS)
    positive = np.concatenate([frame["epistemic"][frame["epistemic"] > 0] for frame in frames.values()])
    floor = max(FLOOR, float(np.quantile(positive, 0.01))) if len(positive) else FLOOR
    for ax, (name, frame) in zip(axes.flat, frames.items(), strict=False):
        found = f"AUROC {means['ood_auroc_epistemic'][name]:.2f}"
        if (frame["epistemic"] == 0).all():
            ax.annotate("one draw: none", (0.5, 0.5), xycoords="axes fraction", ha="center", va="center", color=MUTED)
        sns.boxplot(
            frame.assign(epistemic=frame["epistemic"].clip(lower=floor)), x="epistemic", y="kind", order=order,
            hue="kind", hue_order=order, palette=KINDS, legend=False, width=0.6, whis=(5, 95), fliersize=0,
            linewidth=1.0, ax=ax, boxprops={"alpha": 0.6},
        )  # fmt: skip
        ax.set(xscale="log", xlabel="", ylabel="", xlim=(floor / 1.5, np.log(2) * 1.5))
        ax.xaxis.set_major_locator(LogLocator(numticks=8))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.tick_params(axis="y", length=0)
        ax.set_title(f"{METHODS[name]}: {found}", loc="left")
    tidy(axes, len(frames))
    figure.supxlabel("epistemic uncertainty: the draws disagree (nats)", fontsize=10)
    seeds = len(next(iter(tree.children.values())).children)
    number = {kind: int((next(iter(frames.values()))["kind"] == kind).sum() / seeds) for kind in order}
    head(
        figure,
        f"Does the detector doubt a generator it never saw ({plain(left_out, 20)})?",
        f"{number['photographs']} photographs, {number['seen fakes']} fakes of seen generators, {number['left out']} "
        f"of the left-out one; all seeds together. Boxes: quartiles, whiskers: 5 and 95 %.\n"
        f"Logarithmic axis, less than {floor:.0e} drawn there. AUROC: how often a left-out image is in more doubt than "
        "another; 0.5 is chance.",
    )
    return figure


@styled
def cost_and_quality(tree: xr.DataTree, means: pd.DataFrame, each: pd.DataFrame) -> Figure:
    """What a fit takes against how good it is: a point a fit, in two panels for two figures of quality."""
    shown = ("nll", "ood_auroc_epistemic")
    figure = Figure(figsize=(11.2, 5.0))
    axes = figure.subplots(1, len(shown))
    for ax, key in zip(axes, shown, strict=True):
        named = QUALITY[key]
        ax.plot(each["fit_seconds"], each[key], "o", ms=4, color=SKY, mec="none")
        ax.plot(means["fit_seconds"], means[key], "o", ms=6.5, color=BLUE, mec="white")
        ax.set(xscale="log", xlabel="seconds to fit (logarithmic)", ylabel=f"{named.label} ({named.unit})")
        ax.set_title(f"{named.label}: {'higher' if named.higher_is_better else 'lower'} is better", loc="left")
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.margins(x=0.14, y=0.08)
        _label(ax, means["fit_seconds"], means[key])
    spent = f"of which the features of {_trained(tree)} training images take the same for all"
    head(
        figure,
        "What training costs, and what it buys",
        f"Large: mean over {_seeds(each)} a method, small: fits. Seconds on one machine, {spent}.\n"
        "Fits that were stopped and taken up are left out of the times.",
    )
    return figure


def _label(ax: Axes, x: pd.Series, y: pd.Series) -> None:
    """Names in a column at the right, in the order of the points, each tied to its own by a line."""
    known = sorted((name for name in x.index if np.isfinite(x[name]) and np.isfinite(y[name])), key=lambda one: y[one])
    ax.autoscale_view()
    low, high = ax.get_ylim()
    heights: list[float] = []
    for name in known:
        heights.append(max((y[name] - low) / (high - low), heights[-1] + 0.065 if heights else 0.0))
    for place in reversed(range(len(heights))):  # those pushed beyond the top push the others down
        heights[place] = min(heights[place], heights[place + 1] - 0.065 if place + 1 < len(heights) else 1.0)
    for name, height in zip(known, heights, strict=True):
        ax.annotate(
            METHODS[name],
            (x[name], y[name]),
            (1.04, height),
            textcoords="axes fraction",
            va="center",
            fontsize=8.5,
            arrowprops={"arrowstyle": "-", "color": FAINT, "lw": 0.8, "relpos": (0, 0.5), "shrinkA": 1, "shrinkB": 4},
        )


@styled
def draw_cost(tree: xr.DataTree, means: pd.DataFrame, each: pd.DataFrame) -> Figure:
    """Training beside MAP's, and a draw beside one run of the network: rows are methods."""
    figure = Figure(figsize=(9.6, 1.7 + 0.36 * len(means)))
    keys = [key for key in ("fit_ratio", "draw_ratio") if means[key].notna().any()]
    axes = figure.subplots(1, len(keys), sharey=True, squeeze=False)[0]
    for ax, key in zip(axes, keys, strict=True):
        _points(ax, key, means, each)
        ax.set(xscale="log", xlabel=f"{COST[key].unit}; logarithmic")
        ax.set_title(COST[key].label, loc="left")
        low, high = np.nanmin(each[key]), np.nanmax(each[key])
        ax.set_xlim(low / 1.6, high * 1.6)
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 50 else (1.0, 2.0, 5.0)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        for place, name in enumerate(means.index):
            if np.isfinite(means.loc[name, key]):
                ax.annotate(
                    f"{means.loc[name, key]:.2g}",
                    (1.01, place),
                    xycoords=("axes fraction", "data"),
                    va="center",
                    fontsize=8.5,
                )
    draws = ", ".join(
        f"{METHODS[name]} {int(number)}" for name, number in zip(means.index, means["draws"], strict=True)
    )
    timed = int(dataset_at(next(fits(tree))[2], "cost")["timed_images"])
    head(
        figure,
        "What a fit and a draw cost",
        f"{_seeds(each)} a method (points; black: mean). A draw: made, and run through what follows the features of "
        f"{timed} images.\nDraws of each fit: {_wrapped(draws)}.",
    )
    return figure


def counts(tree: xr.DataTree) -> tuple[int, int]:
    """Test images of seen sources, and of the generator that was left out."""
    one = next(fits(tree))[2]
    return dataset_at(one, "uncertainty").sizes["image"], dataset_at(one, "left_out/uncertainty").sizes["image"]


def _trained(tree: xr.DataTree) -> int:
    return int(next(fits(tree))[2].attrs["images"])


def _seeds(each: pd.DataFrame) -> str:
    number = int(each["seed"].nunique())
    return f"{number} seed{'s' * (number != 1)}"


def _wrapped(text: str, width: int = 110) -> str:
    return "\n".join(textwrap.wrap(text, width))

"""What does a run show as figures? Each method has its own.

Each figure can be read alone: title, units and numbers of images stand on it.
"""

import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike, NDArray

import bayesdf.analysis as analysis
from bayesdf.errors import BayesdfError
from bayesdf.experiments.source_attribution.feature_sets import MAIN, SETS
from bayesdf.experiments.source_attribution.tables import Results, basis, by_feature_set, folds
from bayesdf.report.face_sheets import face_sheet
from bayesdf.report.map_sheets import MapRow, Scale, map_sheet
from bayesdf.report.methods import METHODS
from bayesdf.report.reliability_and_confusion import confusion_matrix, reliability_diagram
from bayesdf.report.style import (
    ALERT,
    FAINT,
    FLOOR,
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


def figures(results: Results, images: NDArray[np.floating], manifest: pd.DataFrame) -> dict[str, Figure]:
    """Figures by name; a method's are called after it.

    Parameters
    ----------
    images
        The test images, float (N, H, W, 3) in [0, 1], in the order of the results.
    manifest
        Their rows.
    """
    several = next((f" of {folds(tree)} folds" for tree in results.values() if folds(tree) > 1), "")
    shown = f"Photographs and fakes of the test people{several}"
    made = {"samples": sample_sheet(images, manifest["source"], title=shown)}
    for name, tree in results.items():
        label = METHODS[name] + (f", {basis(tree)}:\n" if several else ": ")
        uncertainty = tree["uncertainty"].to_dataset()
        made[f"{name}_source"] = source_accuracy(
            by_feature_set(tree).rename(index=SETS),
            title=f"{label}how often a fake's generator is named",
            unit="fakes",
        )
        made[f"{name}_confusion"] = confusion_matrix(
            analysis.confusion(tree[f"attribution/{MAIN}"].to_dataset()),
            title=f"{label}generators named from uncertainty",
        )
        made[f"{name}_uncertainty"] = uncertainty_by_source(uncertainty, title=f"{label}why the detector is unsure")
        made[f"{name}_reliability"] = reliability_diagram(
            analysis.reliability(tree),
            analysis.estimate(tree["metrics"].to_dataset(), "ece"),
            title=f"{label}is the detector right as often as it claims?",
        )
        made[f"{name}_maps"] = uncertain_places(
            images,
            tree["maps"].to_dataset(),
            uncertainty,
            title=f"{label}where the detector is unsure".replace("\n", " "),
        )
        made[f"{name}_faces"] = certainty_sheet(
            images, uncertainty, title=f"{label}the faces the detector is most and least sure of".replace("\n", " ")
        )
    return made


def uncertain_places(
    images: NDArray[np.floating], maps: xr.Dataset, uncertainty: xr.Dataset, *, title: str, count: int = 6
) -> Figure:
    """The images of largest epistemic uncertainty with their maps, the most uncertain first.

    Parameters
    ----------
    images
        All test images, float (N, H, W, 3) in [0, 1].
    maps
        Of some of them, with `image`, their rows.
    """
    epistemic = uncertainty["epistemic"].sel(image=maps["image"].values)
    order = np.argsort(-epistemic.values, kind="stable")[:count]
    evidence = maps.attrs.get("method", "evidence") == "evidence"
    names = {"p_fake": "P(fake)", "aleatoric": "aleatoric", "epistemic": "epistemic"}
    rows = [
        MapRow(
            f"{maps['source'].values[row]}\n{epistemic.values[row]:.3f} nats",
            images[int(maps["image"].values[row])],
            {called: maps[name].values[row] for name, called in names.items()},
        )
        for row in order
    ]
    unit = "nats" if evidence else "nats per unit of brightness"
    scales = (
        Scale("P(fake)", ["P(fake)"], 0.0, 1.0, "coolwarm")
        if evidence
        else Scale("P(fake), gradient", ["P(fake)"], 0.0),
        Scale(f"aleatoric ({unit})", ["aleatoric"], 0.0),
        Scale(f"epistemic ({unit})", ["epistemic"], 0.0),
    )
    how = "Evidence of each location of the last feature map" if evidence else "Gradients in the pixels"
    return map_sheet(
        rows,
        scales,
        title=title,
        subtitle=f"{how}:\nthe {len(rows)} test images of largest epistemic uncertainty.",
    )


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
    caption = "Bars and their numbers: feature sets, each with the same procedure. Lines: 95 % intervals over people."
    head(figure, title, f"{caption}{note}")
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
        # An edge in ink: a white one would hide the points around it.
        ax.plot(np.median(x[own]), np.median(y[own]), "P", ms=9, mfc=colours[name], mec=INK, mew=0.9)
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

"""What does a run show as figures?"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from bayesdf.experiments.deniability.results import Results
from bayesdf.experiments.deniability.tables import attack_name, attacks, denial, framing
from bayesdf.report.face_sheets import face_sheet
from bayesdf.report.style import ALERT, FAINT, GENERATORS, INK, MUTED, head, percent, plain, styled

BLUE, GREEN, AMBER = GENERATORS[0], GENERATORS[2], GENERATORS[4]
ALTERATIONS = {
    "as made": "as made",
    "jpeg": "JPEG quality",
    "blur": "blur: deviation in pixels",
    "noise": "noise: deviation in grey values",
    "brightness": "brightness: factor",
    "crop": "crop: share of the side kept",
}
COLOURS = {kind: colour for kind, colour in zip(ALTERATIONS, (MUTED, BLUE, *GENERATORS[2:]), strict=False)}
"""Of alterations; the threshold has the colour of errors to itself."""
KINDS = {
    "second copy": "samples of a second copy",
    "searched": "latents searched for photographs",
    "photograph": "photographs",
}


def figures(results: Results) -> dict[str, Figure]:
    """Figures by name."""
    return {
        "framed": framed_sheet(results),
        "verdicts": verdict_bars(results),
        "latents": latent_plane(results),
        "distances": distance_curves(results),
        "false_made": growth_curves(results),
        "deniability": denial_curves(results),
    }


def framed_sheet(results: Results, columns: int = 8) -> Figure:
    """Targets, and below each what was published to frame the developer, with both verdicts."""
    frame = results.accused
    rows: dict[str, NDArray[np.float32]] = {}
    captions: dict[str, list[str]] = {}
    wrong: dict[str, list[bool]] = {}

    def add(heading: str, chosen: NDArray[np.int64], images: NDArray[np.float32], judged: bool) -> None:
        rows[heading] = images[chosen]
        captions[heading] = [_caption(frame.iloc[row]) if judged else "target" for row in chosen]
        wrong[heading] = [judged and bool(frame.iloc[row]["convicted"]) for row in chosen]

    for attack, target, budget, part in attacks(frame):
        chosen = part.index.to_numpy()[:columns]
        name = attack_name(attack, target, budget)
        if attack == "searched" and target != "photograph":
            add(f"Targets: images of {target}", chosen, results.targets, False)
        if attack == "perturbed" and budget < 16:
            continue
        add(name[0].upper() + name[1:], chosen, results.published, True)
    return face_sheet(
        rows,
        title=f"Pictures that {plain(results.facts['generator'])} is said to have made",
        subtitle="Under each: what inversion leaves unexplained, its verdict, the nearest recorded sample, the "
        f"ledger's verdict.\nFramed: convicted by inversion (error to {results.facts['error']:.4f}, likely latent).",
        captions=captions,
        wrong=wrong,
    )


def _caption(row: pd.Series) -> str:
    return "\n".join(
        [
            f"error {row['error']:.4f}",
            "convicted" if row["convicted"] else "not convicted",
            f"nearest {row['distance']:.3f}",
            "ledger: MADE" if row["made"] else "ledger: cleared",
        ]
    )


@styled
def verdict_bars(results: Results) -> Figure:
    """Inversion's verdict beside the ledger's, an attack a row."""
    table = framing(results)
    figure = Figure(figsize=(7.6, 1.5 + 0.5 * len(table)))
    ax = figure.subplots()
    place = np.arange(len(table))
    for column, colour, label, shift in (
        ("convicted", ALERT, "inversion alone convicts", -0.19),
        ("made", BLUE, "the ledger says made", 0.19),
    ):
        value, low, high = (table[f"{column}{end}"].to_numpy() for end in ("", ".low", ".high"))
        ax.barh(place + shift, value, height=0.36, color=colour, label=label)
        ax.errorbar(
            value, place + shift, xerr=np.maximum([value - low, high - value], 0), fmt="none", ecolor=INK, capsize=2
        )
    ax.set_yticks(place, [plain(name, 48) for name in table.index])
    ax.set(xlim=(0, 1.02), xlabel="share of images")
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    ax.tick_params(axis="y", length=0)
    ax.invert_yaxis()
    figure.legend(loc="outside lower right", ncols=2)
    head(
        figure,
        "Who is convicted, and who is cleared",
        f"{results.facts['images']} images a row; a ledger of {results.facts['samples']:,} samples. Lines: 95 % "
        "intervals, over people where images began as photographs.\nAll but the last row are innocent.",
    )
    return figure


@styled
def latent_plane(results: Results) -> Figure:
    """How far each accused image is from the nearest sample, in the picture and in the latent."""
    figure = Figure(figsize=(6.6, 5.2))
    ax = figure.subplots()
    labels = {
        "untouched": ("photographs as they are", FAINT),
        "perturbed": ("photographs, changed", AMBER),
        "searched": ("latents searched", ALERT),
        "second copy": ("second copy of the weights", GREEN),
        "guilty": ("guilty", BLUE),
    }
    for attack, (label, colour) in labels.items():
        part = results.accused[results.accused["attack"] == attack]
        ax.plot(
            part["distance"],
            part["latent_distance"],
            "o",
            ms=4,
            alpha=0.7,
            mec=MUTED,
            mew=0.3,
            color=colour,
            label=f"{label} ({len(part)})",
        )
    ax.axvline(results.facts["threshold"], color=INK, lw=1, ls="--")
    ax.annotate(
        f"threshold {results.facts['threshold']:.4f}",
        (results.facts["threshold"], 1.0),
        (3, -10),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        fontsize=8.5,
    )
    ax.set(
        xscale="log",
        xlabel="distance to the nearest recorded sample (rms grey value)",
        ylabel="distance to the nearest recorded latent (rms)",
    )
    ax.set_ylim(bottom=0)
    ax.legend(fontsize=8.5, loc="center left")
    head(
        figure,
        "The same picture is not the same latent",
        "Every accused image, by the latent that inversion finds for it.\n"
        "Unrelated latents are about 1.4 apart; the nearest of many are somewhat nearer.",
    )
    return figure


@styled
def distance_curves(results: Results) -> Figure:
    """Calibration: distances of the developer's images and of others, and the ROC between them."""
    figure = Figure(figsize=(10.4, 4.4))
    left, right = figure.subplots(1, 2)
    others = np.sort(results.innocents["distance"].to_numpy())
    thresholds = np.r_[0.0, np.sort(np.r_[others, results.guilty["distance"].to_numpy()])]
    false = np.searchsorted(others, thresholds, side="right") / len(others)
    seen: set[str] = set()
    for delivery, part in results.genuine.groupby("delivery", sort=False):
        kind = str(delivery).split()[0]
        _climb(left, part, COLOURS[kind], "--" if kind in seen else "-", str(delivery))
        seen.add(kind)
    for (name, part), style in zip(results.innocents.groupby("kind", sort=False), ("-", "--", ":"), strict=False):
        _climb(left, part, INK, style, KINDS[str(name)])
    left.axvline(results.facts["threshold"], color=ALERT, lw=1.2)
    left.set(xscale="log", xlabel="distance (rms grey value)", ylabel="share at most so far", ylim=(0, 1.02))
    left.set_xlim(left=results.genuine["distance"].min() / 12)
    left.legend(fontsize=7.5, loc="center left")
    for kind in (kind for kind in ALTERATIONS if kind != "as made"):
        part = results.guilty[results.guilty["alteration"] == kind]
        strength = float(part["strength"].unique()[3])
        part = part[part["strength"] == strength]
        found = np.searchsorted(np.sort(part["distance"].to_numpy()), thresholds, side="right") / len(part)
        right.step(
            false,
            found,
            where="post",
            color=COLOURS[kind],
            label=f"{kind} {strength:g} ({percent(part['made'].mean())})",
        )
        right.plot((others <= results.facts["threshold"]).mean(), part["made"].mean(), "o", color=COLOURS[kind])
    right.set(
        xlabel="innocent images called made", ylabel="genuine images found", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02)
    )
    right.legend(
        fontsize=7.5, title="found at the threshold", title_fontsize=7.5, loc="center left", bbox_to_anchor=(1.0, 0.5)
    )
    head(
        figure,
        "Where the threshold lies",
        "Calibration images, used for nothing else. Left, in colour: distance of a mildly altered sample to itself; "
        f"in black: of innocent\nimages to the nearest of {results.facts['samples']:,} samples; thin line: the "
        f"threshold, {results.facts['threshold']:.4f}. Right: ROC of the developer's images, strongly\naltered, "
        "against all innocent ones; dots: at the threshold.",
    )
    return figure


def _climb(ax: Axes, part: pd.DataFrame, colour: str, style: str, label: str) -> None:
    """The share of distances up to each."""
    own = np.sort(part["distance"].to_numpy())
    ax.step(own, np.arange(1, len(own) + 1) / len(own), where="post", color=colour, ls=style, label=label)


@styled
def growth_curves(results: Results) -> Figure:
    """False `made` against the size of the ledger, a panel a kind of innocent image."""
    kinds = list(results.growth["kind"].unique())
    figure = Figure(figsize=(3.2 * len(kinds) + 1.2, 4.3))
    axes = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    floor = 1e-7
    for ax, kind in zip(axes, kinds, strict=True):
        own = results.growth[results.growth["kind"] == kind]
        for (multiple, part), colour in zip(own.groupby("multiple"), GENERATORS, strict=False):
            # What is predicted for one sample gives all sizes between those of the table.
            each = -np.log1p(-min(float(part["predicted"].iloc[0]), 1.0 - 1e-12)) / float(part["ledger_size"].iloc[0])
            sizes = np.geomspace(part["ledger_size"].min(), part["ledger_size"].max(), 100)
            ax.plot(sizes, -np.expm1(-each * sizes), ":", color=colour, lw=1.4)
            seen = part[part["made"] > 0]
            ax.errorbar(
                seen["ledger_size"],
                seen["made"],
                yerr=np.maximum([seen["made"] - seen["made.low"], seen["made.high"] - seen["made"]], 0),
                fmt="o",
                ms=4,
                color=colour,
                elinewidth=0.8,
            )
            ax.plot([], [], "o:", color=colour, label=f"{multiple:g} x threshold")
        ax.set(xscale="log", yscale="log", ylim=(floor, 2), xlabel="samples in the ledger")
        ax.set_title(f"{KINDS[kind]} ({int(own['images'].iloc[0])})", loc="left", fontsize=9.5)
    axes[0].set_ylabel("share of innocent images called made")
    axes[-1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    head(
        figure,
        "False alarms grow with the ledger",
        "Points: measured, with 95 % intervals over people or samples; sizes and thresholds at which none\n"
        "was called made have none. Dotted: predicted from the tail of calibration distances. Number of images in "
        "brackets.",
    )
    return figure


@styled
def denial_curves(results: Results) -> Figure:
    """How many of the developer's own images its honest ledger no longer finds, by alteration."""
    table = denial(results)
    kinds = [kind for kind in table["alteration"].unique() if kind != "as made"]
    figure = Figure(figsize=(9.4, 5.6))
    axes = figure.subplots(2, 3, sharey=True).ravel()
    for ax, kind in zip(axes, kinds, strict=False):
        part = table[table["alteration"] == kind]
        place = np.arange(len(part))
        low, high = part["denied"] - part["denied.low"], part["denied.high"] - part["denied"]
        ax.errorbar(
            place,
            part["denied"],
            yerr=np.maximum([low, high], 0),
            fmt="o-",
            color=BLUE,
            capsize=2,
            label="denied: no sample within the threshold",
        )
        ax.plot(place, 1 - part["nearest_right"], "s--", ms=4, color=MUTED, label="nearest sample is another")
        ax.set_xticks(place, [f"{strength:g}" for strength in part["strength"]])
        ax.set_title(ALTERATIONS[kind], loc="left", fontsize=9)
        ax.set_ylim(-0.03, 1.03)
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    for ax in axes[len(kinds) :]:
        ax.set_axis_off()
    axes[-1].legend(*axes[0].get_legend_handles_labels(), fontsize=8, loc="center left")
    figure.supylabel("share of images", fontsize=10)
    as_made = table[table["alteration"] == "as made"].iloc[0]
    head(
        figure,
        "How often a guilty developer can deny",
        f"{int(as_made['images'])} images of the ledger's own samples, an honest ledger; stronger to the right. "
        f"Stored with 8 bits and\notherwise as made: {100 * as_made['denied']:.0f} % denied. Lines: 95 % intervals.",
    )
    return figure

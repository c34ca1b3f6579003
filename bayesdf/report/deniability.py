"""What a run of the deniability study shows: figures, tables, flat metrics, and the page.

`Results` is what `bayesdf.experiments.deniability.study` returns.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from bayesdf.analysis import Estimate
from bayesdf.report.figures import face_sheet
from bayesdf.report.page import Picture, Section, Table, write_page
from bayesdf.report.style import ALERT, FAINT, GENERATORS, INK, MUTED, head, plain, styled

BLUE, GREEN, AMBER = GENERATORS[0], GENERATORS[2], GENERATORS[4]
Z = 1.959963984540054

ALTERATIONS = {
    "as made": "as made",
    "jpeg": "JPEG quality",
    "blur": "blur: standard deviation in pixels",
    "noise": "noise: standard deviation in grey values",
    "brightness": "brightness: factor",
    "crop": "crop and resize: share of the side kept",
}
KINDS = {"second copy": "samples of a second copy", "searched": "searched entropy", "photograph": "photographs"}

GLOSSARY = {
    "ledger": "The developer's append-only log: a record for each sample, written before the sample's entropy is used.",
    "entropy": "The random values that a generator makes an image of (its latent).",
    "head": "A signed digest of the ledger so far, published where it can be neither changed nor withdrawn.",
    "evidence": "The public records under a head, and the keys that open their samples.",
    "made, not made": "What evidence says of an image: a recorded sample is the image up to the threshold, or none is.",
    "inversion": "Searching the entropy from which a generator would have made an image.",
    "convicted": "Inversion alone says that the generator made the image: what it leaves unexplained, and how unlikely "
    "the entropy is, are no more than for nearly all of the generator's own samples.",
    "error": "Root mean square over pixels between an image and what inversion finds, grey values in [0, 1].",
    "distance": "Root mean square over pixels between an image and a recorded sample, grey values in [0, 1].",
    "epoch": "Samples whose keys come from one key; record 0 commits to the keys of all epochs.",
    "unbound": "Samples of the epoch in progress: their keys fit their records, but nothing ties them to record 0 yet.",
    "95 % interval": "Wilson's interval for a share of images.",
}


@dataclass(frozen=True)
class Results:
    """What the study found.

    Attributes
    ----------
    facts
        Names, sizes and thresholds.
    tails
        A row a kind of innocent image: the tail of distances, and the threshold that it allows.
    genuine, innocents
        Calibration: distances of mildly altered samples to their own sample (`delivery`), and of innocent images to the
        nearest sample of a ledger of the same size (`kind`).
    accused
        A row a picture: `attack`, `target`, `budget`, how it was judged.
    copied
        Copies of opened samples, altered up to nine tenths of the threshold.
    fresh
        Further samples of a second copy of the weights, judged by the ledger alone.
    guilty
        A row an altered image of the developer's own.
    growth
        False `made` by ledger size and threshold.
    cheats
        A row a cheat.
    published, targets
        (N, 64, 64) pictures, in the order of `accused`: as they arrive, and what they were meant to be.
    """

    facts: Mapping[str, Any]
    tails: pd.DataFrame
    genuine: pd.DataFrame
    innocents: pd.DataFrame
    accused: pd.DataFrame
    copied: pd.DataFrame
    fresh: pd.DataFrame
    guilty: pd.DataFrame
    growth: pd.DataFrame
    cheats: pd.DataFrame
    published: NDArray[np.float32]
    targets: NDArray[np.float32]


def wilson(successes: float, trials: int) -> Estimate:
    """A share with its 95 % interval (Wilson 1927), which holds for none and for all as well."""
    share = successes / trials
    middle = (share + Z**2 / (2 * trials)) / (1 + Z**2 / trials)
    half = Z / (1 + Z**2 / trials) * np.sqrt(share * (1 - share) / trials + Z**2 / (4 * trials**2))
    # At none and at all the interval ends there, which rounding misses by a hair.
    low = 0.0 if successes <= 0 else max(middle - half, 0.0)
    high = 1.0 if successes >= trials else min(middle + half, 1.0)
    return Estimate(float(share), float(low), float(high))


def share(values: pd.Series) -> Estimate:
    return wilson(float(values.sum()), len(values))


def _columns(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}.low": estimate.low, f"{name}.high": estimate.high}


def _attack(attack: str, target: str, budget: float) -> str:
    """An attack as it is called in text."""
    return {
        "untouched": "photographs as they are",
        "perturbed": f"photographs changed by up to {budget:g}/255",
        "searched": f"entropy searched for {'photographs' if target == 'photograph' else f'images of {target}'}",
        "second copy": "samples of a second copy of the weights",
        "guilty": "guilty: the developer's own samples",
    }[attack]


def _attacks(frame: pd.DataFrame) -> Iterator[tuple[str, str, float, pd.DataFrame]]:
    """Attack, target, budget (NaN where there is none) and the rows, in the order in which they were made."""
    for _, part in frame.groupby(["attack", "target", "budget"], dropna=False, sort=False):
        first = part.iloc[0]
        yield str(first["attack"]), str(first["target"]), float(first["budget"]), part


def framing(results: Results) -> pd.DataFrame:
    """A row an attack: who was convicted, who was cleared, and from how near."""
    rows = {}
    for attack, target, budget, part in _attacks(results.accused):
        rows[_attack(attack, target, budget)] = {
            "images": len(part),
            **_columns("convicted", share(part["convicted"])),
            **_columns("made", share(part["made"])),
            "error, median": part["error"].median(),
            "distance, median": part["distance"].median(),
            "distance, smallest": part["distance"].min(),
            "entropy distance, median": part["latent_distance"].median(),
            "entropy distance, smallest": part["latent_distance"].min(),
            "change, rms": part["rms_change"].median(),
            "change, largest": part["largest_change"].median(),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("accused image")


def denial(results: Results) -> pd.DataFrame:
    """A row an alteration and strength: how many of the developer's own images its ledger no longer finds."""
    rows = []
    for (kind, strength), part in results.guilty.groupby(["alteration", "strength"], sort=False):
        found = {"images": len(part), **_columns("denied", share(~part["made"]))}
        nearest = {"nearest_right": part["right"].mean(), "distance, median": part["distance"].median()}
        rows.append({"alteration": kind, "strength": strength, **found, **nearest})
    return pd.DataFrame(rows)


def deliveries(results: Results) -> pd.DataFrame:
    """A row a mild way of delivery: how many genuine samples the threshold finds, and the area under the ROC."""
    others = results.innocents["distance"].to_numpy()
    rows = []
    for delivery, part in results.genuine.groupby("delivery", sort=False):
        own = part["distance"].to_numpy()
        row = {"delivery": delivery, "images": len(own)}
        row |= _columns("found", wilson(float((own <= results.facts["threshold"]).sum()), len(own)))
        row |= {"distance, median": np.median(own), "distance, 95 %": np.quantile(own, 0.95)}
        row["AUROC"] = float((own[:, None] < others).mean() + 0.5 * (own[:, None] == others).mean())
        rows.append(row)
    return pd.DataFrame(rows)


def _innocent(results: Results) -> Estimate:
    """False `made` over all pictures that were judged by the ledger and not made by its owner."""
    accused = results.accused[results.accused["attack"] != "guilty"]
    return share(pd.concat([accused["made"], results.fresh["made"]]))


def _searched(results: Results, column: str) -> Estimate:
    return share(results.accused.loc[results.accused["attack"] == "searched", column])


def tables(results: Results) -> dict[str, pd.DataFrame]:
    """Tables by name."""
    return {
        "framing": framing(results),
        "deniability": denial(results).set_index("alteration"),
        "cheats": results.cheats.set_index("cheat"),
        "false_made": results.growth.set_index("kind"),
        "threshold": results.tails,
        "deliveries": deliveries(results).set_index("delivery"),
        "accused": results.accused.rename_axis("image"),
    }


def metrics(results: Results) -> dict[str, float | int | str]:
    """All figures under flat names: ``framing.searched.photograph.convicted.low``, ``denied.jpeg.90``, …"""
    facts = results.facts
    flat: dict[str, float | int | str] = {
        f"threshold.{new}": float(facts[old])
        for new, old in (("distance", "threshold"), ("error", "error"), ("energy", "energy"))
    }
    for attack, target, budget, part in _attacks(results.accused):
        name = f"framing.{attack}.{target}" + ("" if np.isnan(budget) else f".{budget:g}")
        for column in ("convicted", "made"):
            flat |= _columns(f"{name}.{column}", share(part[column]))
        flat[f"{name}.images"] = len(part)
        for column in ("error", "distance", "latent_distance"):
            flat[f"{name}.{column}"] = float(part[column].median())
    for column in ("convicted", "made"):
        flat |= _columns(f"framing.searched.{column}", _searched(results, column))
    flat |= _columns("innocent.made", _innocent(results))
    flat |= _columns("second_copy.made", share(results.fresh["made"]))
    flat |= _columns("copied.altered.made", share(results.copied["made"]))
    flat["copied.altered.share"] = float(results.copied["share"].median())
    flat["copied.identical"] = float(facts["copies_identical"])
    for row in denial(results).to_dict("records"):
        name = f"denied.{row['alteration'].replace(' ', '_')}.{row['strength']:g}"
        flat |= {f"{name}{end}": row[f"denied{end}"] for end in ("", ".low", ".high")}
    for row in deliveries(results).to_dict("records"):
        flat[f"found.{row['delivery'].replace(' ', '.', 1)}"] = row["found"]
        flat[f"auroc.{row['delivery'].replace(' ', '.', 1)}"] = row["AUROC"]
    for row in results.growth[results.growth["multiple"] == 1.0].to_dict("records"):
        flat[f"false_made.{row['kind']}.{row['ledger_size']}.predicted"] = row["predicted"]
        if np.isfinite(row["made"]):
            flat[f"false_made.{row['kind']}.{row['ledger_size']}"] = row["made"]
    refused = results.cheats["outcome"] == "refused"
    flat |= {"cheats": len(refused) - 1, "cheats.refused": int(refused.sum())}
    flat["cheats.as_documented"] = int(results.cheats["as_expected"].sum())
    return {name.replace(" ", "_"): value for name, value in flat.items()}


def verdicts(results: Results) -> list[tuple[str, str, str]]:
    """A row an attack, as printed: inversion's verdict and the ledger's."""
    table = framing(results)
    shares = [
        [_percent(Estimate(*ends)) for ends in table[[column, f"{column}.low", f"{column}.high"]].to_numpy()]
        for column in ("convicted", "made")
    ]
    return list(zip(map(str, table.index), *shares, strict=True))


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.0f} % ({100 * estimate.low:.0f} to {100 * estimate.high:.0f})"


def answer(results: Results) -> str:
    convicted, false, all_false = (_searched(results, "convicted"), _searched(results, "made"), _innocent(results))
    number = int((results.accused["attack"] == "searched").sum())
    everyone = int((results.accused["attack"] != "guilty").sum()) + len(results.fresh)
    table = denial(results)
    mild = table[(table["alteration"] == "jpeg") & (table["strength"] == 90)].iloc[0]
    denied = Estimate(mild["denied"], mild["denied.low"], mild["denied.high"])
    refused = int((results.cheats["outcome"] == "refused").sum())
    return (
        f"Inversion alone convicts an innocent developer in {_percent(convicted)} of {number} pictures whose entropy "
        f"an adversary searched; the ledger calls {_percent(false)} of them made, and of all {everyone} pictures that "
        f"the developer did not make {100 * all_false.value:.2f} % (at most {100 * all_false.high:.2f} %). A guilty "
        f"developer with an honest ledger can deny {_percent(denied)} of images that went through JPEG of quality 90; "
        f"of {len(results.cheats) - 1} ways to cheat {refused} are refused with an error, and entropy that was never "
        "recorded is not seen at all."
    )


# --- Figures ----------------------------------------------------------------------------------------------------------


def figures(results: Results) -> dict[str, Figure]:
    """Figures by name."""
    return {
        "framed": framed_sheet(results),
        "verdicts": verdict_bars(results),
        "entropy": entropy_plane(results),
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

    for attack, target, budget, part in _attacks(frame):
        chosen = part.index.to_numpy()[:columns]
        name = _attack(attack, target, budget)
        if attack == "searched" and target != "photograph":
            add(f"Targets: images of {target}", chosen, results.targets, False)
        if attack == "perturbed" and budget < 16:
            continue
        add(name[0].upper() + name[1:], chosen, results.published, True)
    return face_sheet(
        rows,
        title=f"Pictures that {plain(results.facts['generator'])} is said to have made",
        subtitle="Under each: what inversion leaves unexplained, its verdict, the nearest recorded sample, the "
        f"ledger's verdict.\nFramed: convicted by inversion (error to {results.facts['error']:.4f}, likely entropy).",
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
    ax.legend(loc="upper right")
    head(
        figure,
        "Who is convicted, and who is cleared",
        f"{results.facts['images']} images a row; a ledger of {results.facts['samples']:,} samples. Lines: 95 % "
        "intervals.\nAll but the last row are innocent.",
    )
    return figure


@styled
def entropy_plane(results: Results) -> Figure:
    """How far each accused image is from the nearest sample, in the picture and in the entropy."""
    figure = Figure(figsize=(6.6, 5.2))
    ax = figure.subplots()
    labels = {
        "untouched": ("photographs as they are", FAINT),
        "perturbed": ("photographs, changed", AMBER),
        "searched": ("entropy searched", ALERT),
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
        ylabel="distance to the nearest recorded entropy (rms)",
    )
    ax.set_ylim(bottom=0)
    ax.legend(fontsize=8.5, loc="center left")
    head(
        figure,
        "The same picture is not the same entropy",
        "Every accused image, by the entropy that inversion finds for it.\n"
        "Unrelated entropies are about 1.4 apart; the nearest of many are somewhat nearer.",
    )
    return figure


@styled
def distance_curves(results: Results) -> Figure:
    """Calibration: distances of the developer's images and of others, and the ROC between them."""
    figure = Figure(figsize=(9.4, 4.4))
    left, right = figure.subplots(1, 2)
    palette = dict(zip(results.genuine["delivery"].unique(), GENERATORS, strict=False))
    others = np.sort(results.innocents["distance"].to_numpy())
    thresholds = np.r_[0.0, np.sort(np.r_[others, results.guilty["distance"].to_numpy()])]
    false = np.searchsorted(others, thresholds, side="right") / len(others)
    for delivery, part in results.genuine.groupby("delivery", sort=False):
        own = np.sort(part["distance"].to_numpy())
        left.step(own, np.arange(1, len(own) + 1) / len(own), where="post", color=palette[delivery], label=delivery)
    for (kind, part), style in zip(results.innocents.groupby("kind", sort=False), ("-", "--", ":"), strict=False):
        own = np.sort(part["distance"].to_numpy())
        left.step(own, np.arange(1, len(own) + 1) / len(own), where="post", color=INK, ls=style, label=KINDS[str(kind)])
    left.axvline(results.facts["threshold"], color=ALERT, lw=1.2)
    left.set(xscale="log", xlabel="distance (rms grey value)", ylabel="share at most so far", ylim=(0, 1.02))
    left.set_xlim(left=results.genuine["distance"].min() / 12)
    left.legend(fontsize=7.5, loc="center left")
    for kind, colour in zip((kind for kind in ALTERATIONS if kind != "as made"), GENERATORS, strict=False):
        part = results.guilty[results.guilty["alteration"] == kind]
        strength = float(part["strength"].unique()[3])
        part = part[part["strength"] == strength]
        found = np.searchsorted(np.sort(part["distance"].to_numpy()), thresholds, side="right") / len(part)
        right.step(false, found, where="post", color=colour, label=f"{kind} {strength:g}")
        right.plot((others <= results.facts["threshold"]).mean(), part["made"].mean(), "o", color=colour)
    right.set(xlabel="innocent images called made", ylabel="genuine images found", xlim=(-0.02, 1), ylim=(0, 1.02))
    right.legend(fontsize=7.5, loc="lower right")
    head(
        figure,
        "Where the threshold lies",
        f"Calibration images, used for nothing else. Left, in colour: distance of a mildly altered sample to itself; "
        f"in black: of innocent images\nto the nearest of {results.facts['samples']:,} samples; red: the threshold "
        f"{results.facts['threshold']:.4f}. Right: ROC of the developer's images, strongly "
        "altered, against all innocent ones; dots: at the threshold.",
    )
    return figure


@styled
def growth_curves(results: Results) -> Figure:
    """False `made` against the size of the ledger, a panel a kind of innocent image."""
    kinds = list(results.growth["kind"].unique())
    figure = Figure(figsize=(3.3 * len(kinds), 4.3))
    axes = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    floor = 1e-7
    for ax, kind in zip(axes, kinds, strict=True):
        own = results.growth[results.growth["kind"] == kind]
        for (multiple, part), colour in zip(own.groupby("multiple"), GENERATORS, strict=False):
            ax.plot(part["ledger_size"], part["predicted"].clip(lower=floor), ":", color=colour, lw=1.4)
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
    axes[0].legend(fontsize=8)
    head(
        figure,
        "False alarms grow with the ledger",
        "Points: measured, with 95 % intervals; sizes and thresholds at which none was called made have none. Dotted: "
        "predicted from the\ntail of calibration distances. Number of images in brackets.",
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
            label="no sample within the threshold",
        )
        ax.plot(place, 1 - part["nearest_right"], "s--", ms=4, color=MUTED, label="nearest sample is another")
        ax.set_xticks(place, [f"{strength:g}" for strength in part["strength"]])
        ax.set_title(ALTERATIONS[kind], loc="left", fontsize=9)
        ax.set_ylim(-0.03, 1.03)
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axes[0].legend(fontsize=8)
    for ax in axes[len(kinds) :]:
        ax.set_visible(False)
    figure.supylabel("share of images denied", fontsize=10)
    as_made = table[table["alteration"] == "as made"].iloc[0]
    head(
        figure,
        "How often a guilty developer can deny",
        f"{int(as_made['images'])} images of the ledger's own samples, an honest ledger; stronger to the right. "
        f"Stored with 8 bits and\notherwise as made: {100 * as_made['denied']:.0f} % denied. Lines: 95 % intervals.",
    )
    return figure


# --- Page -------------------------------------------------------------------------------------------------------------


def page(
    path: Path,
    results: Results,
    figures: Mapping[str, Figure],
    tables: Mapping[str, pd.DataFrame],
    settings: Mapping[str, Any],
    credit: str,
) -> None:
    """Write the report."""
    facts = results.facts
    write_page(
        path,
        "Framed, or guilty? Plausible deniability by a ledger of entropy",
        [
            _model(results),
            _threshold(results, figures, tables),
            _innocence(results, figures, tables),
            _guilt(results, figures, tables),
            _cheating(tables),
            _proof(results),
        ],
        question=f"A picture looks as if {facts['generator']} had made it. Did it? Its developer keeps a ledger.",
        answer=answer(results),
        highlights={
            "searched entropy: inversion convicts": _searched(results, "convicted"),
            "searched entropy: ledger says made": _searched(results, "made"),
            "second copy of the weights: ledger says made": share(results.fresh["made"]),
        },
        settings=settings,
        credits=[
            f"Photographs: {credit}.",
            "After Zhang, Zhou, Shumailov and Papernot 2020, On attribution of deepfakes, arXiv 2008.09194.",
        ],
        glossary=GLOSSARY,
    )


def _model(results: Results) -> Section:
    facts = results.facts
    return Section(
        "Who can do what",
        [
            f"The developer of {facts['generator']} draws all entropy from a ledger: {facts['samples']:,} samples, "
            f"{facts['heads']} signed heads published on the way. The last, with root {facts['root'][:16]}…, precedes "
            "every accusation. The third party holds the generator with its weights, the developer's public key and "
            "that head, from where they were published, and the evidence, which it does not trust. Nothing else of the "
            "developer's was used for the verdicts below.",
            "The adversary holds a copy of the weights, knows how ledgers work and how accusers invert, and may "
            "publish any picture. It does not know the secret, and cannot add records under a head that is out. The "
            "guilty developer may do anything: alter its images, write any log, sign any head, keep keys back. "
            "SHA-256, AES, HKDF and Ed25519 are taken to be sound.",
            "The accuser by inversion convicts if what the search leaves unexplained, and the energy of the entropy "
            f"found, are each no more than for {100 * facts['likely']:.1f} % of calibration samples that took the "
            f"same way: error at most {facts['error']:.4f}, energy at most {facts['energy']:.2f}. Every picture, "
            "unless a table says otherwise, arrives with 8 bits and through JPEG of quality 90.",
            "The secret of this run was derived from its seed, so that the run can be repeated. It is a toy: anybody "
            "can make it again, and sign by it. It is not in the run folder; the ledger, its heads, the public key and "
            "the evidence are.",
        ],
    )


def _threshold(results: Results, figures: Mapping[str, Figure], tables: Mapping[str, pd.DataFrame]) -> Section:
    facts = results.facts
    lost = tables["deliveries"]["found"].min()
    note = (
        "Genuine images are found after all of the mild alterations."
        if lost >= 0.99
        else f"The price: of genuine images, {100 * lost:.0f} % are found after the worst of the mild alterations."
    )
    return Section(
        "The threshold",
        [
            "The rule: the largest distance at which, by prediction, at most "
            f"{100 * facts['false_made']:g} % of innocent images would have a sample so near, were the ledger to grow "
            f"{facts['growth']:,}-fold from its {facts['samples']:,}, for "
            "whichever kind of innocent image is nearest to samples. It is fixed on photographs of people and samples "
            "that are used for nothing else, before anyone is judged. The prediction is that of extreme values: the "
            "share of distances below t falls as a power of t, estimated from the smallest of them, and the chance of "
            f"a near one grows with the number of samples. Here it gives {facts['threshold']:.4f}. {note}",
            Picture(figures["distances"], "How far images are from their own sample, and innocent ones from any."),
            Table(tables["deliveries"], "Genuine calibration images within the threshold, by way of delivery."),
            Table(tables["threshold"], "What each kind of innocent image allows: the tail of its distances."),
            Picture(
                figures["false_made"],
                "To the right of the ledger's own size only the prediction goes on. It takes all images of a kind to "
                "be like the calibration images; the points show how far that holds.",
            ),
        ],
    )


def _innocence(results: Results, figures: Mapping[str, Figure], tables: Mapping[str, pd.DataFrame]) -> Section:
    innocent = _innocent(results)
    copied = share(results.copied["made"])
    return Section(
        "Framing the innocent",
        [
            "Searched entropy: the adversary inverts a target by its own copy of the generator, makes the entropy "
            "likely, and publishes what the generator makes of it. That picture is a sample like any other; inversion "
            "has nothing to tell it from the guilty by. Changed photographs: each pixel is moved "
            "towards what the generator can make, by no more than a budget, in two rounds of search. A second copy: "
            "anybody who has the weights runs the generator on new entropy.",
            Picture(figures["framed"], "The first of each attack, not chosen."),
            Picture(figures["verdicts"], "Orange: the innocent convicted by inversion alone. Blue: by the ledger."),
            Table(
                tables["framing"],
                "All attacks. Entropy distance: from the entropy inversion finds to the nearest recorded one.",
            ),
            Picture(figures["entropy"], "Whose entropy is recorded lies low; whose picture is recorded lies left."),
            f"Of all pictures that the developer did not make, {_percent(innocent)} were called made; so often an "
            "innocent developer fails to be cleared.",
            "The worst case: an adversary to whom the evidence was shown. Whoever holds it can make every opened "
            f"sample again ({100 * float(results.facts['copies_identical']):.0f} % of those tried were the "
            "developer's, bit for bit) and publish it. The ledger says made, rightly: it is the developer's image, "
            "though the developer did not publish it. The verdict tells who made an image, not who spread it. Such a "
            f"copy may also be changed up to the threshold: moved {100 * results.copied['share'].median():.0f} % of "
            f"the way towards another face, {_percent(copied)} of copies were still called made. "
            "Look at the sample beside the image.",
        ],
    )


def _guilt(results: Results, figures: Mapping[str, Figure], tables: Mapping[str, pd.DataFrame]) -> Section:
    denied = results.guilty[~results.guilty["made"]]
    nearest = f"in {_percent(share(denied['right']))} of denied images" if len(denied) else "in all images"
    return Section(
        "A guilty developer, an honest ledger",
        [
            "The developer's own samples, altered before they were found. Where no sample is within the threshold the "
            "developer can deny with a ledger that hides nothing. The dashed line shows how often another sample is "
            f"nearer than the right one; {nearest} the right one is still the nearest: the ledger has a suspect then, "
            "but at a distance at which an innocent image might have one too. Evidence does not undo a crop or a "
            "change of brightness; a third party who can align the image first should.",
            Picture(figures["deniability"], "Stronger alterations to the right."),
            Table(
                tables["deniability"],
                "Denied: no sample within the threshold. Nearest right: share of images whose "
                "nearest sample is the one they are.",
            ),
        ],
    )


def _cheating(tables: Mapping[str, pd.DataFrame]) -> Section:
    frame = tables["cheats"].rename(columns={"as_expected": "as documented"}).drop(columns="expected")
    return Section(
        "Cheating ledgers",
        [
            "Each was done to a copy of the ledger, with the developer's secret at hand, and brought to the third "
            "party. Refused: there is no verdict, and the error says what was wrong; a developer who brings such "
            "evidence has not cleared itself. Flagged: a verdict, with samples whose keys cannot be tied to record 0 "
            "until their epoch is full, so that the third party waits for a later head.",
            Table(frame, "What was done, and what the third party gets."),
        ],
    )


def _proof(results: Results) -> Section:
    lines: Sequence[str] = [
        "Made proves that entropy to which the developer had committed before the accusation gives the image, up to "
        "the threshold. Not made proves that every sample recorded under the head was made again, and none is the "
        "image, up to the threshold. Both rest on a head that was public before the accusation, and on a generator "
        "that is the accused one. No record under a published head can be changed, removed, moved, repeated or added "
        "unnoticed.",
        "It cannot prove that all entropy was recorded. A developer who runs the generator on any other entropy gets "
        "not made, always; the table of cheats has it, and no ledger can see it. Only control of the place where the "
        "generator runs closes this. It cannot tell one copy of the weights from another: not made clears the "
        "ledger's owner, not the generator.",
        "It does not cover images altered beyond the threshold, records after the last head before the accusation, a "
        "leaked or opened key in other hands, nor a second ledger if neither its key nor its head was ever published. "
        "Times are the developer's clock; only the place of publication dates a head.",
        f"The rates are those of one generator ({results.facts['generator']}), one ledger of "
        f"{results.facts['samples']:,} samples and faces of ten people. The intervals count images as independent; "
        "several photographs are of one person, so that those for photographs are somewhat short. A stronger search "
        "than the adversary's here would convict more of the changed photographs.",
    ]
    return Section("What evidence proves, and what it cannot", lines)

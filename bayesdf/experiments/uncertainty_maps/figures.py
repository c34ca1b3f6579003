"""What does a run show as figures?

Each figure can be read alone: title, units and numbers of images stand on it.
"""

import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.figure import Figure

import bayesdf.analysis as analysis
from bayesdf.experiments.source_attribution.figures import source_accuracy
from bayesdf.experiments.uncertainty_maps.dense import DENSE
from bayesdf.experiments.uncertainty_maps.localisation import METHODS, SETS
from bayesdf.experiments.uncertainty_maps.source import SETS as SOURCE_SETS
from bayesdf.experiments.uncertainty_maps.tables import NAMES, is_own, label
from bayesdf.report.map_sheets import MapRow, Scale, map_sheet
from bayesdf.report.reliability_and_confusion import reliability_diagram
from bayesdf.report.style import ALERT, INK, head, in_order, palette, plain, styled

UNCERTAINTIES = ("aleatoric", "epistemic")
PREFIXES = {"whole": "", "halves": "halves_"}
"""Of the columns of each set in the table of localisation."""
ROWS = 10
"""Pictures of a sheet."""


def figures(tree: xr.DataTree, made: dict[str, pd.DataFrame]) -> dict[str, Figure]:
    """Figures by name."""
    return {
        "maps": evidence_sheet(tree),
        "dense": dense_sheet(tree),
        "methods": methods_sheet(tree),
        "average": average_sheet(tree),
        "localisation": localisation_bars(made["localisation"]),
        "curves": curves(tree),
        "conveyance": conveyance_bars(made["conveyance"]),
        "sparsification": sparsification_curves(tree),
        "reliability": reliability_diagram(
            tree["dense/reliability"].to_dataset().to_dataframe(),
            analysis.estimate(tree["dense/figures"].to_dataset().sel(detector=DENSE), "ece"),
            title="Is the dense detector right as often as it claims?",
            unit="pixels",
        ),
        "regions": region_bars(tree),
        "source": source_accuracy(
            made["attribution"].rename(index=SOURCE_SETS),
            title="How often a fake's generator is named from maps and regions",
            unit="fakes",
        ),
    }


def of_generators(coords: xr.Dataset) -> list[int]:
    """The first picture of each source, photographs first."""
    source = coords["source"].values
    return [int(np.flatnonzero(source == name)[0]) for name in in_order(source)][:ROWS]


def evidence_sheet(tree: xr.DataTree) -> Figure:
    """For each source a picture, its mask and its maps by the evidence of locations."""
    pictures, maps = tree["localisation/pictures"].to_dataset(), tree["localisation/maps/evidence"].to_dataset()
    rows = [
        MapRow(
            str(pictures["source"].values[row]),
            pictures["picture"].values[row] / 255.0,
            {
                "changed pixels": np.nan_to_num(pictures["mask"].values[row]),
                "P(fake)": maps["p_fake"].values[row],
                **{name: maps[name].values[row] for name in UNCERTAINTIES},
            },
        )
        for row in of_generators(pictures)
    ]
    return map_sheet(
        rows,
        SCALES,
        title="Where does the detector see a fake, and where is it unsure?",
        subtitle="Evidence of each location of the last feature map: the first test picture of each source, not chosen."
        "\nEach quantity has one scale for all pictures.",
    )


SCALES = (
    Scale("changed", ["changed pixels"], 0.0, 1.0, "gray"),
    Scale("P(fake)", ["P(fake)"], 0.0, 1.0, "coolwarm"),
    Scale("aleatoric (nats)", ["aleatoric"], 0.0),
    Scale("epistemic (nats)", ["epistemic"], 0.0),
)


def dense_sheet(tree: xr.DataTree) -> Figure:
    """The same by the dense detector, for photographs and partly changed fakes."""
    pictures, maps = tree["localisation/pictures"].to_dataset(), tree["dense/maps"].to_dataset()
    place = {path: row for row, path in enumerate(maps["path"].values)}
    chosen = [row for row in of_generators(pictures) if str(pictures["path"].values[row]) in place]
    rows = []
    for row in chosen:
        own = maps.isel(image=place[str(pictures["path"].values[row])])
        rows.append(
            MapRow(
                str(pictures["source"].values[row]),
                pictures["picture"].values[row] / 255.0,
                {
                    "changed pixels": pictures["mask"].values[row],
                    "P(changed)": own["p_fake"].values,
                    **{name: own[name].values for name in UNCERTAINTIES},
                },
            )
        )
    scales = (SCALES[0], Scale("P(changed)", ["P(changed)"], 0.0, 1.0, "coolwarm"), *SCALES[2:])
    return map_sheet(
        rows,
        scales,
        title="Which pixels were changed, by the dense detector?",
        subtitle="The first test picture of each source of which a part was changed, and of the photographs.",
    )


def methods_sheet(tree: xr.DataTree) -> Figure:
    """The epistemic maps of all methods, each on a scale of its own."""
    pictures = tree["localisation/pictures"].to_dataset()
    own = {name: tree[f"localisation/maps/{name}"].to_dataset()["epistemic"].values for name in METHODS}
    rows = []
    for row in of_generators(pictures):
        maps = {METHODS[name].replace(" ", "\n"): _ranks(values[row]) for name, values in own.items()}
        rows.append(MapRow(str(pictures["source"].values[row]), pictures["picture"].values[row] / 255.0, maps))
    return map_sheet(
        rows,
        [Scale("place in the order of the pixels of the map (1: the highest)", list(rows[0].maps), 0.0, 1.0)],
        title="Epistemic uncertainty by six methods",
        subtitle="Methods have different units, so each map shows the order of its pixels."
        "\nThe first test picture of each source, not chosen.",
    )


def _ranks(values: np.ndarray) -> np.ndarray:
    """The place of each value in the order, 0 to 1."""
    from scipy.stats import rankdata

    return ((rankdata(values) - 1.0) / max(values.size - 1, 1)).reshape(values.shape)


def average_sheet(tree: xr.DataTree) -> Figure:
    """The mean map of each source by the evidence of locations."""
    average = tree["source/average/evidence"].to_dataset()
    rows = [
        MapRow(
            str(name),
            None,
            {"P(fake)": own["p_fake"].values, **{part: own[part].values for part in UNCERTAINTIES}},
        )
        for name in in_order(average["source"].values)
        for own in [average.sel(source=name)]
    ]
    scales = SCALES[1:]
    return map_sheet(
        rows,
        scales,
        title="Mean maps of each source",
        subtitle=f"Evidence of locations, test people, {int(average['images'].sum())} images in all.",
    )


@styled
def localisation_bars(table: pd.DataFrame) -> Figure:
    """AUROC of each map and rival against the changed pixels, on whole fakes and on halves."""
    own = table.loc[[name for name in table.index if is_own(name) or not name.startswith("other_image")]]
    names = list(own.index)
    shown = {prefix: SETS[name] for name, prefix in PREFIXES.items() if f"{prefix}auroc" in own}
    figure = Figure(figsize=(9.0, 1.9 + 0.21 * len(names)))
    panels = np.atleast_1d(figure.subplots(1, len(shown), sharey=True))
    place = np.arange(len(names))
    for ax, (prefix, title) in zip(panels, shown.items(), strict=True):
        value = own[f"{prefix}auroc"].to_numpy()
        ends = np.array([value - own[f"{prefix}auroc.low"].to_numpy(), own[f"{prefix}auroc.high"].to_numpy() - value])
        colours = ["#56B4E9" if is_own(name) else "#B0B0B0" for name in names]
        ax.barh(place, value - 0.5, left=0.5, height=0.7, color=colours)
        ax.errorbar(value, place, xerr=np.maximum(ends, 0), fmt="none", ecolor=INK, elinewidth=1, capsize=2)
        ax.axvline(0.5, color=ALERT, lw=1.2, ls="--")
        ax.set(title=f"{title} (n = {int(own['images' if not prefix else 'halves'].max())})", xlim=(0.15, 1.0))
        ax.set(xlabel="AUROC of map against changed pixels")
    panels[0].set(yticks=place, yticklabels=[label(name) for name in names], ylim=(len(names) - 0.4, -0.6))
    head(
        figure,
        "Do the maps find the changed pixels?",
        "Mean over fakes of test people, with 95 % intervals over people. Grey: rivals that look at no uncertainty. "
        "Dashed: chance.",
    )
    return figure


@styled
def curves(tree: xr.DataTree) -> Figure:
    """Epistemic uncertainty against the share of pixels that have gone, or come, in the order of each map."""
    found = tree["faithfulness"].to_dataset()
    orders = [str(name) for name in found["order"].values]
    figure = Figure(figsize=(9.0, 4.4))
    panels = figure.subplots(1, 2, sharey=True)
    colours = dict(zip(orders, sns.color_palette("colorblind", len(orders)), strict=True))
    for ax, (name, title) in zip(panels, {"deletion": "pixels go", "insertion": "pixels come"}.items(), strict=True):
        mean = found[f"{name}_curve"].mean("image")
        for order in orders:
            rival = order in ("centred", "chance")
            ax.plot(
                mean["share"],
                mean.sel(order=order),
                color="#888888" if rival else colours[order],
                ls={"centred": "--", "chance": ":"}.get(order, "-"),
                label=METHODS.get(order, {"centred": "centred order", "chance": "random order"}.get(order, order)),
            )
        ax.set(title=title, xlabel="share of pixels", ylim=(0, None))
    panels[0].set(ylabel="epistemic uncertainty (nats)")
    panels[1].legend(fontsize=8, loc="upper right")
    head(
        figure,
        "Does the uncertainty go with the pixels that the maps mark?",
        f"Mean over {found.sizes['image']} test images. Pixels that are not there are blurred. "
        "A wholly blurred\n"
        "picture is the most uncertain. A true map is below the random order at the left, above it at the right.",
    )
    return figure


@styled
def conveyance_bars(table: pd.DataFrame) -> Figure:
    """AUROC of the rise of epistemic and aleatoric maps against a patch that was never seen."""
    kinds = list(dict.fromkeys(table["patch"]))
    figure = Figure(figsize=(9.0, 4.4))
    panels = np.atleast_1d(figure.subplots(1, len(kinds), sharey=True))
    for ax, kind in zip(panels, kinds, strict=True):
        own = table[table["patch"] == kind]
        place = np.arange(len(own))
        for shift, quantity, colour in ((-0.18, "epistemic", "#D55E00"), (0.18, "aleatoric", "#56B4E9")):
            value = own[quantity].to_numpy()
            ends = np.array([value - own[f"{quantity}.low"], own[f"{quantity}.high"] - value])
            ax.barh(place + shift, value - 0.5, left=0.5, height=0.34, color=colour, label=quantity)
            ax.errorbar(value, place + shift, xerr=np.maximum(ends, 0), fmt="none", ecolor=INK, elinewidth=1, capsize=2)
        ax.axvline(0.5, color=ALERT, lw=1.2, ls="--")
        ax.set(title=f"patch of {kind}", xlim=(0, 1), xlabel="AUROC against the patch")
    panels[0].set(yticks=np.arange(len(own)), yticklabels=list(own.index))
    panels[0].invert_yaxis()
    figure.legend(*panels[-1].get_legend_handles_labels(), fontsize=8, ncols=2, loc="outside lower center")
    head(
        figure,
        "Do maps rise at a patch that was never seen in training?",
        f"The map with the patch less the map without. {int(table['images'].iloc[0])} photographs of test people, 95 % "
        "intervals over people.",
    )
    return figure


@styled
def sparsification_curves(tree: xr.DataTree) -> Figure:
    """Error of the pixels kept when the most uncertain are dropped first, and the oracle's."""
    found = tree["dense/sparsification"].to_dataset()
    figure = Figure(figsize=(6.4, 4.2))
    ax = figure.subplots()
    for quantity, colour in zip(found["quantity"].values, ("#0072B2", "#56B4E9", "#D55E00", "#888888"), strict=True):
        kept = found["kept"].sel(quantity=quantity).mean("image")
        own = str(quantity) in NAMES
        called = NAMES[str(quantity)] if own else "rival: position alone"
        ax.plot(found["share"], kept, color=colour, ls="-" if own else "-.", label=called)
    ax.plot(found["share"], found["oracle"].mean("image"), color=INK, ls="--", label="oracle: by the error itself")
    ax.axhline(float(found["error"].mean()), color="#888888", ls=":", label="random order")
    ax.set(
        xlabel="share of pixels dropped, the most uncertain first", ylabel="squared error of P(changed)", ylim=(0, None)
    )
    ax.legend(fontsize=9)
    head(
        figure,
        "Are uncertain pixels the wrong ones?",
        f"Dense detector, mean over {found.sizes['image']} test images.",
    )
    return figure


@styled
def region_bars(tree: xr.DataTree) -> Figure:
    """Epistemic uncertainty with only a region visible, by source."""
    found = tree["source/regions"].to_dataset()
    panels_of = {"epistemic_visible": "only the region visible", "epistemic_hidden": "the region hidden"}
    sources = in_order(found["source"].values)
    colours = palette(sources)
    regions = [str(name) for name in found["region"].values]
    figure = Figure(figsize=(9.0, 6.6))
    panels = figure.subplots(2, 1, sharex=True)
    width = 0.8 / len(sources)
    for ax, (name, title) in zip(panels, panels_of.items(), strict=True):
        mean = analysis.mean_over_images(found[name], by="source")[name]
        for k, source in enumerate(sources):
            own = mean.sel(source=source)
            value = own.sel(estimate="value").to_numpy()
            ends = np.array([value - own.sel(estimate="low"), own.sel(estimate="high") - value])
            place = np.arange(len(regions)) + (k - (len(sources) - 1) / 2) * width
            ax.bar(place, value, width, color=colours[source], label=plain(source, 18))
            ax.errorbar(place, value, yerr=np.maximum(ends, 0), fmt="none", ecolor=INK, elinewidth=0.7)
        ax.set(title=title, ylabel="epistemic (nats)")
    panels[-1].set(xticks=np.arange(len(regions)), xticklabels=regions)
    figure.legend(*panels[0].get_legend_handles_labels(), fontsize=8, ncols=5, loc="outside lower center")
    head(
        figure,
        "How unsure is the detector by region of the face?",
        f"Mean over the images of each source ({found.sizes['image']} in all), 95 % intervals over people. "
        "What is not visible is blurred.",
    )
    return figure

"""What does a run show as numbers: tables, and metrics by flat names?"""

from collections.abc import Mapping

import pandas as pd
import xarray as xr

import bayesdf.analysis as analysis
from bayesdf.analysis import Estimate
from bayesdf.experiments.uncertainty_maps.dense import DETECTORS
from bayesdf.experiments.uncertainty_maps.localisation import METHODS, OTHER, RIVALS, SETS

NAMES = {"p_fake": "P(fake)", "total": "total", "aleatoric": "aleatoric", "epistemic": "epistemic"}
"""What quantities are called in tables and figures."""
DIFFERENCES = {
    "centred": "over_centred",
    "smoothness": "over_smoothness",
    "deterministic": "over_deterministic",
    "deterministic_evidence": "over_deterministic_evidence",
    OTHER: "over_other_image",
}
"""Rivals, and the columns of the paired differences from them."""


def label(name: str) -> str:
    """What a map is called: ``gradient: epistemic``, or the rival."""
    if name in RIVALS:
        return RIVALS[name]
    other, name = name.startswith(f"{OTHER}:"), name.removeprefix(f"{OTHER}:")
    method, quantity = name.split(":")
    text = f"{METHODS[method]}: {NAMES[quantity]}"
    return f"rival: {text}, of another picture" if other else text


def sets(tree: xr.DataTree) -> list[str]:
    """What the maps were judged on. Halves need the photograph that each fake was made from."""
    return [name for name in SETS if name in tree["localisation/test"].children]


def decisive(tree: xr.DataTree) -> str:
    """The prefix of the columns that count: of halves where there are any, of whole fakes otherwise."""
    return "halves_" if "halves" in sets(tree) else ""


def best(tree: xr.DataTree) -> str:
    """The map of an uncertainty that finds the changed pixels of validation people best."""
    scores = tree[f"localisation/val/{sets(tree)[-1]}"].to_dataset()["auroc"].mean("image")
    own = [name for name in scores["map"].values if is_own(name) and not name.endswith(":p_fake")]
    return str(own[int(scores.sel(map=own).values.argmax())])


def is_own(name: str) -> bool:
    """Whether a map is of the posterior and of the picture itself."""
    return ":" in name and not name.startswith(OTHER)


def localisation(tree: xr.DataTree) -> pd.DataFrame:
    """A row for each map: `auroc` and `pointing` on whole fakes, `halves_auroc`, and paired differences."""
    rows: dict[str, dict[str, float]] = {}
    for which in sets(tree):
        scores = tree[f"localisation/test/{which}"].to_dataset()
        prefix = "" if which == "whole" else "halves_"
        own = analysis.mean_over_images(scores[["auroc", "pointing"] if which == "whole" else ["auroc"]])
        for name in scores["map"].values:
            row = rows.setdefault(str(name), {})
            for figure in own.data_vars:
                if not str(figure).endswith("_images"):
                    row |= _columns(f"{prefix}{figure}", own[figure].sel(map=name))
            row["images" if which == "whole" else "halves"] = int(own["auroc_images"].sel(map=name))
        for rival, column in DIFFERENCES.items():
            for name in scores["map"].values:
                if is_own(str(name)):
                    against = f"{OTHER}:{name}" if rival == OTHER else rival
                    apart = scores["auroc"].sel(map=name, drop=True) - scores["auroc"].sel(map=against, drop=True)
                    found = analysis.mean_over_images(apart.rename("auroc"))["auroc"]
                    rows[str(name)] |= _columns(f"{prefix}{column}", found)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("map")


def by_generator(tree: xr.DataTree) -> pd.DataFrame:
    """AUROC of each map on whole fakes and halves: a row for each map and generator."""
    rows = []
    for which in sets(tree):
        scores = tree[f"localisation/test/{which}"].to_dataset()["auroc"]
        found = analysis.mean_over_images(scores, by="source")["auroc"]
        for name in scores["map"].values:
            for source in found["source"].values:
                own = found.sel(map=name, source=source)
                rows.append({"set": which, "map": str(name), "source": str(source), **_columns("auroc", own)})
    return pd.DataFrame(rows).set_index("map")


def faithfulness(tree: xr.DataTree) -> pd.DataFrame:
    """Areas under the deletion and insertion curves of each order, less that of a random and of a centred order."""
    areas = tree["faithfulness"].to_dataset()
    rows: dict[str, dict[str, float]] = {}
    for figure in ("deletion", "insertion"):
        own = analysis.mean_over_images(areas[figure])[figure]
        for name in areas["order"].values:
            row = rows.setdefault(str(name), {})
            row |= _columns(figure, own.sel(order=name))
            for rival in ("chance", "centred"):
                if name not in ("chance", "centred"):
                    apart = areas[figure].sel(order=name, drop=True) - areas[figure].sel(order=rival, drop=True)
                    row |= _columns(f"{figure}_over_{rival}", analysis.mean_over_images(apart.rename("x"))["x"])
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("order")


def sanity(tree: xr.DataTree) -> pd.DataFrame:
    """Mean rank correlation with the map of the whole network: a row for each method and quantity, a column for each
    number of random layers; and with the map of other draws and of another fit."""
    found = tree["sanity/randomised"].to_dataset()["correlation"].mean("image")
    again = tree["sanity/repeats"].to_dataset()["correlation"].mean("image")
    rows = {}
    for method in found["method"].values:
        for quantity in found["quantity"].values:
            own = found.sel({"method": method, "quantity": quantity})
            rows[f"{METHODS[str(method)]}: {NAMES[str(quantity)]}"] = {
                **{
                    str(what): float(again.sel({"method": method, "quantity": quantity, "what": what}))
                    for what in again["what"].values
                },
                **{f"{int(number)} random layers": float(own.sel(layers=number)) for number in own["layers"].values},
            }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("map")


def agreement(tree: xr.DataTree) -> pd.DataFrame:
    """Mean rank correlation of the epistemic maps of two methods: a row and a column for each."""
    found = tree["sanity/agreement"].to_dataset()["correlation"].sel(quantity="epistemic").mean("image")
    names = [METHODS[str(name)] for name in found["method"].values]
    return pd.DataFrame(found.transpose("method", "other").values, names, names).rename_axis("method")


def conveyance(tree: xr.DataTree) -> pd.DataFrame:
    """AUROC of the rise of each map against the patch: a row for each method and kind of patch."""
    scores = tree["conveyance"].to_dataset()
    auroc = analysis.mean_over_images(scores["auroc"])["auroc"]
    apart = analysis.mean_over_images(scores["difference"])["difference"]
    rows = []
    for method in scores["method"].values:
        for patch in scores["patch"].values:
            row: dict[str, float | str] = {"method": {**METHODS, **DETECTORS}[str(method)], "patch": str(patch)}
            for quantity in ("epistemic", "aleatoric"):
                row |= _columns(quantity, auroc.sel({"method": method, "patch": patch, "quantity": quantity}))
            row["images"] = scores.sizes["image"]
            rows.append({**row, **_columns("difference", apart.sel({"method": method, "patch": patch}))})
    return pd.DataFrame(rows).set_index("method")


def regions(tree: xr.DataTree) -> pd.DataFrame:
    """Mean uncertainty by source and region: alone, hidden, and the share of the epistemic maps inside."""
    found = tree["source/regions"].to_dataset()
    rows = []
    for name in found.data_vars:
        if "image" not in found[name].dims or "region" not in found[name].dims or name == "area":
            continue
        own = analysis.mean_over_images(found[name], by="source")[str(name)]
        extra = [dim for dim in own.dims if dim not in ("source", "region", "estimate")]
        for key, one in own.stack(row=[*extra, "source", "region"]).groupby("row"):
            where = {str(dim): value for dim, value in zip([*extra, "source", "region"], key, strict=True)}
            rows.append({"figure": str(name), **where, **_columns("value", one.squeeze("row", drop=True))})
    return pd.DataFrame(rows).set_index("figure")


def tables(tree: xr.DataTree) -> dict[str, pd.DataFrame]:
    """Tables by name."""
    return {
        "localisation": localisation(tree),
        "by_generator": by_generator(tree),
        "faithfulness": faithfulness(tree),
        "sanity": sanity(tree),
        "agreement": agreement(tree),
        "conveyance": conveyance(tree),
        "dense": dense(tree),
        "sparsification": sparsification(tree),
        "regions": regions(tree),
        "attribution": tree["source/attribution"].to_dataset().to_dataframe(),
        "gain": tree["source/gain"].to_dataset().to_dataframe(),
    }


def dense(tree: xr.DataTree) -> pd.DataFrame:
    """A row for each detector of pixels: pixel AUROC, ECE, F1, IoU and Brier score over photographs and partly changed
    fakes; the mean AUROC image by image, of whole fakes (`image_auroc`), half-changed ones (`halves_auroc`) and
    photographs of which half was blurred (`blurred_auroc`)."""
    found = tree["dense/figures"].to_dataset()
    rows: dict[str, dict[str, float]] = {}
    for name in found["detector"].values:
        rows[str(name)] = {}
        for figure in found.data_vars:
            rows[str(name)] |= _columns(str(figure), found[figure].sel(detector=name))
    for group in ("images", "halves", "blurred"):
        if group in tree["dense"].children:
            mean = analysis.mean_over_images(tree[f"dense/{group}"].to_dataset()["auroc"])["auroc"]
            for name in mean["detector"].values:
                column = "image_auroc" if group == "images" else f"{group}_auroc"
                rows.setdefault(str(name), {})
                rows[str(name)] |= _columns(column, mean.sel(detector=name))
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("detector")


def sparsification(tree: xr.DataTree) -> pd.DataFrame:
    """A row for each uncertainty of pixels: the area between the curve of the error and the oracle's (`ause`; lower is
    better), and the gain over a random order (`aurg`). The last row is of position alone."""
    found = analysis.mean_over_images(tree["dense/sparsification"].to_dataset()[["ause", "aurg"]])
    rows = {
        str(name): {
            key: value
            for figure in ("ause", "aurg")
            for key, value in _columns(figure, found[figure].sel(quantity=name)).items()
        }
        for name in found["quantity"].values
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("uncertainty")


def metrics(made: Mapping[str, pd.DataFrame], tree: xr.DataTree) -> dict[str, float | int | str | None]:
    """All figures under flat names: ``localisation.gradient:epistemic.auroc.low``, …"""
    flat: dict[str, float | int | str | None] = {"best_map": best(tree)}
    for name in ("localisation", "faithfulness", "sanity", "dense", "sparsification", "attribution", "gain"):
        for row, values in made[name].iterrows():
            flat |= {f"{name}.{row}.{key}": _plain(value) for key, value in values.items()}
    for keys, name in ((["patch"], "conveyance"),):
        for row, values in made[name].iterrows():
            where = ".".join(str(values[key]) for key in keys)
            flat |= {f"{name}.{row}.{where}.{key}": _plain(value) for key, value in values.drop(keys).items()}
    return flat


def _plain(value: object) -> float | int | str:
    return value if isinstance(value, str) else float(value)  # type: ignore[arg-type]


def _columns(name: str, figure: xr.DataArray) -> dict[str, float]:
    """`name`, `name.low` and `name.high` of a figure over `estimate`."""
    value, low, high = (float(figure.sel(estimate=end)) for end in Estimate._fields)
    return {name: value, f"{name}.low": low, f"{name}.high": high}


def estimate_of(table: pd.DataFrame, row: str, name: str) -> Estimate:
    """A figure of a table with its interval."""
    return Estimate(*(float(table[f"{name}{end}"][row]) for end in ("", ".low", ".high")))


def estimate_at(row: pd.Series, name: str) -> Estimate:
    """A figure of a row with its interval."""
    return Estimate(*(float(row[f"{name}{end}"]) for end in ("", ".low", ".high")))

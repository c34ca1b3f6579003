"""What does a run show as numbers: tables, and metrics by flat names?"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr

import bayesdf.analysis as analysis
from bayesdf.analysis.roc import binary_auroc
from bayesdf.data import REAL
from bayesdf.experiments.inversion.names import BY_INVERSION, COUNTERPARTS, METHODS, SCORES, group_of
from bayesdf.report.style import in_order

COST = (
    "latent_dim",
    "pictures",
    "evaluations",
    "shared",
    "milliseconds_evaluation",
    "seconds_modelled",
    "seconds",
    "pictures_per_second",
)
"""What inversion by a candidate costs: the columns of `throughput` in their order."""


def metrics(tree: xr.DataTree, tables: Mapping[str, pd.DataFrame]) -> dict[str, float | int | str | None]:
    """All figures under flat names: ``inversion.ece``, ``open_set.vae.auc``, ``attack.inversion.8.classifier``, …"""
    flat: dict[str, float | int | str | None] = {}
    summary = group_of(tree, "attribution")
    for method in summary["method"].values:
        figures = summary.sel({"method": method})
        known = [name for name in SCORES if np.isfinite(figures[name].values[0])]
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
    flat["pictures"] = group_of(tree, "evidence").sizes["image"]
    return flat


def tables(tree: xr.DataTree) -> dict[str, pd.DataFrame]:
    """Tables by name."""
    judged = group_of(tree, "attribution/inversion")
    made = {
        "accuracy": accuracy(tree),
        "open_set": open_set(tree),
        "robustness": shares(tree, "robustness"),
        "robustness_comparison": comparison(tree, "robustness"),
        "attacks": shares(tree, "attack"),
        "attacks_comparison": comparison(tree, "attack"),
        "throughput": group_of(tree, "throughput").to_dataframe()[list(COST)],
        "errors": errors(tree),
    }
    for name in ("clean", *BY_INVERSION, *COUNTERPARTS.values()):
        made[f"confusion_{name}"] = analysis.confusion(group_of(tree, f"attribution/{name}"))
    probability = judged["probability"].to_pandas()
    made["probability"] = pd.DataFrame(probability).assign(
        truth=judged["truth"].values, prediction=judged["prediction"].values
    )
    return made


def accuracy(tree: xr.DataTree) -> pd.DataFrame:
    """A row a method: its figures with intervals."""
    summary = group_of(tree, "attribution")
    rows = {}
    for method in summary["method"].values:
        row: dict[str, float] = {}
        for name in SCORES:
            value, low, high = summary[name].sel({"method": method}).values
            row |= {name: float(value), f"{name}.low": float(low), f"{name}.high": float(high)}
        rows[METHODS[str(method)]] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def open_set(tree: xr.DataTree) -> pd.DataFrame:
    """A row a candidate left out: how well `none of these` tells its pictures from all others."""
    group = group_of(tree, "open_set")
    rows = {}
    for name in group["left_out"].values:
        unknown = group["source"].values == name
        odds = group["none"].sel(left_out=name).values

        auc = analysis.cluster_bootstrap(binary_auroc, [unknown, odds], group["subject"].values)
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
    data = group_of(tree, group)
    real = data["source"].values == REAL
    rows = []
    for c in range(data.sizes["condition"]):
        for method in data["method"].values:
            one = data.isel(condition=c).sel({"method": method})
            right = one["right"].values.astype(np.float64)
            for of, rows_of in (("candidates", ~real), ("photographs", real)):
                if of == "photographs" and method == "smallest_error":
                    continue
                share = analysis.cluster_bootstrap(
                    np.mean, [right[rows_of]], data["subject"].values[rows_of], share=np.ones(rows_of.sum())
                )
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

    `difference` is the drop of inversion less that of the classifier, in share of the candidates' samples, paired, with
    intervals that hold for all rows at once with 95 %. `falls_further` says whether it is above 0, `significant`
    whether its interval is as well.
    """
    data = group_of(tree, group)
    own = data["source"].values != REAL
    right = data["right"].isel(image=np.flatnonzero(own)).astype(np.float64)
    rows: list[dict[str, str | float | bool]] = []
    gaps = []
    for ours, theirs in COUNTERPARTS.items():
        a, b = (right.sel({"method": method}).values for method in (ours, theirs))
        for c in range(1, len(a)):
            drops = [one[0] - one[c] for one in (a, b)]
            gaps.append(drops[0] - drops[1])
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
                }
            )
    table = np.array(gaps)
    found = analysis.simultaneous(lambda images: table[:, images].mean(1), data["subject"].values[own])
    return pd.DataFrame(rows).assign(
        **{"difference": found.value, "difference.low": found.low, "difference.high": found.high},
        falls_further=found.value > 1e-12,
        significant=found.low > 1e-12,
    )


def errors(tree: xr.DataTree) -> pd.DataFrame:
    """Median pixel error, 95 % of it, and evaluations, by candidate and source (grey values of 255)."""
    data = group_of(tree, "evidence")
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

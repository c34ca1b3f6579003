"""What does a run show as numbers: tables, and metrics by flat names?

Intervals are of two kinds. Intervals over seeds are Student's t intervals of the mean over fits that differ only in
their seed. They show how much is luck in fitting. Intervals over people are bootstrap intervals of a single fit.
Differences from MAP have intervals over people that hold all at once, with the fits as they are.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

import bayesdf.analysis as analysis
from bayesdf.analysis import Estimate
from bayesdf.analysis.selective_prediction import risks
from bayesdf.data import REAL
from bayesdf.experiments.method_comparison.measures import COST, QUALITY, SECONDS
from bayesdf.experiments.method_comparison.methods import ABOUT
from bayesdf.experiments.method_comparison.results import dataset_at, fits
from bayesdf.report.methods import METHODS, verdicts

LEVEL = 0.95
BASE = "map"
"""The method that the others are measured from."""
SMALLEST = 1e-300
"""Stands for a probability of zero before a logarithm."""
Array = NDArray[np.float64]
Labels = NDArray[np.int64]


def over_seeds(values: Sequence[float]) -> Estimate:
    """The mean over seeds with the 95 % interval by Student's t; no interval from fewer than two.

    >>> over_seeds([1.0, 2.0, 3.0])
    Estimate(value=2.0, low=-0.484..., high=4.484...)
    """
    from scipy.stats import t as student

    known = np.array([value for value in values if np.isfinite(value)])
    if len(known) < 2:
        return Estimate(float(known.mean()) if len(known) else np.nan, np.nan, np.nan)
    half = student.ppf((1 + LEVEL) / 2, len(known) - 1) * known.std(ddof=1) / np.sqrt(len(known))
    return Estimate(float(known.mean()), float(known.mean() - half), float(known.mean() + half))


def metrics(tree: xr.DataTree, tables: Mapping[str, pd.DataFrame]) -> dict[str, float | int | str | None]:
    """All figures under flat names: ``svi.nll``, ``svi.nll.low`` (over seeds), ``svi.0.nll.low`` (over people), …"""
    flat: dict[str, float | int | str | None] = {}
    for name, row in tables["comparison"].iterrows():
        flat |= {f"{name}.{key}": float(value) for key, value in row.items()}
    for name, seed, one in fits(tree):
        told = dataset_at(one, "metrics")
        flat |= analysis.flatten(told, f"{name}.{seed}.")
        flat |= {f"{name}.{seed}.{key}": int(told.attrs[key]) for key in ("images", "clusters")}
        flat |= {f"{name}.{seed}.{key}": float(dataset_at(one, "cost")[key]) for key in (*SECONDS, "draws")}
    for name, row in tables["differences"].iterrows():
        flat |= {f"{name}.over_{BASE}.{key}": float(value) for key, value in row.items()}
    return flat


def tables(tree: xr.DataTree, manifest: pd.DataFrame, unseen: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tables by name.

    Parameters
    ----------
    manifest
        Of the collection without the generator that was left out.
    unseen
        Of that generator's test images.
    """
    together = pd.concat([manifest, unseen.assign(split="test, left out")])
    counts = together.groupby(["source", "split"]).size().unstack(fill_value=0)
    each = by_seed(tree)
    people = together[together["subject"] != ""].groupby("split")["subject"].nunique()
    return {
        "images": pd.concat([counts, people.rename("subjects").to_frame().T]).fillna(0).astype(int),
        "methods": pd.DataFrame({"what it does": ABOUT}).loc[list(tree.children)].rename(index=METHODS),
        "verdicts": verdicts({f"{METHODS[name]}, seed {seed}": one for name, seed, one in fits(tree)}),
        "comparison": comparison(each),
        "seeds": each,
        "differences": differences(tree),
        "uncertainty": medians(tree),
    }


def comparison(each: pd.DataFrame) -> pd.DataFrame:
    """A row a method: the mean of every figure over seeds, with its interval over seeds, and the number of draws.

    Parameters
    ----------
    each
        From `by_seed`.
    """
    rows: dict[str, dict[str, float]] = {}
    for name in each.index.unique():
        own = each.loc[[name]]
        row = rows.setdefault(str(name), {})
        for key in (*QUALITY, *COST):
            found = over_seeds(own[key].tolist())
            row |= {key: found.value, f"{key}.low": found.low, f"{key}.high": found.high}
        row |= {"draws": own["draws"].iloc[0], "seeds": len(own)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def by_seed(tree: xr.DataTree) -> pd.DataFrame:
    """A row a fit: every figure. Those of quality have intervals over people."""
    rows = []
    spent = {seed: float(dataset_at(one, "cost")["fit_seconds"]) for name, seed, one in fits(tree) if name == BASE}
    for name, seed, one in fits(tree):
        told, price = dataset_at(one, "metrics"), dataset_at(one, "cost")
        row: dict[str, float | str | int] = {"method": name, "seed": seed}
        for key in QUALITY:
            found = analysis.estimate(told, key)
            row |= {key: found.value, f"{key}.low": found.low, f"{key}.high": found.high}
        row |= {key: float(price[key]) for key in SECONDS}
        row["fit_ratio"] = float(price["fit_seconds"]) / spent.get(seed, np.nan)
        row["draw_ratio"] = float(price["draw_seconds"]) / float(price["forward_seconds"])
        row["draws"] = int(price["draws"])
        rows.append(row)
    return pd.DataFrame(rows).set_index("method")


def differences(tree: xr.DataTree) -> pd.DataFrame:
    """A row a method but MAP: how much higher its figures are, mean over seeds, on the same images.

    The intervals are over people, the fits held as they are, and simultaneous: all of the table hold at once with 95 %.
    `<figure>.significant` is 1 where the interval is without 0.
    """
    others = [str(name) for name in tree.children if name != BASE]
    if BASE not in tree.children or not others:
        return pd.DataFrame().rename_axis("method")
    probability: dict[str, list[Array]] = {}
    for name, _, one in fits(tree):
        uncertainty = dataset_at(one, "uncertainty")
        label, people = (
            uncertainty["label"].values,
            analysis.design(uncertainty, uncertainty.sizes["image"])["clusters"],
        )
        probability.setdefault(name, []).append(uncertainty["probability"].values)
    losses = {name: _losses(fits, label) for name, fits in probability.items()}

    def gaps(rows: NDArray[np.int64]) -> Array:
        told = {
            name: np.array([figure(own[key][rows], label[rows]) for key, figure in PAIRED.items()])
            for name, own in losses.items()
        }
        return np.concatenate([told[name] - told[BASE] for name in others])

    found = analysis.simultaneous(gaps, people)
    columns = [f"{key}{end}" for key in PAIRED for end in ("", ".low", ".high", ".significant")]
    cells = np.stack([found.value, found.low, found.high, found.excludes_zero], axis=-1).reshape(len(others), -1)
    return pd.DataFrame(cells, index=pd.Index(others, name="method"), columns=columns)


def _losses(fits: Sequence[Array], label: Labels) -> dict[str, Array]:
    """What each image adds to each of `PAIRED`: (image,), the mean over seeds, or (image, seed, 2) where figures of
    seeds cannot be had from their mean loss."""
    probability = np.stack(fits, axis=1)
    right = probability.argmax(axis=-1) == label[:, None]
    given = np.take_along_axis(probability, label[:, None, None], axis=-1)[..., 0]
    truth = np.eye(probability.shape[-1])[label][:, None]
    share = right.mean(axis=1)
    return {
        "balanced_accuracy": share,
        "accuracy": share,
        "nll": -np.log(np.maximum(given, SMALLEST)).mean(axis=1),
        "brier": ((probability - truth) ** 2).sum(axis=-1).mean(axis=1),
        "aurc": np.stack([probability.max(axis=-1), ~right], axis=-1),
    }


def _mean(loss: Array, label: Labels) -> float:
    return float(loss.mean())


PAIRED: dict[str, Callable[[Array, Labels], float]] = {
    "balanced_accuracy": lambda share, label: float(share @ analysis.balanced_weights(label)),
    "accuracy": _mean,
    "nll": _mean,
    "brier": _mean,
    "aurc": lambda both, label: float(np.mean([risks(one[:, 0], one[:, 1]).mean() for one in np.moveaxis(both, 1, 0)])),
}
"""The figures that `differences` compares: each from what `_losses` gives, and the labels (image,)."""


def medians(tree: xr.DataTree) -> pd.DataFrame:
    """Median epistemic uncertainty (nats) by method and source, all seeds together. What was left out comes last."""
    rows: dict[str, dict[str, float]] = {}
    for name in tree.children:
        frames = [uncertainties(one) for method, _, one in fits(tree) if method == name]
        frame = pd.concat(frames)
        found = frame.groupby("source", sort=False)["epistemic"].median()
        rows[str(name)] = {str(source): float(value) for source, value in found.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def uncertainties(one: xr.DataTree) -> pd.DataFrame:
    """A row an image of a posterior: `source`, `kind` (photographs, seen fakes, left out) and `epistemic` (nats)."""
    parts = []
    for path, left_out in (("uncertainty", False), ("left_out/uncertainty", True)):
        told = dataset_at(one, path)
        source = told["source"].values.astype(str)
        kind = np.where(source == REAL, "photographs", "left out" if left_out else "seen fakes")
        parts.append(pd.DataFrame({"source": source, "kind": kind, "epistemic": told["epistemic"].values}))
    return pd.concat(parts, ignore_index=True)

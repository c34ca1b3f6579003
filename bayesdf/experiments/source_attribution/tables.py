"""What does a run show as numbers: tables, and metrics by flat names?

`results` maps the name of a method to its DataTree, as `bayesdf.experiments.source_attribution.folds.collect` makes it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

import bayesdf.analysis as analysis
import bayesdf.data as data
from bayesdf.analysis import Estimate
from bayesdf.experiments.source_attribution.feature_sets import MAIN, SETS
from bayesdf.report.methods import METHODS, converged, verdict, verdicts

RAW = ("ece", "ece_balanced", "nll")
"""Figures of detection that are also told of the predictions before recalibration."""

Results = Mapping[str, xr.DataTree]

CONTROLS = {"noise": "noise of the same size, not fitted", "untrained": "untrained network, the same noise"}
"""The controls that predict, and how they are called beside the method."""
OF_CONTROLS = ("balanced_accuracy", "auroc", "ece", "ece_balanced")
"""Figures of detection that are also told of the controls."""


def metrics(results: Results) -> dict[str, float | int | str]:
    """All figures under flat names: ``svi.detection.ece``, ``svi.source.uncertainty.accuracy.low``, …"""
    flat: dict[str, float | int | str] = {}
    for name, tree in results.items():
        detection = tree["metrics"].to_dataset()
        flat |= analysis.flatten(detection, f"{name}.detection.")
        flat |= analysis.flatten(raw_metrics(tree), f"{name}.detection.raw.")
        flat |= {f"{name}.detection.{key}": detection.attrs[key] for key in ("images", "clusters", "people")}
        flat |= {f"{name}.folds": count} if (count := folds(tree)) > 1 else {}
        flat |= {f"{name}.fit.converged": int(converged(tree)), f"{name}.fit.verdict": verdict(tree)}
        for row, values in by_feature_set(tree).iterrows():
            flat |= {f"{name}.source.{row}.{key}": float(value) for key, value in values.items()}
        flat |= flat_gain(tree, f"{name}.gain.")
        for control in CONTROLS:
            found = tree[f"control/{control}/metrics"].to_dataset()
            flat |= analysis.flatten(found, f"{name}.control.{control}.detection.")
        for source, share in detection_by_source(tree).iterrows():
            flat |= {f"{name}.detection.{source}.{key}": float(value) for key, value in share.items()}
    return flat


def tables(results: Results, collections: Sequence[data.Collection]) -> dict[str, pd.DataFrame]:
    """Tables by name; a method's are called after it.

    Parameters
    ----------
    collections
        The images of each fold.
    """
    made = {"images": _images(collections)}
    detection = {
        METHODS[name]: analysis.flatten(tree["metrics"].to_dataset()) | analysis.flatten(raw_metrics(tree), "raw.")
        for name, tree in results.items()
    }
    made["verdicts"] = verdicts({METHODS[name]: tree for name, tree in results.items()})
    for name, tree in results.items():
        for control, label in CONTROLS.items():
            found = tree[f"control/{control}/metrics"].to_dataset()
            detection[f"{METHODS[name]}: {label}"] = analysis.flatten(found)
    made["detection"] = pd.DataFrame.from_dict(detection, orient="index")
    for name, tree in results.items():
        made[f"{name}_detection_by_source"] = detection_by_source(tree)
        made[f"{name}_source"] = by_feature_set(tree)
        made[f"{name}_gain"] = gain(tree)
        made[f"{name}_confusion"] = analysis.confusion(tree[f"attribution/{MAIN}"].to_dataset())
        made[f"{name}_uncertainty"] = per_image(tree)
        if folds(tree) > 1:
            made[f"{name}_folds"] = by_fold(tree)
    return made


def folds(tree: xr.DataTree) -> int:
    """How many folds a method's tree joins."""
    return int(tree.attrs.get("folds", 1))


def people(tree: xr.DataTree) -> int:
    """How many people the figures stand on: those of the test images."""
    return int(tree["metrics"].attrs["people"])


def basis(tree: xr.DataTree) -> str:
    """What the figures stand on, in words: how many people, and in how many folds."""
    return f"{people(tree)} people{f' in {folds(tree)} folds' if folds(tree) > 1 else ''}"


def by_fold(tree: xr.DataTree) -> pd.DataFrame:
    """For each fold how many images and people it judged, and its own figures, without intervals."""
    uncertainty = tree["uncertainty"].to_dataset()
    attributed = {name: tree[f"attribution/{name}"].to_dataset() for name in SETS}
    rows = {}
    for fold in range(folds(tree)):
        own = uncertainty.isel(image=np.flatnonzero(uncertainty["fold"].values == fold))
        right = (own["prediction"] == own["label"]).values
        rows[fold] = {
            "images": own.sizes["image"],
            "people": len(set(own["subject"].values) - {""}),
            "balanced_accuracy": float(np.mean([right[own["label"].values == label].mean() for label in (0, 1)])),
        }
        for name, part in attributed.items():
            named = (part["prediction"] == part["truth"]).values[part["fold"].values == fold]
            rows[fold][f"source_from_{name}"] = float(named.mean())
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("fold")


def _images(collections: Sequence[data.Collection]) -> pd.DataFrame:
    """How many images there are of each source in each split, and how many people; fold by fold."""
    parts = {}
    for collection in collections:
        manifest = collection.manifest
        counts = manifest.groupby(["source", "split"]).size().unstack(fill_value=0)
        people = manifest[manifest["subject"] != ""].groupby("split")["subject"].nunique()
        parts[collection.fold] = pd.concat([counts, people.rename("subjects").to_frame().T])
    if len(parts) == 1:
        return parts[0]
    for fold, part in parts.items():
        part.insert(0, "fold", fold)
    return pd.concat(parts.values())


def by_feature_set(tree: xr.DataTree) -> pd.DataFrame:
    """A row a feature set, as `bayesdf.analysis.summarise` made it."""
    return tree.children["attribution"].to_dataset(inherit=False).to_dataframe().loc[list(SETS)]


def gain(tree: xr.DataTree) -> pd.DataFrame:
    """A row for each control of each set of the posterior, as `gain.gains` made it."""
    return tree["gain"].to_dataset().to_dataframe()


def flat_gain(tree: xr.DataTree, prefix: str) -> dict[str, float]:
    """The numbers of `gain` under flat names: ``<prefix><set>.<control>.difference.low``, …"""
    numbers = gain(tree).drop(columns=["features", "control"])
    return {f"{prefix}{pair}.{key}": float(value) for pair, row in numbers.iterrows() for key, value in row.items()}


def raw_metrics(tree: xr.DataTree) -> xr.Dataset:
    """Figures of the predictions before recalibration; none in runs of earlier versions."""
    raw = tree["metrics"].children.get("raw")
    return xr.Dataset() if raw is None else raw.to_dataset(inherit=False)


def estimate(sources: pd.DataFrame, features: str, name: str) -> Estimate:
    """A figure of a feature set, with its interval."""
    return Estimate(*(float(sources[column][features]) for column in (name, f"{name}.low", f"{name}.high")))


def chance(sources: pd.DataFrame) -> float:
    return float(sources["chance"][MAIN])


def per_image(tree: xr.DataTree) -> pd.DataFrame:
    """A row an image: where it is from, and how sure the detector is."""
    uncertainty = tree["uncertainty"].to_dataset()
    one = [name for name, variable in uncertainty.variables.items() if variable.dims == ("image",)]
    frame = uncertainty[one].to_dataframe()
    frame["p_fake"] = uncertainty["probability"].sel({"class": "fake"}).values
    return frame


def detection_by_source(tree: xr.DataTree) -> pd.DataFrame:
    """For each source the number of test images and the share judged rightly, with its interval over people."""
    uncertainty = tree["uncertainty"].to_dataset()
    right = (uncertainty["prediction"] == uncertainty["label"]).values.astype(float)
    rows = {}
    for source in np.unique(uncertainty["source"].values):
        own = np.flatnonzero(uncertainty["source"].values == source)
        people = analysis.design(uncertainty.isel(image=own), len(own))
        share = analysis.cluster_bootstrap(np.mean, [right[own]], **people, share=np.ones(len(own)))
        rows[str(source)] = {
            "images": len(own),
            "right": share.value,
            "right.low": share.low,
            "right.high": share.high,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("source")

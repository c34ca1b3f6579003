"""What does a run show as numbers: tables, and metrics by flat names?

`results` maps the name of a method to its DataTree, as `bayesdf.experiments.source_attribution.study.judge` makes it.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr

import bayesdf.analysis as analysis
from bayesdf.analysis import Estimate
from bayesdf.report.methods import METHODS, converged, verdict, verdicts

MAIN = "uncertainty"
CONTROL = "mean_probability"
SETS = {
    "uncertainty": "uncertainty: scalars and profile",
    "uncertainty_scalars": "uncertainty: scalars alone",
    "mean_probability": "control: mean probability alone",
    "penultimate_features": "ceiling: the network's features",
}
"""The feature sets from which the source is told, and how they are called in figures."""

RAW = ("ece", "ece_balanced", "ece_smooth", "nll")
"""Figures of detection that are also told of the predictions before recalibration."""

Results = Mapping[str, xr.DataTree]


def metrics(results: Results) -> dict[str, float | int | str]:
    """All figures under flat names: ``svi.detection.ece``, ``svi.source.uncertainty.accuracy.low``, …"""
    flat: dict[str, float | int | str] = {}
    for name, tree in results.items():
        detection = tree["metrics"].to_dataset()
        flat |= analysis.flatten(detection, f"{name}.detection.")
        flat |= analysis.flatten(raw_metrics(tree), f"{name}.detection.raw.")
        flat |= {f"{name}.detection.{key}": detection.attrs[key] for key in ("images", "clusters", "people")}
        flat |= {f"{name}.fit.converged": int(converged(tree)), f"{name}.fit.verdict": verdict(tree)}
        for row, values in by_feature_set(tree).iterrows():
            flat |= {f"{name}.source.{row}.{key}": float(value) for key, value in values.items()}
        for source, share in detection_by_source(tree).iterrows():
            flat |= {f"{name}.detection.{source}.{key}": float(value) for key, value in share.items()}
    return flat


def tables(results: Results, manifest: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tables by name; a method's are called after it."""
    counts = manifest.groupby(["source", "split"]).size().unstack(fill_value=0)
    people = manifest[manifest["subject"] != ""].groupby("split")["subject"].nunique()
    made = {"images": pd.concat([counts, people.rename("subjects").to_frame().T])}
    detection = {
        METHODS[name]: analysis.flatten(tree["metrics"].to_dataset()) | analysis.flatten(raw_metrics(tree), "raw.")
        for name, tree in results.items()
    }
    made["verdicts"] = verdicts({METHODS[name]: tree for name, tree in results.items()})
    made["detection"] = pd.DataFrame.from_dict(detection, orient="index")
    for name, tree in results.items():
        made[f"{name}_detection_by_source"] = detection_by_source(tree)
        made[f"{name}_source"] = by_feature_set(tree)
        made[f"{name}_confusion"] = analysis.confusion(tree[f"attribution/{MAIN}"].to_dataset())
        made[f"{name}_uncertainty"] = per_image(tree)
    return made


def by_feature_set(tree: xr.DataTree) -> pd.DataFrame:
    """A row a feature set, as `bayesdf.analysis.summarise` made it."""
    return tree.children["attribution"].to_dataset(inherit=False).to_dataframe().loc[list(SETS)]


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

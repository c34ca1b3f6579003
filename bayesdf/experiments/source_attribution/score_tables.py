"""What does a run over a table of scores show as numbers: tables, and metrics by flat names?"""

import pandas as pd
import xarray as xr

import bayesdf.analysis as analysis
from bayesdf.experiments.source_attribution.feature_sets import MAIN, MEAN, SCALARS
from bayesdf.experiments.source_attribution.tables import detection_by_source, flat_gain, gain, per_image

CELL = "scores"
"""The name of the results in a run."""
SETS = {
    MAIN: "uncertainty: scalars and profile",
    SCALARS: "uncertainty: scalars alone",
    MEAN: "control: mean probability alone",
    "best_detector": "control: the best detector's score alone",
    "shuffled_scores": "control: scores shuffled within a label",
    "detector_scores": "ceiling: the scores of all detectors",
}
"""The feature sets from which the source is told, and how they are called in tables and figures."""
RIVALS = {SCALARS: (MEAN, "best_detector"), MAIN: (MEAN, "best_detector", "shuffled_scores")}
"""The controls of each set of the disagreement."""
GIVEN, SCALED, RECALIBRATED = "as given", "draws scaled", "mean recalibrated"
"""Versions of the predictions, of which the last goes on."""


def by_feature_set(tree: xr.DataTree) -> pd.DataFrame:
    """A row a feature set, as `bayesdf.analysis.summarise` made it."""
    return tree.children["attribution"].to_dataset(inherit=False).to_dataframe().loc[list(SETS)]


def calibration(tree: xr.DataTree) -> pd.DataFrame:
    """A row a version of the predictions: calibration errors, log loss, and differences from those as given."""
    table = tree.children["calibration"].to_dataset(inherit=False).to_dataframe()
    return table.loc[[name for name in (GIVEN, SCALED, RECALIBRATED) if name in table.index]]


def metrics(tree: xr.DataTree) -> dict[str, float | int | str]:
    """All figures under flat names: ``scores.detection.ece``, ``scores.source.uncertainty.accuracy.low``, …"""
    detection = tree["metrics"].to_dataset()
    flat: dict[str, float | int | str] = dict(analysis.flatten(detection, f"{CELL}.detection."))
    flat |= {f"{CELL}.detection.{key}": detection.attrs[key] for key in ("images", "clusters", "people")}
    flat |= {f"{CELL}.coverage": float(tree.attrs["coverage"]), f"{CELL}.moved": int(tree.attrs["moved"])}
    versions = {GIVEN: "raw", SCALED: "scaled", RECALIBRATED: "recalibrated"}
    for table, place in ((calibration(tree).rename(index=versions), "detection"), (by_feature_set(tree), "source")):
        for row, values in table.iterrows():
            flat |= {f"{CELL}.{place}.{row}.{key}": float(value) for key, value in values.items()}
    flat |= flat_gain(tree, f"{CELL}.gain.")
    for source, share in detection_by_source(tree).iterrows():
        flat |= {f"{CELL}.detection.{source}.{key}": float(value) for key, value in share.items()}
    return flat


def tables(tree: xr.DataTree) -> dict[str, pd.DataFrame]:
    """Tables by name."""
    return {
        "images": images(tree),
        "detection": pd.DataFrame([analysis.flatten(tree["metrics"].to_dataset())], index=[RECALIBRATED]),
        "calibration": calibration(tree),
        "detection_by_source": detection_by_source(tree),
        "source": by_feature_set(tree),
        "gain": gain(tree),
        "confusion": analysis.confusion(tree[f"attribution/{MAIN}"].to_dataset()),
        "uncertainty": per_image(tree),
    }


def images(tree: xr.DataTree) -> pd.DataFrame:
    """A row a source: images, subjects, and images left out since a detector has no score for them."""
    known = tree["constant_data"].to_dataset().to_dataframe()
    counts = known.groupby("source").agg(images=("source", "size"))
    counts["subjects"] = known[known["subject"] != ""].groupby("source")["subject"].nunique()
    if "left_out" in tree.children:
        gone = tree["left_out"].to_dataset().to_dataframe()
        counts = counts.join(gone.groupby("source").size().rename("left_out"), how="outer")
    return counts.fillna(0).astype(int)

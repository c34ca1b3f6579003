"""What does a run show as figures? Each method has its own."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

import bayesdf.analysis as analysis
from bayesdf.experiments.source_attribution.tables import MAIN, SETS, Results, by_feature_set
from bayesdf.report.figures import (
    certainty_sheet,
    confusion_matrix,
    reliability_diagram,
    sample_sheet,
    source_accuracy,
    uncertainty_by_source,
)
from bayesdf.report.methods import METHODS


def figures(results: Results, images: NDArray[np.floating], manifest: pd.DataFrame) -> dict[str, Figure]:
    """Figures by name; a method's are called after it.

    Parameters
    ----------
    images
        The test images, float (N, H, W, 3) in [0, 1], in the order of the results.
    manifest
        Their rows.
    """
    made = {"samples": sample_sheet(images, manifest["source"], title="Photographs and fakes of the test people")}
    for name, tree in results.items():
        label = METHODS[name]
        uncertainty = tree["uncertainty"].to_dataset()
        made[f"{name}_source"] = source_accuracy(
            by_feature_set(tree).rename(index=SETS),
            title=f"{label}: how often a fake's generator is named",
            unit="fakes",
        )
        made[f"{name}_confusion"] = confusion_matrix(
            analysis.confusion(tree[f"attribution/{MAIN}"].to_dataset()),
            title=f"{label}: generators named from uncertainty",
        )
        made[f"{name}_uncertainty"] = uncertainty_by_source(uncertainty, title=f"{label}: why the detector is unsure")
        made[f"{name}_reliability"] = reliability_diagram(
            analysis.reliability(tree),
            analysis.estimate(tree["metrics"].to_dataset(), "ece"),
            title=f"{label}: is the detector right as often as it claims?",
        )
        made[f"{name}_faces"] = certainty_sheet(
            images, uncertainty, title=f"{label}: the faces the detector is most and least sure of"
        )
    return made

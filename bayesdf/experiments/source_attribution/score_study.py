"""From a table of detectors' scores to a DataTree: the study without a network.

Each detector counts as a draw, so their disagreement is the epistemic uncertainty.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

import bayesdf.analysis as analysis
from bayesdf._version import __version__
from bayesdf.analysis.features import margins
from bayesdf.analysis.predictions import predictive_logits
from bayesdf.analysis.recalibration import replace_logits
from bayesdf.analysis.roc import binary_auroc
from bayesdf.analysis.tree import find_logits
from bayesdf.cli import console
from bayesdf.experiments.experiment import Cell, Study
from bayesdf.experiments.seeds import rng_of
from bayesdf.experiments.source_attribution.feature_sets import MEAN, of_images, of_uncertainty
from bayesdf.experiments.source_attribution.gain import gains
from bayesdf.experiments.source_attribution.score_file import ScoreFile, read_scores
from bayesdf.experiments.source_attribution.score_page import present
from bayesdf.experiments.source_attribution.score_tables import CELL, GIVEN, RECALIBRATED, RIVALS, SCALED

FIGURES = ("ece", "ece_balanced", "ece_smooth", "nll")
"""What is compared before and after recalibration."""
PAIRED = ("ece_difference", "nll_difference")


def score_study(*, predictions: Path, kind: str, detectors: Sequence[str], missing: str, seed: int) -> Study:
    """Declare the study of a table of scores: a single cell.

    Parameters
    ----------
    predictions, kind, detectors, missing
        See `bayesdf.experiments.source_attribution.score_file.read_scores`.

    Raises
    ------
    BayesdfError
        As `read_scores`.
    """
    settings = {
        "bayesdf": __version__,
        "predictions": str(predictions),
        "kind": kind,
        "detectors": ",".join(detectors),
        "missing": missing,
        "seed": seed,
    }
    console.print(f"scores: {predictions}", markup=False, highlight=False)
    file = read_scores(predictions, kind, detectors, missing)
    scores = file.predictions["posterior_predictive"].to_dataset()
    told = f"    {scores.sizes['image']} images, {file.subject_groups.nunique()} groups of people; "
    told += f"{scores.sizes['draw']} detectors: {', '.join(scores['detector'].values)}"
    console.print(told, markup=False, highlight=False, soft_wrap=True)
    return Study(
        name="source_attribution",
        settings=settings,
        follows={"fingerprint": file.fingerprint},
        cells=[Cell(CELL, "recalibration, decomposition, attribution", lambda _: judge_scores(file, seed=seed), {})],
        present=partial(present, settings=settings),
        attrs={"data_fingerprint": file.fingerprint},
    )


def judge_scores(file: ScoreFile, *, seed: int = 0) -> xr.DataTree:
    """Recalibrate the mean, decompose and attribute: everything the study says of the scores.

    The mean prediction is recalibrated by beta calibration, votes by isotonic regression. Each image is judged by a map
    and by a classifier fitted on other groups of people.

    Returns
    -------
    xr.DataTree
        The predictions with their mean recalibrated, and the groups `recalibration`, `uncertainty`, `metrics`,
        `calibration` (as given, with scaled draws, recalibrated) and `attribution/<feature set>`.
    """
    tree, groups = file.predictions, file.subject_groups
    votes = tree.attrs["scores"] == "vote"
    after = analysis.cross_fit_recalibration(
        tree, groups, method="isotonic" if votes else "beta", seed=seed, keep_draws=not votes
    )
    versions = {GIVEN: tree, SCALED: None, RECALIBRATED: after}
    if not votes:  # no scale changes them
        versions[SCALED] = analysis.cross_fit_recalibration(tree, groups, method="scaling", seed=seed)
    spread = tree if votes else after  # one draw would have no spread
    fakes = _labels(tree) == 1
    scalars, both = of_uncertainty(spread)
    features = {
        "uncertainty": both,
        "uncertainty_scalars": scalars,
        MEAN: analysis.mean_probability(after),
        "best_detector": _best_detector(tree),
        "shuffled_scores": of_uncertainty(shuffled(spread, seed))[1],
        "detector_scores": _scores(tree),
    }
    attributions = {
        name: analysis.attribute(part[fakes], subject_groups=groups[fakes], seed=seed)
        for name, part in features.items()
    }
    metrics = analysis.evaluate(after, seed=seed)
    parts = {
        **{node.path: node.to_dataset(inherit=False) for node in after.subtree},
        "/uncertainty": analysis.decompose(spread),
        "/metrics": metrics,
        "/calibration": xr.Dataset.from_dataframe(calibration_table(versions, metrics[list(FIGURES)], seed)),
        "/gain": xr.Dataset.from_dataframe(gains(attributions, RIVALS, seed)),
        "/attribution": xr.Dataset.from_dataframe(analysis.summarise(attributions, against=MEAN, seed=seed)),
        **{f"/attribution/{name}": part for name, part in attributions.items()},
    }
    return xr.DataTree.from_dict(parts)


def calibration_table(versions: dict[str, xr.DataTree | None], recalibrated: xr.Dataset, seed: int) -> pd.DataFrame:
    """A row for each version of the predictions: its errors, and their differences from the version as given.

    Parameters
    ----------
    recalibrated
        The `FIGURES` of the last version.
    """
    given = versions[GIVEN]
    assert given is not None
    rows = {}
    for name, tree in versions.items():
        if tree is None:
            continue
        figures = recalibrated if name == RECALIBRATED else analysis.evaluate(tree, only=FIGURES, seed=seed)
        row = analysis.flatten(figures)
        if name != GIVEN:
            row |= analysis.flatten(analysis.compare_calibration(tree, given, seed=seed))
        rows[name] = row
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("predictions")
    ends = [f"{name}{end}" for name in PAIRED for end in ("", ".low", ".high")]
    return table.reindex(columns=[*(column for column in table if column not in ends), *ends])


def shuffled(predictions: xr.DataTree, seed: int) -> xr.DataTree:
    """A control: each detector's scores are permuted among the images of the same label.

    Each detector stays as good, and its scores are distributed as before. Only what a score says of its own image
    beside the label is lost. What is named from such scores is named without them.
    """
    logits = find_logits(predictions)
    label = _labels(predictions)
    values = logits.values.copy()  # (chain, draw, image, class)
    for draw in range(values.shape[1]):
        rng = rng_of(seed, "shuffled", draw)
        for number in (0, 1):
            own = np.flatnonzero(label == number)
            values[:, draw, own] = values[:, draw, rng.permutation(own)]
    return replace_logits(predictions, logits.copy(data=values))


def _labels(tree: xr.DataTree) -> NDArray[np.int64]:
    return np.asarray(tree["observed_data"].to_dataset()["label"].values)


def _scores(tree: xr.DataTree) -> xr.DataArray:
    """The ceiling: the log-odds of all detectors, their mean with them."""
    return of_images(margins(predictive_logits(tree).values).T, tree)


def _best_detector(tree: xr.DataTree) -> xr.DataArray:
    """The log-odds of the detector that tells real from fake best: chosen by that alone, not by the sources."""
    scores = _scores(tree)
    fake = _labels(tree) == 1
    best = int(np.argmax([binary_auroc(fake, column) for column in scores.values.T]))
    return scores[:, [best]]

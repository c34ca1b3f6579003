"""Images of an unknown source against the others: by scikit-learn, and by cases known exactly."""

import numpy as np
import pytest
import xarray as xr
from sklearn.metrics import roc_auc_score

from bayesdf.analysis import decompose, ood_auroc
from bayesdf.analysis.roc import binary_auroc
from bayesdf.errors import BayesdfError


def part(predictions: xr.DataTree, *sources: str) -> xr.DataTree:
    rows = np.flatnonzero(np.isin(predictions["constant_data/source"].values, sources))
    return xr.DataTree.from_dict(
        {node.path: node.to_dataset(inherit=False).isel(image=rows) for node in predictions.leaves}
    )


def disputed(spread: np.ndarray) -> xr.DataArray:
    """Two draws whose margins lie `spread` on either side of nought."""
    margin = np.stack([spread, -spread])
    return xr.DataArray(np.stack([margin, -margin], axis=-1), dims=("draw", "image", "class"))


@pytest.mark.parametrize("by", ["total", "aleatoric", "epistemic"])
def test_agrees_with_scikit_learn(predictions, by):
    seen, unseen = part(predictions, "real", "vae", "swap"), part(predictions, "mouth")
    score = np.concatenate([decompose(tree)[by].values for tree in (seen, unseen)])
    truth = np.repeat([0, 1], [len(score) - 48, 48])
    value, low, high = ood_auroc(seen, unseen, by=by, resamples=50)
    assert value == pytest.approx(roc_auc_score(truth, score))
    assert low <= value <= high and low < high
    assert ood_auroc(unseen, seen, by=by, resamples=1).value == pytest.approx(1 - value)


def test_area_with_ties_is_by_pairs():
    rng = np.random.default_rng(0)
    score, unknown = rng.integers(4, size=50).astype(float), rng.uniform(size=50) < 0.3
    pairs = score[unknown][:, None] - score[~unknown]
    assert binary_auroc(unknown, score) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    assert np.isnan(binary_auroc(np.ones(5, bool), score[:5]))


def test_known_areas():
    low, high = disputed(np.array([0.1, 0.2, 0.3])), disputed(np.array([1.0, 2.0]))
    assert ood_auroc(low, high, resamples=1).value == 1.0
    assert ood_auroc(high, low, resamples=1).value == 0.0
    assert ood_auroc(low, low, resamples=1).value == 0.5


def test_a_detector_of_one_draw_has_no_epistemic_uncertainty(predictions):
    """However often the draw is repeated, and however the numbers round."""
    seen, unseen = part(predictions, "real", "vae"), part(predictions, "mouth")
    for repeats in (1, 3, 50):
        one = [
            tree["posterior_predictive/logits"].isel(draw=np.zeros(repeats, int)).drop_vars("draw", errors="ignore")
            for tree in (seen, unseen)
        ]
        assert ood_auroc(*one, resamples=1).value == 0.5
        assert ood_auroc(*one, by="total", resamples=1).value != 0.5


def test_one_who_is_in_both_is_drawn_together(predictions):
    """With a single subject in both there is nothing to resample; with a subject an image there is."""
    seen, unseen = part(predictions, "real"), part(predictions, "mouth")
    for tree in (seen, unseen):
        tree["constant_data"]["subject"][:] = "s0"
    assert np.isnan(ood_auroc(seen, unseen).low)
    alone = [tree["posterior_predictive/logits"] for tree in (seen, unseen)]
    assert np.isfinite(ood_auroc(*alone, resamples=50).low)


def test_bad_arguments_are_named(predictions):
    with pytest.raises(BayesdfError, match="unknown uncertainty 'confidence'"):
        ood_auroc(predictions, predictions, by="confidence")
    fewer = predictions["posterior_predictive/logits"].isel(draw=slice(3))
    with pytest.raises(BayesdfError, match="40 draws of seen and 3 of unseen"):
        ood_auroc(predictions, fewer)

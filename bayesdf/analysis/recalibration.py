"""Probabilities that hold for people the detector has never seen.

A detector is surer of the people it was trained on than of others. It also takes strangers for one class more often
than for the other. Predictions for held-out people show by how much. Bias-corrected temperature scaling multiplies all
logits by one number and shifts each class by another (Alexandari, Kundaje and Shrikumar, "Maximum likelihood with
bias-corrected calibration is hard-to-beat at label shift adaptation", 2020, after Platt 1999 and Guo et al. 2017). All
draws are scaled alike, so they still disagree about the same images.
"""

import numpy as np
import xarray as xr

from bayesdf.analysis.expected_calibration_error import balanced_weights
from bayesdf.analysis.predictions import image_logits, observed_labels
from bayesdf.analysis.tree import find_logits, wrong_input
from bayesdf.analysis.uncertainty import log_mean_probabilities
from bayesdf.errors import BayesdfError


def fit_scaling(held_out: xr.DataTree) -> xr.Dataset:
    """The scale and the shifts under which the labels of held-out images are most probable. Classes have equal weight.

    Parameters
    ----------
    held_out
        What `Posterior.predict` returns for images of people who are neither in training nor in the test.

    Returns
    -------
    xr.Dataset
        `scale` above 0, and `shift` (class) in units of logits, which add to 0.

    Raises
    ------
    BayesdfError
        If a class has no image, the images have no labels, or a draw gives a class a probability of exactly 0.
    """
    from scipy.optimize import minimize

    logits = image_logits(held_out)
    certain = int(np.isneginf(find_logits(held_out).values).sum())
    if certain:
        raise BayesdfError(
            f"{certain} probabilities are exactly 0, which no scale changes: give log-odds instead of rounded "
            "probabilities, clip them before (scores.clip(1e-6, 1 - 1e-6)), or leave votes as they are"
        )
    values = logits.values
    _, images, classes = values.shape
    label = observed_labels(held_out, images, classes)
    if len(np.unique(label)) < classes:
        raise BayesdfError("recalibration needs held-out images of every class: check the validation split")
    weight = balanced_weights(label)

    def parts(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        shift = np.append(parameters[1:], -parameters[1:].sum())
        return float(np.exp(parameters[0])), shift

    def loss(parameters: np.ndarray) -> float:
        scale, shift = parts(parameters)
        log_p = log_mean_probabilities(scale * values + shift)
        # A prior of one image's weight that favours no change: where classes separate, the scale has no optimum.
        doubt = 0.5 * (parameters**2).sum() / images
        return float(-(weight * log_p[np.arange(images), label]).sum() + doubt)

    scale, shift = parts(minimize(loss, np.zeros(classes), method="BFGS").x)
    coords = {"class": logits["class"]} if "class" in logits.coords else None
    return xr.Dataset({"scale": scale, "shift": ("class", shift)}, coords)


def rescale(predictions: xr.DataTree, scaling: xr.Dataset) -> xr.DataTree:
    """Predictions with their logits scaled and shifted as `fit_scaling` found.

    The group ``log_likelihood`` is left out, since it belongs to the logits before. All else stays as it was. A
    probability of exactly 0 (a logit of -inf) stays 0.

    Raises
    ------
    BayesdfError
        The predictions are not a tree, the scaling is not from `fit_scaling`, or it is for other classes.
    """
    logits = _logits_of_tree(predictions)
    if not isinstance(scaling, xr.Dataset) or not {"scale", "shift"} <= set(scaling.data_vars):
        raise wrong_input(scaling, "the Dataset of fit_scaling")
    if scaling.sizes["class"] != logits.sizes["class"]:
        raise BayesdfError(
            f"the scaling is of {scaling.sizes['class']} classes, the predictions are of {logits.sizes['class']}; fit "
            "it on predictions of the same task"
        )
    scaled = logits * scaling["scale"].item() + xr.DataArray(scaling["shift"].values, dims="class")
    return replace_logits(predictions, scaled)


def replace_logits(predictions: xr.DataTree, logits: xr.DataArray) -> xr.DataTree:
    """Predictions with other logits of the same images and classes, in the type and order of dimensions of the given.

    The group ``log_likelihood`` is left out, since it belongs to the logits before. All else stays as it was.

    Raises
    ------
    BayesdfError
        The predictions are not a tree with the group ``posterior_predictive``.
    """
    before = _logits_of_tree(predictions)
    changed = predictions.copy()
    group = changed.children["posterior_predictive"].to_dataset(inherit=False)
    if any(logits.sizes[name] != before.sizes[name] for name in ("chain", "draw") if name in before.dims):
        group = group.drop_dims("draw")
    group["logits"] = logits.transpose(*before.dims).astype(before.dtype)
    changed["posterior_predictive"] = xr.DataTree(group)
    if "log_likelihood" in changed.children:
        del changed["log_likelihood"]
    return changed


def _logits_of_tree(predictions: xr.DataTree) -> xr.DataArray:
    """The logits of predictions; refused is what has none, or is no tree in which others could stand."""
    logits = find_logits(predictions)
    if not isinstance(predictions, xr.DataTree) or "posterior_predictive" not in predictions.children:
        raise wrong_input(predictions, "the DataTree of Posterior.predict")
    return logits

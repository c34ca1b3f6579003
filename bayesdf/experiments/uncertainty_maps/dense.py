"""How well does a detector of changed pixels find them, and is its pixel uncertainty right?

All weights of the start are tuned to tell changed locations from others, by the masks of the training people. Then the
last of them, a 1 x 1 convolution, gets a posterior. Beside it stands the mean mask of the training images: it knows
where masks usually lie, and does not look at the picture.
"""

import warnings
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr
from torch.utils.data import TensorDataset

import bayesdf.analysis as analysis
import bayesdf.data as data
from bayesdf.analysis.map_grid import on_grid
from bayesdf.errors import ConvergenceWarning
from bayesdf.experiments.posteriors import load_finished
from bayesdf.experiments.quick import cut
from bayesdf.experiments.source_attribution.methods import FACTORIES
from bayesdf.experiments.uncertainty_maps.halves import halves, named
from bayesdf.experiments.uncertainty_maps.setting import Setting, masks_of, with_names
from bayesdf.inference import MAP, Posterior
from bayesdf.inference.maps.evidence import Evidence
from bayesdf.models import Detector, dense_head, last_maps, priors

DENSE, PRIOR = "dense", "mean_mask"
DETECTORS = {DENSE: "dense detector", PRIOR: "rival: mean mask of the training images"}
"""What says which pixels were changed. The rival knows where masks usually lie."""
FIGURES = ("auroc", "ece", "ece_balanced", "f1", "iou", "brier")
EPOCHS, LR = 5, 1e-3
"""Of the point estimate of all weights; chosen on validation people."""
QUANTITIES = ("total", "aleatoric", "epistemic")


def work(setting: Setting) -> xr.DataTree:
    """Fit the dense detector and judge it on the test people.

    Returns
    -------
    xr.DataTree
        `figures`: figures of pixels (detector, estimate), over photographs and partly changed fakes of the test people.
        `masked`: the same over partly changed fakes alone. `sparsification`: `ause`, `aurg` (image, quantity), `kept`
        (image, quantity, share), `oracle` (image, share) of the squared error. `reliability`: a row a bin of the dense
        detector. `maps`: `p_fake` and uncertainties (image, y, x) of the test images that are drawn.
    """
    posterior = fit(setting)
    judged = judgeable(setting.collection.test)
    maps = setting.maps(posterior, judged, Evidence())
    masks = masks_of(judged)
    mean = setting.collection.train.masks[_partly(setting.collection.train).nonzero()[0]].mean(0).numpy()
    rival = with_names(np.broadcast_to(mean, masks.shape), judged)
    both = {DENSE: maps["p_fake"], PRIOR: rival}
    names = xr.DataArray(list(both), dims="detector", name="detector")
    groups = {}
    partly = np.flatnonzero(_partly(judged))
    for name, rows in {"figures": np.arange(len(judged)), "masked": partly}.items():
        found = [
            analysis.pixel_calibration(one.isel(image=rows), masks.isel(image=rows), seed=setting.seed)
            for one in both.values()
        ]
        groups[f"/{name}"] = xr.concat(found, names, coords="minimal", compat="override", combine_attrs="override")
    p = masks.copy(data=on_grid(maps["p_fake"], masks))
    error = (p - (masks > 0.5)) ** 2
    groups["/sparsification"] = analysis.sparsification(maps[list(QUANTITIES)], error)
    groups["/reliability"] = xr.Dataset.from_dataframe(analysis.pixel_reliability(maps["p_fake"], masks))
    groups["/maps"] = maps
    half = halves(setting.collection.test, setting.collection.test, setting.seed)
    if half is not None:
        in_halves = named(setting.maps(posterior, half.images, Evidence()), half)
        groups["/halves"] = analysis.localisation(in_halves, half.masks, within=half.within)
    groups["/sample_stats"] = xr.Dataset(attrs=posterior.sample_stats.attrs)
    return xr.DataTree.from_dict(groups)


def fit(setting: Setting) -> Posterior:
    """The dense posterior by the study's method; from the folder where a stopped run left it.

    First all weights of the start learn the changed locations, as a point estimate. Then the head becomes random, and
    all else stays as it is. The training images are photographs, partly changed fakes, and fakes of which a random half
    was changed: otherwise the network would learn where masks usually lie, and need not look.
    """
    assert setting.folder is not None
    name = f"{setting.method}-dense"
    path = setting.folder / "posteriors" / f"{name}.zarr"
    found = setting.fitted.get(name) or load_finished(path)
    if found is not None:
        setting.fitted[name] = found
        return found
    network = setting.start()
    example = setting.collection.train[0][0][None]
    dense = dense_head(network, last_maps(network, images=example), images=example)
    train = training(setting.collection.train, dense(example).shape[-1], setting.seed)
    prior = {"head": priors.normal(scale=0.3)}
    # Pixels of both kinds count as they are, since their probabilities are to be calibrated.
    common: dict[str, Any] = {"class_balanced": False, "seed": setting.seed, "device": setting.device}
    tuned = MAP(epochs=1 if setting.quick else EPOCHS, lr=LR, checkpoint=path.with_suffix(".tuning.pt"), **common)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it is stopped early, and only a start
        dense = tuned.fit(Detector(dense, prior), train).network
    fitting = FACTORIES[setting.method](
        epochs=setting.epochs, freeze="prefix", checkpoint=path.with_suffix(".pt"), **common
    )
    fitting = cut(setting.method, fitting) if setting.quick else fitting
    posterior = fitting.fit(Detector(dense, prior), train)  # type: ignore[attr-defined]
    posterior.save(path)
    fitting.forget()
    tuned.forget()
    setting.fitted[name] = posterior
    return posterior


def training(images: data.ImageDataset, grid: int, seed: int) -> TensorDataset:
    """Pairs of an image and the labels of its cells: photographs, partly changed fakes, and halves of these."""
    labelled = data.pixel_labels(judgeable(images), grid)
    pictures = torch.stack([image for image, _ in labelled.__getitems__(list(range(len(labelled))))])
    labels = labelled.labels
    half = halves(images, images, seed)
    if half is not None:
        changed = F.adaptive_avg_pool2d(torch.from_numpy(half.masks.values), grid) > 0.5
        pictures, labels = torch.cat([pictures, half.images]), torch.cat([labels, changed.long()])
    return TensorDataset(pictures, labels)


def judgeable(images: data.ImageDataset) -> data.ImageDataset:
    """Photographs, and fakes of which a part was changed: in a new face there is nothing to find."""
    return images.take(np.isin(images.manifest["mask"], ("none", "part")))


def _partly(images: data.ImageDataset) -> np.ndarray:
    """Whether a part of each image was changed, bool (N,)."""
    return (images.manifest["mask"] == "part").to_numpy()

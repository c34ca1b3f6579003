"""How well does a detector of changed pixels find them, and is its pixel uncertainty right?

The features of the start stay as they are. A random 1x1 convolution on them tells changed locations from others; it
learns from the masks of the training people. Beside it stands the mean mask of the training images: it knows where
masks usually lie, and does not look at the picture.
"""

import numpy as np
import torch
import xarray as xr

import bayesdf.analysis as analysis
import bayesdf.data as data
from bayesdf.analysis.map_grid import on_grid
from bayesdf.experiments.posteriors import load_finished
from bayesdf.experiments.quick import cut
from bayesdf.experiments.source_attribution.methods import FACTORIES
from bayesdf.experiments.uncertainty_maps.halves import halves, named
from bayesdf.experiments.uncertainty_maps.setting import Setting, masks_of, with_names
from bayesdf.inference import Posterior
from bayesdf.inference.maps.evidence import Evidence
from bayesdf.models import Detector, dense_head, last_maps, priors

DENSE, PRIOR = "dense", "mean_mask"
DETECTORS = {DENSE: "dense detector", PRIOR: "rival: mean mask of the training images"}
"""What says which pixels were changed. The rival knows where masks usually lie."""
FIGURES = ("auroc", "ece", "ece_balanced", "f1", "iou", "brier")
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
    judged = setting.collection.test.take(np.isin(setting.collection.test.manifest["mask"], ("none", "part")))
    maps = setting.maps(posterior, judged, Evidence())
    masks = masks_of(judged)
    mean = setting.collection.train.masks[torch.from_numpy(_partly(setting.collection.train))].mean(0).numpy()
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
    half = halves(
        setting.collection.test, setting.collection.test.take(setting.collection.test.labels.numpy() == 0), setting.seed
    )
    if half is not None:
        found = named(setting.maps(posterior, half.images, Evidence()), half)
        groups["/halves"] = analysis.localisation(found, half.masks, within=half.within)
    groups["/sample_stats"] = xr.Dataset(attrs=posterior.sample_stats.attrs)
    return xr.DataTree.from_dict(groups)


def fit(setting: Setting) -> Posterior:
    """The dense posterior by the study's method; from the folder where a stopped run left it."""
    assert setting.folder is not None
    path = setting.folder / "posteriors" / f"{setting.method}-dense.zarr"
    found = load_finished(path)
    if found is not None:
        return found
    network = setting.start()
    example = setting.collection.train[0][0][None]
    dense = dense_head(network, last_maps(network, images=example), images=example)
    train = data.pixel_labels(setting.collection.train, dense(example).shape[-1])
    fitting = FACTORIES[setting.method](
        epochs=setting.epochs,
        freeze="prefix",
        class_balanced=False,  # pixels of both kinds count as they are: probabilities are to be calibrated
        seed=setting.seed,
        device=setting.device,
        checkpoint=path.with_suffix(".pt"),
    )
    fitting = cut(setting.method, fitting) if setting.quick else fitting
    posterior = fitting.fit(Detector(dense, {"head": priors.normal(scale=0.3)}), train)  # type: ignore[attr-defined]
    posterior.save(path)
    fitting.forget()
    return posterior


def _partly(images: data.ImageDataset) -> np.ndarray:
    """Whether a part of each image was changed, bool (N,)."""
    return (images.manifest["mask"] == "part").to_numpy()

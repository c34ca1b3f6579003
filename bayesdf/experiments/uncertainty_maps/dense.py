"""How well does a detector of changed pixels find them, and is its pixel uncertainty right?

All weights of the start are tuned to tell changed locations from others, by the masks of the training people. Then the
last of them, a 1 x 1 convolution, gets a posterior. Beside it stands the mean mask of the training images: it knows
where masks usually lie, and does not look at the picture.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr
from torch import nn
from torch.utils.data import TensorDataset

import bayesdf.analysis as analysis
import bayesdf.data as data
from bayesdf.analysis.map_grid import on_grid
from bayesdf.errors import ConvergenceWarning
from bayesdf.experiments.posteriors import load_finished
from bayesdf.experiments.quick import cut
from bayesdf.experiments.source_attribution.methods import FACTORIES
from bayesdf.experiments.uncertainty_maps.halves import blurred_halves, halves, named
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
POSITION = "position"
"""The rival of pixel uncertainty: the entropy of the mean mask."""


def work(setting: Setting) -> xr.DataTree:
    """Fit the dense detector and judge it on the test people.

    Returns
    -------
    xr.DataTree
        `figures`: figures of pixels (detector, estimate), over photographs and partly changed fakes of the test people.
        `masked`: the same over partly changed fakes alone. `sparsification`: `ause`, `aurg` (image, quantity), `kept`
        (image, quantity, share), `oracle` (image, share) of the squared error; the quantity `position` is the entropy
        of the mean mask. `reliability`: a row a bin of the dense detector. `maps`: `p_fake` and uncertainties
        (image, y, x) of the judged images. `images`, `halves`: `auroc` (detector, image), image by image, of whole
        fakes and of half-changed ones. `blurred`: `auroc` (detector, image) of P(changed), and of P(fake) by the
        evidence of the detector of images, on photographs of which a random half of the face was blurred a little.
    """
    posterior = fit(setting)
    test = setting.collection.test
    judged = judgeable(test)
    maps = setting.maps(posterior, judged, Evidence())
    masks = masks_of(judged)
    mean = (judgeable(setting.collection.train).masks > 0.5).float().mean(0).numpy()
    both = {DENSE: maps["p_fake"], PRIOR: with_names(np.broadcast_to(mean, masks.shape), judged)}
    groups = {}
    partly = np.flatnonzero((judged.manifest["mask"] == "part").to_numpy())
    for name, rows in {"figures": np.arange(len(judged)), "masked": partly}.items():
        groups[f"/{name}"] = _by_detector(
            {
                who: analysis.pixel_calibration(one.isel(image=rows), masks.isel(image=rows), seed=setting.seed)
                for who, one in both.items()
            }
        )
    p = masks.copy(data=on_grid(maps["p_fake"], masks))
    share = np.clip(mean, 1e-6, 1.0 - 1e-6)
    position = masks.copy(data=np.broadcast_to(-share * np.log(share) - (1 - share) * np.log(1 - share), masks.shape))
    on_pixels = {name: masks.copy(data=on_grid(maps[name], masks)) for name in QUANTITIES}
    groups["/sparsification"] = analysis.sparsification(
        xr.Dataset({**on_pixels, POSITION: position}), (p - (masks > 0.5)) ** 2
    )
    groups["/reliability"] = xr.Dataset.from_dataframe(analysis.pixel_reliability(maps["p_fake"], masks))
    groups["/maps"] = maps
    groups["/images"] = _by_detector(
        {who: analysis.localisation(one.isel(image=partly), masks.isel(image=partly)) for who, one in both.items()}
    )
    half = halves(test, test, setting.seed)
    if half is not None:
        found = named(setting.maps(posterior, half.images, Evidence()), half)["p_fake"]
        own = {DENSE: found, PRIOR: half.masks.copy(data=np.broadcast_to(mean, half.masks.shape))}
        groups["/halves"] = _by_detector(
            {who: analysis.localisation(one, half.masks, within=half.within) for who, one in own.items()}
        )
    blurred = blurred_halves(test, mean > 0.5 * mean.max(), setting.seed)
    makers = {DENSE: posterior, "evidence:p_fake": setting.posterior()}
    groups["/blurred"] = _by_detector(
        {
            who: analysis.localisation(
                named(setting.maps(one, blurred.images, Evidence()), blurred)["p_fake"],
                blurred.masks,
                within=blurred.within,
            )
            for who, one in makers.items()
        }
    )
    groups["/sample_stats"] = xr.Dataset(attrs=posterior.sample_stats.attrs)
    return xr.DataTree.from_dict(groups)


def _by_detector(parts: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Figures along `detector`."""
    names = xr.DataArray(list(parts), dims="detector", name="detector")
    return xr.concat(
        list(parts.values()), names, coords="minimal", compat="override", combine_attrs="override", join="override"
    )


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
    dense = network_of(setting.start(), setting.collection, setting.seed)
    example = setting.collection.train[0][0][None]
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


def network_of(start: nn.Module, collection: data.Collection, seed: int) -> nn.Module:
    """The start up to its last two maps, and an untrained 1 x 1 convolution."""
    example = collection.train[0][0][None]
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)  # of the convolution
        return dense_head(start, last_maps(start, images=example), images=example)


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

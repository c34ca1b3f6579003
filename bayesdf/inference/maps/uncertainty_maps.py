"""Where in each image is the detector unsure, and where does it see a fake? One function, with a choice of method."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import xarray as xr

from bayesdf.errors import BayesdfError
from bayesdf.inference.batches import batches
from bayesdf.inference.maps.evidence import Evidence
from bayesdf.inference.maps.gradient import Gradient
from bayesdf.inference.maps.integrated_gradient import IntegratedGradient
from bayesdf.inference.maps.method import MapMethod
from bayesdf.inference.maps.occlusion import Occlusion
from bayesdf.inference.maps.predictive import QUANTITIES, Predictive
from bayesdf.inference.maps.smooth_gradient import SmoothGradient
from bayesdf.inference.maps.superpixels import Superpixels
from bayesdf.inference.posterior import Posterior, coordinates
from bayesdf.inference.prediction.inputs import ImageCheck, as_dataset
from bayesdf.inference.prediction.locations import centres
from bayesdf.inference.prediction.predictor import empty_logits
from bayesdf.models.eval_mode import check_precision

METHODS: dict[str, type[MapMethod]] = {
    method.name: method for method in (Evidence, Gradient, SmoothGradient, IntegratedGradient, Occlusion, Superpixels)
}
"""The methods by name."""
_LONG_NAMES = {
    "total": "predictive entropy",
    "aleatoric": "expected entropy",
    "epistemic": "mutual information",
    "p_fake": "mean probability of all classes but the first",
}


def uncertainty_maps(
    posterior: Posterior,
    images: Any,
    method: str | MapMethod = "gradient",
    draws: int | None = None,
    seed: int = 0,
    *,
    quantities: Sequence[str] = QUANTITIES,
    batch_size: int = 32,
    device: str = "auto",
) -> xr.DataTree:
    """Maps of total, aleatoric and epistemic uncertainty and of the probability of a fake, for each image.

    Parameters
    ----------
    posterior : Posterior
        Of any method.
    images
        As for `Posterior.predict`.
    method : str or MapMethod
        A name of `METHODS`, or settings such as ``Occlusion(patch=8)``.

        - ``evidence``: the quantity at each location of the last feature map. For networks whose classifier is linear
          after global average pooling, and for dense networks.
        - ``gradient``: sum over channels of the absolute gradient of the quantity in the pixels.
        - ``smooth_gradient``: the same of the mean gradient of noisy copies.
        - ``integrated_gradient``: what each pixel adds to the difference of the quantity from a blurred copy.
        - ``occlusion``: fall of the quantity when a square is hidden.
        - ``superpixels``: fall of the quantity when a region of like pixels is hidden.
    draws, seed, device
        As for `Posterior.predict`. The seed also decides what is random in a method.
    quantities : sequence of str
        Some of ``total``, ``aleatoric``, ``epistemic``, ``p_fake``.
    batch_size : int
        Images at once. Only memory and speed depend on it.

    Returns
    -------
    xr.DataTree
        The group ``maps`` has a variable float32 (image, y, x) for each quantity. ``y`` and ``x`` are the centres of
        the cells, in pixels of the image: the first pixel has 0. Labels and the columns of the data's manifest are
        coordinates of ``image``. Attributes: ``method``, its settings, ``signed`` (1 where values below zero mean that
        a place lowers the quantity), ``draws`` (in each chain), ``seed``. Each variable has ``units``. ``p_fake`` is
        the mean probability of all classes but the first. Maps beyond a gigabyte are kept in a temporary file.

    Raises
    ------
    BayesdfError
        The method or a quantity is unknown, the network lacks what the method needs (the line names the methods that
        will do), there are no images, or there are not so many draws.

    Warns
    -----
    BayesdfWarning
        As `Posterior.predict`.
    """
    chosen = _method(method)
    if batch_size < 1:
        raise BayesdfError(f"batch_size is {batch_size}, but must be at least 1")
    check_precision(posterior.network)
    dataset = as_dataset(images, posterior.attrs)
    number = len(dataset)  # type: ignore[arg-type]
    if not number:
        raise BayesdfError("there are no images to map")
    first, _ = next(batches(dataset, 2, torch.device("cpu"), torch.arange(min(2, number))))
    if first.dim() != 4:
        raise BayesdfError(f"images have shape {tuple(first.shape[1:])}, but maps are of images (3, H, W)")
    predictive = Predictive(chosen.asked(posterior, first), draws, seed, quantities, device, batch_size)
    check = ImageCheck(posterior.attrs)
    maps: dict[str, np.ndarray] = {}
    labels: list[np.ndarray] = []
    sides = (0, 0)
    begin = 0
    for pixels, label in batches(dataset, batch_size, predictive.device):
        check.observe(pixels)
        indices = range(begin, begin + len(pixels))
        for name, value in chosen.maps(predictive, pixels, indices).items():
            if name not in maps:
                maps[name] = empty_logits(number, *value.shape[1:])
            maps[name][begin : indices.stop] = value.cpu().numpy()
        labels.append(label.cpu().numpy())
        sides = pixels.shape[2], pixels.shape[3]
        begin = indices.stop
    check.warn(dataset)
    attrs = {
        "method": chosen.name,
        **{name: value for name, value in asdict(chosen).items() if value is not None},
        "signed": int(chosen.signed),
        "draws": predictive.draws,
        "seed": seed,
    }
    coords = {**coordinates(dataset, np.concatenate(labels)), **centres(sides, next(iter(maps.values())).shape[1:])}
    variables = {
        name: (("image", "y", "x"), value, {"units": _units(name, chosen), "long_name": _LONG_NAMES[name]})
        for name, value in maps.items()
    }
    root = xr.Dataset(attrs={**posterior.attrs, "draws_seed": seed})
    return xr.DataTree.from_dict({"/": root, "/maps": xr.Dataset(variables, coords, attrs)})


def _method(method: str | MapMethod) -> MapMethod:
    if isinstance(method, MapMethod):
        return method
    if method not in METHODS:
        raise BayesdfError(f"there is no method of maps {method!r}: choose from {', '.join(METHODS)}")
    return METHODS[method]()


def _units(quantity: str, method: MapMethod) -> str:
    unit = "1" if quantity == "p_fake" else "nats"
    return f"{unit} per unit of {method.per}" if method.per else unit

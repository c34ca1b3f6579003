"""How unsure is the detector if it sees only one region of the face, and if it sees all but that region?"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor

from bayesdf.errors import BayesdfError
from bayesdf.inference.batches import batches
from bayesdf.inference.maps.hiding import check_fill, filled, hidden
from bayesdf.inference.maps.predictive import QUANTITIES, Predictive
from bayesdf.inference.posterior import Posterior, coordinates
from bayesdf.inference.prediction.inputs import as_dataset


def region_uncertainty(
    posterior: Posterior,
    images: Any,
    masks: ArrayLike,
    names: Sequence[str] | None = None,
    draws: int | None = None,
    seed: int = 0,
    *,
    fill: str = "blurred",
    quantities: Sequence[str] = QUANTITIES,
    batch_size: int = 128,
    device: str = "auto",
) -> xr.DataTree:
    """The uncertainty of each image with only one region visible, and with that region hidden.

    Parameters
    ----------
    posterior, images, draws, seed, batch_size, device
        As for `Posterior.predict`.
    masks : array (region, H, W) or (image, region, H, W)
        1 in the region, 0 outside, and between where it is soft, such as `bayesdf.faces.regions.region_masks` gives.
        The same for all images, or those of each image.
    names : sequence of str, optional
        The names of the regions. Default: their numbers.
    fill : str
        What stands in the place of hidden pixels: ``blurred`` or ``grey`` (`hiding.FILLS`).
    quantities : sequence of str
        Some of ``total``, ``aleatoric``, ``epistemic``, ``p_fake``.

    Returns
    -------
    xr.DataTree
        The group ``uncertainty`` has for each quantity, float64: ``<quantity>`` (image) of the whole image,
        ``<quantity>_visible`` (image, region) with only the region visible, and ``<quantity>_hidden`` (image, region)
        with the region hidden. Attributes: ``fill``, ``draws``, ``seed``.

    Raises
    ------
    BayesdfError
        The masks have another size than the images, are empty or outside 0 to 1, there is another number of names, or
        there is no such fill.
    """
    check_fill(fill)
    predictive = Predictive(posterior, draws, seed, quantities, device, batch_size)
    dataset = as_dataset(images, posterior.attrs)
    parts = np.asarray(masks, np.float32)
    _check(parts, len(dataset), names)  # type: ignore[arg-type]
    found: dict[str, list[Tensor]] = {}
    labels: list[np.ndarray] = []
    begin = 0
    for pixels, label in batches(dataset, batch_size, predictive.device):
        if parts.shape[-2:] != tuple(pixels.shape[2:]):
            raise BayesdfError(f"masks are of {parts.shape[-2:]} pixels, but images of {tuple(pixels.shape[2:])}")
        of_batch = parts[begin : begin + len(pixels)] if parts.ndim == 4 else parts[None].repeat(len(pixels), 0)
        region, base = torch.from_numpy(of_batch).to(pixels.device), filled(pixels, fill)
        results = {
            "": predictive.of_images(pixels),
            "_visible": hidden(predictive, pixels, 1 - region, base),
            "_hidden": hidden(predictive, pixels, region, base),
        }
        for suffix, values in results.items():
            for name, value in values.items():
                found.setdefault(name + suffix, []).append(value.cpu())
        labels.append(label.cpu().numpy())
        begin += len(pixels)
    known = list(names) if names is not None else [str(number) for number in range(parts.shape[-3])]
    joined = {name: torch.cat(value).numpy() for name, value in found.items()}
    group = xr.Dataset(
        {name: (("image", "region")[: value.ndim], value) for name, value in joined.items()},
        {**coordinates(dataset, np.concatenate(labels)), "region": known},
        {"fill": fill, "draws": predictive.draws, "seed": seed},
    )
    root = xr.Dataset(attrs={**posterior.attrs, "draws_seed": seed})
    return xr.DataTree.from_dict({"/": root, "/uncertainty": group})


def _check(parts: np.ndarray, images: int, names: Sequence[str] | None) -> None:
    if not images:
        raise BayesdfError("there are no images")
    if parts.ndim not in (3, 4) or not parts.size:
        raise BayesdfError(f"masks have shape {parts.shape}, but must be (region, H, W) or (image, region, H, W)")
    if parts.ndim == 4 and len(parts) != images:
        raise BayesdfError(f"there are masks of {len(parts)} images, but {images} images")
    if names is not None and len(names) != parts.shape[-3]:
        raise BayesdfError(f"there are {len(names)} names of {parts.shape[-3]} regions")
    if not (parts.min() >= 0 and parts.max() <= 1):
        raise BayesdfError("masks must lie in 0 to 1, and must not be NaN")
    empty = np.flatnonzero(parts.reshape(-1, *parts.shape[-3:]).max((0, 2, 3)) == 0)
    if len(empty):
        raise BayesdfError(f"region {empty[0] if names is None else names[empty[0]]} is empty in every image")

"""Does the uncertainty fall when the pixels that a map marks go, and does it come back when they come?

The pixels of an image are put in order by a map, the largest value first. *Deletion* replaces a share of them, from the
first on, by what stands there in a blurred copy. *Insertion* begins with the blurred copy and brings the pixels back in
the same order. A map that marks where the uncertainty comes from beats a random order and a centred one in both.

References
----------
Petsiuk, Das, Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018, section 3.3.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr
from torch import Tensor

from bayesdf.errors import BayesdfError
from bayesdf.inference.batches import batches
from bayesdf.inference.maps.hiding import check_fill, filled, hidden
from bayesdf.inference.maps.predictive import QUANTITIES, Predictive
from bayesdf.inference.posterior import Posterior, coordinates
from bayesdf.inference.prediction.inputs import as_dataset

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)


def deletion(
    posterior: Posterior,
    images: Any,
    maps: xr.DataArray,
    shares: Sequence[float] = SHARES,
    draws: int | None = None,
    seed: int = 0,
    *,
    fill: str = "blurred",
    quantities: Sequence[str] = QUANTITIES,
    batch_size: int = 128,
    device: str = "auto",
) -> xr.Dataset:
    """The uncertainty of each image after the pixels with the largest values in its map have gone.

    Parameters
    ----------
    posterior, images, draws, seed, batch_size, device
        As for `Posterior.predict`.
    maps : xr.DataArray (image, y, x)
        A map of each image, such as a variable of `uncertainty_maps`. One on a coarser grid is brought to the pixels
        (bilinear). Equal values go from the top left to the bottom right.
    shares : sequence of float
        The shares of the pixels that go, within 0 to 1.
    fill : str
        What stands in the place of a pixel that is gone: ``blurred`` or ``grey`` (`hiding.FILLS`).
    quantities : sequence of str
        Some of ``total``, ``aleatoric``, ``epistemic``, ``p_fake``.

    Returns
    -------
    xr.Dataset
        Each quantity (image, share), float64. At share 0 it is that of the image, at share 1 that of the fill.
        Attributes: ``fill``, ``draws``, ``seed``.

    Raises
    ------
    BayesdfError
        The maps are not of these images or are not finite, a share is outside 0 to 1, or there is no such fill.
    """
    predictive = Predictive(posterior, draws, seed, quantities, device, batch_size)
    return _curve(predictive, posterior, images, maps, shares, fill, insert=False)


def insertion(
    posterior: Posterior,
    images: Any,
    maps: xr.DataArray,
    shares: Sequence[float] = SHARES,
    draws: int | None = None,
    seed: int = 0,
    *,
    fill: str = "blurred",
    quantities: Sequence[str] = QUANTITIES,
    batch_size: int = 128,
    device: str = "auto",
) -> xr.Dataset:
    """The uncertainty of each image when only the pixels with the largest values in its map have come.

    Parameters, result and errors are those of `deletion`. At share 0 the quantity is that of the fill, at share 1 that
    of the image.
    """
    predictive = Predictive(posterior, draws, seed, quantities, device, batch_size)
    return _curve(predictive, posterior, images, maps, shares, fill, insert=True)


def _curve(
    predictive: Predictive,
    posterior: Posterior,
    images: Any,
    maps: xr.DataArray,
    shares: Sequence[float],
    fill: str,
    insert: bool,
) -> xr.Dataset:
    check_fill(fill)
    if not len(shares) or not all(0 <= share <= 1 for share in shares):
        raise BayesdfError(f"shares are {list(shares)}, but must lie within 0 to 1, and there must be one")
    dataset = as_dataset(images, posterior.attrs)
    values = _checked(maps, len(dataset))  # type: ignore[arg-type]
    found: dict[str, list[Tensor]] = {name: [] for name in predictive.quantities}
    labels: list[np.ndarray] = []
    begin = 0
    for pixels, label in batches(dataset, predictive.batch_size, predictive.device):
        of_batch = torch.from_numpy(values[begin : begin + len(pixels)]).to(pixels)
        begin += len(pixels)
        ranks = rank(of_batch, pixels.shape[2], pixels.shape[3])
        ends = torch.tensor([round(share * ranks[0].numel()) for share in shares], device=pixels.device)
        marked = ranks[:, None] < ends[:, None, None]  # (B, share, H, W)
        for name, value in hidden(predictive, pixels, ~marked if insert else marked, filled(pixels, fill)).items():
            found[name].append(value.cpu())
        labels.append(label.cpu().numpy())
    return xr.Dataset(
        {name: (("image", "share"), torch.cat(value).numpy()) for name, value in found.items()},
        {**coordinates(dataset, np.concatenate(labels)), "share": list(shares)},
        {"fill": fill, "draws": predictive.draws, "seed": predictive.seed},
    )


def rank(maps: Tensor, height: int, width: int) -> Tensor:
    """The place of each pixel in the order of its image, from 0, the largest value first: (B, h, w) to (B, H, W)."""
    if maps.shape[1:] != (height, width):
        maps = F.interpolate(maps[:, None], (height, width), mode="bilinear", align_corners=False)[:, 0]
    order = maps.flatten(1).argsort(dim=1, descending=True, stable=True)
    ranks = torch.empty_like(order)
    ranks.scatter_(1, order, torch.arange(order.shape[1], device=maps.device).expand_as(order))
    return ranks.view(maps.shape)


def _checked(maps: xr.DataArray, images: int) -> np.ndarray:
    if set(maps.dims) != {"image", "y", "x"}:
        raise BayesdfError(f"maps have the dimensions {tuple(maps.dims)}, but must have image, y and x")
    values = maps.transpose("image", "y", "x").values.astype(np.float32)
    if len(values) != images or not values.size:
        raise BayesdfError(f"there are maps of {len(values)} images, but {images} images: they must be the same")
    if not np.isfinite(values).all():
        raise BayesdfError("maps hold NaN or infinite values, so their pixels have no order: leave such images out")
    return values

"""The logits of a normal last layer in closed form, as infinitely many draws would give them.

If all sites are the weight and the bias of the last linear layer, and their posterior is normal, the logits of an
image with features ``φ`` are normal too, with mean ``E[W] φ + E[b]`` and a covariance that is a quadratic form in ``φ``
(Bishop, "Pattern Recognition and Machine Learning", 2006, section 4.5.2).
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr
from torch import Tensor

from bayesdf.errors import BayesdfError
from bayesdf.inference.posterior import Posterior
from bayesdf.inference.prediction.inputs import as_dataset
from bayesdf.inference.samplers import (
    DeltaSampler,
    FullSampler,
    LowRankSampler,
    MatrixSampler,
    NormalSampler,
    Sampler,
)
from bayesdf.inference.samplers.matrix import transformed
from bayesdf.inference.samplers.sampler import unpack
from bayesdf.models.class_logits import class_logits, has_class_logits
from bayesdf.models.features import classifier


def logit_moments(posterior: Posterior, dataset: Any, *, batch_size: int = 128, device: str = "auto") -> xr.Dataset:
    """Mean and covariance of every image's logits under a normal posterior over the last layer.

    Parameters
    ----------
    posterior : Posterior
        Of Laplace, SVI (guides ``normal``, ``lowrank``, ``full``, ``matrix``), SWAG or MAP.
    dataset, batch_size, device
        As for `Posterior.predict`.

    Returns
    -------
    xr.Dataset
        ``mean`` (image, class), ``covariance`` (image, class, other_class), float64.

    Raises
    ------
    BayesdfError
        A site is not of the last linear layer, or the posterior is not normal: draws are the way then.
    """
    head = classifier(posterior.network)
    weight, bias = f"{head}.weight", f"{head}.bias"
    elsewhere = [site for site in posterior.sampler.shapes if site not in (weight, bias)]
    if elsewhere:
        raise BayesdfError(
            f"logits have a closed form for sites of the last linear layer ({head}) alone, but {elsewhere[0]} is "
            "random too: use draws"
        )
    support = getattr(posterior.sampler, "support", {})
    if any(name != "real" for name in support.values()):
        raise BayesdfError("a site of the last layer is not on the real line, so logits are not normal: use draws")
    predictor = posterior.predictor(device)
    dataset = as_dataset(dataset, posterior.attrs)
    one_logit = has_class_logits(posterior.network)
    layer = predictor.network.get_submodule(head)
    fixed = {name: value.detach().double() for name, value in layer.named_parameters()}
    point = {name: value.double().to(predictor.device) for name, value in posterior.sampler.point().items()}
    mean_weight = point.get(weight, fixed["weight"])
    mean_bias = point.get(bias, fixed.get("bias", mean_weight.new_zeros(len(mean_weight))))
    means, covariances = [], []
    with torch.no_grad():
        for features, _ in predictor.features(dataset, batch_size):
            for batch in features:
                phi = batch[0].double()
                if len(batch) == 1 and phi.dim() == 2:
                    mean = phi @ mean_weight.T + mean_bias
                    mean = class_logits(mean) if one_logit else mean
                    at_point = predictor.logits_at(batch, posterior.sampler.point()).double()
                if len(batch) != 1 or phi.dim() != 2 or not torch.allclose(mean, at_point, rtol=1e-3, atol=1e-4):
                    raise BayesdfError("the network does more than a linear layer with its features: use draws")
                means.append(mean.cpu())
                covariance = _covariance(posterior.sampler, phi.cpu(), weight, bias)
                covariances.append(F.pad(covariance, (1, 0, 1, 0)) if one_logit else covariance)
    image = np.arange(sum(len(part) for part in means))
    return xr.Dataset(
        {
            "mean": (("image", "class"), torch.cat(means).numpy()),
            "covariance": (("image", "class", "other_class"), torch.cat(covariances).numpy()),
        },
        {"image": image},
    )


def _covariance(sampler: Sampler, phi: Tensor, weight: str, bias: str) -> Tensor:
    """(N, C, C) of the logits of features (N, D)."""
    if isinstance(sampler, DeltaSampler):
        classes = next(iter(sampler.shapes.values()))[0]
        return phi.new_zeros(len(phi), classes, classes)
    if isinstance(sampler, NormalSampler):
        variance = {name: scale.double().square() for name, scale in sampler.scale.items()}
        return _diagonal(variance, phi, weight, bias)
    if isinstance(sampler, FullSampler):
        return _of_factor(sampler.factor.double(), sampler.shapes, phi, weight, bias)
    if isinstance(sampler, LowRankSampler):
        common = _of_factor(sampler.factor.double(), sampler.shapes, phi, weight, bias)
        return common + _diagonal(unpack(sampler.diagonal.double(), sampler.shapes, sampler.support), phi, weight, bias)
    if isinstance(sampler, MatrixSampler):
        total: Tensor = torch.zeros((), dtype=torch.float64)
        for name, site in sampler.sites.items():
            scale = site.scale.double()
            rows = None if site.rows is None else site.rows.double()
            columns = None if site.columns is None else site.columns.double()
            inputs = phi.new_ones(len(phi), 1) if name == bias else phi  # a bias is flattened to one column
            psi = transformed(inputs, None, None if columns is None else columns.T)
            root = torch.diag_embed((psi.square() @ scale.square().T).sqrt())
            spread = root if rows is None else rows @ root
            total = total + spread @ spread.mT
        return total
    raise BayesdfError(f"the posterior keeps its draws as {sampler.kind!r}, not as a normal distribution: use draws")


def _diagonal(variance: dict[str, Tensor], phi: Tensor, weight: str, bias: str) -> Tensor:
    """Of independent weights: logits are independent too."""
    total = torch.zeros((), dtype=phi.dtype)
    if weight in variance:
        total = total + phi.square() @ variance[weight].T
    if bias in variance:
        total = total + variance[bias].expand(len(phi), -1)
    return torch.diag_embed(total)


def _of_factor(factor: Tensor, shapes: dict[str, tuple[int, ...]], phi: Tensor, weight: str, bias: str) -> Tensor:
    """``J F Fᵀ Jᵀ`` with the Jacobian ``J`` of the logits in the sites, which lie one after another in F's rows."""
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    blocks = dict(zip(shapes, factor.split(sizes), strict=True))
    spread = torch.zeros((), dtype=phi.dtype)
    if weight in blocks:
        classes, inputs = shapes[weight]
        spread = spread + torch.einsum("nd,cdk->nck", phi, blocks[weight].view(classes, inputs, -1))
    if bias in blocks:
        spread = spread + blocks[bias]
    spread = spread.expand(len(phi), *spread.shape[-2:])
    return spread @ spread.mT

"""Estimators of the expected log-likelihood with independent noise for each image.

If a whole batch shares one draw of the weights, the gradients of its images are correlated, and a larger batch does not
help. Both estimators below leave the ELBO as it is. They give every image noise of its own, which is added to the
output of a linear or convolutional layer at the mean weights ``M``. ``S`` are the standard deviations:

- local reparameterisation (Kingma, Salimans and Welling, "Variational Dropout and the Local Reparameterization Trick",
  2015, equation 6): outputs are normal given the inputs, ``x M + sqrt(x² S²) ε``. For a convolution the variances are
  exact, the dependence between the places of an image is left out.
- flipout (Wen et al., "Flipout: Efficient Pseudo-Independent Weight Perturbations on Mini-Batches", 2018, equation 4):
  one perturbation for the batch, under signs of each image's own, ``x M + ((x ∘ s) (S ∘ ε)) ∘ r``.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bayesdf.inference.mean_field_kernels import standard_normal
from bayesdf.models.eval_mode import evaluating, hooked

Estimator = Literal["plain", "local", "flipout"]
Parameters = Callable[[str], tuple[Tensor, Tensor]]
"""Maps a site to its locations and log scales."""


def eligible_layers(network: nn.Module, sites: list[str], images: Tensor) -> dict[str, nn.Module]:
    """The sites that are the weight of one linear layer or plain convolution that runs once, with these layers.

    Other sites (biases, gains, convolutions with a forward of their own) are sampled as usual. An estimate may mix
    both.
    """
    modules = dict(network.named_modules())
    owners = Counter(id(value) for _, value in network.named_parameters(remove_duplicate=False))
    found = {}
    for site in sites:
        path, _, name = site.rpartition(".")
        module = modules.get(path)
        plain = type(module) is nn.Linear or (type(module) is nn.Conv2d and module.padding_mode == "zeros")
        if name == "weight" and module is not None and plain and owners[id(module.weight)] == 1:
            found[site] = module
    return _run_once(network, found, images)


@torch.no_grad()
def _run_once(network: nn.Module, layers: dict[str, nn.Module], images: Tensor) -> dict[str, nn.Module]:
    """The layers whose forward the network calls exactly once. For others the noise would be missing or wrong."""
    calls = dict.fromkeys(layers, 0)

    def counting(site: str) -> Callable[..., None]:
        def count(*_: object) -> None:
            calls[site] += 1

        return count

    handles = [module.register_forward_hook(counting(site)) for site, module in layers.items()]
    with evaluating(network), hooked(handles):
        network(images)
    return {site: module for site, module in layers.items() if calls[site] == 1}


@contextmanager
def noise_of_each_image(estimator: Estimator, layers: dict[str, nn.Module], parameters: Parameters) -> Iterator[None]:
    """Within it, these layers run with their mean weights and add the estimator's noise to their outputs."""
    add = _local if estimator == "local" else _flipout

    def hook(site: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        return lambda module, inputs, output: add(module, inputs[0], output, parameters(site)[1])

    with hooked([module.register_forward_hook(hook(site)) for site, module in layers.items()]):
        yield


def _local(module: nn.Module, x: Tensor, output: Tensor, log_scale: Tensor) -> Tensor:
    variance = _apply(module, x.square(), (2 * log_scale).exp())
    # Where every input is zero there is no noise, and the root has no gradient.
    return output + variance.clamp_min(1e-12).sqrt() * standard_normal(output)


def _flipout(module: nn.Module, x: Tensor, output: Tensor, log_scale: Tensor) -> Tensor:
    perturbation = log_scale.exp() * standard_normal(log_scale)
    return output + _apply(module, x * _signs(x, module), perturbation) * _signs(output, module)


def _apply(module: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    """The layer's linear map with another weight and without its bias."""
    if isinstance(module, nn.Conv2d):
        padding = module.padding
        return F.conv2d(x, weight, None, module.stride, padding, module.dilation, module.groups)
    return F.linear(x, weight)


def _signs(value: Tensor, module: nn.Module) -> Tensor:
    """A sign for each image and channel, broadcast over the rest."""
    shape: tuple[int, ...] = (len(value), *(1,) * (value.dim() - 2), value.shape[-1])
    if isinstance(module, nn.Conv2d):
        shape = (len(value), value.shape[1], 1, 1)
    return torch.randint(0, 2, shape, device=value.device, dtype=value.dtype) * 2 - 1

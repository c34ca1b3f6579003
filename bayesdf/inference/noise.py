"""What do draws show without inference? Noise of a posterior's size around weights that nothing was fitted to.

It is the control of every claim about a posterior's uncertainty. A network answers in another way for each image when
its weights are moved. What noise shows too is not what the data left open.
"""

import copy
import json

import torch
import xarray as xr
from torch import nn

from bayesdf.errors import BayesdfError
from bayesdf.inference.posterior import DRAWS, Posterior
from bayesdf.inference.prediction.predictor import state_names
from bayesdf.inference.samplers import MaskSampler, NormalSampler, Sampler
from bayesdf.models.class_logits import has_class_logits, to_class_logits


def matched_noise(posterior: Posterior, network: nn.Module, *, draws: int = DRAWS, seed: int = 0) -> Posterior:
    """Draws of a network's weights from noise of the size of a posterior's spread.

    Each site of the posterior that is a weight of the network gets independent normal noise around the network's own
    weight. Its standard deviation is one number for the whole site: the root mean square of how far the posterior's
    draws lie from their mean. The masks of Monte Carlo dropout have rates and no size: the noise is the same masks.

    Parameters
    ----------
    posterior
        Whose size is matched. Nothing else of it is used.
    network
        With the weights that the fit began with, or untrained. It is left as it is.
    draws, seed
        Of the posterior, from which the size is measured: in each chain, at most as many as it holds.

    Returns
    -------
    Posterior
        Its ``attrs`` name the method ``matched_noise``, and ``noise`` holds the standard deviations as JSON. It has no
        verdict, since nothing was fitted.

    Raises
    ------
    BayesdfError
        The network lacks a weight of the posterior, or has it in another shape.
    """
    sampler: Sampler
    noisy = copy.deepcopy(network).cpu().eval()
    if has_class_logits(posterior.network):
        to_class_logits(noisy)
    if isinstance(posterior.sampler, MaskSampler):
        sampler, size = posterior.sampler, {}
        sampler.install(noisy)
    else:
        size = spread(posterior, draws, seed)
        own = {name: value.detach() for name, value in noisy.named_parameters()}
        for name in size:
            shape = tuple(own[name].shape) if name in own else None
            if shape != posterior.sampler.shapes[name]:
                raise BayesdfError(
                    f"matched_noise: the posterior's {name} has shape {posterior.sampler.shapes[name]}, and the "
                    f"network's {shape}: give a network of the same architecture"
                )
        loc = {name: own[name] for name in size}
        scale = {name: torch.full_like(own[name], value) for name, value in size.items()}
        sampler = NormalSampler(loc, scale, dict.fromkeys(size, "real"))
    kept = {name: value for name, value in posterior.attrs.items() if name not in ("priors", "settings", "fit_seconds")}
    attrs = {**kept, "method": "matched_noise", "noise": json.dumps(size)}
    return Posterior(noisy, sampler, xr.Dataset(), attrs)


def spread(posterior: Posterior, draws: int = DRAWS, seed: int = 0) -> dict[str, float]:
    """The root mean square departure of the draws of each weight from their mean, one number for each site.

    Sites that are no weights, such as the scales of hierarchical priors, are left out.
    """
    sampler, weights = posterior.sampler, state_names(posterior.network)
    count = min(draws, sampler.capacity or draws) * sampler.chains
    if count < 2:
        raise BayesdfError("matched_noise: a posterior of a single draw has no spread to match")
    mean = {name: torch.zeros(shape) for name, shape in sampler.shapes.items() if name in weights}
    squares = {name: torch.zeros_like(value) for name, value in mean.items()}
    for index in range(count):  # Welford's sums: all draws at once may not fit into memory
        values = sampler.draw(index, seed)
        for name, before in mean.items():
            departure = values[name] - before
            mean[name] = before + departure / (index + 1)
            squares[name] += departure * (values[name] - mean[name])
    return {name: float((value.mean() / (count - 1)).sqrt()) for name, value in squares.items()}

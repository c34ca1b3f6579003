"""How far does a parameter have to go, and so how large may a step be?

Adam moves every number by about its rate in a step, whatever the size of the gradient. A rate therefore has the unit of
the parameter, and one number cannot serve a weight of size 0.01 and one of size 3. Each parameter has a *reach* here,

    reach = min(spread of its prior, 1 / sqrt(fan-in)),

the smaller one of where its prior lets it be, and of the change by which inputs of size 1 change an output by 1. Where
a method is not given a rate, a parameter's rate is `SHARE` of its reach: it can cross the reach in fifty steps.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import pyro
import torch
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn
from torch.distributions import biject_to

from bayesdf.errors import BayesdfError
from bayesdf.inference.samplers.sampler import CONSTRAINTS, support_name

SHARE = 0.02
"""The rate of a step, as a share of the reach."""
SCALE_RATE = 0.05
"""Of the logarithms of a guide's scales, and of its factors, which have no unit."""
NORMALISATION = 0.05
"""Reach of the gains and shifts of normalisation, which act on whole channels of size 1."""
_PAIRS = 32
_NUMBERS = 10_000  # of a prior are enough to tell its spread


def weight_reach(network: nn.Module) -> dict[str, float]:
    """By the network alone: ``1 / sqrt(fan-in)`` of every parameter; a bias has that of its layer's weight."""
    found: dict[str, float] = {}
    for path, module in network.named_modules():
        own = dict(module.named_parameters(recurse=False))
        matrices = [value for value in own.values() if value.dim() > 1]
        shared = 1 / math.sqrt(matrices[0][0].numel()) if matrices else NORMALISATION
        for name, value in own.items():
            full = f"{path}.{name}" if path else name
            found[full] = 1 / math.sqrt(value[0].numel()) if value.dim() > 1 else shared
    return found


@torch.no_grad()
def site_reach(sample: Callable[[], Any], network: nn.Module) -> dict[str, float]:
    """The reach of every site, of hyperpriors too, in unconstrained space.

    Parameters
    ----------
    sample : callable
        Draws every site from its prior, by ``pyro.sample``.

    Returns
    -------
    dict from site to float
        The spread of a prior is 1.48 times the median distance of two draws, over the square root of 2: the standard
        deviation of a normal prior, and a number for a prior that has none (Cauchy).
    """
    own = weight_reach(network)
    devices = {value.device for value in network.parameters() if value.device.type == "cuda"}
    with torch.random.fork_rng(devices):
        torch.manual_seed(0)
        return {name: min(spread, own.get(name, 1.0)) for name, spread in _spreads(sample).items()}


def parameter_groups(
    parameters: Mapping[str, Tensor], reach: Mapping[str, float], lr: float | None
) -> list[dict[str, Any]]:
    """Parameter groups for an optimiser: those of one rate together.

    Parameters
    ----------
    parameters, reach
        By the same names.
    lr
        The rate of all; None: `SHARE` of each one's reach.
    """
    groups: dict[float, dict[str, Any]] = {}
    for name, value in parameters.items():
        rate = SHARE * reach[name] if lr is None else lr
        group = groups.setdefault(rate, {"params": [], "lr": rate, "reach": 0.0})
        group["params"].append(value)
        group["reach"] = max(group["reach"], reach[name])
    return list(groups.values())


def _spreads(sample: Callable[[], Any]) -> dict[str, float]:
    first = _draw(sample)
    numbers = sum(value.numel() for value in first.values())
    pairs = max(1, min(_PAIRS, _NUMBERS // max(1, numbers)))
    distances: dict[str, list[Tensor]] = {name: [] for name in first}
    for pair in range(pairs):
        one, other = first if pair == 0 else _draw(sample), _draw(sample)
        for name in first:
            distances[name].append((one[name] - other[name]).abs().flatten())
    found = {}
    for name, values in distances.items():
        apart = torch.cat(values)
        apart = apart[apart.isfinite()]
        median = float(apart.median()) if len(apart) else 0.0
        found[name] = 1.4826 * median / math.sqrt(2) or 1.0
    return found


def _draw(sample: Callable[[], Any]) -> Mapping[str, Tensor]:
    with pyro.poutine.block(), pyro.validation_enabled(False):
        trace = prune_subsample_sites(pyro.poutine.trace(sample).get_trace())
    drawn = {}
    for name, site in trace.iter_stochastic_nodes():
        try:
            support = support_name(site["fn"].support, name)
        except BayesdfError:  # a guide of the user's may know it: its own numbers will do for a spread
            support = "real"
        drawn[name] = biject_to(CONSTRAINTS[support]).inv(site["value"].float())
    return drawn

"""One normal over all sites, with any covariance."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.infer.autoguide import AutoMultivariateNormal
from torch import Tensor

from bayesdf.errors import BayesdfError
from bayesdf.inference.guides.guide import OneNormal, Options
from bayesdf.inference.joint import Example, start_from, unconstrained_start
from bayesdf.inference.samplers import FullSampler, Sampler

FULL_NUMBERS = 5_000
"""The most numbers that all sites may have together."""


class Full(OneNormal):
    """``full``: one normal over all numbers, with any covariance."""

    def __init__(
        self, model: Callable[..., Any], example: Example, start: Mapping[str, Tensor], options: Options
    ) -> None:
        found = unconstrained_start(model, example, start)
        numbers = sum(loc.numel() for loc, _ in found.values())
        if numbers > FULL_NUMBERS:
            raise BayesdfError(
                f"SVI: guide 'full' keeps {numbers}² numbers for the {numbers} of all sites, and at most "
                f"{FULL_NUMBERS} are allowed: take guide 'lowrank' or 'matrix', or fewer sites"
            )
        super().__init__(AutoMultivariateNormal(model, init_loc_fn=start_from(start)), example, options)

    @torch.no_grad()
    def sampler(self) -> Sampler:
        normal = self.auto.get_posterior()
        return FullSampler(normal.loc, normal.scale_tril, *self.layout())

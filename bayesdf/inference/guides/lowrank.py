"""One normal over all sites, its covariance a diagonal plus a matrix of low rank."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.infer.autoguide import AutoLowRankMultivariateNormal
from torch import Tensor

from bayesdf.inference.guides.guide import OneNormal, Options
from bayesdf.inference.joint import Example, start_from, unconstrained_start
from bayesdf.inference.samplers import LowRankSampler, Sampler


class LowRank(OneNormal):
    """``lowrank``: one normal over all numbers, its covariance a diagonal plus a matrix of low rank."""

    def __init__(
        self, model: Callable[..., Any], example: Example, start: Mapping[str, Tensor], options: Options
    ) -> None:
        unconstrained_start(model, example, start)  # says at once where a site is that no normal can hold
        auto = AutoLowRankMultivariateNormal(model, init_loc_fn=start_from(start), rank=options.rank)
        super().__init__(auto, example, options)
        self.auto.scale = self.auto.scale / 2**0.5  # the factor starts as the other half of the variance

    @torch.no_grad()
    def sampler(self) -> Sampler:
        normal = self.auto.get_posterior()
        return LowRankSampler(normal.loc, normal.cov_factor, normal.cov_diag, *self.layout())

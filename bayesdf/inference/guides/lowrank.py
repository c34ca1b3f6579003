"""One normal over all sites, its covariance a diagonal plus a matrix of low rank."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoLowRankMultivariateNormal
from torch import Tensor

from bayesdf.inference.guides.guide import Options, draw_from, layout_of, start_scale
from bayesdf.inference.joint import Example, start_from
from bayesdf.inference.samplers import LowRankSampler, Sampler


class LowRank:
    """``lowrank``: one normal over all numbers, its covariance a diagonal plus a matrix of low rank."""

    def __init__(
        self, model: Callable[..., Any], example: Example, start: Mapping[str, Tensor], options: Options
    ) -> None:
        self.elbo = Trace_ELBO()
        self.example = example
        self.auto = AutoLowRankMultivariateNormal(model, init_loc_fn=start_from(start), rank=options.rank)
        self.auto(*example)
        pieces = [start_scale(piece, options) for _, piece in self.auto._unpack_latent(self.auto.loc)]
        # The factor starts as the other half of the variance.
        self.auto.scale = torch.cat([piece.flatten() for piece in pieces]) / 2**0.5

    def __call__(self, *args: Any) -> Any:
        return self.auto(*args)

    def fast(self, parameter: str) -> bool:
        return not parameter.endswith("Normal.loc")

    def draw(self) -> dict[str, Tensor]:
        return draw_from(self, *self.example)

    @torch.no_grad()
    def sampler(self) -> Sampler:
        normal = self.auto.get_posterior()
        return LowRankSampler(normal.loc, normal.cov_factor, normal.cov_diag, *layout_of(self.auto))

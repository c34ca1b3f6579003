"""One normal over all sites, with any covariance."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal
from torch import Tensor

from bayesdf.errors import BayesdfError
from bayesdf.inference.guides.guide import Options, draw_from, layout_of, start_scale
from bayesdf.inference.joint import Example, start_from, unconstrained_start
from bayesdf.inference.samplers import FullSampler, Sampler

FULL_NUMBERS = 5_000
"""The most numbers that all sites may have together."""


class Full:
    """``full``: one normal over all numbers, with any covariance."""

    def __init__(
        self, model: Callable[..., Any], example: Example, start: Mapping[str, Tensor], options: Options
    ) -> None:
        self.elbo = Trace_ELBO()
        self.example = example
        found = unconstrained_start(model, example, start)
        numbers = sum(loc.numel() for loc, _ in found.values())
        if numbers > FULL_NUMBERS:
            raise BayesdfError(
                f"SVI: guide 'full' keeps {numbers}² numbers for the {numbers} of all sites, and at most "
                f"{FULL_NUMBERS} are allowed: take guide 'lowrank' or 'matrix', or fewer sites"
            )
        self.auto = AutoMultivariateNormal(model, init_loc_fn=start_from(start))
        self.auto(*example)
        pieces = [start_scale(piece, options) for _, piece in self.auto._unpack_latent(self.auto.loc)]
        self.auto.scale = torch.cat([piece.flatten() for piece in pieces])

    def __call__(self, *args: Any) -> Any:
        return self.auto(*args)

    def fast(self, parameter: str) -> bool:
        return not parameter.endswith("Normal.loc")

    def draw(self) -> dict[str, Tensor]:
        return draw_from(self, *self.example)

    @torch.no_grad()
    def sampler(self) -> Sampler:
        normal = self.auto.get_posterior()
        return FullSampler(normal.loc, normal.scale_tril, *layout_of(self.auto))

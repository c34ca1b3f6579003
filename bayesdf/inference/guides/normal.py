"""Mean field: independent normals."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import biject_to

from bayesdf.inference.estimators import Estimator, noise_of_each_image
from bayesdf.inference.guides.guide import Options, draw_from, start_scale
from bayesdf.inference.joint import Example, unconstrained_start
from bayesdf.inference.mean_field_elbo import AtItsMean, MeanFieldELBO, WeightNormal
from bayesdf.inference.samplers import NormalSampler, Sampler
from bayesdf.inference.samplers.sampler import CONSTRAINTS


class MeanField:
    """``normal``: independent normals, a location and a log scale for each number.

    Pyro's AutoNormal puts the samples into Delta sites, which hides the normals from the closed-form KL (and keeps no
    site whose name continues another's, such as ``fc.weight.scale`` beside ``fc.weight``).
    """

    def __init__(
        self, model: Callable[..., Any], example: Example, start: Mapping[str, Tensor], options: Options
    ) -> None:
        self.elbo = MeanFieldELBO()
        self.locations = {f"{name}.loc" for name in start}
        self.support: dict[str, str] = {}
        self.last: set[str] = set()
        self.at_mean: set[str] = set()
        for name, (loc, support) in unconstrained_start(model, example, start).items():
            self.support[name] = support
            if loc.dim() == 4 and loc.is_contiguous(memory_format=torch.channels_last):
                self.last.add(name)
            scale = start_scale(loc, options)
            for parameter, value in ((f"{name}.loc", loc), (f"{name}.log_scale", scale.log())):
                pyro.param(parameter, value.permute(0, 2, 3, 1) if name in self.last else value)

    def parameters(self, site: str) -> tuple[Tensor, Tensor]:
        """Location and log scale, in the shape of the site and laid out in memory as the network's own weight.

        Pyro keeps parameters in C order. So the parameters of convolutions in channels-last format are kept permuted.
        """
        found = pyro.param(f"{site}.loc"), pyro.param(f"{site}.log_scale")
        return (found[0].permute(0, 3, 1, 2), found[1].permute(0, 3, 1, 2)) if site in self.last else found

    def __call__(self, *args: Any) -> None:
        for name, support in self.support.items():
            loc, log_scale = self.parameters(name)
            base: Any = (AtItsMean if name in self.at_mean else WeightNormal)(loc, log_scale)
            if support != "real":
                base = dist.Normal(loc, log_scale.exp())
                base = dist.TransformedDistribution(base, [biject_to(CONSTRAINTS[support])])
            pyro.sample(name, base.to_event(loc.dim()))

    def scale_reach(self, parameter: str) -> float | None:
        return None if parameter in self.locations else 1.0

    @contextmanager
    def estimating(self, estimator: Estimator, layers: dict[str, nn.Module]) -> Iterator[None]:
        """Within it, sites of these layers are at their means, and the layers add the noise."""
        self.at_mean = set(layers)
        try:
            with noise_of_each_image(estimator, layers, self.parameters):
                yield
        finally:
            self.at_mean = set()

    def draw(self) -> dict[str, Tensor]:
        return draw_from(self)

    @torch.no_grad()
    def sampler(self) -> Sampler:
        found = {name: self.parameters(name) for name in self.support}
        loc = {name: loc for name, (loc, _) in found.items()}
        return NormalSampler(loc, {name: log_scale.exp() for name, (_, log_scale) in found.items()}, self.support)

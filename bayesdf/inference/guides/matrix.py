"""A normal for each site, with structure along the rows and columns of its weight matrix."""

from collections.abc import Callable, Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import biject_to

from bayesdf.inference.guides.guide import Options, draw_from, start_scale
from bayesdf.inference.joint import Example, unconstrained_start
from bayesdf.inference.mean_field_elbo import MatrixDistribution, MeanFieldELBO
from bayesdf.inference.samplers import Matrix, MatrixSampler, Sampler
from bayesdf.inference.samplers.sampler import CONSTRAINTS

MATRIX_SIDE = 1_024
"""The most rows of a factor."""


class MatrixNormal:
    """``matrix``: for each site a normal with structure along the rows and columns of its weight matrix.

    ``W = M + R (S ∘ ε) Cᵀ`` with unit lower triangular ``R`` and ``C``: weights of one input, and of one output, are
    correlated (Louizos and Welling, "Structured and Efficient Variational Deep Learning with Matrix Gaussian
    Posteriors", 2016). A factor of more than `MATRIX_SIDE` rows is left out; without both this is ``normal``.
    """

    def __init__(
        self, model: Callable[..., Any], example: Example, start: Mapping[str, Tensor], options: Options
    ) -> None:
        self.elbo = MeanFieldELBO()
        self.locations = {f"{name}.loc" for name in start}
        self.support: dict[str, str] = {}
        self.factors: dict[str, list[str]] = {}
        for name, (loc, support) in unconstrained_start(model, example, start).items():
            self.support[name] = support
            flat = loc.reshape(len(loc), -1) if loc.dim() else loc.reshape(1, 1)
            pyro.param(f"{name}.loc", loc.contiguous())
            pyro.param(f"{name}.log_scale", start_scale(loc, options).log().reshape(flat.shape))
            sides = {"rows": flat.shape[0], "columns": flat.shape[1]}
            self.factors[name] = [factor for factor, side in sides.items() if 1 < side <= MATRIX_SIDE]
            for factor in self.factors[name]:
                pyro.param(f"{name}.{factor}", loc.new_zeros(sides[factor], sides[factor]))

    def matrix(self, site: str) -> Matrix:
        eye = {}
        for factor in self.factors[site]:
            free = pyro.param(f"{site}.{factor}")
            eye[factor] = free.tril(-1) + torch.eye(len(free), device=free.device)
        scale = pyro.param(f"{site}.log_scale").exp()
        return Matrix(pyro.param(f"{site}.loc"), scale, eye.get("rows"), eye.get("columns"))

    def __call__(self, *args: Any) -> None:
        for name, support in self.support.items():
            base: Any = MatrixDistribution(self.matrix(name))
            if support != "real":
                base = dist.TransformedDistribution(base, [biject_to(CONSTRAINTS[support])])
            pyro.sample(name, base)

    def scale_reach(self, parameter: str) -> float | None:
        if parameter in self.locations:
            return None
        is_factor = parameter.endswith((".rows", ".columns"))
        return len(pyro.param(parameter)) ** -0.5 if is_factor else 1.0

    def draw(self) -> dict[str, Tensor]:
        return draw_from(self)

    @torch.no_grad()
    def sampler(self) -> Sampler:
        return MatrixSampler({name: self.matrix(name) for name in self.support}, self.support)

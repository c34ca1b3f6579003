"""The evidence lower bound of a guide of independent sites, with the KL in closed form where there is one."""

import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.distributions import constraints, kl_divergence

from bayesdf.inference.mean_field_kernels import normal_divergence, reparameterise
from bayesdf.inference.samplers import Matrix


class WeightNormal(dist.TorchDistribution):
    """Independent normals ``N(loc, exp(log_scale)²)``: torch's Normal in few passes over the memory."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012  (the attribute torch looks for)
    support = constraints.real
    has_rsample = True

    def __init__(self, loc: Tensor, log_scale: Tensor) -> None:
        self.loc, self.log_scale = loc, log_scale
        super().__init__(batch_shape=loc.shape, validate_args=False)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        assert not sample_shape
        return reparameterise(self.loc, self.log_scale)

    def log_prob(self, value: Tensor) -> Tensor:
        return dist.Normal(self.loc, self.log_scale.exp(), validate_args=False).log_prob(value)


class AtItsMean(WeightNormal):
    """Returns its mean as a sample. The noise is added later, to the output of the layer for each image."""

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.loc


class MatrixDistribution(dist.TorchDistribution):
    """The normal of a `Matrix` of unit triangular factors; one event is the whole site."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012  (the attribute torch looks for)
    has_rsample = True

    def __init__(self, matrix: Matrix) -> None:
        self.matrix = matrix
        super().__init__(event_shape=matrix.loc.shape, validate_args=False)

    @property
    def support(self) -> Any:
        return constraints.independent(constraints.real, len(self.event_shape))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        assert not sample_shape
        return self.matrix.value(torch.randn_like(self.matrix.scale))

    def entropy(self) -> Tensor:
        scale = self.matrix.scale
        return scale.log().sum() + 0.5 * scale.numel() * (1 + math.log(2 * math.pi))

    def log_prob(self, value: Tensor) -> Tensor:
        matrix = self.matrix
        noise = (value - matrix.loc).view(matrix.scale.shape)
        if matrix.rows is not None:
            noise = torch.linalg.solve_triangular(matrix.rows, noise, upper=False, unitriangular=True)
        if matrix.columns is not None:
            noise = torch.linalg.solve_triangular(matrix.columns, noise.T, upper=False, unitriangular=True).T
        return dist.Normal(0.0, matrix.scale, validate_args=False).log_prob(noise).sum()


class MeanFieldELBO:
    """``E_q[log p(observed | w)] - Σ KL(q(w_site) || p(w_site | its hyperpriors))``, one draw of q for the estimate.

    Valid if the guide's sites are independent. Then each site has its own KL, given the drawn hyperpriors. Pyro's
    TraceMeanField_ELBO does the same, but also evaluates both densities of every weight and drops the result. With
    millions of random weights that takes most of a step's time. The values differ only by rounding.
    """

    def differentiable_loss(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any) -> Tensor:
        """The negative ELBO, a number to differentiate."""
        drawn = prune_subsample_sites(pyro.poutine.trace(guide).get_trace(*args))
        replayed = pyro.poutine.trace(pyro.poutine.replay(model, trace=drawn)).get_trace(*args)
        replayed = prune_subsample_sites(replayed)
        replayed.compute_log_prob(lambda name, site: site["is_observed"])
        loss = torch.zeros(())
        for name, site in replayed.nodes.items():
            if site["type"] != "sample":
                continue
            if site["is_observed"]:
                loss = loss - site["log_prob_sum"]
            else:
                loss = loss + divergence(drawn.nodes[name]["fn"], site["fn"], site["value"])
        return loss


def divergence(q: Any, p: Any, value: Tensor) -> Tensor:
    """``KL(q || p)``, a number. Without a closed form it is estimated by ``log q(value) - log p(value)``."""
    q_base, p_base = _base(q), _base(p)
    if isinstance(q_base, WeightNormal):
        if type(p_base) is dist.Normal and q_base.batch_shape == p_base.batch_shape:
            return normal_divergence(q_base.loc, q_base.log_scale, p_base.loc, p_base.scale)
        q = dist.Normal(q_base.loc, q_base.log_scale.exp(), validate_args=False).to_event(q_base.loc.dim())
        if isinstance(q_base, AtItsMean):
            value = reparameterise(q_base.loc, q_base.log_scale)
    if isinstance(q, MatrixDistribution):
        return -q.entropy() - p.log_prob(value).sum()
    try:
        return kl_divergence(q, p).sum()
    except NotImplementedError:
        return q.log_prob(value).sum() - p.log_prob(value).sum()


def _base(distribution: Any) -> Any:
    while isinstance(distribution, dist.Independent):
        distribution = distribution.base_dist
    return distribution

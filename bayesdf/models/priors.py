"""Priors over parameters: what is believed about a weight before the data.

A prior is a function ``(name, parameter) -> pyro distribution`` whose event shape is the parameter's shape. It may
call ``pyro.sample`` itself for hyperpriors, which become sites of their own. The functions below make the usual ones:

>>> from bayesdf.models import priors
>>> priors.normal(scale=0.05).description
'normal(scale=0.05, loc=0.0)'
"""

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Real
from typing import Any, TypeVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from bayesdf.errors import BayesdfError

Prior = Callable[[str, Tensor], Any]
T = TypeVar("T")
_RUN: ContextVar[dict[Callable[[], Any], Any] | None] = ContextVar("run", default=None)
"""The values of `shared` functions in this run of a model."""


def normal(scale: float, loc: float = 0.0) -> Prior:
    """Independent normal weights, ``w ~ N(loc, scale²)``.

    Parameters
    ----------
    scale : float
        Standard deviation, above 0. Weights of a trained network give the order of magnitude (0.02 to 0.1).
    loc : float
        Mean of every weight.
    """
    _positive("normal", scale=scale)

    def prior(name: str, parameter: Tensor) -> Any:
        return dist.Normal(_everywhere(loc, parameter), scale).to_event(parameter.dim())

    return _described(prior, f"normal(scale={scale}, loc={loc})")


def laplace(scale: float, loc: float = 0.0) -> Prior:
    """Independent Laplace weights, ``p(w) = exp(-|w - loc| / scale) / (2 scale)``: most are near `loc`, a few are far.

    Parameters
    ----------
    scale : float
        Mean absolute deviation, above 0; the standard deviation is ``sqrt(2) scale``.
    loc : float
        Centre of every weight.
    """
    _positive("laplace", scale=scale)

    def prior(name: str, parameter: Tensor) -> Any:
        return dist.Laplace(_everywhere(loc, parameter), scale).to_event(parameter.dim())

    return _described(prior, f"laplace(scale={scale}, loc={loc})")


def student_t(df: float, scale: float, loc: float = 0.0) -> Prior:
    """Independent Student's t weights. The smaller the degrees of freedom, the heavier the tails.

    Trained convolutional weights look like this (Fortuin et al., "Bayesian Neural Network Priors Revisited", 2022).

    Parameters
    ----------
    df : float
        Degrees of freedom, above 0. 1 is Cauchy, and large values are normal.
    scale : float
        Scale, above 0; the standard deviation is ``scale sqrt(df / (df - 2))`` for `df` above 2.
    loc : float
        Centre of every weight.
    """
    _positive("student_t", df=df, scale=scale)

    def prior(name: str, parameter: Tensor) -> Any:
        return dist.StudentT(df, _everywhere(loc, parameter), scale).to_event(parameter.dim())

    return _described(prior, f"student_t(df={df}, scale={scale}, loc={loc})")


def scale_mixture(pi: float, sigma1: float, sigma2: float) -> Prior:
    """Mixture of a wide and a narrow normal, ``w ~ pi N(0, sigma1²) + (1 - pi) N(0, sigma2²)``.

    Blundell et al., "Weight Uncertainty in Neural Networks", 2015, equation 7.

    Parameters
    ----------
    pi : float
        Share of the first component, strictly between 0 and 1.
    sigma1, sigma2 : float
        Standard deviations, above 0; in the paper `sigma1` above `sigma2`, and `sigma2` much below 1.
    """
    _positive("scale_mixture", sigma1=sigma1, sigma2=sigma2)
    if not 0 < pi < 1:
        raise BayesdfError(f"priors.scale_mixture: pi is {pi}, but must lie strictly between 0 and 1")

    def prior(name: str, parameter: Tensor) -> Any:
        return NormalScaleMixture(pi, sigma1, sigma2, parameter).to_event(parameter.dim())

    return _described(prior, f"scale_mixture(pi={pi}, sigma1={sigma1}, sigma2={sigma2})")


def he_normal() -> Prior:
    """Normal weights with the variance of He's initialisation, ``w ~ N(0, 2 / fan_in)``.

    It keeps the variance of activations through ReLU layers (He et al., "Delving Deep into Rectifiers", 2015, equation
    10). `fan_in` is the number of inputs of one output. Parameters with one dimension (biases, the scales and shifts
    of normalisation) have no fan-in, and their prior is ``N(0, 1)``.
    """

    def prior(name: str, parameter: Tensor) -> Any:
        scale = math.sqrt(2 / parameter[0].numel()) if parameter.dim() > 1 else 1.0
        return dist.Normal(_everywhere(0.0, parameter), scale).to_event(parameter.dim())

    return _described(prior, "he_normal()")


def horseshoe(scale: float) -> Prior:
    """Hierarchical horseshoe: nearly all weights are near zero, a few are free.

    ``tau ~ C⁺(0, scale)`` for the tensor, ``lambda_i ~ C⁺(0, 1)`` for each weight, ``w_i ~ N(0, tau² lambda_i²)``
    (Carvalho, Polson and Scott, "The horseshoe estimator for sparse signals", 2010). Adds the sites
    ``<parameter>.tau`` (a number) and ``<parameter>.lambda`` (shape of the parameter).

    Parameters
    ----------
    scale : float
        Scale of the global half-Cauchy, above 0: about the share of weights expected to matter, times their size.
    """
    _positive("horseshoe", scale=scale)

    def prior(name: str, parameter: Tensor) -> Any:
        tau = pyro.sample(f"{name}.tau", dist.HalfCauchy(parameter.new_tensor(scale)))
        local = dist.HalfCauchy(torch.ones_like(parameter)).to_event(parameter.dim())
        lam = pyro.sample(f"{name}.lambda", local)
        return dist.Normal(_everywhere(0.0, parameter), tau * lam).to_event(parameter.dim())

    return _described(prior, f"horseshoe(scale={scale})")


def moped(delta: float, floor: float = 0.01) -> Prior:
    """Normal prior centred on the network's own (trained) weights, ``w_i ~ N(w⁰_i, (delta max(|w⁰_i|,
    floor))²)``.

    Krishnan, Subedar and Tickoo, "Specifying Weight Priors in Bayesian Deep Neural Networks with Empirical Bayes"
    (MOPED), 2020. The floor is ours. Without it a weight at zero (such as a fresh bias) has a prior of width 0.

    Parameters
    ----------
    delta : float
        Relative standard deviation, above 0. The paper uses 0.1 and 0.2.
    floor : float
        Size, above 0, below which all weights get the same width.
    """
    _positive("moped", delta=delta, floor=floor)

    def prior(name: str, parameter: Tensor) -> Any:
        centre = parameter.detach()
        return dist.Normal(centre, delta * centre.abs().clamp_min(floor)).to_event(parameter.dim())

    return _described(prior, f"moped(delta={delta}, floor={floor})")


def shared(function: Callable[[], T]) -> Callable[[], T]:
    """Let several parameters share what a function samples. The function runs once in each run of the model.

    It is a decorator for functions without arguments. All calls in the same run of a detector's model return the same
    value. So a hyperprior has one site, however many parameters use it.

    >>> @shared
    ... def scale():
    ...     return pyro.sample("scale", dist.HalfCauchy(0.1))
    >>> def spike(name, parameter):
    ...     return dist.Normal(torch.zeros_like(parameter), scale()).to_event(parameter.dim())
    """

    @functools.wraps(function)
    def once() -> T:
        values = _RUN.get()
        if values is None:  # not in a detector's model
            return function()
        if once not in values:
            values[once] = function()
        return values[once]

    return once


@contextmanager
def one_run() -> Iterator[None]:
    """A run of the model. At its beginning nothing has been shared."""
    token = _RUN.set({})
    try:
        yield
    finally:
        _RUN.reset(token)


def describe(prior: Prior | None) -> str:
    """The name of a prior in one line: the call that made it, or the name of the user's function."""
    if prior is None:
        return "None"
    return getattr(prior, "description", None) or getattr(prior, "__name__", None) or type(prior).__name__


class NormalScaleMixture(dist.TorchDistribution):
    """``pi N(0, sigma1²) + (1 - pi) N(0, sigma2²)``, elementwise, of the shape of `like`.

    Pyro's MixtureSameFamily has the same density. This class keeps no number for each component of each weight.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012  (the attribute torch looks for)
    support = constraints.real

    def __init__(self, pi: float, sigma1: float, sigma2: float, like: Tensor) -> None:
        self.pi, self.sigma1, self.sigma2 = pi, sigma1, sigma2
        self.like = like.detach()
        super().__init__(batch_shape=like.shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "NormalScaleMixture":
        return NormalScaleMixture(self.pi, self.sigma1, self.sigma2, self.like.expand(batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        def log_normal(sigma: float) -> Tensor:
            return -0.5 * (value / sigma) ** 2 - math.log(sigma * math.sqrt(2 * math.pi))

        wide = math.log(self.pi) + log_normal(self.sigma1)
        narrow = math.log1p(-self.pi) + log_normal(self.sigma2)
        return torch.logaddexp(wide, narrow)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        zeros = self.like.expand(torch.Size(sample_shape) + self.like.shape) * 0.0
        wide = torch.rand_like(zeros) < self.pi
        return torch.randn_like(zeros) * torch.where(wide, self.sigma1, self.sigma2)

    @property
    def mean(self) -> Tensor:
        return torch.zeros_like(self.like)

    @property
    def variance(self) -> Tensor:
        return torch.full_like(self.like, self.pi * self.sigma1**2 + (1 - self.pi) * self.sigma2**2)


def _everywhere(value: float, like: Tensor) -> Tensor:
    """The value in the shape of `like`, without memory for each number."""
    return like.new_tensor(value).expand(like.shape)


def _described(prior: Prior, description: str) -> Prior:
    prior.description = description  # type: ignore[attr-defined]
    return prior


def _positive(prior: str, **values: float) -> None:
    for name, value in values.items():
        if not isinstance(value, Real) or not value > 0 or math.isinf(value):
            raise BayesdfError(f"priors.{prior}: {name} is {value!r}, but must be a finite number above 0")

"""Laplace's approximation at the last layer: a normal as wide as the log density is curved at its maximum.

    q(w) = N(ŵ, P⁻¹),   P = Σ_i J_iᵀ Λ_i J_i + S⁻¹

ŵ is the maximum a posteriori, J_i the Jacobian of image i's logits in the weights of the last linear layer, Λ_i the
Hessian of its negative log-likelihood in the logits (raised to its class's power, where classes are balanced), S the
covariance of the prior. The sum over all training images is the generalised Gauss-Newton matrix. If logits are linear
in these weights, as they nearly always are, it is the Hessian itself.

References
----------
1. MacKay, "A Practical Bayesian Framework for Backpropagation Networks", 1992.
2. Ritter, Botev and Barber, "A Scalable Laplace Approximation for Neural Networks", 2018 (Kronecker factors).
3. Daxberger et al., "Laplace Redux: Effortless Bayesian Deep Learning", 2021 (the last layer alone; equation 6).
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyro
import pyro.distributions as dist
import torch
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn
from torch.utils.data import Dataset

from bayesdf.errors import BayesdfError
from bayesdf.inference import pareto_k, whitening
from bayesdf.inference.batches import batches
from bayesdf.inference.convergence import Verdict, judge_search, k_hat_caution
from bayesdf.inference.fit_results import load_values, report_verdict, root_attrs
from bayesdf.inference.joint import Joint
from bayesdf.inference.map import Point
from bayesdf.inference.posterior import Posterior
from bayesdf.inference.samplers import FullSampler, Matrix, MatrixSampler
from bayesdf.inference.training import Training
from bayesdf.inference.training.divergence import posterior_on_divergence
from bayesdf.inference.training.flatness import LEAST
from bayesdf.inference.training.history import History
from bayesdf.inference.training.loop import minimise
from bayesdf.inference.training.problem import Problem, prepare
from bayesdf.inference.training.progress import Clock
from bayesdf.inference.training.seeds import seeded
from bayesdf.models.detector import Detector
from bayesdf.models.eval_mode import hooked
from bayesdf.models.features import classifier
from bayesdf.models.priors import describe

NEWTON_STEPS, _NEAR = 20, 1e-3  # most steps to the maximum, and the distance in nats at which they end
FULL_NUMBERS = 10_000
"""The most weights of ``structure="full"``. Their covariance takes 800 MB in double precision."""


@dataclass(frozen=True, kw_only=True)
class Laplace(Training):
    """Last-layer Laplace approximation.

    The sites are the weight, the bias or both of the network's last linear layer (see
    `bayesdf.models.features.classifier`), with normal priors of fixed scale. Everything else is a point estimate. Of a
    dense network, each location of an image adds to P what an image does above.

    Parameters
    ----------
    structure : "full" or "kron"
        ``full``: the covariance of all weights, exactly as above. ``kron``: that of the weight matrix as a product of
        one over its inputs and one over its outputs, ``P ≈ N E[Λ] ⊗ E[a aᵀ] + S⁻¹`` with the layer's inputs a; the
        bias is then independent of the weight matrix (and exact for itself), and the prior must have one scale a site.
    epochs, lr, batch_size, freeze, class_balanced, augment, views, patience, seed, device, progress, checkpoint
        As for `bayesdf.inference.training.Training`, for the search for the maximum. With 0 epochs the network itself
        is taken for the maximum. The curvature is that of the training images without augmentation.

    Examples
    --------
    >>> posterior = Laplace(epochs=10).fit(detector, data.train)  # doctest: +SKIP
    """

    structure: Literal["full", "kron"] = "full"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.structure not in ("full", "kron"):
            raise BayesdfError(f"Laplace: structure is {self.structure!r}, but must be 'full' or 'kron'")

    def fit(self, detector: Detector, train: Dataset[Any], validation: Dataset[Any] | None = None) -> Posterior:
        """Find the maximum and the curvature there.

        Returns
        -------
        Posterior
            ``sample_stats`` has ``loss`` (step), the negative log density per image.

        Raises
        ------
        BayesdfError
            A site is not of the last linear layer, a prior is not normal (or has several scales, for ``kron``), or
            there are too many weights for ``full``. Also as `bayesdf.SVI.fit`.
        """
        clock = Clock()
        problem = prepare(detector, self, train, validation)
        with seeded(self.seed, problem.device):
            layer, prior = _layer(detector, problem), _prior_precision(detector, problem)
            joint = Joint(detector, problem)
            if self.structure == "kron":
                _check_one_scale(detector, prior)
            elif joint.numbers > FULL_NUMBERS:
                raise BayesdfError(
                    f"Laplace: the covariance of the {joint.numbers} weights of {layer} is too large (at most "
                    f'{FULL_NUMBERS} fit): use structure="kron"'
                )
            point = Point(joint, problem)

            def posterior(history: History) -> Posterior:
                mode = {name: value.detach() for name, value in point.z.items()}
                shape = _full if self.structure == "full" else _kron
                if self.epochs == 0 or self.augment is not None or history.slope is None:
                    sampler = shape(joint, problem, mode, layer, prior)
                else:
                    sampler = _climb(joint, problem, mode, lambda z: shape(joint, problem, z, layer, prior))
                load_values(problem.network, sampler.point())
                attrs = root_attrs(self, detector, train, clock())
                return Posterior(problem.network, sampler, history.to_dataset("loss"), attrs)

            with posterior_on_divergence(posterior):
                history = minimise(problem, point)
                found = posterior(history)
            assert isinstance(found.sampler, FullSampler | MatrixSampler)
            verdict = _verdict(history, joint, problem, found.sampler)
            found.sample_stats = verdict.add_to(found.sample_stats)
        return report_verdict(self, found, problem)


def _slope(joint: Joint, problem: Problem, sampler: FullSampler | MatrixSampler) -> tuple[dict[str, Tensor], float]:
    """The gradient of the log density of all images in the noise u of a draw, ``z = z(u)``, at u = 0; and its value."""
    at_mode = {name: torch.zeros(shape, requires_grad=True) for name, shape in sampler.noise_shapes().items()}
    slopes, total = {name: torch.zeros_like(value) for name, value in at_mode.items()}, 0.0
    for inputs, labels in whitening.features(problem, problem.settings.batch_size):
        values = {name: value.to(problem.device) for name, value in sampler.draw_from_noise(at_mode).items()}
        density = joint.log_density_at(values, problem.parts.suffix, inputs, labels) * (len(labels) / problem.size)
        for name, slope in zip(at_mode, torch.autograd.grad(density, list(at_mode.values())), strict=True):
            slopes[name] += slope
        total += float(density.detach())
    return slopes, total


def _gain(slopes: Mapping[str, Tensor]) -> float:
    """The Newton decrement: nats to the maximum, if the density has the curvature of the normal."""
    return sum(float(slope.square().sum()) for slope in slopes.values()) / 2


def _climb(
    joint: Joint,
    problem: Problem,
    mode: dict[str, Tensor],
    shape: Callable[[dict[str, Tensor]], FullSampler | MatrixSampler],
) -> FullSampler | MatrixSampler:
    """The normal at the maximum, by a few Newton steps (Boyd and Vandenberghe, "Convex Optimization", 2004, 9.5) from
    the end of the search. A search on batches only ends near the maximum, and a spread needs the right centre."""
    sampler = shape(mode)
    slopes, density = _slope(joint, problem, sampler)
    for _ in range(NEWTON_STEPS):
        if not _NEAR < _gain(slopes) < math.inf:
            break
        share = 1.0
        while share > 1e-3:
            moved = sampler.draw_from_noise({name: share * slope for name, slope in slopes.items()})
            further = shape({name: moved[name].to(mode[name]) for name in mode})
            new_slopes, new_density = _slope(joint, problem, further)
            if new_density > density:
                break
            share /= 2
        else:
            break
        sampler, slopes, density = further, new_slopes, new_density
    return sampler


def _verdict(history: History, joint: Joint, problem: Problem, sampler: FullSampler | MatrixSampler) -> Verdict:
    """The verdict: is the curvature that of the maximum, and is the posterior normal?"""
    search = judge_search(history, "negative log density")
    if problem.settings.augment is not None:
        return search  # the maximum belongs to augmented images, which do not come again
    gain = _gain(_slope(joint, problem, sampler)[0])
    text, figures = f"{gain:.2g} nats from the maximum of the log density", {"newton_gain_nats": gain}
    if gain <= LEAST:
        found = Verdict(True, text, figures)
    else:
        advice = f"the curvature was taken {text}, where {LEAST:.2g} count as near: {history.advice}"
        found = Verdict(False, advice, figures)
    if problem.trained_parameters(exclude=set(joint.start)):
        found = found & search.about("the search of the weights without a prior")
    data = pareto_k.data_if_small(joint, problem)
    if data is None:
        return found

    def drawn() -> tuple[dict[str, Tensor], Tensor]:
        fresh = {name: torch.randn(shape) for name, shape in sampler.noise_shapes().items()}
        log_q = -sum((value.square().sum() / 2 for value in fresh.values()), torch.zeros(()))  # but for a constant
        return {name: value.to(problem.device) for name, value in sampler.draw_from_noise(fresh).items()}, log_q

    value = pareto_k.k_hat_of_draws(drawn, joint, problem, data)
    return found.with_caution(k_hat_caution(value), k_hat=value)


def _layer(detector: Detector, problem: Problem) -> str:
    """The name of the last linear layer, which all sites must be of, and which must see one vector for each label."""
    layer = classifier(problem.network)
    for name in detector.sites:
        if name not in (f"{layer}.weight", f"{layer}.bias"):
            raise BayesdfError(
                f"Laplace: the site {name} is not of the last linear layer, {layer}: leave it without a prior (None), "
                "or use another method"
            )
    seen: list[Tensor] = []
    module = problem.network.get_submodule(layer)

    def record(_: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen.append(output.detach().requires_grad_())
        return seen[-1].clone()

    handle = module.register_forward_hook(record)
    with torch.enable_grad(), hooked([handle]):
        logits = problem.network(problem.example[0])
    shapes = [tuple(_class_last(module, output).shape[:-1]) for output in seen]
    labels = tuple(logits.shape[:-1])
    if shapes != [labels]:
        where = "locations" if len(labels) > 1 else "images"
        raise BayesdfError(
            f"Laplace: the last linear layer, {layer}, must see one vector for each label, but it sees vectors in the "
            f"shapes {shapes} for {where} {labels}: use another method"
        )
    if len(labels) > 1:  # a logit of one location may not depend on the layer's output at another
        one = tuple(size // 2 for size in labels)
        slope = _class_last(module, torch.autograd.grad(logits[one].sum(), seen[0])[0]).clone()
        slope[one] = 0.0
        if bool(slope.any()):
            raise BayesdfError(
                f"Laplace: what follows the last linear layer, {layer}, mixes locations: use another method, or make "
                "the layer the last (bayesdf.models.dense_head, bayesdf.models.located)"
            )
    return layer


def _class_last(module: nn.Module, value: Tensor) -> Tensor:
    """What a linear layer sees or returns, with its numbers last: those of a convolution come second."""
    return value.movedim(1, -1) if isinstance(module, nn.Conv2d) else value


def _prior_precision(detector: Detector, problem: Problem) -> dict[str, Tensor]:
    """``1 / scale²`` of every weight under its prior, by site, float64 in the shape of the site."""
    trace = prune_subsample_sites(pyro.poutine.trace(detector.sample).get_trace(problem.device))
    found: dict[str, Tensor] = {}
    hyperpriors: list[str] = []  # those sampled since the last site are of the next one
    for name, node in trace.iter_stochastic_nodes():
        if name not in detector.sites:
            hyperpriors.append(name)
            continue
        base = node["fn"]
        while isinstance(base, dist.Independent):
            base = base.base_dist
        described = describe(detector.sites[name])
        if hyperpriors:
            what = f"the prior {described} of {name} has hyperpriors ({', '.join(hyperpriors)})"
        elif type(base) is not dist.Normal:
            what = f"the prior {described} of {name} is a {type(base).__name__}"
        else:
            found[name] = base.scale.detach().double().expand(node["value"].shape) ** -2
            continue
        raise BayesdfError(
            f"Laplace: {what}, but must be a normal of fixed scale: give it one (priors.normal), or use another method"
        )
    return found


def _check_one_scale(detector: Detector, prior: Mapping[str, Tensor]) -> None:
    for name, precision in prior.items():
        if not bool((precision == precision.flatten()[0]).all()):
            raise BayesdfError(
                f"Laplace: the prior {describe(detector.sites[name])} of {name} has several scales, which "
                'structure="kron" cannot hold: use structure="full", or priors.normal'
            )


def _full(joint: Joint, problem: Problem, mode: dict[str, Tensor], layer: str, prior: dict[str, Tensor]) -> FullSampler:
    """The covariance of all weights, in float64."""
    weight, bias = f"{layer}.weight", f"{layer}.bias"
    total: Tensor | None = None
    for inputs, curvature in _curvatures(joint, problem, mode, layer):
        count, outputs = curvature.shape[:2]
        columns = [inputs] if weight in mode else []
        columns += [inputs.new_ones(count, 1)] if bias in mode else []
        design = torch.cat(columns, 1)
        if total is None:
            total = inputs.new_zeros(outputs, design.shape[1], outputs, design.shape[1])
        for row in range(outputs):
            for column in range(outputs):
                total[row, :, column] += design.T @ (curvature[:, row, column, None] * design)
    assert total is not None
    outputs, side = total.shape[:2]
    places = torch.arange(outputs * side, device=total.device).view(outputs, side)
    width = side - (bias in mode)
    parts = {weight: places[:, :width].flatten(), bias: places[:, width:].flatten()}
    order = torch.cat([parts[name] for name in mode])
    precision = total.flatten(2).flatten(0, 1)[order][:, order]
    precision.diagonal().add_(torch.cat([prior[name].flatten() for name in mode]))
    lower, failed = torch.linalg.cholesky_ex(precision)
    if int(failed):
        raise BayesdfError(
            "Laplace: the precision of the weights is not positive definite in float64: the prior is too wide for what "
            "the images leave open (give a narrower one), or the features are not finite"
        )
    factor = torch.linalg.solve_triangular(lower.T, torch.eye(len(lower)).to(lower), upper=True)
    loc = torch.cat([value.flatten() for value in mode.values()])
    return FullSampler(loc, factor, joint.shapes, joint.support)


def _kron(
    joint: Joint, problem: Problem, mode: dict[str, Tensor], layer: str, prior: dict[str, Tensor]
) -> MatrixSampler:
    """A covariance over the layer's inputs and one over its outputs."""
    squares: Tensor | None = None
    curvature: Tensor | None = None
    for inputs, curvatures in _curvatures(joint, problem, mode, layer):
        squares = inputs.T @ inputs + (0.0 if squares is None else squares)
        curvature = curvatures.sum(0) + (0.0 if curvature is None else curvature)
    assert squares is not None and curvature is not None
    if not bool(squares.isfinite().all() and curvature.isfinite().all()):
        raise BayesdfError("Laplace: the layer's inputs or its curvature are not finite: check the images")
    of_rows, rows = torch.linalg.eigh(curvature)
    of_columns, columns = torch.linalg.eigh(squares / problem.labels.numel())
    sites = {}
    for name, value in mode.items():
        of_inputs = of_columns if name == f"{layer}.weight" else of_columns.new_ones(1)
        eigenvalues = of_rows.clamp_min(0)[:, None] * of_inputs.clamp_min(0)  # rounding can make them negative
        scale = (eigenvalues + prior[name].flatten()[0]).rsqrt()
        sites[name] = Matrix(value, scale, rows, columns if name == f"{layer}.weight" else None)
    return MatrixSampler(sites, joint.support)


def _curvatures(joint: Joint, problem: Problem, mode: dict[str, Tensor], layer: str) -> Iterator[tuple[Tensor, Tensor]]:
    """The contribution of each label to the precision of the layer's weights, batch by batch.

    Yields
    ------
    inputs : Tensor (L, I), float64
        The layer's inputs: one for each image, or of a dense network one for each location.
    curvature : Tensor (L, O, O), float64
        ``Dᵀ Λ D``, where D (C, O) is the Jacobian of the logits in the layer's outputs. Label i adds ``curvature_i ⊗
        inputs_i inputs_iᵀ``. Λ comes from the detector's own model. Two hooks separate its derivatives.
    """
    suffix, module = problem.parts.suffix, problem.network.get_submodule(layer)
    seen: dict[str, Tensor] = {}

    def at_layer(_: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen["inputs"], seen["outputs"] = inputs[0].detach(), output.detach().requires_grad_()
        return seen["outputs"].clone()  # the next operation may write into it

    def at_end(_: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen["logits"], seen["given"] = output, output.detach().double().requires_grad_()
        return seen["given"].clone()

    handles = [module.register_forward_hook(at_layer), suffix.register_forward_hook(at_end)]
    with hooked(handles):
        for images, labels in batches(problem.train, problem.settings.batch_size, problem.device):
            with torch.no_grad():
                features = problem.parts.prefix(images)
            density = joint.log_density(mode, suffix, features, labels, jacobian=False)
            # The density of a batch is scaled to the whole data set.
            slope = torch.autograd.grad(density * (len(labels) / problem.size), seen["given"], create_graph=True)[0]
            curvature = -torch.stack(_slopes(slope, seen["given"]), -2).flatten(0, -3)
            of_outputs = [_class_last(module, part) for part in _slopes(seen["logits"], seen["outputs"])]
            jacobian = torch.stack(of_outputs, -2).flatten(0, -3).double()
            yield _class_last(module, seen["inputs"]).flatten(0, -2).double(), jacobian.mT @ curvature @ jacobian


def _slopes(values: Tensor, of: Tensor) -> list[Tensor]:
    """Derivatives of values (…, C) in other numbers of the same label: C tensors of the shape of these numbers."""
    return [torch.autograd.grad(column.sum(), of, retain_graph=True)[0] for column in values.unbind(-1)]

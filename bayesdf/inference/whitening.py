"""Coordinates in which a posterior is about equally wide in every direction, for samplers.

    z = ẑ + L u,    L Lᵀ = (H + F)⁻¹

z are the unconstrained numbers of all sites, and ẑ is the maximum a posteriori. H is the curvature of the negative
log-likelihood there: its Hessian, or the empirical Fisher information,

    H = Σ_i s_i s_iᵀ,    s_i = ∂ log p(label_i | image_i, z) / ∂z,

which needs one gradient for each image, and is never negative. F is the information of the priors,

    F_j = E_prior[(∂ log p(z) / ∂z_j)²],

which is one over the variance for normal priors. The parents in a hierarchy of priors stay at ẑ, and their information
includes that of their children. Up to `DENSE` numbers L has all its entries. Beyond, H and L are diagonal. A change of
coordinates does not change the distribution, so that L need not be exact.
"""

from collections.abc import Iterator
from functools import partial

import pyro
import torch
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.distributions import biject_to

from bayesdf.errors import BayesdfError
from bayesdf.inference.batches import batches
from bayesdf.inference.joint import Joint
from bayesdf.inference.samplers.sampler import CONSTRAINTS, unpack
from bayesdf.inference.training.problem import Problem

DENSE = 4_096
"""Up to this many numbers, coordinates are rotated and stretched. Beyond, they are only stretched."""
IMAGES = 4_096
"""The most training images, drawn at random, of which each has a gradient of its own. An eighth of it if L is
diagonal."""
PRIOR_DRAWS = 128
_TOGETHER = 256  # gradients whose outer products are summed by one product of matrices, which reads the sum once
_ROWS = 16_384  # of the Hessian computed at once for one image, half as many for two
_FLATTEST = 1e-6  # of the largest curvature: less than this is rounding

Batch = tuple[tuple[Tensor, ...], Tensor]


class Whitening:
    """The coordinates u.

    Attributes
    ----------
    centre : Tensor (D,)
        ẑ, all sites one after another.
    scale : Tensor (D, D) or (D,)
        L, or its diagonal.
    """

    def __init__(self, joint: Joint, centre: Tensor, precision: Tensor) -> None:
        """Precision (D, D) or (D,): H + F."""
        self.joint, self.centre = joint, centre
        if not bool(precision.isfinite().all()):
            raise BayesdfError(
                "the log density has no finite curvature where sampling begins: check the images (NaN, values far "
                "beyond 1) and the priors' scales"
            )
        if precision.dim() == 1:
            self.scale = precision.clamp_min(_FLATTEST * float(precision.max())).rsqrt()
        else:
            curvature, axes = torch.linalg.eigh(precision.double())
            # Away from a maximum, or where a network is not linear in its sites, a Hessian can be negative: its size
            # still tells the distance over which the density changes.
            curvature = curvature.abs()
            self.scale = (axes * curvature.clamp_min(_FLATTEST * float(curvature.max())).rsqrt()).to(centre.dtype)

    def sites(self, u: Tensor) -> dict[str, Tensor]:
        """The unconstrained sites at coordinates u (D,)."""
        return sites(self.joint, self.centre + (self.scale @ u if self.scale.dim() == 2 else self.scale * u))

    def values(self, u: Tensor) -> dict[str, Tensor]:
        """The sites in the space of the priors."""
        return self.joint.values(self.sites(u))


def flatten(z: dict[str, Tensor]) -> Tensor:
    """All sites one after another, as a vector (D,)."""
    return torch.cat([value.detach().flatten() for value in z.values()])


def sites(joint: Joint, vector: Tensor) -> dict[str, Tensor]:
    """The unconstrained sites that lie one after another in a vector (D,): the inverse of `flatten`."""
    return unpack(vector, joint.shapes, dict.fromkeys(joint.shapes, "real"))


def features(problem: Problem, batch_size: int, order: Tensor | None = None) -> Iterator[Batch]:
    """The input of the suffix and the labels, for training images without augmentation."""
    for images, labels in batches(problem.train, batch_size, problem.device, order):
        with torch.no_grad():
            inputs = problem.parts.prefix(images)
        yield inputs, labels


def concatenate(batches: list[Batch]) -> list[Batch]:
    """One batch of all images, if all that crosses into the suffix has one value for each image."""
    if not all(isinstance(part, Tensor) and len(part) == len(labels) for inputs, labels in batches for part in inputs):
        return batches
    inputs = tuple(torch.cat(parts) for parts in zip(*(inputs for inputs, _ in batches), strict=True))
    return [(inputs, torch.cat([labels for _, labels in batches]))]


def hessian(joint: Joint, problem: Problem, centre: Tensor, data: list[Batch]) -> Tensor:
    """Of the negative log-likelihood of all images (D, D)."""
    centre = centre.clone().requires_grad_()
    total = centre.new_zeros(len(centre), len(centre))
    for batch in data:
        density = _log_likelihood(joint, problem, centre, batch) * (len(batch[1]) / problem.size)
        slope = torch.autograd.grad(-density, centre, create_graph=True)[0]
        # Maps that cross into the suffix would take room for every row.
        vectors = all(part.dim() <= 2 for part in batch[0] if isinstance(part, Tensor))
        if not (vectors and _add_rows_together(total, slope, centre, max(1, _ROWS // len(batch[1])))):
            for row, value in zip(total, slope, strict=True):
                row += torch.autograd.grad(value, centre, retain_graph=True)[0]
    return (total + total.T) / 2


def _add_rows_together(total: Tensor, slope: Tensor, centre: Tensor, count: int) -> bool:
    """Add the derivatives of the slope, `count` rows at once. Returns False, and adds nothing, if that fails."""
    found: list[Tensor] = []
    for place in range(0, len(centre), count):
        which = torch.zeros_like(total[place : place + count])
        which.diagonal(place).fill_(1.0)
        try:
            found += torch.autograd.grad(slope, centre, which, retain_graph=True, is_grads_batched=True)
        except RuntimeError:  # such as one that looks at the gradient's numbers
            return False
    total += torch.cat(found)
    return True


def image_information(joint: Joint, problem: Problem, centre: Tensor) -> Tensor:
    """H by the slopes of single images (D, D), or beyond `DENSE` numbers its diagonal (D,)."""
    centre, dense = centre.clone().requires_grad_(), len(centre) <= DENSE
    order = torch.randperm(problem.size)[: IMAGES if dense else IMAGES // 8]
    total = centre.new_zeros(len(centre), len(centre)) if dense else torch.zeros_like(centre, requires_grad=False)
    slopes: list[Tensor] = []
    for count, batch in enumerate(features(problem, 1, order), start=1):
        slope = torch.autograd.grad(_log_likelihood(joint, problem, centre, batch), centre)[0]
        if not dense:
            total.addcmul_(slope, slope)
            continue
        slopes.append(slope)
        if len(slopes) == _TOGETHER or count == len(order):
            together = torch.stack(slopes)
            total.addmm_(together.T, together)
            slopes.clear()
    # The likelihood of one image counts N times here, and some images stand for N.
    return total / (problem.size * len(order))


def prior_information(joint: Joint, problem: Problem, centre: Tensor) -> Tensor:
    """F (D,), by draws of each site from its prior."""
    z = {name: value.clone().requires_grad_() for name, value in sites(joint, centre).items()}
    total = {name: torch.zeros_like(value, requires_grad=False) for name, value in z.items()}
    batch = next(features(problem, 2, torch.arange(min(2, problem.size))))
    with pyro.validation_enabled(False):
        trace = _trace(joint, problem, z, batch)
        for name in z:
            if name in joint.standard:
                total[name] += PRIOR_DRAWS  # about that of a standard normal, whatever its parents are
                continue
            prior, transform = trace.nodes[name]["fn"], biject_to(CONSTRAINTS[joint.support[name]])
            for _ in range(PRIOR_DRAWS):
                fresh = transform.inv(prior.sample()).detach().requires_grad_()
                value = transform(fresh)
                density = prior.log_prob(value).sum()
                if joint.support[name] != "real":
                    density = density + transform.log_abs_det_jacobian(fresh, value).sum()
                # A site's own slope is at the draw, those of its parents where they are.
                targets = {**z, name: fresh}
                slopes = torch.autograd.grad(density, list(targets.values()), allow_unused=True, retain_graph=True)
                for target, slope in zip(targets, slopes, strict=True):
                    if slope is not None:
                        total[target] += slope.square().nan_to_num(0.0, 0.0, 0.0)  # a draw on the edge of the support
    return flatten(total) / PRIOR_DRAWS


def _log_likelihood(joint: Joint, problem: Problem, vector: Tensor, batch: Batch) -> Tensor:
    """The part of `Joint.log_density` that knows the images: of a batch, scaled to the whole data set."""
    with pyro.validation_enabled(False):
        trace = _trace(joint, problem, sites(joint, vector), batch)
        return trace.log_prob_sum(lambda name, _: name not in joint.shapes)


def _trace(joint: Joint, problem: Problem, z: dict[str, Tensor], batch: Batch) -> pyro.poutine.Trace:
    inputs, labels = batch
    model = pyro.poutine.condition(partial(joint.model, network=problem.parts.suffix), data=joint.values(z))
    return prune_subsample_sites(pyro.poutine.trace(model).get_trace(inputs[0] if len(inputs) == 1 else inputs, labels))

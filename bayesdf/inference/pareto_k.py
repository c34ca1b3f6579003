"""How far is an approximation from the joint density? Pareto k̂ of importance weights.

    w_s = p(labels, z_s | images) / q(z_s),    z_s ~ q

The heavier the tail of w, the worse q covers the posterior; k̂ is the shape of a generalised Pareto distribution fitted
to that tail (Yao, Vehtari, Simpson and Gelman, "Yes, but Did It Work?: Evaluating Variational Inference", 2018). It
needs `DRAWS` evaluations of all training images, so it is computed only for small models.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from bayesdf.inference import whitening
from bayesdf.inference.convergence import k_hat
from bayesdf.inference.joint import Joint
from bayesdf.inference.training.problem import Problem
from bayesdf.inference.whitening import Batch

DRAWS = 500
NUMBERS = 2_000
"""The most numbers in all sites of a small model. For more, k̂ says little but that they are many."""
FEATURES = 4_000_000
"""The most numbers that cross into the suffix of a small model."""


def data_if_small(joint: Joint, problem: Problem) -> list[Batch] | None:
    """All training images as the suffix takes them, if the model is small enough; else None.

    It is None for augmented images, which are never the same twice, and for images that reach the random layers as
    feature maps, which are too large.
    """
    if joint.numbers > NUMBERS or problem.settings.augment is not None:
        return None
    first = next(whitening.features(problem, 1, torch.arange(1)))[0]
    vectors = all(isinstance(part, Tensor) and part.dim() == 2 for part in first)
    if not vectors or problem.size * sum(part.numel() for part in first) > FEATURES:
        return None
    return whitening.concatenate(list(whitening.features(problem, problem.settings.batch_size)))


@torch.no_grad()
def k_hat_of_draws(
    draw: Callable[[], tuple[Mapping[str, Tensor], Tensor]], joint: Joint, problem: Problem, data: list[Batch]
) -> float:
    """k̂ of an approximation.

    Parameters
    ----------
    draw
        Returns the sites, in the space of the priors, and the log density of the approximation there.
    data
        From `data_if_small`.
    """
    with torch.random.fork_rng([problem.device] if problem.device.type == "cuda" else []):
        torch.manual_seed(problem.settings.seed)
        weights = []
        for _ in range(DRAWS):
            values, log_q = draw()
            weights.append(float(_log_joint(joint, problem, values, data)) - float(log_q))
    return k_hat(np.array(weights))


def _log_joint(joint: Joint, problem: Problem, values: Mapping[str, Tensor], data: list[Batch]) -> Tensor:
    """Of all images; each batch has its share of the prior, and its likelihood is scaled to the whole data set."""
    parts = [
        joint.log_density_at(values, problem.parts.suffix, inputs, labels) * (len(labels) / problem.size)
        for inputs, labels in data
    ]
    return torch.stack(parts).sum()

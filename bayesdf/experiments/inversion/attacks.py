"""How would an attacker change pictures a little, so that a classifier or inversion misjudges them?"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bayesdf.experiments.inversion.evidence import invert_by_candidates
from bayesdf.experiments.inversion.pictures import Pictures, Pixels
from bayesdf.experiments.inversion.plan import Plan
from bayesdf.experiments.inversion.resumable import load_or_make
from bayesdf.experiments.seeds import seed_of
from bayesdf.faces import SIZE
from bayesdf.generators import Generator, perceptual
from bayesdf.inversion import Inversion
from bayesdf.inversion.loss import FLOOR
from bayesdf.inversion.perturbations import LEVELS

DESCENT = 20
"""Steps of an attack on a network, and in each round of one on inversion."""


def pgd_attack(network: nn.Module, images: Pixels, label: NDArray[np.integer], budget: float, seed: int = 0) -> Pixels:
    """Change pictures by at most `budget` of 255 grey values a pixel so that a network misjudges them.

    Projected gradient descent (PGD): it ascends the loss by signs of its gradient, from a random start. Madry et al.
    2018, "Towards deep learning models resistant to adversarial attacks".

    Returns
    -------
    (N, 64, 64), stored with 8 bits.
    """
    x, truth = torch.from_numpy(images)[:, None], torch.from_numpy(np.asarray(label, np.int64))
    reach = torch.full((len(x), 1, 1, 1), budget / LEVELS)
    start = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) * 2.0 - 1.0

    def gradient(changed: Tensor) -> Tensor:
        return -torch.autograd.grad(F.cross_entropy(network(changed), truth, reduction="sum"), changed)[0]

    return _descend(x + reach * start, x, reach, gradient)


def adaptive_round(
    images: Pixels,
    before: Pixels,
    budget: NDArray[np.floating],
    own: Pixels,
    rival: Pixels,
    has_own: NDArray[np.bool_],
    regions: tuple[Pixels, Pixels],
) -> Pixels:
    """One round of the attack on inversion: away from what the true generator makes of the pictures, towards a rival's.

    It lowers the rival's evidence less the true generator's: the sum of the logarithms of the errors in pixels,
    gradients and edges, as attribution sees them. Where the latent is at its best for a picture, the slope
    of the smallest error is that with the latent held. So rounds with inversions between them descend the true
    objective.

    Parameters
    ----------
    images
        (N, 64, 64) as they are.
    before
        What the attack made of them so far.
    budget
        (N,) largest change, of 255 grey values.
    own, rival
        (N, 64, 64) reconstructions by the true generator and by the rival; `own` is not used where not `has_own`.
    regions
        (N, 64, 64) pixels that count for each of the two.
    """
    x = torch.from_numpy(images)[:, None]
    reach = torch.from_numpy(np.asarray(budget, np.float32) / np.float32(LEVELS)).view(-1, 1, 1, 1)
    made = [torch.from_numpy(part)[:, None] for part in (own, rival)]
    count = [torch.from_numpy(part)[:, None] for part in regions]
    side = torch.from_numpy(has_own.astype(np.float32))

    def gradient(changed: Tensor) -> Tensor:
        gap = _log_errors(changed, made[1], count[1]) - side * _log_errors(changed, made[0], count[0])
        return torch.autograd.grad(gap.sum(), changed)[0]

    return _descend(torch.from_numpy(before)[:, None], x, reach, gradient)


def _descend(start: Tensor, images: Tensor, reach: Tensor, gradient: Callable[[Tensor], Tensor]) -> Pixels:
    """Signed steps down a gradient, within reach of the images. The result is rounded and stays there."""
    low, high = (images - reach).clamp_min(0.0), (images + reach).clamp_max(1.0)
    changed = start.clamp(low, high)
    for step in range(DESCENT):
        with torch.enable_grad():
            direction = gradient(changed.detach().requires_grad_(True)).sign()
        size = 0.5 * reach * (1.0 - step / DESCENT)
        changed = (changed.detach() - size * direction).clamp(low, high)
    # Inwards: whatever grid the picture lies on, rounding never takes it out of reach.
    grid = (changed * LEVELS).round() / LEVELS
    grid = torch.where(grid > high + 1e-6, (changed * LEVELS).floor() / LEVELS, grid)
    grid = torch.where(grid < low - 1e-6, (changed * LEVELS).ceil() / LEVELS, grid)
    return grid[:, 0].numpy()


def _log_errors(images: Tensor, made: Tensor, region: Tensor) -> Tensor:
    """(B,) sum of the logarithms of the three errors of `bayesdf.inversion.invert`."""
    difference = region * (made - images)
    area = region.pow(2).mean((1, 2, 3))
    edges = perceptual.features(images + difference) - perceptual.features(images)
    squares = [
        difference.pow(2).mean((1, 2, 3)),
        0.5 * (difference.diff(dim=-1).pow(2).mean((1, 2, 3)) + difference.diff(dim=-2).pow(2).mean((1, 2, 3))),
        edges.pow(2).mean(1),
    ]
    return sum((0.5 * (square / area + FLOOR**2).log() for square in squares), torch.zeros(len(images)))


def attacks_on_classifiers(
    folder: Path, pictures: Pictures, names: list[str], networks: Mapping[str, nn.Module], plan: Plan
) -> list[Pixels]:
    """For each network the pictures attacked with each budget, (budget * N, 64, 64)."""
    label = np.array([names.index(source) for source in pictures.source])
    made = []
    for name, network in networks.items():

        def all_budgets(network: nn.Module = network) -> dict[str, NDArray[Any]]:
            seed = seed_of(plan.seed, "attack")
            changed = [pgd_attack(network, pictures.images, label, budget, seed) for budget in plan.budgets]
            return {"images": np.concatenate(changed)}

        made.append(load_or_make(folder / f"attack_{name}.npz", all_budgets)["images"])
    return made


def adaptive_attack(
    folder: Path, pictures: Pictures, found: Mapping[str, Inversion], candidates: Mapping[str, Generator], plan: Plan
) -> Pixels:
    """The pictures attacked with each budget by an attacker who knows how they are inverted, (budget * N, 64, 64).

    Photographs, which no candidate made, are only pushed towards a rival.
    """
    names = list(candidates)
    times = len(plan.budgets)
    loss = np.stack([found[name].loss for name in names], 1)
    own = np.array([names.index(source) if source in names else -1 for source in pictures.source])
    loss[np.flatnonzero(own >= 0), own[own >= 0]] = np.inf
    rival = loss.argmin(1)
    region = np.stack(
        [np.ones((SIZE, SIZE), np.float32) if g.region is None else g.region for g in candidates.values()]
    )
    made = np.stack([found[name].reconstruction for name in names])
    rows = np.arange(len(pictures))
    parts = [np.tile(part, (times, 1, 1)) for part in (made[own, rows], made[rival, rows])]
    images, own, rival = np.tile(pictures.images, (times, 1, 1)), np.tile(own, times), np.tile(rival, times)
    budget = np.repeat(plan.budgets, len(pictures))
    changed = images
    for number in range(plan.rounds):
        if number:
            parts = [part.copy() for part in parts]
            for code, (name, generator) in enumerate(candidates.items()):
                mine = np.flatnonzero((own == code) | (rival == code))
                if not len(mine):
                    continue
                again = invert_by_candidates(
                    folder, f"attack round {number + 1}", changed[mine], {name: generator}, plan
                )[name]
                for part, who in zip(parts, (own, rival), strict=True):
                    part[mine[who[mine] == code]] = again.reconstruction[who[mine] == code]

        def next_round(changed: Pixels = changed, parts: list[Pixels] = parts) -> dict[str, NDArray[Any]]:
            regions = (region[own], region[rival])
            return {"images": adaptive_round(images, changed, budget, parts[0], parts[1], own >= 0, regions)}

        changed = load_or_make(folder / f"attack_inversion_{number}.npz", next_round)["images"]
    return changed

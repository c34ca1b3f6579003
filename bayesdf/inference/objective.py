"""What a method adds to the training loop: a loss, its parameters with their rates, and draws to validate with."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from bayesdf.inference.schedule import Schedule


class Objective:
    """What a method adds to the loop."""

    def loss(self, module: nn.Module, inputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        """The quantity to minimise, per training image."""
        raise NotImplementedError

    def groups(self) -> list[dict[str, Any]]:
        """Parameter groups for the optimiser, of the method's own and the network's, each with its ``lr``.

        A group whose ``lr`` has the unit of its parameters has their ``reach`` too (see `bayesdf.inference.rates`).
        """
        raise NotImplementedError

    def draw(self) -> dict[str, Tensor]:
        """One draw of what the network's tensors are replaced by, from torch's global state."""
        raise NotImplementedError

    def sites(self) -> dict[str, list[Tensor]]:
        """The method's own parameters, by the site they are of."""
        return {}

    def optimiser(self, groups: list[dict[str, Any]], schedule: Schedule) -> tuple[Optimizer, LRScheduler]:
        """What makes the steps: Adam, at the share of its rates that the schedule says."""
        optimiser = torch.optim.Adam(groups, fused=True)
        return optimiser, LambdaLR(optimiser, schedule.share)

    def annealing_steps(self, total: int) -> int:
        """Steps, of so many at most, in which the objective itself still changes."""
        return 0

    def end_of_step(self, step: int) -> None:
        """Called when a step has been made; the first step is 0."""

    def state_dict(self) -> dict[str, Any]:
        """What `end_of_step` has gathered, for a checkpoint: tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""

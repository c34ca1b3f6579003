"""What a method adds to the training loop: a loss, its parameters with their rates, and draws to validate with."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from bayesdf.inference.training.schedule import Schedule


class Objective:
    """The part of the training loop that differs between methods."""

    def loss(self, module: nn.Module, inputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        """The quantity to minimise, per training image."""
        raise NotImplementedError

    def groups(self) -> list[dict[str, Any]]:
        """Parameter groups for the optimiser: those of the method and those of the network, each with its ``lr``.

        A group whose ``lr`` has the unit of its parameters also has their ``reach`` (see
        `bayesdf.inference.training.rates`).
        """
        raise NotImplementedError

    def draw(self) -> dict[str, Tensor]:
        """One draw of the values that replace the network's tensors, from torch's global random state."""
        raise NotImplementedError

    def sites(self) -> dict[str, list[Tensor]]:
        """The method's own parameters, by site."""
        return {}

    def optimiser(self, groups: list[dict[str, Any]], schedule: Schedule) -> tuple[Optimizer, LRScheduler]:
        """The optimiser and its schedule: Adam, at the share of its rates that the schedule gives."""
        optimiser = torch.optim.Adam(groups, fused=True)
        return optimiser, LambdaLR(optimiser, schedule.share)

    def annealing_steps(self, total: int) -> int:
        """The number of steps, of at most `total`, in which the objective itself still changes."""
        return 0

    def end_of_step(self, step: int) -> None:
        """Called when a step has been made; the first step is 0."""

    def state_dict(self) -> dict[str, Any]:
        """What `end_of_step` has collected, for a checkpoint: tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""

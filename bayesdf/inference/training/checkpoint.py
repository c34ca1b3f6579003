"""Checkpoints: a fit that was stopped continues after its last whole epoch, with the same result."""

import hashlib
import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from bayesdf._version import __version__
from bayesdf.errors import BayesdfError
from bayesdf.files import atomic_write, clear_leftovers
from bayesdf.inference.training.feature_cache import TrainingBatches
from bayesdf.inference.training.history import History
from bayesdf.inference.training.objective import Objective
from bayesdf.inference.training.problem import Problem
from bayesdf.inference.training.schedule import Schedule


@dataclass
class EpochState:
    """The state after an epoch, and its validation NLL."""

    nll: float
    epoch: int
    network: dict[str, Tensor]
    own: list[Tensor]

    @classmethod
    def copy_of(cls, problem: Problem, groups: list[dict[str, Any]], nll: float, epoch: int) -> Self:
        """A copy of the state as it is now."""
        state = {name: value.clone() for name, value in problem.network.state_dict().items()}
        return cls(nll, epoch, state, [p.detach().clone() for group in groups for p in group["params"]])

    def restore(self, problem: Problem, groups: list[dict[str, Any]]) -> None:
        """Put the state back."""
        problem.network.load_state_dict(self.network)
        with torch.no_grad():
            for parameter, value in zip((p for group in groups for p in group["params"]), self.own, strict=True):
                parameter.copy_(value)


def read_checkpoint(path: Path, key: str, device: torch.device, what: str) -> dict[str, Any] | None:
    """The content of a checkpoint of that key; None where there is no file.

    Raises
    ------
    BayesdfError
        The file is no checkpoint, is of another fit, or was written by another version of the package.
    """
    clear_leftovers(path)
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        known = state["key"]
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, OSError) as error:
        raise BayesdfError(f"{path} is not a checkpoint of a {what} ({type(error).__name__}): delete it") from None
    if known != key:
        version = state.get("bayesdf")
        if version is None:
            raise BayesdfError(
                f"{path} was written by an older version of bayesdf, which did not note its number (this is "
                f"{__version__}), or it is of other data, settings or weights: delete it, or give another path"
            )
        if version != __version__:
            raise BayesdfError(
                f"{path} was written by bayesdf {version}, but this is {__version__}: delete it, give another path, or "
                "go on with that version"
            )
        raise BayesdfError(f"{path} is of other data, settings or weights: delete it, or give another path")
    return state


def write_checkpoint(path: Path, key: str, state: dict[str, Any]) -> None:
    """Write a checkpoint with its key and the version that wrote it, whole or not at all."""
    with atomic_write(path) as beside:
        torch.save({"bayesdf": __version__, "key": key, **state}, beside)


def checkpoint_key(problem: Problem, own: Iterable[Tensor]) -> str:
    """A digest of all that a fit's result depends on.

    These are the version, settings, priors, images, labels, weights, and the method's own parameters.
    """
    settings = {**problem.settings.settings(), "progress": None}
    what = (__version__, type(problem.settings).__name__, settings, problem.priors)
    digest = hashlib.sha256(repr(what).encode())
    digest.update(problem.identity())
    for value in (problem.labels, *problem.example, *problem.network.state_dict().values(), *own):
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class Checkpoint:
    """A file from which a stopped fit continues after its last whole epoch, with the same result.

    It is valid for the same settings, priors, labels, weights, images and augmentation (see `Problem.identity`).
    """

    def __init__(
        self,
        path: Path,
        problem: Problem,
        groups: list[dict[str, Any]],
        optimiser: Optimizer,
        rates: LRScheduler,
        schedule: Schedule,
        batches: TrainingBatches,
        history: History,
        objective: Objective,
    ) -> None:
        self.path = path
        self.parts: dict[str, Any] = {"network": problem.network, "optimiser": optimiser, "rates": rates}
        self.parts |= {"schedule": schedule, "objective": objective}
        self.own = [value for group in groups for value in group["params"]]
        self.batches, self.history, self.device = batches, history, problem.device
        self.key = checkpoint_key(problem, self.own)

    def write(self, epochs: int, best: EpochState | None) -> None:
        """Write the state after this number of epochs, and the state of the best one."""
        state = {
            "epochs": epochs,
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "own": [value.detach() for value in self.own],
            "history": (self.history.loss, self.history.nll, self.history.accuracy),
            "best": None if best is None else (best.nll, best.epoch, best.network, best.own),
            "order": self.batches.order.get_state(),
            "noise": self.batches.noise.get_state(),
            "turn": self.batches.epoch,
            "global": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }
        write_checkpoint(self.path, self.key, state)

    def read(self) -> tuple[int, EpochState | None]:
        """Restore the state. Returns how many epochs are done, and the best of them."""
        state = read_checkpoint(self.path, self.key, self.device, "fit")
        if state is None:
            return 0, None
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        with torch.no_grad():
            for value, then in zip(self.own, state["own"], strict=True):
                value.copy_(then)
        self.history.loss, self.history.nll, self.history.accuracy = (list(values) for values in state["history"])
        self.batches.order.set_state(state["order"].cpu())
        self.batches.noise.set_state(state["noise"].cpu())
        self.batches.epoch = state["turn"]
        torch.set_rng_state(state["global"].cpu())
        if state["cuda"] is not None:
            torch.cuda.set_rng_state(state["cuda"].cpu(), self.device)
        return state["epochs"], None if state["best"] is None else EpochState(*state["best"])

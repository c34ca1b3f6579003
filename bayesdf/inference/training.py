"""The training loop that methods share: batches, what is frozen, the schedule, validation, early stop.

A method brings an `Objective`: the loss of a batch, its own parameters, and draws to validate with.
"""

import functools
import glob
import hashlib
import math
import os
import pickle
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyro
import torch
import xarray as xr
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import Dataset

from bayesdf._version import __version__
from bayesdf.errors import BayesdfError, BayesdfWarning
from bayesdf.files import clear_leftovers, replacing
from bayesdf.inference.checks import check_call, check_numbers
from bayesdf.inference.labels import all_labels, class_names
from bayesdf.inference.prediction import batches, place, resolve_device
from bayesdf.inference.schedule import Schedule, Slope
from bayesdf.inference.split import Split, depends_on_mode, split
from bayesdf.models.detector import Detector
from bayesdf.models.priors import describe

Augment = Callable[[Tensor, torch.Generator], Tensor]
CACHE_BYTES = 1 << 30
"""Features of the training images that are kept in memory between epochs; beyond it they go to a file."""
VALIDATION_DRAWS = 8
_AUGMENTED = 64  # images by which augmentations are told apart
_FIRST_STEPS, _WORTH_SAYING = 5, 10.0  # seconds that are said beforehand
EXPLODED = 1e3
"""A loss so many times as large as the hundred before, and as 1, has exploded."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """Settings of the loop, which every method has; the methods' classes extend it with their own.

    Parameters
    ----------
    epochs : int, optional
        Passes over the training images. Default: until the objective is flat, and at most ten passes or 6,000 steps,
        whichever is more (see `bayesdf.inference.schedule`).
    lr : float, optional
        Highest learning rate of Adam; it rises over the first twentieth of the steps, stays, and falls to zero along a
        cosine over the last 30 %. Default: for each parameter a fiftieth of how far it may have to go (see
        `bayesdf.inference.rates`).
    batch_size : int
        Images a step; batches of an epoch differ by one image at most.
    freeze : None, "prefix" or "all"
        What happens to weights without a prior. None: all are trained, together with the sites. ``prefix``: those
        before the first random operation stay as they are, and where nothing is augmented (or `views` are kept) they
        run only once (a view); those after are trained; batch normalisation keeps its running statistics everywhere, so
        that the loss is of the function that predicts. ``all``: only the sites are trained.
    class_balanced : bool
        Raise each image's likelihood to the power ``N / (K n_class)``. The powers average 1, so the data weighs
        against the prior as before.
    augment : callable, optional
        ``(images, torch.Generator) -> images`` on each batch of (B, 3, H, W), on the CPU.
    views : int, optional
        With `augment` and `freeze`: how many versions of each training image there are. Their features are computed
        once and kept, in memory or, beyond a gigabyte, in a temporary file, and epochs take turns with them. Default:
        every epoch sees new versions.
    patience : int, optional
        Stop after so many epochs without a lower validation NLL. With validation data the best epoch is restored in
        any case.
    seed, device, progress
        Seed of everything random (the caller's generators are left alone); ``auto``, ``cpu`` or ``cuda``; a bar.
    checkpoint : path, optional
        File in which every finished epoch is noted (methods of several phases write others beside it). The same call
        goes on from it, to the same posterior as if it had never been stopped; when all is done, the same call returns
        at once. `forget` deletes it, when the posterior is saved.
    """

    epochs: int | None = None
    lr: float | None = None
    batch_size: int = 32
    freeze: Literal["prefix", "all"] | None = None
    class_balanced: bool = True
    augment: Augment | None = None
    views: int | None = None
    patience: int | None = None
    seed: int = 0
    device: str = "auto"
    progress: bool = True
    checkpoint: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        check_numbers(self)
        who = type(self).__name__
        if self.epochs is not None and self.epochs < 0:
            raise BayesdfError(f"{who}: epochs is {self.epochs}, but must be at least 0, or None")
        if self.lr is not None and not self.lr > 0:
            raise BayesdfError(f"{who}: lr is {self.lr}, but must be above 0, or None")
        if self.batch_size < 1:
            raise BayesdfError(f"{who}: batch_size is {self.batch_size}, but must be at least 1")
        if self.freeze not in (None, "prefix", "all"):
            raise BayesdfError(f"{who}: freeze is {self.freeze!r}, but must be None, 'prefix' or 'all'")
        if self.views is not None and (self.views < 1 or self.freeze is None):
            raise BayesdfError(
                f"{who}: views is {self.views} with freeze {self.freeze!r}: give at least 1, with freeze 'prefix' or "
                "'all', or None"
            )
        if self.views is not None and self.augment is None:
            raise BayesdfError(f"{who}: views is {self.views}, but nothing is augmented: give augment too")
        if self.patience is not None and self.patience < 1:
            raise BayesdfError(f"{who}: patience is {self.patience}, but must be at least 1 epoch, or None")
        if self.seed < 0:
            raise BayesdfError(f"{who}: seed is {self.seed}, but must be at least 0")

    def forget(self) -> None:
        """Delete what `checkpoint` noted."""
        if self.checkpoint is not None:
            path = Path(self.checkpoint)
            path.unlink(missing_ok=True)
            for phase in path.parent.glob(f"{glob.escape(path.name)}.*"):
                if phase.suffix[1:].isdigit() and phase.is_file():
                    phase.unlink()

    def settings(self) -> dict[str, Any]:
        """All settings that the result depends on, as JSON knows them; functions and classes by name."""
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "checkpoint"}
        return {name: value if _is_json(value) else _name(value) for name, value in values.items()}


@dataclass
class Problem:
    """What is being fitted: a copy of the network, split at its random tensors, and the training data."""

    network: nn.Module
    parts: Split
    train: Dataset[Any]
    labels: Tensor
    validation: Dataset[Any] | None
    priors: dict[str, str]
    class_weights: Tensor
    example: tuple[Tensor, Tensor]
    device: torch.device
    settings: Training
    identity: Callable[[], bytes]
    """Tells images, priors and augmentation apart, by what they give."""
    kept: dict[tuple[int, int | None], list[tuple[Tensor, ...]] | None] = field(default_factory=dict)
    """Features of the frozen prefix, by views and, where they are augmented, seed: phases and members share them."""

    @property
    def size(self) -> int:
        """Number of training images."""
        return len(self.train)  # type: ignore[arg-type]

    @property
    def module(self) -> nn.Module:
        """What a batch runs through: the network, or its suffix where the prefix is frozen."""
        return self.network if self.settings.freeze is None else self.parts.suffix

    def trained(self, exclude: set[str]) -> dict[str, nn.Parameter]:
        """The parameters that are trained as point estimates."""
        if self.settings.freeze == "all":
            return {}
        return {name: value for name, value in self.module.named_parameters() if name not in exclude}


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

    def annealing(self, total: int) -> int:
        """Steps, of so many at most, in which the objective itself still changes."""
        return 0

    def stepped(self, step: int) -> None:
        """Called when a step has been made; the first is 0."""

    def state_dict(self) -> dict[str, Any]:
        """What `stepped` has gathered, for a checkpoint: tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""


@dataclass
class History:
    """What the loop saw."""

    loss: list[float] = field(default_factory=list)
    nll: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    best_epoch: int | None = None
    slope: Slope | None = None
    """What the objective would still gain; None where nothing was searched."""
    kept: tuple[int, int] | None = None
    """The epoch whose state was kept and the number of epochs, where that was before the rate fell."""
    advice: str = "raise epochs"
    """What to do where the search did not arrive."""

    def dataset(self, name: str, sign: float = 1.0) -> xr.Dataset:
        """As ``sample_stats``, the loss under the name a method gives it."""
        stats = xr.Dataset({name: ("step", sign * np.array(self.loss, dtype=np.float64))})
        if self.nll:
            stats["validation_nll"] = ("epoch", np.array(self.nll))
            stats["validation_accuracy"] = ("epoch", np.array(self.accuracy))
            stats.attrs["best_epoch"] = -1 if self.best_epoch is None else self.best_epoch
        return stats


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers from `seed` and a parameter store of its own; the caller's are as before afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), pyro.get_param_store().scope():
        torch.manual_seed(seed)
        yield


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def __call__(self) -> float:
        return time.perf_counter() - self._start


def pose(
    detector: Detector,
    settings: Training,
    train: Dataset[Any],
    validation: Dataset[Any] | None,
    random: Callable[[nn.Module, Tensor], list[str]] | None = None,
) -> Problem:
    """Check the data against the detector, copy the network, and split it.

    Parameters
    ----------
    random : callable, optional
        Given the copy and an image (1, 3, H, W): prepares the copy, and names the tensors that differ between draws.
        Default: the detector's sites, of which there must be some.
    """
    check_call(detector, train, validation)
    if random is None and not detector.sites:
        who = type(settings).__name__
        raise BayesdfError(f"{who}: the detector has no priors, so there is nothing to infer: give it some")
    labels = all_labels(train)
    if len(labels) == 0:
        raise BayesdfError("the training data is empty: check the path and the split")
    present = torch.unique(labels)
    classes = class_names(train, labels)
    if len(present) < 2:
        only = classes[int(present[0])]
        raise BayesdfError(f"all {len(labels)} training images are of class {only!r}: a detector needs at least two")
    if validation is not None and len(validation) == 0:  # type: ignore[arg-type]
        raise BayesdfError("the validation data is empty: check the split, or pass none")
    device = resolve_device(settings.device)
    images, example_labels = next(batches(train, 2, device, torch.arange(min(2, len(labels)))))
    detector.check_output(classes, images)
    network = place(detector.copy(images), device).eval()
    names = list(detector.sites) if random is None else random(network, images[:1])
    parts = split(network, names, images)
    if settings.freeze == "prefix" and not parts.traced:
        raise BayesdfError(
            "freeze='prefix' needs a network that torch.fx can trace: use freeze='all' or None, or rewrite the "
            f"network's forward without control flow that depends on the images ({parts.obstacle})"
        )
    if settings.freeze == "prefix" and depends_on_mode(network):
        warnings.warn(
            "the network's forward itself asks whether it is in training mode (as in F.dropout(x, p, self.training)), "
            "which freeze='prefix' settles as in evaluation: use modules (nn.Dropout), or another freeze",
            BayesdfWarning,
            stacklevel=3,
        )
    weights = class_weights(labels, len(classes)) if settings.class_balanced else torch.ones(len(classes))
    example = (images, example_labels)
    described = {pattern: describe(prior) for pattern, prior in detector.priors.items()}
    identity = functools.cache(lambda: _identity(detector, network, settings, train, validation, images))
    return Problem(
        network, parts, train, labels, validation, described, weights.to(device), example, device, settings, identity
    )


def _identity(
    detector: Detector,
    network: nn.Module,
    settings: Training,
    train: Dataset[Any],
    validation: Dataset[Any] | None,
    images: Tensor,
) -> bytes:
    """A digest of all images and labels, of the network's modules and output, of the priors, and of augmentation.

    Functions have no content that could be compared. Two priors, networks or augmentations of one name are told apart
    by what they give for fixed seeds, and by their code.
    """
    digest = hashlib.sha256()

    def add(*values: Tensor) -> None:
        for value in values:
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())

    for part in (train, validation):
        fingerprint = str(getattr(part, "fingerprint", "") or "")
        digest.update(f"{part is None} {fingerprint};".encode())
        if part is not None:
            add(all_labels(part))
        if part is not None and not fingerprint:
            for batch, _ in batches(part, 256, torch.device("cpu")):  # one at a time: all together may not fit
                add(batch)
    digest.update(f"{network}".encode())
    digest.update(repr([(name, tuple(value.shape)) for name, value in network.state_dict().items()]).encode())
    functions = [settings.augment, getattr(settings, "guide", None), *detector.sites.values()]
    digest.update(repr([_code(function) for function in functions]).encode())
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.random.fork_rng(devices), pyro.poutine.block(), torch.no_grad():
        torch.manual_seed(0)
        add(network(images))
        for _, site in pyro.poutine.trace(detector.sample).get_trace().iter_stochastic_nodes():
            add(site["value"], torch.as_tensor(site["fn"].log_prob(site["value"])))
        if settings.augment is not None:
            some = torch.arange(min(_AUGMENTED, len(train)))  # type: ignore[arg-type]
            batch = next(batches(train, _AUGMENTED, torch.device("cpu"), some))[0]
            add(*(settings.augment(batch, torch.Generator().manual_seed(seed)) for seed in range(2)))
    return digest.digest()


def _code(function: Any, depth: int = 3) -> Any:
    """What a function of the user's does, as far as its code and what it closes over tell."""
    function = getattr(function, "func", function) if isinstance(function, partial) else function
    code = getattr(function, "__code__", None)
    if code is None or depth == 0:
        return _name(function) if callable(function) else repr(function)[:200]
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    held = [_code(value, depth - 1) if callable(value) else repr(value)[:200] for value in cells]
    constants = [value for value in code.co_consts if isinstance(value, int | float | str | bytes | None)]
    return code.co_code, constants, code.co_names, held


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """``N / (K n_c)`` over the K classes present: all classes weigh the same, and the weights of all images add to
    N."""
    counts = torch.bincount(labels, minlength=classes).float()
    present = (counts > 0).sum()
    return torch.where(counts > 0, len(labels) / (present * counts.clamp_min(1)), 0.0)


class Diverged(BayesdfError):
    """The loss of a fit is no number any more, or has exploded.

    Attributes
    ----------
    history : History
        Up to the last good epoch.
    posterior : Posterior or None
        Made of the parameters after the last good epoch; by SGMCMC of the chains that were finished, or of the draws
        that the first one had gathered by then.
    """

    def __init__(self, message: str, history: History) -> None:
        super().__init__(message)
        self.history = history
        self.posterior: Any = None


@contextmanager
def rescuing(posterior: Callable[[History], Any]) -> Iterator[None]:
    """Give a `Diverged` that passes the posterior made of the last good state."""
    try:
        yield
    except Diverged as error:
        error.posterior = posterior(error.history)
        stats = error.posterior.sample_stats
        error.posterior.sample_stats = stats.assign_attrs(converged=0, verdict=f"NOT converged: {error}")
        raise


def minimise(problem: Problem, objective: Objective, *, phase: int = 0, epochs: int | None = None) -> History:
    """Take a method's steps, epoch after epoch; the best validated epoch is restored.

    Parameters
    ----------
    phase : int
        Where a method calls this several times: which of them this is, for the checkpoint.
    epochs
        In place of those of the settings. Validation belongs to the settings' own.

    Raises
    ------
    Diverged
        With the network and the method's parameters as they were after the last good epoch. What `stepped` has gathered
        since then stays.
    """
    settings, history = problem.settings, History()
    validated = problem.validation is not None and epochs is None
    batch_count = max(1, math.ceil(problem.size / settings.batch_size))
    groups = [group for group in objective.groups() if group["params"]]
    crossing = max((group["reach"] / group["lr"] for group in groups if "reach" in group), default=0.0)
    schedule = Schedule(settings.epochs if epochs is None else epochs, batch_count, problem.size, crossing)
    if not groups or schedule.total == 0:
        set_modes(problem, training=False)
        return history
    schedule.free = objective.annealing(schedule.total)
    optimiser, rates = objective.optimiser(groups, schedule)
    held_out = _HeldOut(problem)
    best: _Snapshot | None = None
    with bar(settings, schedule.total) as report:
        report("features of what stays as it is" if settings.freeze is not None else "", 0)
        feed = _Feed(problem, schedule.epochs, report)
        kept = None
        if settings.checkpoint is not None:
            path = Path(settings.checkpoint)
            path = path.with_name(f"{path.name}.{phase}") if phase else path
            kept = _Checkpoint(path, problem, groups, optimiser, rates, schedule, feed, history, objective)
        begun = 0
        if kept is not None:
            begun, best = kept.read()
        good = _Good(_Snapshot.of(problem, groups, math.inf, begun - 1), len(history.loss))
        report("", begun * batch_count)
        epoch = begun
        while epoch < schedule.epochs:
            set_modes(problem, training=True)
            nll = math.inf
            try:
                for inputs, labels in feed:
                    optimiser.zero_grad(set_to_none=True)
                    loss = objective.loss(problem.module, inputs, labels)
                    value = float(loss.detach())
                    _sound(value, "loss", history)
                    loss.backward()
                    optimiser.step()
                    rates.step()
                    objective.stepped(len(history.loss))
                    history.loss.append(value)
                    report(f"epoch {epoch + 1}, loss {value:.3f}", 1)
                if validated:
                    set_modes(problem, training=False)
                    nll, accuracy = _validate(problem, objective, held_out)
                    _sound(nll, "validation NLL", history)
                    history.nll.append(nll)
                    history.accuracy.append(accuracy)
                _sound(_size(groups), "sum of absolute weights", history)
            except _Unsound as unsound:
                raise good.rescue(unsound, problem, objective, groups, history, epoch, inputs) from None
            good = _Good(_Snapshot.of(problem, groups, nll, epoch), len(history.loss))
            if validated and (best is None or nll < best.nll):
                best = good.state
            stop = best is not None and settings.patience is not None and epoch - best.epoch >= settings.patience
            schedule.after_epoch(history.loss)
            epoch += 1
            if stop:
                schedule.epochs = epoch
            if kept is not None:
                kept.write(epoch, best)
            report.resize(schedule.total)
    history.slope = schedule.slope(history.loss)
    history.advice = _advice(problem, objective)
    if best is not None:
        best.restore(problem, groups)
        history.best_epoch = best.epoch
        if (best.epoch + 1) * batch_count < schedule.fall:
            history.kept = (best.epoch, schedule.epochs)
    set_modes(problem, training=False)
    return history


def _advice(problem: Problem, objective: Objective) -> str:
    """What to do where a search did not arrive, that was not done yet."""
    settings, sites = problem.settings, set(objective.sites())
    if settings.epochs is not None or settings.lr is not None:
        return "leave epochs and lr out, or raise epochs"
    if sites and problem.trained(exclude=sites):
        return "weights without a prior may drift without end: give them priors, or freeze='prefix'"
    return "raise batch_size, which lowers the noise, or give more epochs than this took"


class _Unsound(Exception):
    """What is wrong with a step."""


def _sound(value: float, name: str, history: History) -> None:
    if not math.isfinite(value):
        raise _Unsound(f"the {name} is {value}")
    before = max(map(abs, history.loss[-100:]), default=math.inf)
    if name == "loss" and abs(value) > EXPLODED * max(1.0, before):
        raise _Unsound(f"the {name} has exploded to {value:.3g} from {history.loss[-1]:.3g}")


def _size(groups: list[dict[str, Any]]) -> float:
    return sum(float(value.detach().abs().sum()) for group in groups for value in group["params"])


@dataclass
class _Good:
    """The state after the last epoch that was sound."""

    state: "_Snapshot"
    steps: int

    def rescue(
        self,
        unsound: _Unsound,
        problem: Problem,
        objective: Objective,
        groups: list[dict[str, Any]],
        history: History,
        epoch: int,
        inputs: tuple[Tensor, ...],
    ) -> Diverged:
        """The error to raise, once everything is as it was."""
        step, where = len(history.loss), _blame(problem, objective, inputs)
        self.state.restore(problem, groups)
        set_modes(problem, training=False)
        history.loss, history.nll, history.accuracy = (
            history.loss[: self.steps],
            history.nll[: self.state.epoch + 1],
            history.accuracy[: self.state.epoch + 1],
        )
        return Diverged(
            f"{type(problem.settings).__name__}: {unsound} at step {step} (epoch {epoch}), {where}: lower lr (or "
            "init_scale, swag_lr, step_size, where the method has it), or check the images and the priors' scales; "
            "what was fitted before this epoch is in the error's `posterior`",
            history,
        )


def _blame(problem: Problem, objective: Objective, inputs: tuple[Tensor, ...]) -> str:
    """Whether images, which site, or which weights without a prior are no numbers, or which have the largest ones."""
    if not all(bool(part.isfinite().all()) for part in inputs if isinstance(part, Tensor)):
        return "where images of the batch (or their features) are not finite"
    sites = objective.sites()
    own = {id(value) for values in sites.values() for value in values}
    weights = {name: [value] for name, value in problem.module.named_parameters() if id(value) not in own}
    for what, named in (("site", sites), ("weight", weights)):
        for name, values in named.items():
            if not all(bool(value.detach().isfinite().all()) for value in values):
                return f"where {what} {name} is not finite"
    if not sites:
        return "with all weights finite"
    furthest = max(sites, key=lambda name: max(float(value.detach().abs().max()) for value in sites[name]))
    largest = max(float(value.detach().abs().max()) for value in sites[furthest])
    return f"with all weights finite (the largest number, {largest:.3g}, is of site {furthest})"


class Report:
    """What moves a progress bar, and says once about how long a long piece of work takes."""

    def __init__(self, progress: Progress, method: str, total: int) -> None:
        self.progress, self.method, self.total = progress, method, total
        self.task = progress.add_task("", total=total, method=method, state="")
        self.made, self.since, self.told = 0, 0.0, False
        self.said: set[str] = set()

    def __call__(self, state: str, steps: int) -> None:
        """Show a state, and that so many more steps were made."""
        self.progress.update(self.task, advance=steps, state=state)
        if steps == 1 and not self.told:
            self._expect()

    def resize(self, total: int) -> None:
        """There will be so many steps in all."""
        if total != self.total:
            self.total = total
            self.progress.update(self.task, total=total)

    def _expect(self) -> None:
        """From the time of a few steps; the first ones take longer than others."""
        self.made += 1
        if self.made == _FIRST_STEPS:
            self.since = time.perf_counter()
        elapsed = time.perf_counter() - self.since
        if self.made > _FIRST_STEPS and (self.made >= 4 * _FIRST_STEPS or elapsed > 2):
            self.told = True
            self.expect(f"at most {self.total} steps", elapsed / (self.made - _FIRST_STEPS) * self.total)

    def expect(self, what: str, seconds: float) -> None:
        """Say once about how long something takes, if that is long."""
        if what not in self.said and seconds >= _WORTH_SAYING and not self.progress.disable:
            about = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
            self.progress.console.print(f"{self.method}: {what}, about {about}", highlight=False)
        self.said.add(what)


def set_modes(problem: Problem, training: bool) -> None:
    """Train mode for what is trained: all of the network, or its suffix; what is frozen stays in eval mode."""
    problem.network.eval()
    if training and problem.settings.freeze is None:
        problem.network.train()
    elif training and problem.settings.freeze == "prefix":
        problem.parts.suffix.train()
        # Normalisation by the batch would tie an image's likelihood to its neighbours, and be another function than the
        # one that predicts.
        for module in problem.parts.suffix.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


class _Feed:
    """Shuffled batches for one epoch after another, from features kept in memory where these do not change.

    What is kept is a list of views: without augmentation there is one, and with it as many as the settings say.
    """

    def __init__(self, problem: Problem, epochs: int, report: Report | None = None) -> None:
        self.problem, self.report = problem, report
        self.order = torch.Generator().manual_seed(problem.settings.seed)
        self.noise = torch.Generator().manual_seed(problem.settings.seed + 1)
        augment = problem.settings.augment
        self.augment = None if augment is None else lambda images: augment(images, self.noise)
        self.prefix = None if problem.settings.freeze is None else problem.parts.prefix
        self.epoch = 0
        self.kept: list[tuple[Tensor, ...]] | None = None
        views = problem.settings.views if problem.settings.augment is not None else 1
        if self.prefix is not None and views is not None:
            views = min(views, epochs)
            key = (views, None if augment is None else problem.settings.seed)
            if key not in problem.kept:
                problem.kept.clear()  # one set is enough room to take
                problem.kept[key] = self._keep(views)
            self.kept = problem.kept[key]
            self.labels = problem.labels.to(problem.device)

    def __iter__(self) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        problem, settings = self.problem, self.problem.settings
        order = torch.randperm(problem.size, generator=self.order)
        if self.kept is not None:
            features = self.kept[self.epoch % len(self.kept)]
            self.epoch += 1
            for part in order.to(problem.device).tensor_split(math.ceil(problem.size / settings.batch_size)):
                rows = part.to(features[0].device)
                yield tuple(feature[rows].to(problem.device) for feature in features), self.labels[part]
            return
        for images, labels in batches(problem.train, settings.batch_size, problem.device, order, self.augment):
            if self.prefix is None:
                yield (images,), labels
            else:
                with torch.no_grad():
                    features = self.prefix(images)
                yield features, labels

    def _keep(self, views: int) -> list[tuple[Tensor, ...]] | None:
        """The features of every training image in its order, a tuple a view; None where they take too much room.

        Beyond `CACHE_BYTES` they are in a temporary file, if the disk has twice the room; else the prefix runs again in
        every epoch.
        """
        problem, size = self.problem, self.problem.settings.batch_size
        assert self.prefix is not None
        set_modes(problem, training=False)
        kept: list[tuple[Tensor, ...]] = []
        clock = Clock()
        with torch.no_grad():
            for view in range(views):
                place = 0
                for images, _ in batches(problem.train, size, problem.device, None, self.augment):
                    features = self.prefix(images)
                    if self.report is not None and view == 0 and place > 0:
                        self.report.expect("features first", clock() * views * problem.size / (place + len(images)))
                    if not all(isinstance(part, Tensor) and len(part) == len(images) for part in features):
                        return None  # something besides a value an image crosses, such as a shape
                    if place == 0:
                        needed = sum(part[0].nbytes for part in features) * problem.size * views
                        on_disk = needed > CACHE_BYTES
                        free = shutil.disk_usage(tempfile.gettempdir()).free
                        if on_disk and free < 2 * needed:
                            if problem.settings.augment is not None:
                                warnings.warn(
                                    f"features of {views} views take {needed / 1e9:.1f} GB, and the disk has not twice "
                                    "that: every epoch sees new versions of the images instead",
                                    BayesdfWarning,
                                    stacklevel=2,
                                )
                            return None
                        kept.append(tuple(_room(part, problem.size, on_disk) for part in features))
                    for whole, part in zip(kept[-1], features, strict=True):
                        whole[place : place + len(images)] = part
                    place += len(images)
        return kept


def _room(feature: Tensor, size: int, on_disk: bool) -> Tensor:
    """An empty tensor for as many images, laid out as the feature (B, …) of a batch is; in memory, or in a file that is
    gone with it."""
    shape = (size, *feature.shape[1:])
    last = feature.dim() == 4 and feature.is_contiguous(memory_format=torch.channels_last)
    if not on_disk:
        layout = torch.channels_last if last else torch.contiguous_format
        return torch.empty(shape, dtype=feature.dtype, device=feature.device, memory_format=layout)
    with tempfile.NamedTemporaryFile() as file:
        flat = torch.from_file(file.name, shared=True, size=math.prod(shape), dtype=feature.dtype)
    if last:
        return flat.view(shape[0], shape[2], shape[3], shape[1]).permute(0, 3, 1, 2)
    return flat.view(shape)


class _HeldOut:
    """Features and labels of the validation images, kept between epochs where the prefix is frozen and they are few."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.kept: list[tuple[tuple[Tensor, ...], Tensor]] | None = None

    def __iter__(self) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        if self.kept is not None:
            yield from self.kept
            return
        problem, room = self.problem, CACHE_BYTES
        assert problem.validation is not None
        found = []
        for images, label in batches(problem.validation, 2 * problem.settings.batch_size, problem.device):
            features = problem.parts.prefix(images)
            yield features, label
            room -= sum(part.nbytes for part in features if isinstance(part, Tensor))
            if problem.settings.freeze is not None and room >= 0:
                found.append((features, label))
        if problem.settings.freeze is not None and room >= 0:
            self.kept = found


@dataclass
class _Snapshot:
    """The state after an epoch, and its validation NLL."""

    nll: float
    epoch: int
    network: dict[str, Tensor]
    own: list[Tensor]

    @classmethod
    def of(cls, problem: Problem, groups: list[dict[str, Any]], nll: float, epoch: int) -> Self:
        state = {name: value.clone() for name, value in problem.network.state_dict().items()}
        return cls(nll, epoch, state, [p.detach().clone() for group in groups for p in group["params"]])

    def restore(self, problem: Problem, groups: list[dict[str, Any]]) -> None:
        problem.network.load_state_dict(self.network)
        with torch.no_grad():
            for parameter, value in zip((p for group in groups for p in group["params"]), self.own, strict=True):
                parameter.copy_(value)


def noted(path: Path, key: str, device: torch.device, what: str) -> dict[str, Any] | None:
    """What a checkpoint of that key holds; None where there is no file."""
    clear_leftovers(path)
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        known = state["key"]
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, OSError) as error:
        raise BayesdfError(f"{path} is not a checkpoint of a {what} ({type(error).__name__}): delete it") from None
    if known != key:
        raise BayesdfError(f"{path} is of other data, settings or weights: delete it, or give another path")
    return state


def key_of(problem: Problem, own: Iterable[Tensor]) -> str:
    """What a fit's result depends on: settings, priors, images, labels, weights, and the method's own parameters."""
    settings = {**problem.settings.settings(), "progress": None}
    what = (__version__, type(problem.settings).__name__, settings, problem.priors)
    digest = hashlib.sha256(repr(what).encode())
    digest.update(problem.identity())
    for value in (problem.labels, *problem.example, *problem.network.state_dict().values(), *own):
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class _Checkpoint:
    """A file from which a fit that was stopped goes on after its last whole epoch, to the same result.

    It holds for the same settings, priors, labels, weights, images and augmentation (see `_identity`).
    """

    def __init__(
        self,
        path: Path,
        problem: Problem,
        groups: list[dict[str, Any]],
        optimiser: Optimizer,
        rates: LRScheduler,
        schedule: Schedule,
        feed: _Feed,
        history: History,
        objective: Objective,
    ) -> None:
        self.path = path
        self.parts: dict[str, Any] = {"network": problem.network, "optimiser": optimiser, "rates": rates}
        self.parts |= {"schedule": schedule, "objective": objective}
        self.own = [value for group in groups for value in group["params"]]
        self.feed, self.history, self.device = feed, history, problem.device
        self.key = key_of(problem, self.own)

    def write(self, epochs: int, best: _Snapshot | None) -> None:
        state = {
            "key": self.key,
            "epochs": epochs,
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "own": [value.detach() for value in self.own],
            "history": (self.history.loss, self.history.nll, self.history.accuracy),
            "best": None if best is None else (best.nll, best.epoch, best.network, best.own),
            "order": self.feed.order.get_state(),
            "noise": self.feed.noise.get_state(),
            "turn": self.feed.epoch,
            "global": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }
        with replacing(self.path) as beside:
            torch.save(state, beside)

    def read(self) -> tuple[int, _Snapshot | None]:
        """How many epochs are done, and the best of them; everything else is put where it was."""
        state = noted(self.path, self.key, self.device, "fit")
        if state is None:
            return 0, None
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        with torch.no_grad():
            for value, then in zip(self.own, state["own"], strict=True):
                value.copy_(then)
        self.history.loss, self.history.nll, self.history.accuracy = (list(values) for values in state["history"])
        self.feed.order.set_state(state["order"].cpu())
        self.feed.noise.set_state(state["noise"].cpu())
        self.feed.epoch = state["turn"]
        torch.set_rng_state(state["global"].cpu())
        if state["cuda"] is not None:
            torch.cuda.set_rng_state(state["cuda"].cpu(), self.device)
        return state["epochs"], None if state["best"] is None else _Snapshot(*state["best"])


@torch.no_grad()
def _validate(problem: Problem, objective: Objective, held_out: "_HeldOut") -> tuple[float, float]:
    """Class-balanced negative log-likelihood of the mean prediction, and balanced accuracy."""
    devices = [problem.device] if problem.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(problem.settings.seed)  # the same noise every epoch: epochs differ by their state alone
        own = {name for name, _ in problem.parts.suffix.named_parameters()}
        own |= {name for name, _ in problem.parts.suffix.named_buffers()}
        draws = [objective.draw() for _ in range(VALIDATION_DRAWS)]
        draws = [{name: value for name, value in draw.items() if name in own} for draw in draws]
    probabilities, labels = [], []
    for features, label in held_out:
        logits = torch.stack([functional_call(problem.parts.suffix, draw, features) for draw in draws])
        probabilities.append(logits.softmax(-1).mean(0))
        labels.append(label)
    probability, label = torch.cat(probabilities), torch.cat(labels)
    classes = probability.shape[1]
    weights = class_weights(label.cpu(), classes) if problem.settings.class_balanced else torch.ones(classes)
    weight = weights.to(label.device)[label]
    nll = -(weight * probability.gather(1, label[:, None])[:, 0].clamp_min(1e-12).log()).mean()
    accuracy = (weight * (probability.argmax(1) == label)).mean()
    return float(nll), float(accuracy)


@contextmanager
def bar(settings: Training, total: int) -> Iterator[Report]:
    """A progress bar of so many steps."""
    columns = (
        TextColumn("[bold]{task.fields[method]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[state]}"),
    )
    with Progress(*columns, disable=not settings.progress) as progress:
        yield Report(progress, type(settings).__name__, total)


def _is_json(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | list | tuple)


def _name(value: Any) -> str:
    if isinstance(value, partial):
        options = ", ".join(f"{name}={option!r}" for name, option in value.keywords.items())
        return f"{_name(value.func)}({options})"
    return getattr(value, "__qualname__", None) or type(value).__qualname__

"""The training loop that methods share: steps, validation, the best epoch, early stop.

A method brings an `Objective`: the loss of a batch, its own parameters, and draws to validate with.
"""

import math
from pathlib import Path
from typing import Any

from bayesdf.inference.training.checkpoint import Checkpoint, EpochState
from bayesdf.inference.training.divergence import LastGoodEpoch, UnusableValue, check_value, sum_of_weights
from bayesdf.inference.training.feature_cache import TrainingBatches, ValidationBatches
from bayesdf.inference.training.history import History
from bayesdf.inference.training.objective import Objective
from bayesdf.inference.training.problem import Problem, set_modes
from bayesdf.inference.training.progress import progress_bar
from bayesdf.inference.training.schedule import Schedule
from bayesdf.inference.training.validation import validate


def minimise(
    problem: Problem, objective: Objective, *, phase: int = 0, epochs: int | None = None, title: str = ""
) -> History:
    """Minimise a method's objective. At the end the epoch with the lowest validation NLL is restored.

    Parameters
    ----------
    phase : int
        The number of this call, where a method calls this several times. Each phase has its own checkpoint.
    epochs
        Replaces the epochs of the settings. There is then no validation.
    title
        What this call does, where a method calls this several times; for the progress bar.

    Raises
    ------
    Diverged
        The network and the method's parameters are then as they were after the last good epoch. What `end_of_step`
        has collected since then stays.
    """
    settings, history, said = problem.settings, History(), f"{title}: " if title else ""
    validated = problem.validation is not None and epochs is None
    batch_count = max(1, math.ceil(problem.size / settings.batch_size))
    groups = [group for group in objective.groups() if group["params"]]
    crossing = max((group["reach"] / group["lr"] for group in groups if "reach" in group), default=0.0)
    schedule = Schedule(settings.epochs if epochs is None else epochs, batch_count, problem.size, crossing)
    if not groups or schedule.total == 0:
        set_modes(problem, training=False)
        return history
    schedule.free = objective.annealing_steps(schedule.total)
    optimiser, rates = objective.optimiser(groups, schedule)
    validation = ValidationBatches(problem)
    best: EpochState | None = None
    with progress_bar(type(settings).__name__, schedule.total, settings.progress) as report:
        report("features of what stays as it is" if settings.freeze is not None else "", 0)
        train = TrainingBatches(problem, schedule.epochs, report)
        checkpoint = None
        if settings.checkpoint is not None:
            path = Path(settings.checkpoint)
            path = path.with_name(f"{path.name}.{phase}") if phase else path
            checkpoint = Checkpoint(path, problem, groups, optimiser, rates, schedule, train, history, objective)
        first = 0
        if checkpoint is not None:
            first, best = checkpoint.read()
        good = LastGoodEpoch(EpochState.copy_of(problem, groups, math.inf, first - 1), len(history.loss))
        report("", first * batch_count)
        epoch = first
        while epoch < schedule.epochs:
            set_modes(problem, training=True)
            nll = math.inf
            try:
                for inputs, labels in train:
                    optimiser.zero_grad(set_to_none=True)
                    loss = objective.loss(problem.module, inputs, labels)
                    value = float(loss.detach())
                    check_value(value, "loss", history)
                    loss.backward()
                    optimiser.step()
                    rates.step()
                    objective.end_of_step(len(history.loss))
                    history.loss.append(value)
                    report(f"{said}epoch {epoch + 1}, loss {value:.3f}", 1)
                if validated:
                    set_modes(problem, training=False)
                    nll, accuracy = validate(problem, objective, validation)
                    check_value(nll, "validation NLL", history)
                    history.nll.append(nll)
                    history.accuracy.append(accuracy)
                check_value(sum_of_weights(groups), "sum of absolute weights", history)
            except UnusableValue as unusable:
                raise good.restore(unusable, problem, objective, groups, history, epoch, inputs) from None
            good = LastGoodEpoch(EpochState.copy_of(problem, groups, nll, epoch), len(history.loss))
            if validated and (best is None or nll < best.nll):
                best = good.state
            stop = best is not None and settings.patience is not None and epoch - best.epoch >= settings.patience
            schedule.end_of_epoch(history.loss)
            epoch += 1
            if stop:
                schedule.epochs = epoch
            if checkpoint is not None:
                checkpoint.write(epoch, best)
            report.resize(schedule.total)
    history.slope = schedule.slope(history.loss)
    history.advice = _advice(problem, objective, groups)
    if best is not None:
        best.restore(problem, groups)
        history.best_epoch = best.epoch
        if (best.epoch + 1) * batch_count < schedule.fall:
            history.kept_epoch = (best.epoch, schedule.epochs)
    set_modes(problem, training=False)
    return history


def _advice(problem: Problem, objective: Objective, groups: list[dict[str, Any]]) -> str:
    """What to do where a search did not arrive: something that was not tried yet."""
    settings = problem.settings
    if settings.epochs is not None or settings.lr is not None:
        return "leave epochs and lr out, or raise epochs"
    moved = {id(value) for group in groups for value in group["params"]}
    if objective.sites() and any(id(value) in moved for value in problem.module.parameters()):
        return "weights without a prior may drift without end: give them priors, or freeze='prefix'"
    return "raise batch_size, which lowers the noise, or give more epochs than this took"

"""The progress bar of a fit, and how long it will take."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_FIRST_STEPS, _WORTH_SAYING = 5, 10.0  # seconds that are said beforehand


class ProgressReport:
    """Moves a progress bar, and says once about how long a long piece of work takes."""

    def __init__(self, progress: Progress, method: str, total: int) -> None:
        self.progress, self.method, self.total = progress, method, total
        self.task = progress.add_task("", total=total, method=method, state="")
        self.steps_made, self.since, self.estimated = 0, 0.0, False
        self.said: set[str] = set()

    def __call__(self, state: str, steps: int) -> None:
        """Show a state, and count `steps` more steps."""
        self.progress.update(self.task, advance=steps, state=state)
        if steps == 1 and not self.estimated:
            self._estimate()

    def resize(self, total: int) -> None:
        """Set the number of all steps."""
        if total != self.total:
            self.total = total
            self.progress.update(self.task, total=total)

    def _estimate(self) -> None:
        """Estimate the time of all steps from a few; the first steps take longer than others."""
        self.steps_made += 1
        if self.steps_made == _FIRST_STEPS:
            self.since = time.perf_counter()
        elapsed = time.perf_counter() - self.since
        if self.steps_made > _FIRST_STEPS and (self.steps_made >= 4 * _FIRST_STEPS or elapsed > 2):
            self.estimated = True
            self.announce(f"at most {self.total} steps", elapsed / (self.steps_made - _FIRST_STEPS) * self.total)

    def announce(self, what: str, seconds: float) -> None:
        """Say once how long something takes, if that is long."""
        if what not in self.said and seconds >= _WORTH_SAYING and not self.progress.disable:
            about = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
            self.progress.console.print(f"{self.method}: {what}, about {about}", highlight=False)
        self.said.add(what)


@contextmanager
def progress_bar(name: str, total: int, shown: bool = True) -> Iterator[ProgressReport]:
    """A progress bar of `total` steps, called by what takes them."""
    columns = (
        TextColumn("[bold]{task.fields[method]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[state]}"),
    )
    with Progress(*columns, disable=not shown) as progress:
        yield ProgressReport(progress, name, total)


class Clock:
    """A stopwatch: a call returns the seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def __call__(self) -> float:
        return time.perf_counter() - self._start

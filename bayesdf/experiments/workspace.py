"""A run: one execution of an experiment, in a folder that is complete or not there.

While an experiment works, its folder is called `<out>.partial`; the last step renames it. A run that was stopped is
taken up again by the same command. A command with other settings says what differs and leaves the stopped run alone.
"""

import contextlib
import fcntl
import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bayesdf.errors import BayesdfError, BayesdfWarning
from bayesdf.files import UNFINISHED, atomic_write
from bayesdf.store import METRICS, TREE

SETTINGS = "settings.json"
SHOWN = 3
"""How many settings that differ are named."""
_NONE = "none"


@contextlib.contextmanager
def workspace(out: Path) -> Iterator[Path]:
    """The folder to work in; on success it becomes `out`, on failure what was finished in it waits for the next try.

    No other process can work there meanwhile. What a stopped run left is taken over by `take_up`.

    Parameters
    ----------
    out
        Where the run shall lie. Must not exist, or be an empty folder.

    Raises
    ------
    BayesdfError
        If `out` holds something, cannot be written, or another process works on it.
    """
    out = out.resolve()
    partial = out.parent / f"{out.name}.partial"
    refuse_used(out)
    made = [folder for folder in out.parents if not folder.exists()]
    try:
        partial.mkdir(parents=True, exist_ok=True)
        lock = (partial / "lock").open("w")
    except OSError as error:
        raise BayesdfError(f"cannot write to {out}: {error.strerror or error}; choose another --out") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BayesdfError(f"another process is working on {out}: wait for it, or choose another --out") from None
        except OSError as error:
            said = f"files cannot be locked at {out} ({error.strerror}): start no second process with the same --out"
            warnings.warn(said, BayesdfWarning, stacklevel=3)
        try:
            yield partial
        except BaseException:
            if not _worth_keeping(partial):
                shutil.rmtree(partial, ignore_errors=True)
                for folder in made:
                    with contextlib.suppress(OSError):  # another run may be there by now
                        folder.rmdir()
            raise
        for leftover in list(partial.rglob(f".*{UNFINISHED}")):
            shutil.rmtree(leftover, ignore_errors=True)
            leftover.unlink(missing_ok=True)  # earlier versions left files
        if out.exists():
            out.rmdir()
        partial.rename(out)
        (out / "lock").unlink()


def take_up(folder: Path, settings: Mapping[str, Any], follows: Mapping[str, Any] | None = None) -> None:
    """Go on with what a stopped run of these settings left in a workspace, or begin there.

    Parameters
    ----------
    folder
        What `workspace` gave.
    settings
        What the results depend on, as JSON takes it.
    follows
        The same, as it follows from the settings, the data and the package. A message names it only where no setting
        differs.

    Raises
    ------
    BayesdfError
        If a run with other settings was stopped there: its work is kept, and the message says which settings differ
        and what to do.
    """
    text = json.dumps({**settings, **(follows or {})}, indent=2, sort_keys=True, default=str)
    note = folder / SETTINGS
    if note.is_file() and note.read_text() == text:
        return
    if _worth_keeping(folder):
        before = _read_settings(note)
        if before is None:
            raise BayesdfError(
                f"{folder}, where a run would work, holds other files and no readable {SETTINGS}: choose another --out"
            )
        differences = _differences(before, json.loads(text), follows or {})
        raise BayesdfError(
            f"{folder} holds the work of a stopped run with other settings ({differences}): give its settings to go on "
            "with it, another --out to keep it, or delete that folder to start over"
        )
    _empty(folder)
    note.write_text(text)


def note_attrs(out: Path, attrs: Mapping[str, Any]) -> None:
    """Note in a finished run what it was asked for beside its settings, such as methods and draws.

    While a run is not finished, these do not belong to the settings: its work serves another choice of them.
    """
    note = out / SETTINGS
    noted = json.loads(note.read_text())
    with atomic_write(note) as beside:
        beside.write_text(json.dumps({**noted, **attrs}, indent=2, sort_keys=True, default=str))


def refuse_used(out: Path) -> None:
    """Raise `BayesdfError` if there is something where a run shall be written."""
    if not out.exists():
        return
    if not out.is_dir():
        raise BayesdfError(f"--out {out} is a file: choose another --out")
    if (out / TREE).is_dir() and (out / METRICS).is_file():
        raise BayesdfError(f"{out} holds a run that has finished: open {out / 'report.html'}, or choose another --out")
    try:
        used = any(out.iterdir())
    except OSError as error:
        raise BayesdfError(f"cannot read {out}: {error.strerror or error}; choose another --out") from None
    if used:
        raise BayesdfError(f"{out} holds other files: choose another --out")


def _read_settings(note: Path) -> dict[str, Any] | None:
    """The settings that a stopped run noted; None where they cannot be read."""
    try:
        noted = json.loads(note.read_text())
    except (OSError, ValueError):
        return None
    return noted if isinstance(noted, dict) else None


def _differences(noted: Mapping[str, Any], given: Mapping[str, Any], follows: Mapping[str, Any]) -> str:
    """The settings that a stopped run noted and those of now, where they differ; what follows only where none does."""
    before, now = _flat(dict(noted)), _flat(dict(given))
    differ = [name for name in sorted({*before, *now}) if before.get(name, _NONE) != now.get(name, _NONE)]
    names = [name for name in differ if name.split(".")[0] not in follows] or differ
    shown = [f"{name}: {before.get(name, _NONE)} then, {now.get(name, _NONE)} now" for name in names[:SHOWN]]
    if len(names) > SHOWN:
        shown.append(f"and {len(names) - SHOWN} more")
    return "; ".join(shown)


def _flat(settings: Any, above: str = "") -> dict[str, str]:
    """Settings by their dotted names, each as JSON."""
    if not isinstance(settings, dict) or not settings:
        return {above: json.dumps(settings)}
    parts = (_flat(value, f"{above}.{name}" if above else name) for name, value in settings.items())
    return {name: value for part in parts for name, value in part.items()}


def _empty(folder: Path) -> None:
    for item in folder.iterdir():
        if item.name == "lock":
            continue
        if item.is_dir():
            shutil.rmtree(item)
        else:
            item.unlink()


def _worth_keeping(partial: Path) -> bool:
    return any(item.name not in ("lock", SETTINGS) and not item.name.startswith(".") for item in partial.iterdir())

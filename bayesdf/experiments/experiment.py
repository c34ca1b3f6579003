"""What does an experiment declare, and what does it get for that?

An experiment answers one question. It is a package of the same modules as its siblings:

- `__init__`: the first line of its docstring is the question, which `python -m bayesdf` lists;
- `__main__`: the command line. It checks the options and hands a `Study` to `conduct`;
- `study`: from settings to a `Study`. The work stands in its cells, and each cell makes a DataTree;
- `tables`, `figures`, `page`: from the DataTree of all cells to a `Presentation`.

For that `conduct` gives a folder that is complete or not there, cells that a stopped run does not do again, progress
with the time to go, the versions and settings in the store, the files of the run, and a closing summary.
"""

import hashlib
import json
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr

from bayesdf._version import versions
from bayesdf.cli import console
from bayesdf.errors import BayesdfError, BayesdfWarning
from bayesdf.experiments.outputs import announce, write_figures, write_metrics, write_tables
from bayesdf.experiments.workspace import note_attrs, take_up, workspace
from bayesdf.store import TREE, open_tree, write_tree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELLS = "cells"
"""The folder of finished cells in a run that is not finished."""
_KEY, _ORDER = "_bayesdf_cell", "_bayesdf_order"
"""Attributes of a finished cell's store."""


@dataclass(frozen=True)
class Cell:
    """A piece of work that needs no other: settings in, a DataTree out.

    Attributes
    ----------
    name
        Where its result stands in the run's DataTree, such as `svi` or `svi/0`.
    title
        What it does, as it is said on the screen.
    work
        Makes the result. It is given the run's folder, where it may keep what takes long under names of its own. All
        its randomness comes from seeds in its settings (see `bayesdf.experiments.seeds`), so that it gives the same
        result alone, after any other cell, or in another process.
    settings
        What the result depends on beside the settings of the study, as JSON takes it.
    """

    name: str
    title: str
    work: Callable[[Path], xr.DataTree]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parts = self.name.split("/")
        if any(part in ("", ".", "..") or len(part.encode()) > 200 or not part.isprintable() for part in parts):
            raise BayesdfError(
                f"a cell is named {self.name!r}: give printable names of at most 200 bytes with single slashes between"
            )

    @property
    def key(self) -> str:
        """A digest of its name and settings: a result with another key is of another cell."""
        try:
            text = json.dumps([self.name, self.settings], sort_keys=True)
        except TypeError as error:
            raise BayesdfError(f"cell {self.name}: its settings are not what JSON knows ({error})") from None
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Summary:
    """What is said on the screen when a run has finished.

    Attributes
    ----------
    title, columns, rows
        Of a table: text as printed. The first column holds labels.
    answer
        A sentence or two above the table.
    warnings
        What to know before believing it, a line each.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    answer: str = ""
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Presentation:
    """What a run shows.

    Attributes
    ----------
    metrics
        Flat names and their figures, for `metrics.json`.
    tables, figures
        By name, for `tables/<name>.csv` and `figures/<name>.png`.
    page
        Writes the report to a path. It is given the PNG bytes of the figures by name.
    summary
        For the screen.
    """

    metrics: Mapping[str, float | int | str | None]
    tables: Mapping[str, pd.DataFrame]
    figures: Mapping[str, "Figure"]
    page: Callable[[Path, Mapping[str, bytes]], object]
    summary: Summary


@dataclass(frozen=True)
class Study:
    """What an experiment declares.

    Attributes
    ----------
    name
        Of the experiment: that of its package.
    settings
        What all results depend on, as JSON takes it. A stopped run goes on only with the same settings.
    follows
        The same, as it follows from the settings, the data and the package: fingerprints and recipes.
    cells
        The work, in the order in which it is done.
    present
        Makes the presentation from the run's DataTree.
    collect
        Makes the run's DataTree from the results by the names of the cells. By default each is a group of its name.
    attrs
        Further attributes of the run's DataTree, beside versions, settings and seconds.
    scratch
        Names of files and folders in the run's folder that a finished run has no need of.
    """

    name: str
    settings: Mapping[str, Any]
    cells: Sequence[Cell]
    present: Callable[[xr.DataTree], Presentation]
    follows: Mapping[str, Any] = field(default_factory=dict)
    collect: Callable[[Mapping[str, xr.DataTree]], xr.DataTree] = xr.DataTree.from_dict
    attrs: Mapping[str, Any] = field(default_factory=dict)
    scratch: Sequence[str] = ()

    def __post_init__(self) -> None:
        names = [cell.name for cell in self.cells]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise BayesdfError(f"study {self.name}: two cells are named {twice[0]!r}: give each a name of its own")


def conduct(declare: Callable[[], Study], out: Path) -> None:
    """Do the work of a study and write its run.

    Parameters
    ----------
    declare
        Makes the study. It is called once the place of the run is free and taken, since it may load data.
    out
        The folder of the run: `run.zarr`, `metrics.json`, `tables/`, `figures/`, `report.html`, and what cells leave.

    Raises
    ------
    BayesdfError
        As `workspace` and `take_up` of `bayesdf.experiments.workspace`, and whatever the study finds wrong.
    """
    started = time.monotonic()
    out = out.resolve()
    with workspace(out) as folder:
        study = declare()
        take_up(folder, study.settings, study.follows)
        tree = study.collect(dict(_results(study.cells, folder)))
        console.print("[bold]tables, figures, report[/]")
        tree.attrs |= {**versions(), "experiment": study.name}
        tree.attrs |= {name: _plain(value) for name, value in {**study.settings, **study.attrs}.items()}
        tree.attrs["seconds"] = round(time.monotonic() - started, 1)
        write_tree(tree, folder / TREE, overwrite=True)
        shown = study.present(tree)
        for name in ("tables", "figures"):  # of a try with other cells
            _remove(folder / name)
        write_metrics(folder, shown.metrics)
        write_tables(folder, shown.tables)
        shown.page(folder / "report.html", write_figures(folder, shown.figures))
    # The run is whole now: a process killed here leaves more than it needs, and nothing half.
    note_attrs(out, study.attrs)
    for name in (CELLS, *study.scratch):
        _remove(out / name)
    summary = shown.summary
    if summary.answer:
        console.print(summary.answer, markup=False, highlight=False, soft_wrap=True)
    announce(summary.title, summary.columns, summary.rows, out, time.monotonic() - started)
    for line in summary.warnings:
        warnings.warn(line, BayesdfWarning, stacklevel=2)


def _results(cells: Sequence[Cell], folder: Path) -> Iterator[tuple[str, xr.DataTree]]:
    """Each cell's name and result, from the folder where a stopped run left it."""
    seconds: list[float] = []
    for number, cell in enumerate(cells, 1):
        left = sum(seconds) / len(seconds) * (len(cells) - number + 1) if seconds else 0.0
        to_go = f", about {left / 60:.0f} min to go" if left >= 60 else ""
        console.print(f"[bold]{number}/{len(cells)}[/] {cell.title}{to_go}", highlight=False)
        path = folder / CELLS / f"{cell.name}.zarr"
        made = _finished(path, cell)
        if made is None:
            start = time.monotonic()
            tree = _detached(cell.work(folder))
            # What is read from the disk is what goes on, so that a run that was stopped cannot differ.
            tree.attrs |= {
                _KEY: cell.key,
                _ORDER: json.dumps(
                    {node.path: list(node.to_dataset(inherit=False).variables) for node in tree.subtree}
                ),
            }
            path.parent.mkdir(parents=True, exist_ok=True)
            write_tree(tree, path, overwrite=True)
            made = _as_made(open_tree(path))
            seconds.append(time.monotonic() - start)
        assert made is not None  # it was read from where it was written just now
        yield cell.name, made


def _finished(path: Path, cell: Cell) -> xr.DataTree | None:
    """The result that a stopped run left; None where there is none, a damaged one, or one of other settings."""
    if not path.exists():
        return None
    try:
        tree = open_tree(path)
    except BayesdfError as error:
        console.print(f"    found in the stopped run, but damaged, so done again: {error}", markup=False)
        _remove(path)
        return None
    made = _as_made(tree) if tree.attrs.get(_KEY) == cell.key else None
    if made is not None:
        console.print("    found finished in the stopped run")
    return made


def _detached(tree: xr.DataTree) -> xr.DataTree:
    """The tree by itself, where it is a node of a larger one."""
    above = tree.path.rstrip("/")
    nodes = {node.path.removeprefix(above) or "/": node.to_dataset(inherit=node is tree) for node in tree.subtree}
    return xr.DataTree.from_dict(nodes)


def _as_made(tree: xr.DataTree) -> xr.DataTree | None:
    """The result with groups and variables in the order of the cell: a store gives them in any order.

    None where some of them are missing: a process may have been killed while it removed the store.
    """
    order = json.loads(tree.attrs.get(_ORDER, "{}"))
    nodes = {node.path: node.to_dataset(inherit=False) for node in tree.subtree}
    if not order or not all(path in nodes and {*names} <= {*nodes[path].variables} for path, names in order.items()):
        return None
    result = xr.DataTree.from_dict({path: nodes[path][names] for path, names in order.items()})
    del result.attrs[_KEY], result.attrs[_ORDER]
    return result


def _remove(path: Path) -> None:
    """Remove a file or a folder, where there is one."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _plain(value: Any) -> str:
    """A setting as an attribute: text."""
    return json.dumps(value) if isinstance(value, list | tuple) else str(value)

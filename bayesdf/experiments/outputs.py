"""How is what a run shows written, and said on the screen?"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from rich.table import Table

from bayesdf.cli import console
from bayesdf.store import METRICS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_metrics(folder: Path, metrics: Mapping[str, float | int | str | None]) -> None:
    """Write the flat table of named figures; one that is not defined (NaN) becomes null."""
    plain = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in metrics.items()
    }
    (folder / METRICS).write_text(json.dumps(plain, indent=2, sort_keys=True, allow_nan=False) + "\n")


def write_tables(folder: Path, tables: Mapping[str, pd.DataFrame]) -> None:
    """Write each table as `tables/<name>.csv`."""
    (folder / "tables").mkdir(exist_ok=True)
    for name, table in tables.items():
        table.to_csv(folder / "tables" / f"{name}.csv")


def write_figures(folder: Path, figures: Mapping[str, "Figure"]) -> dict[str, bytes]:
    """Write each figure as `figures/<name>.png`; returns what was written, so that a page need not draw it again."""
    from bayesdf.report.style import png

    (folder / "figures").mkdir(exist_ok=True)
    pictures = {name: png(figure) for name, figure in figures.items()}
    for name, picture in pictures.items():
        (folder / "figures" / f"{name}.png").write_bytes(picture)
    return pictures


def announce(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], out: Path, seconds: float) -> None:
    """Tell a reader in a hurry what came out, and where the rest is.

    Parameters
    ----------
    columns
        Names of the columns; the first, of the labels, stands left.
    """
    table = Table(title=title)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    text = f"finished in {seconds:.0f} s; open {out / 'report.html'}, or bayesdf.open_run({str(out)!r})"
    console.print(text, markup=False, highlight=False, soft_wrap=True)

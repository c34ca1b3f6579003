"""What does a run keep while it works, so that a stopped one goes on?"""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesdf.files import atomic_write

SCRATCH = "work"
"""The folder, in that of a run, of what a stopped run goes on from. A finished run has no need of it."""


def load_or_make(path: Path, make: Callable[[], dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Arrays from a file. Where it is missing or damaged they are made and written there."""
    if path.is_file():
        try:
            with np.load(path, allow_pickle=False) as file:
                return dict(file)
        except (OSError, ValueError, zipfile.BadZipFile, EOFError):
            path.unlink()
    arrays = make()
    with atomic_write(path) as beside, beside.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    return arrays

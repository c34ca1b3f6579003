"""What does a run keep while it works, so that a stopped one goes on?"""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesdf.files import replacing

WORK = "work"
"""What a stopped run goes on from; a finished one has no need of it."""


def kept(path: Path, make: Callable[[], dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Arrays from a file, made and written there if it is missing or damaged."""
    if path.is_file():
        try:
            with np.load(path, allow_pickle=False) as file:
                return dict(file)
        except (OSError, ValueError, zipfile.BadZipFile, EOFError):
            path.unlink()
    arrays = make()
    with replacing(path) as beside, beside.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    return arrays

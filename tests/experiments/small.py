"""The main job on a small folder, as a user would call it, and the embedded images thinned out."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bayesdf.data import embedded
from bayesdf.data.image_cache import Images

COMMAND = [sys.executable, "-m", "bayesdf.experiments.source_attribution"]
SMALL = ["--detector", "mobilenet", "--size", "32", "--warm-epochs", "1", "--epochs", "1", "--draws", "6"]


def execute(*arguments: str | Path, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=timeout)


def thin(monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    """Keep one in so many embedded images of each source and split: all of them take minutes."""
    read = embedded.read

    def some(*given: object) -> tuple[Images, pd.DataFrame]:
        images, manifest = read(*given)  # type: ignore[arg-type]
        kept = np.flatnonzero(manifest.groupby(["split", "source"]).cumcount() % every == 0)
        return images[kept], manifest.iloc[kept].reset_index(drop=True)

    monkeypatch.setattr(embedded, "read", some)

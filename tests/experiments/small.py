"""The main job on a small folder, as a user would call it, and the embedded images thinned out."""

import subprocess
import sys
from pathlib import Path

import pytest

from bayesdf import data

COMMAND = [sys.executable, "-m", "bayesdf.experiments.source_attribution"]
SMALL = ["--detector", "mobilenet", "--size", "32", "--warm-epochs", "1", "--epochs", "1", "--draws", "6"]


def execute(*arguments: str | Path, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=timeout)


def thin(monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    """Keep one in so many embedded images of each source and split: all of them take minutes."""
    load = data.load
    monkeypatch.setattr(data, "load", lambda *given, **options: data.thin(load(*given, **options), every))

"""The main job on a small folder, as a user would call it, and the embedded images thinned out."""

import subprocess
import sys
import warnings
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import pytest

from bayesdf import data
from bayesdf.cli import run_cli
from bayesdf.errors import BayesdfWarning

COMMAND = [sys.executable, "-m", "bayesdf.experiments.source_attribution"]
# A network of 0.1 million weights. Its 256 features are quickly put to classifiers too: their time grows with the cube.
SMALL = ["--detector", "test_efficientnet", "--size", "32", "--warm-epochs", "1", "--epochs", "1", "--draws", "6"]


def execute(*arguments: str | Path, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=timeout)


def run_here(*arguments: str | Path) -> str:
    """Run the command line in this process, which has imported all it needs. Returns what it says on standard error."""
    from bayesdf.experiments.source_attribution.__main__ import main  # slow to import, and few tests need it

    said = StringIO()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(), redirect_stderr(said):
        warnings.simplefilter("ignore", BayesdfWarning)
        patch.setattr("sys.argv", ["source_attribution", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            run_cli(main)
    assert left.value.code == 0, said.getvalue()
    return said.getvalue()


def thin(monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    """Keep one in so many embedded images of each source and split: all of them take minutes."""
    load = data.load
    monkeypatch.setattr(data, "load", lambda *given, **options: data.thin(load(*given, **options), every))

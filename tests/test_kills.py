"""Processes are killed at random moments: nothing is lost, half there or left over."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_nothing_is_lost_when_processes_are_killed(tmp_path: Path) -> None:
    """Two of each kind: at a random time and before a random call. By hand, `benchmarks/kills.py --kills 200`."""
    command = [sys.executable, ROOT / "benchmarks" / "kills.py", "--kills", "12", "--seed", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 kills, 0 failed" in done.stdout and not list(tmp_path.glob("kills-*"))

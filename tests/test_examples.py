"""Every example runs, and says what its text promises."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name: str) -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name],
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {"own_generator.py"}


@pytest.mark.slow
def test_own_generator() -> None:
    """Three sources, eight images each: nearly all named rightly."""
    right, total = run("own_generator.py").splitlines()[-1].split(" named")[0].split(" of ")
    assert int(total) == 24 and int(right) >= 22

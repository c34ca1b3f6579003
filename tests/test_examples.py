"""Every example runs, and says what its text promises."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {"own_generator.py"}


@pytest.mark.slow
def test_own_generator(capsys: pytest.CaptureFixture[str]) -> None:
    """Three sources, eight images each: nearly all named rightly."""
    runpy.run_path(str(EXAMPLES / "own_generator.py"), run_name="__main__")
    right, total = capsys.readouterr().out.splitlines()[-1].split(" named")[0].split(" of ")
    assert int(total) == 24 and int(right) >= 22

"""A small ledger."""

from pathlib import Path

import pytest

from bayesdf import ledger
from tests.ledger.toy import SECRET, TOY


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger of 11 samples in epochs of 4: records 1-3, 4-7 and 8-11 fill three epochs."""
    path = tmp_path / "toy.ledger"
    ledger.create(path, SECRET, TOY, epoch_size=4, epochs=8)
    for n in (1, 4, 6):
        ledger.draw(path, SECRET, TOY, n)
    return path

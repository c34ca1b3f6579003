"""A file is written whole or not at all."""

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

BESIDE = ".unfinished"
"""How the names of files end that a process which was killed may leave."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to: it becomes `path` when the block ends, and is gone if the block fails.

    The folder is made if need be.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}{BESIDE}")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)

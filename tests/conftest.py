"""What all tests share: a cache of their own, and few threads."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder that no earlier run has touched."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("BAYESDF_CACHE")
    os.environ["BAYESDF_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["BAYESDF_CACHE"]
    else:
        os.environ["BAYESDF_CACHE"] = before


# Matplotlib writes a font cache where it may.
os.environ.setdefault("MPLCONFIGDIR", tempfile.mkdtemp(prefix="matplotlib-"))

"""Images that went through the common path, kept in the cache as one array and one table.

A prepared set is a folder with `images.npy` (N, H, W, 3) uint8 and `manifest.csv`. It is written whole or not at all,
and read through a memory map.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayesdf.cache import cache_folder
from bayesdf.data.manifest import COLUMNS

Images = NDArray[np.uint8]


def prepared(key: str, make: Callable[[], tuple[Images, pd.DataFrame]]) -> tuple[Images, pd.DataFrame]:
    """The prepared set of that key, made by `make` if the cache does not hold it.

    Parameters
    ----------
    key
        A file name that changes whenever the content would.
    make
        Returns the images and their manifest.
    """
    folder = cache_folder("datasets") / key
    if folder.is_dir() and not _intact(folder):
        shutil.rmtree(folder)
    if not folder.is_dir():
        images, manifest = make()
        beside = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=folder.parent))
        try:
            np.save(beside / "images.npy", images, allow_pickle=False)
            manifest.to_csv(beside / "manifest.csv", index=False)
            (beside / "sha256").write_text(_digest(beside))
            _publish(beside, folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return _read(folder)


def _publish(beside: Path, folder: Path) -> None:
    try:
        beside.rename(folder)
    except OSError:
        # Another process was first; its content is the same.
        if not folder.is_dir():
            raise


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in ("images.npy", "manifest.csv"):
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _intact(folder: Path) -> bool:
    """Whether the files are those that were written; what was damaged is made anew."""
    try:
        return (folder / "sha256").read_text() == _digest(folder)
    except OSError:
        return False


def _read(folder: Path) -> tuple[Images, pd.DataFrame]:
    images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    manifest = pd.read_csv(
        folder / "manifest.csv", keep_default_na=False, dtype=dict.fromkeys(COLUMNS, str) | {"bytes": int}
    )
    return images, manifest

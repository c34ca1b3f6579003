"""How are images kept after the common path, so that they need not be read or made again?

A cached set is a folder with `images.npy` (N, H, W, 3) uint8, `manifest.csv`, and `masks.npy` (P, H, W) uint8, a mask
for each image that was changed in part (`bayesdf.data.masks`). It is written whole or not at all, and read through a
memory map.
"""

import contextlib
import fcntl
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayesdf import files
from bayesdf._version import __version__
from bayesdf.cache_folder import cache_folder
from bayesdf.cli import console
from bayesdf.data.manifest import COLUMNS
from bayesdf.data.masks import Masks

Images = NDArray[np.uint8]
Content = tuple[Images, pd.DataFrame, Masks]
FORMAT = 2
"""Format of cached sets. Raise it when readers make other images or columns from the same files within a version."""


def cached_images(key: str, make: Callable[[], Content]) -> Content:
    """The cached set of that key. If the cache does not hold it, `make` makes it.

    Processes that need the same set at the same time wait for the first of them.

    Parameters
    ----------
    key
        A file name that changes whenever the content would. It need not name the version of the package.
    make
        Returns the images, their manifest, and the masks of those that were changed in part.
    """
    folder = cache_folder("datasets") / f"{key}-{__version__}-{FORMAT}"
    files.clear_leftovers(folder)
    if not _intact(folder):
        with _exclusive_lock(folder):
            if not _intact(folder):
                _write(folder, *make())
    elif _lock(folder).exists():
        with contextlib.suppress(OSError), _exclusive_lock(folder):
            pass  # its holder was killed, or is about to remove it
    return _read(folder)


def _write(folder: Path, images: Images, manifest: pd.DataFrame, masks: Masks) -> None:
    with files.staging_folder(folder) as beside:
        new = beside / files.NEW
        new.mkdir()
        np.save(new / "images.npy", images, allow_pickle=False)
        np.save(new / "masks.npy", masks, allow_pickle=False)
        manifest.to_csv(new / "manifest.csv", index=False)
        (new / "sha256").write_text(_digest(new))
        # A damaged set is replaced in one step and never removed first: another process may be reading it.
        files.replace_folder(beside, folder, lambda _: True)


@contextlib.contextmanager
def _exclusive_lock(folder: Path) -> Iterator[None]:
    """Wait for other processes that make the same set, then hold its lock for this block."""
    path = _lock(folder)
    while True:
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                console.print("waiting for another process, which is making the same images")
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError:
                pass  # this disk has no locks: the set may be made twice
            if files.same_file(lock, path):
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                return


def _lock(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in ("images.npy", "manifest.csv", "masks.npy"):
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _intact(folder: Path) -> bool:
    """Whether the files are those that were written. A damaged set is made again."""
    try:
        return (folder / "sha256").read_text() == _digest(folder)
    except OSError:
        return False


def _read(folder: Path) -> Content:
    images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    masks = np.load(folder / "masks.npy", mmap_mode="r", allow_pickle=False)
    manifest = pd.read_csv(
        folder / "manifest.csv", keep_default_na=False, dtype=dict.fromkeys(COLUMNS, str) | {"bytes": int}
    )
    return images, manifest, masks

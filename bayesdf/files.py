"""A file or a folder is written whole or not at all, at whatever moment its writer is killed.

A writer works in a folder of its own beside the path (`staging_folder`). The folder is named
``.<name>.<8 digits>.unfinished`` and is locked as long as its process lives. One call of the operating system gives the
finished file or folder its name. The next writer of the same path removes what killed processes left.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

UNFINISHED = ".unfinished"
"""The end of the names of folders that a killed process may leave."""
LOCK, NEW, OLD = "lock", "new", "old"
"""Names in a staging folder: its lock, the folder that will get the name, and the folder that had the name before."""
_NOREPLACE, _EXCHANGE = 1, 2  # flags of renameat2 (linux/fs.h)


@contextlib.contextmanager
def atomic_write(path: Path, new: bool = False) -> Iterator[Path]:
    """A path beside `path` to write a file to. It becomes `path` when the block ends, and is removed if that fails.

    The parent folder is created if necessary.

    Parameters
    ----------
    new
        Whether `path` must still be free when the block ends.

    Raises
    ------
    FileExistsError
        `new` is set, and something has that name.
    """
    with staging_folder(path) as folder:
        beside = folder / f"{NEW}{path.suffix}"
        yield beside
        if new:
            rename_exclusive(beside, path)
        else:
            beside.replace(path)


@contextlib.contextmanager
def staging_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path` for this block alone. It is removed when the block ends.

    First, what killed processes left beside the same path is removed. The parent folder is created if necessary.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(path)
    folder, lock = _claim(path)
    with lock:
        try:
            yield folder
        finally:
            _finish(folder, path)


def clear_leftovers(path: Path) -> bool:
    """Remove what killed writers of `path` left. A folder that had lost its name `path` to one of them gets it back.

    If something else has the name by then, that folder is kept as ``<name>.<8 digits>``. The staging folder of a
    running process stays as it is. So does every staging folder where files cannot be locked.

    Returns
    -------
    bool
        Whether a running process is exchanging the folder at `path` at this moment.
    """
    pattern = re.compile(re.escape(f".{path.name}.") + r"[0-9a-f]{8}" + re.escape(UNFINISHED))
    busy = False
    try:
        found = [entry.name for entry in os.scandir(path.parent) if pattern.fullmatch(entry.name)]
    except OSError:
        return False
    for folder in (path.parent / name for name in found):
        try:
            lock = (folder / LOCK).open("r+")
        except FileNotFoundError:
            with contextlib.suppress(OSError):
                folder.rmdir()  # its maker was killed before it made the lock, or now makes another folder
            continue
        except OSError:
            continue
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                busy |= _exchanging(folder)
            except OSError:
                _undo(folder, path)  # its writer may still run; then it exchanges the folders once more
            else:
                if same_file(lock, folder / LOCK):
                    _finish(folder, path)
    return busy


def rename_exclusive(new: Path, path: Path) -> None:
    """Give `new` the name `path`, if nothing has that name.

    Raises
    ------
    FileExistsError
        Something has it.
    """
    try:
        _renameat2(new, path, _NOREPLACE)
        return
    except FileExistsError:
        raise
    except OSError:
        pass  # not known to this system; any other error will be raised below
    if not new.is_dir():
        try:
            os.link(new, path)
        except FileExistsError:
            raise
        except OSError:  # no links either
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
            new.rename(path)
        else:
            new.unlink()
        return
    try:
        new.rename(path)  # replaces an empty folder at most
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        raise


def replace_folder(folder: Path, path: Path, replaceable: Callable[[Path], bool]) -> None:
    """Give the folder `new` in a staging folder the name `path`. What had that name goes to the staging folder.

    Where the system can exchange names (Linux's renameat2), the name always belongs to one of the two. Elsewhere the
    name is free for an instant. A process killed then leaves both in the staging folder, and `clear_leftovers` gives
    the old one its name back.

    Parameters
    ----------
    folder
        From `staging_folder(path)`.
    replaceable
        Whether what is found at `path` may be replaced.

    Raises
    ------
    FileExistsError
        It may not.
    """
    new, old = folder / NEW, folder / OLD
    taken = FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    while True:
        with contextlib.suppress(FileExistsError):
            rename_exclusive(new, path)
            return
        if os.path.lexists(path) and not replaceable(path):
            raise taken
        try:
            _renameat2(new, path, _EXCHANGE)
        except FileNotFoundError:
            continue
        except OSError:
            pass
        else:
            if not replaceable(new):  # it appeared after the check above
                try:
                    _renameat2(new, path, _EXCHANGE)
                except OSError:
                    _give_back(new, path)
                raise taken
            return
        with contextlib.suppress(FileNotFoundError):
            old.rename(folder / secrets.token_hex(4))  # of the previous attempt: another writer was faster
        try:
            path.rename(old)
        except FileNotFoundError:
            continue
        if not replaceable(old):
            _give_back(old, path)
            raise taken


def same_file(stream: IO[Any], path: Path) -> bool:
    """Whether the open file is the one that has this name now."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _claim(path: Path) -> tuple[Path, IO[str]]:
    """A new folder, and the open file that locks it.

    Before the lock exists, another process may take the folder for a leftover. Then a new folder is made.
    """
    while True:
        folder = path.with_name(f".{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
        with contextlib.suppress(FileExistsError, FileNotFoundError):
            folder.mkdir()
            lock = (folder / LOCK).open("x")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                continue
            except OSError:
                return folder, lock  # no locks here, so no other process removes it either
            if same_file(lock, folder / LOCK):
                return folder, lock
            lock.close()


def _exchanging(folder: Path) -> bool:
    """Whether an exchange is half done: the old folder has lost its name, and the new one does not have it yet."""
    return os.path.lexists(folder / OLD) and os.path.lexists(folder / NEW)


def _undo(folder: Path, path: Path) -> bool:
    """Undo an exchange that is half done. True if the staging folder then holds nothing that must be kept."""
    try:
        if _exchanging(folder):
            _give_back(folder / OLD, path)
    except OSError:
        return False
    return True


def _give_back(old: Path, path: Path) -> None:
    """Give `old` its name `path` back, or a similar name if something else has that name now."""
    try:
        rename_exclusive(old, path)
    except FileExistsError:
        old.rename(path.with_name(f"{path.name}.{secrets.token_hex(4)}"))


def _finish(folder: Path, path: Path) -> None:
    """Remove a staging folder, its lock last. A process killed here leaves what the next writer recognises."""
    if not _undo(folder, path):
        return  # it holds the only copy until `clear_leftovers` can give it back
    with contextlib.suppress(OSError):
        for item in sorted(folder.iterdir(), key=lambda item: (item.name == LOCK, item.name)):  # NEW before OLD
            if item.is_dir() and not item.is_symlink():
                shutil.rmtree(item)
            else:
                item.unlink()
        folder.rmdir()


def _renameat2(source: Path, target: Path, flag: int) -> None:
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    here = -100  # AT_FDCWD
    if call(here, os.fsencode(source), here, os.fsencode(target), flag):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))

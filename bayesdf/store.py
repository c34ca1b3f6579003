"""How are DataTrees written to disk whole or not at all, and read without running any code of the file's author?

Stores are Zarr of format 2, since the fixed-length strings of format 3 have no specification yet. They are not
compressed. Draws and weights are noise, which Blosc makes only 6 % smaller. And xarray cannot write compressed arrays
of format 2 to a store of format 3, its default.

``write_tree`` writes beside the target and then gives the whole store its name in one step. A process that is killed
leaves the old store or the new one. That does not hold for a power cut: nothing waits for the disk. ``open_tree``
refuses pickled objects, codecs outside a short list, a store that takes more memory than it should, and a store with
missing chunks, which Zarr itself would fill with zeros.
"""

import itertools
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bayesdf import files
from bayesdf.errors import BayesdfError
from bayesdf.zarr_files import write_files

TREE, METRICS = "run.zarr", "metrics.json"
"""What a finished run holds in its folder: results for xarray, and figures by flat names."""
SIZE_LIMIT = 16 << 30
"""Bytes that a store may unpack to. A few kilobytes on disk can claim terabytes."""
_CODECS = {None, "blosc", "zstd"}  # numcodecs ids; the compressed ones are what earlier versions wrote
_WIDER = {"scale_factor", "add_offset", "_FillValue", "missing_value", "units", "dtype"}
"""Attributes by which xarray turns small numbers into wider ones."""
_OBJECT = 64  # bytes of a Python string or bytes object, beside its characters


def write_tree(tree: xr.DataTree, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Write a DataTree to a Zarr store, whole or not at all.

    Parameters
    ----------
    tree : xr.DataTree
        Object columns are written as strings. Anything else that is not a number, a boolean, a date or a string is
        refused.
    path : path
        The store, a folder that must not exist yet.
    overwrite : bool
        Replace an existing *store* (never another kind of folder) once the new one is complete.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    BayesdfError
        The path is taken, or the tree holds something that would need pickle.
    """
    target = Path(path).resolve()  # a link stays a link
    files.clear_leftovers(target)
    if target.exists():
        _refuse(target, overwrite)
    plain = xr.DataTree.from_dict({node.path: _plain(node.to_dataset(inherit=False)) for node in tree.subtree})
    with files.staging_folder(target) as beside:
        new = beside / files.NEW
        write_files(plain, new)
        try:
            if overwrite:
                files.replace_folder(beside, target, is_store)
            else:
                files.rename_exclusive(new, target)
        except FileExistsError:  # it has appeared since the check above
            _refuse(target, overwrite)
            raise
    return Path(path)


def _refuse(path: Path, overwrite: bool) -> None:
    """Raise an error that says why the existing path is not replaced."""
    if not overwrite:
        raise BayesdfError(f"{path} exists already: choose another path, or pass overwrite=True to replace it")
    if not is_store(path):
        raise BayesdfError(f"{path} exists and is not a Zarr store, so it is not replaced: choose another path")


def open_tree(path: str | os.PathLike[str]) -> xr.DataTree:
    """Read a DataTree that `write_tree` wrote, into memory.

    It removes what killed writers left beside the store. The tree can be written again, by `write_tree` or by xarray's
    own `to_zarr`. So can a tree from ``xr.open_datatree(path, engine="zarr")``. Older stores are compressed. xarray
    needs ``to_zarr(other, zarr_format=2)`` to write these again.

    Raises
    ------
    BayesdfError
        The store is missing, damaged, too large, or holds objects or codecs that could run code.
    """
    path = Path(path)
    while True:
        _recover(path)
        if not path.exists():
            raise BayesdfError(f"{path} does not exist: give the path of a Zarr store written by bayesdf")
        if not is_store(path):
            raise BayesdfError(f"{path} is not a Zarr store written by bayesdf (no .zgroup in it)")
        before = _identity(path)
        failure = None
        try:
            _check(path)
            tree = xr.open_datatree(path, engine="zarr", consolidated=False).load()
        except Exception as error:  # zarr, numcodecs and xarray raise some fifteen types on damaged stores
            failure = error
        if _identity(path) != before:  # replaced meanwhile: the tree may be a mixture of both
            continue
        if isinstance(failure, BayesdfError):
            raise failure
        if failure is not None:
            cause = " ".join(str(failure).split())[:200]
            raise BayesdfError(
                f"{path} cannot be read ({type(failure).__name__}: {cause}): write it again"
            ) from failure
        plain = {node.path: node.to_dataset(inherit=False).drop_encoding() for node in tree.subtree}
        return xr.DataTree.from_dict(plain, name=tree.name)


def open_run(path: str | Path) -> xr.DataTree:
    """The DataTree of a finished run: a group for each method, which holds the ArviZ groups.

    Parameters
    ----------
    path
        The run's folder, as given to `--out`.

    Raises
    ------
    BayesdfError
        There is no finished run.
    """
    folder = Path(path)
    if not (folder / TREE).is_dir():
        started = (folder.parent / f"{folder.name}.partial").is_dir()
        hint = "it was started but not finished: run the same command again" if started else "give a run's folder"
        raise BayesdfError(f"no finished run at {folder}: {hint}")
    return open_tree(folder / TREE)


def _recover(path: Path) -> None:
    """Remove what killed writers left. Wait for a running writer that leaves the name free for an instant."""
    for _ in range(20):
        if not files.clear_leftovers(path.resolve()) or path.exists():
            return
        time.sleep(0.05)


def _identity(path: Path) -> tuple[int, ...]:
    """Numbers that differ between a store and the store that replaced it."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return ()
    return found.st_dev, found.st_ino, found.st_ctime_ns


def is_store(path: str | os.PathLike[str]) -> bool:
    """Whether the path is a Zarr group of format 2."""
    return (Path(path) / ".zgroup").is_file()


def _plain(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset with object and variable-length strings as fixed-length ones, and without inherited encoding."""
    fixed = {}
    for name, variable in dataset.variables.items():
        if variable.dtype.kind == "O" or isinstance(variable.dtype, np.dtypes.StringDType):
            fixed[name] = (variable.dims, _strings(str(name), variable.values), variable.attrs)
        elif variable.dtype.kind not in "biufcUSmM":
            raise BayesdfError(f"variable {name!r} has dtype {variable.dtype}, which a store cannot keep")
    coords = {name: value for name, value in fixed.items() if name in dataset.coords}
    return dataset.assign(fixed).set_coords(list(coords)).drop_encoding()


def _strings(name: str, values: np.ndarray) -> np.ndarray:
    strings = ["" if _missing(value) else value for value in values.ravel()]
    for value in strings:
        if not isinstance(value, str):
            raise BayesdfError(
                f"variable {name!r} holds objects of type {type(value).__name__}, which a store cannot "
                "keep without pickle: convert it to numbers or strings"
            )
    return np.array(strings, dtype=np.str_).reshape(values.shape)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _check(path: Path) -> None:
    """Refuse links, pickles, unknown codecs, missing chunks and stores too large, before anything is unpacked."""
    for parent, names, leaves in os.walk(path):
        for entry in (Path(parent) / name for name in (*names, *leaves)):
            if entry.is_symlink():
                raise BayesdfError(f"{entry} is a link: a store must hold all it is made of")
    for file in path.rglob("zarr.json"):
        raise BayesdfError(f"{file} belongs to a Zarr store of format 3, which bayesdf does not write: convert it")
    total = 0
    for folder, metadata in _arrays(path):
        name = folder.relative_to(path)
        dtype = np.dtype(metadata["dtype"]) if isinstance(metadata["dtype"], str) else None
        if dtype is None or dtype.kind not in "biufcUSmM":
            raise BayesdfError(f"{path}: array {name} has dtype {metadata['dtype']}: objects are refused")
        codec = (metadata.get("compressor") or {}).get("id")
        for used in (codec, *(part.get("id") for part in metadata.get("filters") or [])):
            if used not in _CODECS:
                raise BayesdfError(f"{path}: array {name} uses codec {used!r}, which is refused")
        if metadata.get("filters"):
            raise BayesdfError(f"{path}: array {name} has filters, which bayesdf does not write: convert it")
        shape, chunk = metadata["shape"], metadata["chunks"]
        if any(type(size) is not int or size < 0 for size in shape) or any(
            type(size) is not int or size < 1 for size in chunk
        ):
            raise BayesdfError(f"{path} is damaged: array {name} has shape {shape} and chunks {chunk}: write it again")
        grid = [math.ceil(size / part) for size, part in zip(shape, chunk, strict=True)]
        size = math.prod(chunk) * dtype.itemsize  # of a chunk, which is whole at the edges too
        total += math.prod(grid) * size + math.prod(shape) * _decoded(dtype, metadata, folder)
        if total > SIZE_LIMIT or size > SIZE_LIMIT:
            raise BayesdfError(
                f"{path} unpacks to more than {SIZE_LIMIT / 2**30:.0f} GiB: read it with xarray in parts"
            )
        present = sum(not file.name.startswith(".") for file in folder.iterdir())
        if math.prod(grid) > present:  # checked before the loop over the grid, which a file could make huge
            raise BayesdfError(
                f"{path} is damaged: array {name} has {present} of {math.prod(grid)} chunks: write it again"
            )
        separator = metadata.get("dimension_separator", ".")
        for index in itertools.product(*map(range, grid)):
            key = separator.join(map(str, index)) if index else "0"
            if not (folder / key).is_file():
                raise BayesdfError(f"{path} is damaged: chunk {key} of array {name} is missing: write it again")
            if not _unpacks_to(folder / key, codec, size):
                raise BayesdfError(
                    f"{path} is damaged: chunk {key} of array {name} does not unpack to the {size} bytes that it "
                    "should: write it again"
                )


def _decoded(dtype: np.dtype[Any], metadata: dict[str, Any], folder: Path) -> int:
    """Bytes that xarray may use for one element, besides those it is stored in."""
    attrs = json.loads((folder / ".zattrs").read_text()) if (folder / ".zattrs").is_file() else {}
    if dtype.kind == "S" and "_Encoding" in attrs:
        return _OBJECT + dtype.itemsize
    masked = dtype.kind in "biu" and metadata.get("fill_value") is not None
    return 8 if dtype.kind in "biuf" and (masked or _WIDER & set(attrs)) else 0


def _unpacks_to(file: Path, codec: str | None, size: int) -> bool:
    """Whether a chunk unpacks to exactly that many bytes, or with zstd to at most that many."""
    stored = file.stat().st_size
    if codec is None:
        return stored == size
    if codec == "blosc":  # a header of 16 bytes, as blosc.h has it: nbytes and cbytes are its second and fourth words
        with file.open("rb") as stream:
            header = np.frombuffer(stream.read(16), "<u4")
        return header.size == 4 and (int(header[1]), int(header[3])) == (size, stored)
    from numcodecs import Zstd

    out = np.empty(size, np.uint8)
    try:
        return Zstd().decode(file.read_bytes(), out=out) is not None
    except (RuntimeError, ValueError):
        return False


def _arrays(path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for file in sorted(path.rglob(".zarray")):
        yield file.parent, json.loads(file.read_text())

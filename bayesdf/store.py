"""DataTrees on disk: written whole or not at all, and read without running any code of the file's author.

Stores are Zarr (format 2: the fixed-length strings of format 3 have no specification yet). ``write_tree`` writes
beside the target and renames, so a run that is killed leaves no half-written store behind under the final name.
``open_tree`` refuses pickled objects and codecs outside a short list, and a store with chunks missing: Zarr itself
would fill these with zeros.
"""

import itertools
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from bayesdf.errors import BayesdfError

SIZE_LIMIT = 16 << 30
"""Bytes that a store may unpack to; a few kilobytes on disk can claim terabytes."""
_CODECS = {"blosc", "zstd", "lz4", "zlib", "gzip", "shuffle"}  # numcodecs ids that decode bytes to bytes


def write_tree(tree: xr.DataTree, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Write a DataTree to a Zarr store, whole or not at all.

    Parameters
    ----------
    tree : xr.DataTree
        Object columns are written as strings; anything else that is not a number, a boolean, a date or a string is
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
    path = Path(path)
    if path.exists():
        if not overwrite:
            raise BayesdfError(f"{path} exists already: choose another path, or pass overwrite=True to replace it")
        if not is_store(path):
            raise BayesdfError(f"{path} exists and is not a Zarr store, so it is not replaced: choose another path")
    plain = xr.DataTree.from_dict({node.path: _plain(node.to_dataset(inherit=False)) for node in tree.subtree})
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        new = beside / "new"
        # Chunks of the fill value alone are written too: a missing chunk then always means a damaged store.
        with zarr.config.set({"array.write_empty_chunks": True}):
            plain.to_zarr(new, mode="w", zarr_format=2, consolidated=False)
        zarr.consolidate_metadata(new, zarr_format=2)  # once: xarray would after every group
        if path.exists():
            path.rename(beside / "old")
        new.rename(path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return path


def open_tree(path: str | os.PathLike[str]) -> xr.DataTree:
    """Read a DataTree that `write_tree` wrote, into memory.

    Raises
    ------
    BayesdfError
        The store is missing, damaged, or holds objects or codecs that could run code.
    """
    path = Path(path)
    if not path.exists():
        raise BayesdfError(f"{path} does not exist: give the path of a Zarr store written by bayesdf")
    if not is_store(path):
        raise BayesdfError(f"{path} is not a Zarr store written by bayesdf (no .zgroup in it)")
    try:
        _check(path)
        return xr.open_datatree(path, engine="zarr", consolidated=False).load()
    except BayesdfError:
        raise
    except Exception as error:  # zarr, numcodecs and xarray raise some fifteen types on damaged stores
        cause = " ".join(str(error).split())[:200]
        raise BayesdfError(f"{path} cannot be read ({type(error).__name__}: {cause}): write it again") from error


def is_store(path: str | os.PathLike[str]) -> bool:
    """Whether the path is a Zarr group of format 2."""
    return (Path(path) / ".zgroup").is_file()


def _plain(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset with object and variable-length strings as fixed-length ones, and no inherited encoding."""
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
    """Refuse links, pickles, unknown codecs, missing chunks and stores too large, from the metadata alone."""
    for parent, names, leaves in os.walk(path):
        for entry in (Path(parent) / name for name in (*names, *leaves)):
            if entry.is_symlink():
                raise BayesdfError(f"{entry} is a link: a store must hold all it is made of")
    total = 0
    for file in path.rglob("zarr.json"):
        raise BayesdfError(f"{file} belongs to a Zarr store of format 3, which bayesdf does not write: convert it")
    for folder, metadata in _arrays(path):
        name = folder.relative_to(path)
        dtype = np.dtype(metadata["dtype"]) if isinstance(metadata["dtype"], str) else None
        if dtype is None or dtype.kind not in "biufcUSmM":
            raise BayesdfError(f"{path}: array {name} has dtype {metadata['dtype']}: objects are refused")
        total += math.prod(metadata["shape"]) * dtype.itemsize
        if total > SIZE_LIMIT:
            raise BayesdfError(
                f"{path} unpacks to more than {SIZE_LIMIT / 2**30:.0f} GiB: read it with xarray in parts"
            )
        codecs = [metadata.get("compressor"), *(metadata.get("filters") or [])]
        for codec in codecs:
            if codec is not None and codec.get("id") not in _CODECS:
                raise BayesdfError(f"{path}: array {name} uses codec {codec.get('id')!r}, which is refused")
        grid = [math.ceil(size / chunk) for size, chunk in zip(metadata["shape"], metadata["chunks"], strict=True)]
        separator = metadata.get("dimension_separator", ".")
        present = sum(not file.name.startswith(".") for file in folder.iterdir())
        if math.prod(grid) > present:  # said before the grid, which the file could make huge, is walked
            raise BayesdfError(
                f"{path} is damaged: array {name} has {present} of {math.prod(grid)} chunks: write it again"
            )
        for index in itertools.product(*map(range, grid)):
            key = separator.join(map(str, index)) if index else "0"
            if not (folder / key).is_file():
                raise BayesdfError(f"{path} is damaged: chunk {key} of array {name} is missing: write it again")


def _arrays(path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for file in sorted(path.rglob(".zarray")):
        yield file.parent, json.loads(file.read_text())

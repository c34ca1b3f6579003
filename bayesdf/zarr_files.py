"""How is a DataTree laid out as files of Zarr format 2?

A group is a folder with `.zgroup`, and an array is a folder with `.zarray` and a file of raw bytes for each chunk. Both
have attributes in `.zattrs` [1]. Names of dimensions stand among the attributes of an array [2], and all metadata stand
once more in `.zmetadata` of the root, as Zarr consolidates them.

The files are written here, since `DataTree.to_zarr` takes some 10 ms of a core for an array, and a run has hundreds of
small ones. What they hold is what `to_zarr` writes without compression, except for the chunks of large arrays. The
values are encoded by xarray.

References
----------
1. https://zarr-specs.readthedocs.io/en/latest/v2/v2.0.html
2. https://docs.xarray.dev/en/stable/internals/zarr-encoding-spec.html
"""

import json
import math
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.conventions import encode_cf_variable, encode_dataset_coordinates

from bayesdf.errors import BayesdfError

CHUNK_BYTES = 32 << 20
"""The size of a chunk at most, so that a part of a large array can be read by itself."""


def write_files(tree: xr.DataTree, folder: Path) -> None:
    """Write a tree of numbers, booleans, dates and fixed-length strings to a new folder.

    Raises
    ------
    BayesdfError
        A variable has a name that no folder can have.
    """
    metadata: dict[str, Any] = {}
    for node in tree.subtree:
        below = node.path.strip("/")
        (folder / below).mkdir(parents=True, exist_ok=True)
        variables, attrs = encode_dataset_coordinates(node.to_dataset(inherit=False))
        metadata |= _describe(folder, below, ".zgroup", {"zarr_format": 2}, attrs)
        for name, variable in variables.items():
            text = str(name)
            if text in ("", ".", "..") or text.startswith(".z"):
                raise BayesdfError(f"variable {text!r} has a name that no folder of a store can have: rename it")
            path = f"{below}/{text}".lstrip("/")
            (folder / path).mkdir()
            # xarray would make integers of booleans, which Zarr can keep.
            encoded = variable if variable.dtype.kind == "b" else encode_cf_variable(variable, name=name)
            metadata |= _write_array(folder, path, encoded)
    _write_json(folder / ".zmetadata", {"metadata": metadata, "zarr_consolidated_format": 1})


def _write_array(folder: Path, path: str, variable: xr.Variable) -> dict[str, Any]:
    """Write an encoded variable. Returns its metadata by the names of their files."""
    values, attrs = np.asarray(variable.values), dict(variable.attrs)
    chunks = _chunks(values)
    layout = {
        "shape": values.shape,
        "chunks": chunks,
        "dtype": values.dtype.str,
        "fill_value": _fill_value(attrs.pop("_FillValue", None)),
        "order": "C",
        "filters": None,
        "dimension_separator": ".",
        "compressor": None,
        "zarr_format": 2,
    }
    grid = [range(0, size, part) for size, part in zip(values.shape, chunks, strict=True)]
    for start in product(*grid):
        index = [begin // part for begin, part in zip(start, chunks, strict=True)]
        block = values[tuple(slice(begin, begin + part) for begin, part in zip(start, chunks, strict=True))]
        if block.shape != chunks:  # at the edges: chunks are whole in the file
            whole = np.zeros(chunks, values.dtype)
            whole[tuple(map(slice, block.shape))] = block
            block = whole
        (folder / path / (".".join(map(str, index)) or "0")).write_bytes(block.tobytes())
    return _describe(folder, path, ".zarray", layout, {**attrs, "_ARRAY_DIMENSIONS": variable.dims})


def _chunks(values: NDArray) -> tuple[int, ...]:
    """The shape of its chunks: the whole array, its longest axis halved until a chunk is small enough."""
    shape = [max(size, 1) for size in values.shape]
    while math.prod(shape) * values.dtype.itemsize > CHUNK_BYTES and max(shape, default=1) > 1:
        longest = shape.index(max(shape))
        shape[longest] = math.ceil(shape[longest] / 2)
    return tuple(shape)


def _fill_value(value: Any) -> Any:
    """What stands for a missing number, as JSON takes it."""
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, float) and not math.isfinite(plain):
        return "NaN" if math.isnan(plain) else "Infinity" if plain > 0 else "-Infinity"
    return plain


def _describe(folder: Path, path: str, file: str, layout: dict[str, Any], attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Write the metadata of a group or an array. Returns them by the names of their files, for the root."""
    array = np.ndarray | np.generic
    plain = {name: value.tolist() if isinstance(value, array) else value for name, value in attrs.items()}
    found = {f"{path}/{name}".lstrip("/"): given for name, given in ((file, layout), (".zattrs", plain))}
    for name, given in found.items():
        _write_json(folder / name, given)
    return found


def _write_json(path: Path, given: Mapping[str, Any]) -> None:
    try:
        path.write_text(json.dumps(given))
    except TypeError as error:
        raise BayesdfError(f"{path.parent.name}: an attribute is not what JSON knows ({error})") from None

"""A tree's files are those that xarray and Zarr write."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from bayesdf import zarr_files
from bayesdf.errors import BayesdfError
from bayesdf.zarr_files import write_files


def every_kind() -> xr.DataTree:
    """Variables of all kinds of values, sizes and orders that a store can keep, with coordinates and attributes."""
    columns = {
        "whole": np.array([3, 4], "u1"),
        "real": np.array([1.0, np.nan]),
        "half": np.array([1.0, 2.0], "f2"),
        "other byte order": np.array([1.0, 2.0], ">f4"),
        "complex": np.array([1 + 2j, 3]),
        "flag": np.array([True, False]),
        "text": np.array(["größe", ""]),
        "bytes": np.array([b"ab", b"c"]),
        "empty text": np.array(["", ""]),
        "date": np.array(["2020-01-01", "NaT"], "M8[ns]"),
        "time": np.array([1, 2], "m8[s]"),
    }
    variables: dict[str, Any] = {name: ("x", values) for name, values in columns.items()}
    variables |= {
        "one": ((), 3.0),
        "nothing": ("y", np.zeros(0)),
        "columns first": (("x", "z"), np.asfortranarray(np.arange(6.0).reshape(2, 3))),
        "reversed": ("z", np.arange(3)[::-1]),
        "missing": ("x", np.array([1.0, np.nan]), {"_FillValue": -np.inf}),
        "missing number": ("x", np.array([1, 3]), {"_FillValue": np.int64(3)}),
    }
    coords: dict[str, Any] = {"x": [1, 2], "name": ("x", ["a", "b"]), "lone": ("w", [1, 2, 3])}
    attrs = {"array": np.arange(3), "number": np.float32(2.5), "list": [1, "x"], "none": None}
    dataset = xr.Dataset(variables, coords, attrs)
    return xr.DataTree.from_dict({"/": dataset, "/group/below": dataset, "/empty": xr.Dataset()})


def files(folder: Path) -> dict[str, Any]:
    """What a store's files hold by their paths: bytes, or what JSON says."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    is_json = {name: path.name.startswith(".z") for name, path in found.items()}
    return {name: json.loads(path.read_text()) if is_json[name] else path.read_bytes() for name, path in found.items()}


def test_the_files_are_those_of_xarray(tmp_path: Path) -> None:
    tree = every_kind()
    encoding = {
        node.path: {name: {"compressors": None} for name in node.to_dataset(inherit=False).variables}
        for node in tree.subtree
    }
    with zarr.config.set({"array.write_empty_chunks": True}):
        tree.to_zarr(tmp_path / "xarray", zarr_format=2, consolidated=False, encoding=encoding)
    write_files(tree, tmp_path / "own")
    own = files(tmp_path / "own")
    consolidated = own.pop(".zmetadata")
    assert own == files(tmp_path / "xarray") and len(own) > 100
    assert consolidated["metadata"] == {name: own[name] for name in own if Path(name).name.startswith(".z")}


@pytest.mark.parametrize("consolidated", [True, False])
def test_xarray_reads_them(tmp_path: Path, consolidated: bool) -> None:
    tree = every_kind()
    write_files(tree, tmp_path / "a.zarr")
    with xr.open_datatree(tmp_path / "a.zarr", engine="zarr", consolidated=consolidated) as read:
        found = read.load()
    for node in tree.subtree:
        expected = node.to_dataset().drop_vars(["missing number"], errors="ignore")  # it is read as a real number
        xr.testing.assert_equal(found[node.path].to_dataset()[list(expected.variables)], expected)


@pytest.mark.parametrize("shape", [(1000,), (1, 7, 99), (3, 1, 333), (50, 20)])
def test_a_large_array_is_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]) -> None:
    monkeypatch.setattr(zarr_files, "CHUNK_BYTES", 1000)
    values = np.random.default_rng(0).normal(size=shape)
    dims = [f"dim_{axis}" for axis in range(len(shape))]
    write_files(xr.DataTree(xr.Dataset({"values": (dims, values)})), tmp_path / "a.zarr")
    chunks = [path for path in (tmp_path / "a.zarr" / "values").iterdir() if not path.name.startswith(".")]
    assert len(chunks) > 5 and all(path.stat().st_size <= 1000 for path in chunks)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a.zarr" / "values", mode="r")[:], values)


@pytest.mark.parametrize("name", ["..", ".zattrs"])
def test_a_name_that_no_folder_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BayesdfError, match="has a name that no folder of a store can have"):
        write_files(xr.DataTree(xr.Dataset({name: 1.0})), tmp_path / "a.zarr")


def test_an_attribute_that_json_does_not_know_is_named(tmp_path: Path) -> None:
    with pytest.raises(BayesdfError, match=r"an attribute is not what JSON knows .*set"):
        write_files(xr.DataTree(xr.Dataset(attrs={"odd": {1, 2}})), tmp_path / "a.zarr")

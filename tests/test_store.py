"""Stores are written whole or not at all, and reading one runs nothing."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from bayesdf.errors import BayesdfError
from bayesdf.store import open_tree, write_tree


def tree():
    table = pd.DataFrame({"source": ["real", "vae", "größe"], "subject": ["s1", None, "s2"]})
    return xr.DataTree.from_dict(
        {
            "/": xr.Dataset(attrs={"method": "SVI", "seed": 1}),
            "/posterior_predictive": xr.Dataset(
                {"logits": (("image", "class"), np.arange(6, dtype=np.float32).reshape(3, 2))},
                {"class": ["real", "fake"], "image": [0, 1, 2]},
            ),
            "/constant_data": xr.Dataset(
                {
                    "source": ("image", table["source"].to_numpy(dtype=object)),
                    "subject": ("image", table["subject"].to_numpy(dtype=object)),
                    "text": ("image", np.array(["a", "bc", ""], dtype=np.dtypes.StringDType())),
                    "zeros": ("image", np.zeros(3)),
                    "flag": ("image", np.array([True, False, True])),
                },
                {"name": ("image", np.array(["x", "y", "z"], dtype=object))},
            ),
            "/empty": xr.Dataset(),
        }
    )


def test_round_trip_without_a_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_tree(tree(), tmp_path / "a.zarr")
        read = open_tree(tmp_path / "a.zarr")
    assert read.attrs == {"method": "SVI", "seed": 1}
    assert set(read.children) == {"posterior_predictive", "constant_data", "empty"}
    logits = read["posterior_predictive/logits"]
    assert logits.dtype == np.float32 and logits.values.tolist() == [[0, 1], [2, 3], [4, 5]]
    data = read["constant_data"].to_dataset()
    assert data["source"].values.tolist() == ["real", "vae", "größe"]
    assert data["subject"].values.tolist() == ["s1", "", "s2"]
    assert data["text"].values.tolist() == ["a", "bc", ""]
    assert data["name"].values.tolist() == ["x", "y", "z"] and "name" in data.coords
    assert data["flag"].dtype == bool and data["zeros"].values.tolist() == [0, 0, 0]


def test_a_read_tree_can_be_written_again(tmp_path):
    write_tree(tree(), tmp_path / "a.zarr")
    write_tree(open_tree(tmp_path / "a.zarr"), tmp_path / "b.zarr")
    assert open_tree(tmp_path / "b.zarr").identical(open_tree(tmp_path / "a.zarr"))


def test_an_existing_path_is_refused_unless_it_is_a_store_to_overwrite(tmp_path):
    path = tmp_path / "a.zarr"
    write_tree(tree(), path)
    with pytest.raises(BayesdfError, match="exists already"):
        write_tree(tree(), path)
    new = xr.DataTree.from_dict({"/": xr.Dataset(attrs={"new": 1})})
    write_tree(new, path, overwrite=True)
    assert open_tree(path).attrs == {"new": 1} and not open_tree(path).children
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "keep.txt").write_text("precious")
    with pytest.raises(BayesdfError, match="not a Zarr store"):
        write_tree(tree(), tmp_path / "folder", overwrite=True)
    assert (tmp_path / "folder" / "keep.txt").read_text() == "precious"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_half_written_stays(tmp_path, monkeypatch, error):
    write_tree(tree(), tmp_path / "old.zarr")

    def broken(self, store, **kwargs):
        store.mkdir()
        (store / ".zgroup").write_text("{}")
        raise error("disk full")

    monkeypatch.setattr(xr.DataTree, "to_zarr", broken)
    for name in ("new.zarr", "old.zarr"):
        with pytest.raises(error):
            write_tree(tree(), tmp_path / name, overwrite=True)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["old.zarr"]
    assert open_tree(tmp_path / "old.zarr").attrs["method"] == "SVI"


def test_objects_are_refused(tmp_path):
    bad = xr.DataTree.from_dict({"/g": xr.Dataset({"x": ("i", np.array([{"a": 1}], dtype=object))})})
    with pytest.raises(BayesdfError, match="'x' holds objects of type dict"):
        write_tree(bad, tmp_path / "a.zarr")
    assert not list(tmp_path.iterdir())


def test_missing_or_not_a_store(tmp_path):
    with pytest.raises(BayesdfError, match="does not exist"):
        open_tree(tmp_path / "none.zarr")
    with pytest.raises(BayesdfError, match="not a Zarr store"):
        open_tree(tmp_path)


def _metadata(path, **changes):
    file = path / "posterior_predictive" / "logits" / ".zarray"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def _truncate(path):
    chunk = path / "posterior_predictive" / "logits" / "0.0"
    chunk.write_bytes(chunk.read_bytes()[:5])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, "cannot be read"),
        (lambda path: (path / "constant_data" / "zeros" / "0").unlink(), r"zeros has 0 of 1 chunks"),
        (
            lambda path: (path / "constant_data" / "zeros" / "0").rename(path / "constant_data" / "zeros" / "1"),
            "chunk 0 ",
        ),
        (lambda path: (path / "constant_data" / "zeros" / ".zarray").write_text("{"), "cannot be read"),
        (lambda path: _metadata(path, dtype="|O"), "objects are refused"),
        (
            lambda path: _metadata(path, filters=[{"id": "pickle", "protocol": 5}]),
            "'pickle', which is refused",
        ),
        (lambda path: _metadata(path, compressor={"id": "msgpack2"}), "'msgpack2', which is refused"),
        (lambda path: _metadata(path, shape=[300000000, 2]), "has 1 of 100000000 chunks"),
        (lambda path: _metadata(path, shape=[3000000000000, 2]), "unpacks to more than 16 GiB"),
        (lambda path: (path / "constant_data" / "link").symlink_to("/"), "is a link"),
        (lambda path: (path / "constant_data" / "zarr.json").write_text("{}"), "format 3"),
    ],
)
def test_damaged_and_untrusted_stores(tmp_path, damage, message):
    path = write_tree(tree(), tmp_path / "a.zarr")
    damage(path)
    with pytest.raises(BayesdfError, match=message):
        open_tree(path)

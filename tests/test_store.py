"""Stores are written whole or not at all, and reading one runs nothing."""

import errno
import json
import shutil
import struct
import warnings
from pathlib import Path

import numcodecs
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from bayesdf import files, store
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


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_tree(tree(), tmp_path_factory.mktemp("written") / "a.zarr")


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


@pytest.fixture(params=["exchange", "two renames"])
def system(request, monkeypatch):
    """Linux, and a system or a disk that cannot exchange two names."""
    if request.param == "two renames":

        def unknown(*_):
            raise OSError(errno.ENOSYS, "Function not implemented")

        monkeypatch.setattr(files, "_renameat2", unknown)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_appears_while_a_store_is_written_stays(tmp_path, monkeypatch, system, overwrite):
    path, write = tmp_path / "a.zarr", store.write_files

    def slow(*args):
        write(*args)
        path.mkdir()
        (path / "keep.txt").write_text("precious")

    monkeypatch.setattr(store, "write_files", slow)
    with pytest.raises(BayesdfError, match="not a Zarr store" if overwrite else "exists already"):
        write_tree(tree(), path, overwrite)
    assert names(tmp_path) == ["a.zarr"] and (path / "keep.txt").read_text() == "precious"


def test_two_writers_at_once_both_write_whole(tmp_path, monkeypatch, system):
    path, write = tmp_path / "a.zarr", store.write_files

    def slow(*args):
        write(*args)
        monkeypatch.setattr(store, "write_files", write)
        write_tree(xr.DataTree(xr.Dataset(attrs={"writer": 2})), path, overwrite=True)

    monkeypatch.setattr(store, "write_files", slow)
    write_tree(xr.DataTree(xr.Dataset(attrs={"writer": 1})), path, overwrite=True)
    assert names(tmp_path) == ["a.zarr"] and open_tree(path).attrs == {"writer": 1}


@pytest.mark.parametrize("failures", [1, 2])
def test_the_old_store_outlives_renames_that_fail(tmp_path, monkeypatch, failures):
    """Without an exchange: the second rename fails, or that and the one that should undo the first."""
    path, rename = write_tree(tree(), tmp_path / "a.zarr"), files.rename_exclusive
    failed = []

    def fails(new, to):
        if not path.exists() and len(failed) < failures:
            failed.append(new)
            raise OSError(errno.EIO, "Input/output error")
        rename(new, to)

    with monkeypatch.context() as patched:
        patched.setattr(files, "_renameat2", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSYS, "")))
        patched.setattr(files, "rename_exclusive", fails)
        with pytest.raises(OSError, match="Input/output"):
            write_tree(xr.DataTree(xr.Dataset(attrs={"new": 1})), path, overwrite=True)
    assert len(failed) == failures and path.exists() == (failures == 1)
    assert open_tree(path).attrs["method"] == "SVI" and names(tmp_path) == ["a.zarr"]


@pytest.mark.parametrize("use", ["open_tree", "write_tree"])
def test_a_process_killed_between_two_renames_loses_nothing(tmp_path, use):
    path = write_tree(tree(), tmp_path / "a.zarr")
    beside = tmp_path / ".a.zarr.0123abcd.unfinished"
    beside.mkdir()
    (beside / "lock").touch()
    write_tree(xr.DataTree(xr.Dataset(attrs={"new": 1})), beside / "new")
    path.rename(beside / "old")
    if use == "write_tree":
        with pytest.raises(BayesdfError, match="exists already"):
            write_tree(tree(), path)
    assert open_tree(path).attrs["method"] == "SVI" and names(tmp_path) == ["a.zarr"]


def test_what_lost_its_name_is_kept_if_the_name_is_taken(tmp_path):
    path = write_tree(tree(), tmp_path / "a.zarr")
    beside = tmp_path / ".a.zarr.0123abcd.unfinished"
    (beside / "new").mkdir(parents=True)
    (beside / "lock").touch()
    path.rename(beside / "old")
    path.mkdir()
    (path / "keep.txt").write_text("precious")
    with pytest.raises(BayesdfError, match="not a Zarr store"):
        write_tree(tree(), path, overwrite=True)
    (kept,) = (item for item in tmp_path.iterdir() if item != path)
    assert open_tree(kept).attrs["method"] == "SVI" and (path / "keep.txt").read_text() == "precious"


def test_what_comes_in_the_instant_before_an_exchange_gets_its_name_back(tmp_path, monkeypatch, system):
    path, seen = write_tree(tree(), tmp_path / "a.zarr"), []

    def replaceable(folder):
        """A store when it is looked at first; then a folder of somebody's is there."""
        seen.append(folder)
        if len(seen) == 1:
            path.rename(tmp_path / "moved.zarr")
            path.mkdir()
            (path / "keep.txt").write_text("precious")
            return True
        return store.is_store(folder)

    with pytest.raises(FileExistsError), files.staging_folder(path) as beside:
        (beside / "new").mkdir()
        files.replace_folder(beside, path, replaceable)
    assert names(tmp_path) == ["a.zarr", "moved.zarr"] and (path / "keep.txt").read_text() == "precious"


def test_a_store_that_is_replaced_while_it_is_read_is_read_again(tmp_path, monkeypatch, system):
    path, read = write_tree(tree(), tmp_path / "a.zarr"), xr.open_datatree
    other = tree()
    other.attrs["seed"] = 2
    other["posterior_predictive"]["logits"] += 100

    def slow(*args, **kwargs):
        opened = read(*args, **kwargs)  # and its arrays are still to be read
        monkeypatch.setattr(xr, "open_datatree", read)
        write_tree(other, path, overwrite=True)
        return opened

    monkeypatch.setattr(xr, "open_datatree", slow)
    found = open_tree(path)
    assert found.attrs["seed"] == 2 and found["posterior_predictive/logits"].values.min() == 100


def test_a_link_to_a_store_stays_a_link(tmp_path):
    path, link = write_tree(tree(), tmp_path / "a.zarr"), tmp_path / "link.zarr"
    link.symlink_to(path)
    assert write_tree(xr.DataTree(xr.Dataset(attrs={"new": 1})), link, overwrite=True) == link
    assert link.is_symlink() and open_tree(path).attrs == {"new": 1}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_half_written_stays(tmp_path, monkeypatch, error):
    write_tree(tree(), tmp_path / "old.zarr")

    def broken(made, folder):
        folder.mkdir()
        (folder / ".zgroup").write_text("{}")
        raise error("disk full")

    monkeypatch.setattr(store, "write_files", broken)
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
        (_truncate, "does not unpack to the 24 bytes"),
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
        (lambda path: _metadata(path, filters=[{"id": "zstd"}]), "has filters"),
        (lambda path: _metadata(path, shape=[-3, 2]), "has shape"),
        (lambda path: (path / "constant_data" / "link").symlink_to("/"), "is a link"),
        (lambda path: (path / "constant_data" / "zarr.json").write_text("{}"), "format 3"),
    ],
)
def test_damaged_and_untrusted_stores(tmp_path, written, damage, message):
    path = shutil.copytree(written, tmp_path / "a.zarr")
    damage(path)
    with pytest.raises(BayesdfError, match=message):
        open_tree(path)


def test_xarray_writes_again_what_was_read(tmp_path):
    """With its defaults, whoever opened the store."""
    path = write_tree(tree(), tmp_path / "a.zarr")
    with xr.open_datatree(path, engine="zarr") as opened:
        for number, read in enumerate((open_tree(path), opened)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Zarr's, of strings in its format 3
                read.to_zarr(tmp_path / f"{number}.zarr")
                again = xr.open_datatree(tmp_path / f"{number}.zarr", engine="zarr").load()
            assert again.identical(read.load())
    assert not any(variable.encoding for variable in open_tree(path)["constant_data"].variables.values())


def test_compressed_stores_of_earlier_versions_are_read(tmp_path):
    for codec in (numcodecs.Blosc("lz4"), numcodecs.Zstd()):
        path = tmp_path / f"{codec.codec_id}.zarr"
        encoding = {"/g": {"x": {"compressors": (codec,)}}}
        made = xr.DataTree.from_dict({"/g": xr.Dataset({"x": ("i", np.arange(1000.0))})})
        made.to_zarr(path, zarr_format=2, consolidated=False, encoding=encoding)
        assert json.loads((path / "g" / "x" / ".zarray").read_text())["compressor"]["id"] == codec.codec_id
        assert open_tree(path).identical(made)


def _zstd_bomb(blocks):
    """A frame without a content size: blocks of 128 KiB of zeros, in four bytes each (RFC 8878, section 3.1.1)."""
    header = struct.pack("<I", 0xFD2FB528) + bytes([0x00, 0x58])
    return header + b"".join(
        (1 << 20 | 1 << 1 | (i == blocks - 1)).to_bytes(3, "little") + b"\0" for i in range(blocks)
    )


BOMB = 256 << 20
BOMBS = {
    "blosc": lambda: bytes(numcodecs.Blosc("zstd", 9).encode(np.zeros(BOMB, np.uint8))),
    "zstd": lambda: _zstd_bomb(BOMB >> 17),
    "two frames of zstd": lambda: bytes(numcodecs.Zstd().encode(np.zeros(6, np.float32))) + _zstd_bomb(BOMB >> 17),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_chunk_that_unpacks_to_more_than_it_should_is_never_unpacked(tmp_path, written, monkeypatch, kind):
    path = shutil.copytree(written, tmp_path / "a.zarr")
    _metadata(path, compressor={"id": kind.split()[-1], "cname": "zstd", "clevel": 9, "shuffle": 1, "blocksize": 0})
    bomb = BOMBS[kind]()
    (path / "posterior_predictive" / "logits" / "0.0").write_bytes(bomb)
    assert len(bomb) < BOMB / 1000
    before = int(Path("/proc/self/statm").read_text().split()[0])
    monkeypatch.setattr(xr, "open_datatree", None)
    with pytest.raises(BayesdfError, match="logits does not unpack to the 24"):
        open_tree(path)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) - before
    assert pages * 4096 < BOMB / 4


def test_what_chunks_and_attributes_make_of_a_store_counts(tmp_path, monkeypatch):
    path = write_tree(xr.DataTree(xr.Dataset({"x": ("i", np.zeros(1000, np.int8))})), tmp_path / "a.zarr")
    monkeypatch.setattr(store, "SIZE_LIMIT", 2000)
    assert open_tree(path)["x"].size == 1000
    file = path / "x" / ".zarray"
    plain = json.loads(file.read_text())
    file.write_text(json.dumps({**plain, "chunks": [3000]}))  # larger than the array
    with pytest.raises(BayesdfError, match="unpacks to more"):
        open_tree(path)
    file.write_text(json.dumps(plain))
    attrs = json.loads((path / "x" / ".zattrs").read_text())
    (path / "x" / ".zattrs").write_text(json.dumps({**attrs, "scale_factor": 2.0}))  # xarray makes floats of it
    with pytest.raises(BayesdfError, match="unpacks to more"):
        open_tree(path)

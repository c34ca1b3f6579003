"""Stores that were edited: one line, or the same posterior. And stores that ArviZ reads."""

import shutil

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn
from torch.utils.data import TensorDataset

import bayesdf
from bayesdf.errors import BayesdfError
from bayesdf.inference import MAP, SVI, SWAG, DeepEnsemble, Laplace, MCDropout, load_posterior
from bayesdf.models import Detector, priors
from bayesdf.store import open_tree, write_tree

# Fits here are short on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::bayesdf.errors.BayesdfWarning")

QUICK = {"epochs": 2, "batch_size": 10, "progress": False}
METHODS = {
    "normal": SVI(**QUICK),
    "lowrank": SVI(guide="lowrank", rank=2, **QUICK),
    "matrix": SVI(guide="matrix", **QUICK),
    "map": MAP(**QUICK),
    "laplace": Laplace(**QUICK),
    "swag": SWAG(collect_epochs=2, snapshots=4, rank=2, **QUICK),
    "ensemble": DeepEnsemble(members=3, **QUICK),
    "mc_dropout": MCDropout(**QUICK),
}


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    return Detector(network, {"3": priors.normal(1.0)})


@pytest.fixture(scope="module")
def data():
    images = torch.randn(20, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    return TensorDataset(images, (images[:, 0, 0, 0] > 0).long())


@pytest.fixture(scope="module")
def saved(detector, data, tmp_path_factory):
    root = tmp_path_factory.mktemp("stores")
    return {name: method.fit(detector, data).save(root / f"{name}.zarr") for name, method in METHODS.items()}


def logits(posterior, data):
    return posterior.predict(data, draws=2)["posterior_predictive/logits"].values


def groups_of(path):
    return {node.path: node.to_dataset(inherit=False) for node in open_tree(path).subtree}


VALUES = (
    "",
    "{",
    "[]",
    "{}",
    "null",
    "nonsense",
    '["3.weight", 7]',
    '{"3.weight": [2, 2]}',
    -1,
    3.5,
    "1e400",
    '[["a"]]',
)


def mutate(groups, rng):
    """One change of a store's content, of a kind that its format allows."""
    path = rng.choice(sorted(groups))
    dataset = groups[path].copy(deep=True)
    kind = rng.choice(
        ["attribute", "no attribute", "no variable", "rename", "values", "cut", "type", "no group", "add"]
    )
    names = sorted(map(str, dataset.data_vars))
    if kind in ("attribute", "no attribute") and dataset.attrs:
        name = rng.choice(sorted(dataset.attrs))
        if kind == "attribute":
            dataset.attrs[name] = VALUES[rng.integers(len(VALUES))]
        else:
            del dataset.attrs[name]
    elif kind == "no group" and path != "/":
        return {name: group for name, group in groups.items() if name != path}
    elif kind == "add":
        return {**groups, f"/more{rng.integers(9)}": xr.Dataset({"a": ("b", [1.0])})}
    elif names:
        name = rng.choice(names)
        variable = dataset[name]
        if kind == "no variable":
            dataset = dataset.drop_vars(name)
        elif kind == "rename":
            dataset = dataset.rename({name: f"{name}x"})
        elif kind == "cut" and variable.dims:
            dataset = dataset.isel({variable.dims[-1]: slice(0, rng.integers(variable.sizes[variable.dims[-1]]))})
        elif kind == "type":
            dataset[name] = variable.astype(rng.choice(["int16", "float64", "U8", "complex64"]))
        else:
            bad = rng.choice([np.nan, np.inf, 0.0, -3.0, 1e30])
            dataset[name] = variable * 0 + (int(min(bad, 9)) if variable.dtype.kind in "iu" and bad == bad else bad)
    return {**groups, path: dataset}


@pytest.mark.filterwarnings("ignore:invalid value", "ignore:overflow", "ignore:.*[Cc]asting complex")
@pytest.mark.parametrize("name", METHODS)
def test_an_edited_store_gets_one_line_or_is_the_same_posterior(saved, detector, data, monkeypatch, name):
    """Without a digest (as stores were once) it may be another posterior, but none that fails later."""
    rng = np.random.default_rng(list(METHODS).index(name))
    expected = logits(load_posterior(saved[name], detector), data)
    refused = 0
    for trial in range(20):
        groups = groups_of(saved[name])
        if trial % 2:
            groups["/"].attrs.pop("sha256")
        try:
            tree = xr.DataTree.from_dict(mutate(groups, rng))
        except (ValueError, TypeError):  # no tree at all
            continue
        monkeypatch.setattr(bayesdf.inference.posterior_loading, "open_tree", lambda path, tree=tree: tree)
        try:
            posterior = load_posterior("edited", detector)
            found = logits(posterior, data)
            assert posterior.draws(2)["posterior"].data_vars
            assert trial % 2 or np.array_equal(found, expected)
        except BayesdfError as error:
            refused += 1
            assert "\n" not in str(error)
        monkeypatch.undo()
    assert refused > 5


def test_bytes_of_a_chunk_that_changed_are_noticed(saved, detector, tmp_path):
    """A store has no other protection against a disk that forgets."""
    groups = groups_of(saved["map"])
    groups["/network"]["float32"][0] += 1
    path = write_tree(xr.DataTree.from_dict(groups), tmp_path / "a.zarr")
    with pytest.raises(BayesdfError, match="was changed, or damaged"):
        load_posterior(path, detector)


@pytest.mark.parametrize(
    ("group", "attrs", "message"),
    [
        ("/variational", {"sites": "[]"}, "no sites"),
        ("/variational", {"sites": "{"}, "damaged"),
        ("/variational", {"sites": '["nothing"]'}, "damaged"),
        ("/variational", {"sites": "3"}, "damaged"),
        ("/network", {"tensors": '[["fc", "float32", [3]]]'}, "not of this architecture"),
        ("/network", {"tensors": "7"}, "not of this architecture"),
        ("/", {"sampler": "pickle"}, "not one that Posterior.save wrote"),
        ("/", {"sampler": "full"}, "damaged"),
        ("/", {"recipe": "os.system"}, "damaged"),
    ],
)
def test_what_is_wrong_is_said(saved, detector, tmp_path, group, attrs, message):
    groups = groups_of(saved["normal"])
    groups["/"].attrs.pop("sha256")
    groups[group].attrs.update(attrs)
    path = write_tree(xr.DataTree.from_dict(groups), tmp_path / "a.zarr")
    with pytest.raises(BayesdfError, match=message):
        load_posterior(path, detector)


def test_a_store_of_another_version_is_read_or_names_the_version(saved, detector, data, tmp_path):
    groups = groups_of(saved["normal"])
    groups["/"].attrs.pop("sha256")
    groups["/"].attrs["bayesdf"] = "9.0.0"
    path = write_tree(xr.DataTree.from_dict(groups), tmp_path / "same.zarr")
    found, expected = (logits(load_posterior(place, detector), data) for place in (path, saved["normal"]))
    np.testing.assert_array_equal(found, expected)
    groups["/"].attrs["sampler"] = "of a later version"
    path = write_tree(xr.DataTree.from_dict(groups), tmp_path / "other.zarr")
    with pytest.raises(BayesdfError, match=r"written by bayesdf 9\.0\.0, but this is .*: open it with") as error:
        load_posterior(path, detector)
    assert "\n" not in str(error.value)


def test_stores_that_kept_chains_as_variational_are_read(saved, detector, data, tmp_path):
    groups = groups_of(saved["ensemble"])
    chains = groups.pop("/posterior")
    groups["/variational"] = chains.drop_vars(["chain", "draw"]).rename(chain="stored_chain", draw="stored_draw")
    groups["/"].attrs.pop("sha256")
    path = write_tree(xr.DataTree.from_dict(groups), tmp_path / "old.zarr")
    found, expected = (logits(load_posterior(place, detector), data) for place in (path, saved["ensemble"]))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
def test_files_of_a_store_that_were_edited(saved, detector, data, tmp_path):
    expected = logits(load_posterior(saved["normal"], detector), data)
    rng = np.random.default_rng(0)
    files = sorted(file.relative_to(saved["normal"]) for file in saved["normal"].rglob("*") if file.is_file())
    for trial in range(18):
        path = tmp_path / str(trial)
        shutil.copytree(saved["normal"], path)
        file = path / files[rng.integers(len(files))]
        content = bytearray(file.read_bytes())
        if trial % 3 == 0:
            content = content[: rng.integers(len(content) + 1)]
        elif trial % 3 == 1:
            file.unlink()
        else:
            content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        if trial % 3 != 1:
            file.write_bytes(content)
        try:
            np.testing.assert_array_equal(logits(load_posterior(path, detector), data), expected)
        except BayesdfError as error:
            assert "\n" not in str(error)

"""Draws, predictions in the schema, and a store from which a fresh process predicts the same numbers."""

import json
import subprocess
import sys
from pathlib import Path

import arviz
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal
from torch import nn
from torch.utils.data import Dataset

from bayesdf.errors import BayesdfError, BayesdfWarning
from bayesdf.inference import (
    MAP,
    NUTS,
    SGMCMC,
    SVI,
    SWAG,
    DeepEnsemble,
    Laplace,
    MCDropout,
    load_posterior,
)
from bayesdf.inference.posterior import POSTERIOR_NUMBERS
from bayesdf.inference.prediction import predictor
from bayesdf.models import Detector, build, priors
from bayesdf.store import open_tree, write_tree
from tests.inference.linear import Logistic, separate, simulate


class Faces(Dataset):
    """What the data layer gives: images, labels, a manifest, classes, a fingerprint."""

    classes = ("real", "fake")
    fingerprint = "abc123"

    def __init__(self, count=10, size=32):
        noise = torch.Generator().manual_seed(0)
        self.images = torch.rand(count, 3, size, size, generator=noise)
        self.manifest = pd.DataFrame(
            {
                "path": [f"s{i}.png" for i in range(count)],
                "source": pd.Categorical(["real", "vae"] * (count // 2)),
                "subject": [None, *range(1, count)],
                "label": np.arange(count) % 2,
                "frame": np.arange(count),
            }
        )

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], int(self.manifest["label"][index])


def spike(name, parameter):
    scale = pyro.sample(f"{name}.scale", dist.HalfCauchy(0.1))
    return dist.Normal(torch.zeros_like(parameter), scale).to_event(parameter.dim())


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    network = build("test_efficientnet", 2, high_pass=True)
    return Detector(network, {"classifier": spike, "blocks.4": priors.normal(0.05)})


METHODS = {
    "normal": SVI(epochs=1, batch_size=5, progress=False, seed=3),
    "lowrank": SVI(guide="lowrank", epochs=1, batch_size=5, rank=2, progress=False),
    "map": MAP(epochs=1, batch_size=5, progress=False),
    "mc_dropout": MCDropout(epochs=1, batch_size=5, progress=False),
    "swag": SWAG(epochs=1, batch_size=5, collect_epochs=2, snapshots=4, rank=3, progress=False),
    "ensemble": DeepEnsemble(members=6, epochs=1, batch_size=5, progress=False),
    "sghmc": SGMCMC(chains=1, epochs=1, batch_size=5, sampling_epochs=16, cycles=2, stored_draws=8, progress=False),
    "sgld": SGMCMC(
        dynamics="sgld", chains=2, epochs=1, batch_size=5, sampling_epochs=30, cycles=2, stored_draws=16, progress=False
    ),
    "nuts": NUTS(chains=2, warmup=10, samples=8, max_tree_depth=3, epochs=1, batch_size=5, progress=False),
}


@pytest.fixture(scope="module")
def posteriors(detector):
    last_layer = Detector(detector.network, {"classifier": priors.normal(0.05)})  # NUTS refuses more
    return {name: method.fit(last_layer if name == "nuts" else detector, Faces()) for name, method in METHODS.items()}


def logits(posterior, **settings):
    return posterior.predict(Faces(), **settings)["posterior_predictive/logits"].values


def test_schema_of_predictions(posteriors):
    tree = posteriors["normal"].predict(Faces(), draws=4)
    found = tree["posterior_predictive/logits"]
    assert found.dims == ("chain", "draw", "image", "class") and found.shape == (1, 4, 10, 2)
    assert found.dtype == np.float32 and found["class"].values.tolist() == ["real", "fake"]
    assert tree["observed_data/label"].values.tolist() == [0, 1] * 5
    constant = tree["constant_data"].to_dataset()
    assert set(constant.data_vars) == {"path", "source", "subject", "label", "frame"}
    assert constant["source"].values.tolist() == ["real", "vae"] * 5 and constant["source"].dtype.kind == "U"
    assert constant["frame"].dtype.kind == "i"
    site = tree["posterior"]["classifier.weight"]
    assert site.dims == ("chain", "draw", "classifier.weight_dim_0", "classifier.weight_dim_1")
    assert tree["posterior"]["classifier.weight.scale"].dims == ("chain", "draw")
    assert set(tree["variational"].data_vars) >= {"classifier.weight.loc", "classifier.weight.scale"}
    assert tree["sample_stats/elbo"].dims == ("step",)


def test_root_attributes(posteriors):
    attrs = posteriors["normal"].predict(Faces(), draws=1, seed=5).attrs
    assert attrs["method"] == "SVI" and attrs["seed"] == 3 and attrs["draws_seed"] == 5
    assert attrs["detector"] == "test_efficientnet" and attrs["data_fingerprint"] == "abc123"
    assert json.loads(attrs["priors"]) == {"classifier": "spike", "blocks.4": "normal(scale=0.05, loc=0.0)"}
    assert json.loads(attrs["settings"])["batch_size"] == 5
    assert attrs["torch"] == torch.__version__ and attrs["fit_seconds"] > 0
    assert {"bayesdf", "pyro", "xarray"} <= set(attrs)


def test_a_prediction_goes_to_a_store_and_to_arviz(posteriors, tmp_path):
    tree = posteriors["normal"].predict(Faces(), draws=4)
    assert open_tree(write_tree(tree, tmp_path / "run.zarr")).identical(open_tree(tmp_path / "run.zarr"))
    table = arviz.summary(posteriors["normal"].draws(20)["posterior"].to_dataset(), var_names=["classifier.bias"])
    assert list(table.index) == ["classifier.bias[0]", "classifier.bias[1]"]


# Four draws are few, and those of MAP are all the same; our own warnings are errors here as everywhere.
@pytest.mark.filterwarnings("ignore", "error::bayesdf.errors.BayesdfWarning")
@pytest.mark.parametrize("name", METHODS)
def test_arviz_summarises_and_traces_the_draws_of_every_method(posteriors, name):
    draws = posteriors[name].draws(4)["posterior"].to_dataset()
    smallest = min(draws.data_vars, key=lambda site: draws[site].size)
    table = arviz.summary(draws, var_names=[smallest])
    assert len(table) == draws[smallest].isel(chain=0, draw=0).size and np.isfinite(table["mean"]).all()
    axes = arviz.plot_trace(draws, var_names=[smallest])
    assert axes.shape[1] == 2
    plt.close("all")


@pytest.mark.parametrize("name", METHODS)
def test_ten_draws_are_the_first_of_fifty_whatever_the_batch(posteriors, name):
    posterior = posteriors[name]
    some = logits(posterior, draws=3, batch_size=4)
    np.testing.assert_allclose(some, logits(posterior, draws=6, batch_size=10)[:, :3], rtol=1e-4, atol=1e-5)
    assert np.array_equal(some, logits(posterior, draws=3, batch_size=4))
    if name != "map":
        assert not np.allclose(some, logits(posterior, draws=3, batch_size=4, seed=1))


def test_predictions_are_the_networks_with_the_draw_put_in(posteriors):
    posterior = posteriors["normal"]
    found = logits(posterior, draws=3)[0]
    images = Faces().images.to(memory_format=torch.channels_last)
    names = dict(posterior.network.named_parameters())
    for index in range(3):
        values = {name: value for name, value in posterior.sampler.draw(index, 0).items() if name in names}
        with torch.no_grad():
            expected = torch.func.functional_call(posterior.network, values, (images,))
        np.testing.assert_allclose(found[index], expected.numpy(), rtol=1e-4, atol=1e-5)


def test_bounded_memory_gives_the_same_numbers(posteriors, monkeypatch):
    expected = logits(posteriors["normal"], draws=3, batch_size=2)
    monkeypatch.setattr(predictor, "FEATURE_BYTES", 1)
    assert np.array_equal(logits(posteriors["normal"], draws=3, batch_size=2), expected)


def test_draws_that_are_too_many_to_keep_are_left_out(posteriors):
    numbers = sum(int(np.prod(shape)) for shape in posteriors["normal"].sampler.shapes.values())
    draws = POSTERIOR_NUMBERS // numbers + 1
    tree = posteriors["normal"].predict(Faces(2), draws=draws)
    assert "posterior" not in tree.children and "posterior_left_out" in tree.attrs


def test_a_network_that_cannot_be_traced_predicts_the_same(monkeypatch):
    class Branches(Logistic):
        def forward(self, images):
            return super().forward(images if images.sum() > -1e9 else -images)

    train = simulate(separate(20), torch.tensor([1.0, -0.5]), seed=0)
    settings = {"epochs": 2, "freeze": "all", "progress": False}
    plain = SVI(**settings).fit(Detector(Logistic(2), {"linear": priors.normal(1.0)}), train)
    with pytest.warns(UserWarning, match="cannot be split"):
        branches = SVI(**settings).fit(Detector(Branches(2), {"linear": priors.normal(1.0)}), train)
        found = branches.predict(train, draws=3)["posterior_predictive/logits"]
    expected = plain.predict(train, draws=3)["posterior_predictive/logits"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(BayesdfError, match=r"freeze='prefix'.*\(TraceError: .*control flow"):
        SVI(epochs=1, freeze="prefix", progress=False).fit(Detector(Branches(2), {"linear": priors.normal(1.0)}), train)


# --- on disk --------------------------------------------------------------------------------------------------------

FRESH = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
import torch
from bayesdf import inference
from tests.inference.test_posterior import logits
torch.set_num_threads(1)
for path in sys.argv[2:]:
    np.save(path + ".npy", logits(inference.load_posterior(path), draws=4))
"""


@pytest.mark.slow
def test_a_fresh_process_predicts_the_same_bits(posteriors, tmp_path):
    paths = [str(posterior.save(tmp_path / f"{name}.zarr")) for name, posterior in posteriors.items()]
    root = str(Path(__file__).parents[2])
    subprocess.run([sys.executable, "-c", FRESH, root, *paths], check=True)
    for path, posterior in zip(paths, posteriors.values(), strict=True):
        assert np.array_equal(np.load(path + ".npy"), logits(posterior, draws=4))


def test_stored_draws_come_back(tmp_path):
    train = simulate(separate(20), torch.tensor([1.0, -0.5]), seed=0)
    detector = Detector(Logistic(2), {"linear": priors.normal(1.0)})
    settings = {"guide": AutoMultivariateNormal, "epochs": 2, "stored_draws": 9, "progress": False}
    posterior = SVI(**settings).fit(detector, train)
    assert "variational" not in posterior.predict(train, draws=2).children
    loaded = load_posterior(posterior.save(tmp_path / "a.zarr"), detector)
    for seed in (0, 1):
        assert loaded.draws(9, seed)["posterior"].identical(posterior.draws(9, seed)["posterior"])
    assert set(np.unique(loaded.draws(9, 0)["posterior/linear.weight"])) == set(
        np.unique(loaded.draws(9, 1)["posterior/linear.weight"])
    )


def test_a_network_of_ones_own_needs_its_detector(tmp_path):
    train = simulate(separate(20), torch.tensor([1.0, -0.5]), seed=0)
    detector = Detector(Logistic(2), {"linear": priors.normal(1.0)})
    path = SVI(epochs=2, progress=False).fit(detector, train).save(tmp_path / "a.zarr")
    with pytest.raises(BayesdfError, match="detector="):
        load_posterior(path)
    before = detector.network.linear.weight.clone()
    assert load_posterior(path, detector).draws(2)["posterior/linear.weight"].shape == (1, 2, 1, 2)
    assert torch.equal(detector.network.linear.weight, before)
    with pytest.raises(BayesdfError, match="not of this architecture"):
        load_posterior(path, Detector(Logistic(3), {"linear": priors.normal(1.0)}))


def test_other_priors_than_those_of_the_fit_are_said(tmp_path):
    """By what each parameter was given, however the pattern was written."""
    train = simulate(separate(20), torch.tensor([1.0, -0.5]), seed=0)
    path = SVI(epochs=2, progress=False).fit(Detector(Logistic(2), {"linear": priors.normal(1.0)}), train)
    path = path.save(tmp_path / "a.zarr")
    for same in ({"*": priors.normal(1.0)}, {}):
        load_posterior(path, Detector(Logistic(2), same))
    with pytest.warns(BayesdfWarning, match=r"linear\.weight: normal\(scale=1\.0.* there, normal\(scale=2\.0"):
        load_posterior(path, Detector(Logistic(2), {"linear": priors.normal(2.0)}))


def test_a_posterior_is_not_written_over(posteriors, tmp_path):
    path = posteriors["map"].save(tmp_path / "a.zarr")
    with pytest.raises(BayesdfError, match="exists already"):
        posteriors["map"].save(path)
    posteriors["mc_dropout"].save(path, overwrite=True)
    assert load_posterior(path).attrs["method"] == "MCDropout"


def _attribute(tree, group, **attrs):
    groups = {node.path: node.to_dataset(inherit=False) for node in tree.subtree}
    groups[group] = groups[group].assign_attrs(attrs)
    return type(tree).from_dict(groups)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda tree: tree.drop_nodes("network"), "not one that Posterior.save wrote"),
        (lambda tree: _attribute(tree, "/", recipe='{"name": "hf-hub:someone/model"}'), "recipe|no network"),
        (lambda tree: _attribute(tree, "/", note="mine"), "was changed"),
    ],
)
def test_stores_that_are_of_something_else(posteriors, tmp_path, damage, message):
    tree = open_tree(posteriors["normal"].save(tmp_path / "a.zarr"))
    if message != "was changed":
        tree.attrs.pop("sha256")
    write_tree(damage(tree), tmp_path / "b.zarr")
    with pytest.raises(BayesdfError, match=message):
        load_posterior(tmp_path / "b.zarr")


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"draws": 0}, {"draws": -1}, {"seed": -1}, {"batch_size": 0}])
def test_settings_out_of_range(posteriors, settings):
    with pytest.raises(BayesdfError, match=next(iter(settings))):
        posteriors["normal"].predict(Faces(), **settings)


def test_no_draws(posteriors):
    with pytest.raises(BayesdfError, match="draws is 0"):
        posteriors["normal"].draws(0)


def test_data_that_does_not_fit(posteriors):
    other = Faces()
    other.classes = ("real", "vae", "swap")
    with pytest.raises(BayesdfError, match="3 classes"):
        posteriors["normal"].predict(other, draws=1)
    short = Faces()
    short.manifest = short.manifest[:4]
    short.__class__ = type("Short", (Faces,), {"__getitem__": lambda self, index: (self.images[index], 0)})
    with pytest.raises(BayesdfError, match="4 rows for 10 images"):
        posteriors["normal"].predict(short, draws=1)
    empty = Faces(2)
    empty.images = empty.images[:0]
    with pytest.raises(BayesdfError, match="empty"):
        posteriors["normal"].predict(empty, draws=1)
    with pytest.raises(BayesdfError, match="device 'tpu9'"):
        posteriors["normal"].predict(Faces(), draws=1, device="tpu9")


def test_methods_have_one_shape():
    for method in (MAP, SVI, MCDropout, DeepEnsemble, SWAG, Laplace, SGMCMC, NUTS):
        assert issubclass(method, nn.Module) is False and callable(method.fit)
        with pytest.raises(AttributeError):
            method().epochs = 3


def test_loading_leaves_the_callers_random_numbers_alone(posteriors, tmp_path):
    path = posteriors["normal"].save(tmp_path / "a.zarr")
    torch.manual_seed(3)
    state = torch.get_rng_state()
    load_posterior(path)
    assert torch.equal(state, torch.get_rng_state())

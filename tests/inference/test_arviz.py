"""What ArviZ and xarray do with draws, stores and predictions."""

import arviz
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import xarray as xr
from torch.utils.data import TensorDataset

from bayesdf.inference import MAP, NUTS, SVI
from bayesdf.inference.posterior import Posterior
from bayesdf.inference.samplers import StoredSampler
from bayesdf.models import Detector, priors
from tests.inference.linear import Logistic, separate, simulate

# Fits here are short on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::bayesdf.errors.BayesdfWarning")

SCALE = 1.5


@pytest.fixture(scope="module")
def train():
    return simulate(separate(24), torch.tensor([1.0, -0.5]), seed=0)


@pytest.fixture(scope="module")
def nuts(train):
    method = NUTS(chains=2, warmup=20, samples=40, epochs=5, class_balanced=False, progress=False)
    return method.fit(Detector(Logistic(2), {"linear": priors.normal(SCALE)}), train)


@pytest.mark.parametrize("of", ["draws", "store"])
def test_chains_are_summarised_and_drawn(nuts, tmp_path, of):
    tree = nuts.draws()
    if of == "store":
        tree = xr.open_datatree(nuts.save(tmp_path / "p.zarr"), engine="zarr")
    sites = tree["posterior"].to_dataset()
    assert sites["linear.weight"].dims == ("chain", "draw", "linear.weight_dim_0", "linear.weight_dim_1")
    # In the order in which they were made: R-hat and effective sample sizes ask it.
    np.testing.assert_array_equal(sites["linear.weight"], nuts.sampler.values["linear.weight"])
    table = arviz.summary(sites)
    assert list(table.index) == ["linear.weight[0, 0]", "linear.weight[0, 1]"]
    np.testing.assert_allclose(table["r_hat"], arviz.rhat(sites)["linear.weight"].values.ravel(), atol=0.006)
    known = arviz.InferenceData.from_datatree(tree.filter(lambda node: node.name != "network"))
    assert known.posterior.sizes["chain"] == 2 and known.sample_stats["diverging"].shape == (2, 40)
    assert arviz.plot_trace(known).shape == (1, 2) and len(arviz.plot_forest(known)) == 1
    assert arviz.plot_energy(known) is not None and (arviz.bfmi(known) > 0).all()
    plt.close("all")


def posterior_of_grid(train, draws, seed):
    """A posterior of exact draws, by the inverse of the distribution function of each weight on a grid.

    Each image has one of the features, so that the weights are independent.
    """
    axis = np.linspace(-6 * SCALE, 6 * SCALE, 4001)
    noise = np.random.default_rng(seed)
    columns = []
    for density in log_densities(train, axis):
        mass = np.exp(density - density.max())
        columns.append(np.interp(noise.random(draws), np.cumsum(mass) / mass.sum(), axis))
    values = torch.tensor(np.stack(columns, 1), dtype=torch.float32)[None, :, None]
    network = Logistic(2)
    return Posterior(network, StoredSampler({"linear.weight": values}), xr.Dataset(), {})


def log_densities(train, axis):
    """Of each of the two weights, up to a constant, on a grid."""
    features, signs = train.tensors[0].flatten(1).numpy(), 2.0 * train.tensors[1].numpy() - 1
    for column in range(2):
        density = -0.5 * axis**2 / SCALE**2
        for feature, sign in zip(features[:, column], signs, strict=True):
            density = density - (np.logaddexp(0.0, -sign * feature * axis) if feature else 0.0)
        yield density


def left_out(train, image):
    """The exact log predictive density of an image's label, of a posterior of the others."""
    axis = np.linspace(-6 * SCALE, 6 * SCALE, 4001)
    others = torch.arange(len(train)) != image
    part = TensorDataset(train.tensors[0][others], train.tensors[1][others])
    x, label = train.tensors[0].flatten(1)[image].numpy(), train.tensors[1][image].item()
    column = int(np.flatnonzero(x)[0])
    density = list(log_densities(part, axis))[column]
    mass = np.exp(density - density.max())
    return np.log((mass / mass.sum()) @ (1 / (1 + np.exp(-(2 * label - 1) * x[column] * axis))))


def test_log_likelihood_is_that_of_the_labels_whatever_the_weights_of_classes(train):
    detector = Detector(Logistic(2), {"linear": priors.normal(SCALE)})
    tree = MAP(epochs=3, progress=False).fit(detector, train).predict(train, draws=1, log_likelihood=True)
    logit = tree["posterior_predictive/logits"].values[0, 0]
    expected = torch.tensor(logit).log_softmax(-1)[torch.arange(24), train.tensors[1]]
    found = tree["log_likelihood/label"]
    assert found.dims == ("chain", "draw", "image") and found.dtype == np.float32
    np.testing.assert_allclose(found.values[0, 0], expected, rtol=1e-5)


def test_loo_is_the_density_of_exact_refits(train):
    """PSIS-LOO of exact draws against leaving out each image in truth."""
    draws = 4000
    tree = posterior_of_grid(train, draws, seed=0).predict(train, draws=draws, log_likelihood=True)
    found = arviz.loo(arviz.InferenceData.from_datatree(tree), pointwise=True)
    expected = np.array([left_out(train, image) for image in range(len(train))])
    # An image's estimate is of about 4000 draws of a ratio whose relative spread is below 1.
    np.testing.assert_allclose(found.loo_i, expected, atol=5 / np.sqrt(draws))
    assert (found.pareto_k < 0.7).all()
    assert float(found.elpd_loo) == pytest.approx(expected.sum(), abs=5 * np.sqrt(24 / draws))


def test_compare_prefers_the_network_that_knows(train, nuts):
    ignorant = TensorDataset(torch.zeros_like(train.tensors[0]), train.tensors[1])
    method = SVI(epochs=2, class_balanced=False, progress=False)
    other = method.fit(Detector(Logistic(2), {"linear": priors.normal(SCALE)}), ignorant)
    trees = {
        "knows": nuts.predict(train, draws=40, log_likelihood=True),
        "guesses": other.predict(ignorant, draws=40, log_likelihood=True),
    }
    known = {name: arviz.InferenceData.from_datatree(tree) for name, tree in trees.items()}
    table = arviz.compare(known)
    assert table.loc["guesses", "elpd_loo"] == pytest.approx(24 * np.log(0.5), abs=1e-3)
    assert list(table.index) == ["knows", "guesses"]

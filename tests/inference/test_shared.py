"""Priors beyond the ready-made ones, in every method: hyperpriors that several layers share, and spike and slab."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal
from torch import nn
from torch.utils.data import TensorDataset

from bayesdf.errors import BayesdfError
from bayesdf.inference import MAP, NUTS, SGMCMC, SVI, SWAG, DeepEnsemble, Laplace
from bayesdf.models import Detector, priors

# Fits here are short on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::bayesdf.errors.BayesdfWarning")

QUICK = {"epochs": 3, "lr": 0.01, "batch_size": 10, "progress": False}
METHODS = {
    "map": MAP(**QUICK),
    "normal": SVI(**QUICK),
    "local": SVI(estimator="local", **QUICK),
    "lowrank": SVI(guide="lowrank", rank=2, **QUICK),
    "full": SVI(guide="full", **QUICK),
    "matrix": SVI(guide="matrix", **QUICK),
    "pyro": SVI(guide=AutoMultivariateNormal, stored_draws=5, **QUICK),
    "swag": SWAG(collect_epochs=2, snapshots=4, rank=2, **QUICK),
    "ensemble": DeepEnsemble(members=2, **QUICK),
    "sghmc": SGMCMC(step_size=0.05, sampling_epochs=12, stored_draws=4, **QUICK),
    "nuts": NUTS(chains=1, warmup=5, samples=5, max_tree_depth=4, **QUICK),
}


@pytest.fixture(scope="module")
def data():
    images = torch.randn(20, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    return TensorDataset(images, (images[:, 0, 0, 0] > 0).long())


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2))


@priors.shared
def scale():
    return pyro.sample("scale", dist.HalfCauchy(1.0))


def of_one_scale(name, parameter):
    return dist.Normal(torch.zeros_like(parameter), scale()).to_event(parameter.dim())


@pytest.mark.parametrize("name", METHODS)
def test_a_shared_hyperprior_has_one_site_in_every_method(data, name):
    posterior = METHODS[name].fit(Detector(network(), {"1": of_one_scale, "3": of_one_scale}), data)
    draws = posterior.draws(4 if posterior.sampler.capacity is None else None)["posterior"]
    assert [site for site in draws.data_vars if "scale" in site] == ["scale"]
    assert draws["scale"].dims == ("chain", "draw") and (draws["scale"] > 0).all()
    assert np.isfinite(posterior.predict(data, draws=1)["posterior_predictive/logits"]).all()


def test_laplace_says_what_it_cannot(data):
    with pytest.raises(BayesdfError, match=r"has hyperpriors \(scale\)"):
        Laplace(**QUICK).fit(Detector(network(), {"3": of_one_scale}), data)


def spike_and_slab(name, parameter):
    return dist.MixtureSameFamily(
        dist.Categorical(probs=torch.tensor([0.25, 0.75]).expand(*parameter.shape, 2)),
        dist.Normal(torch.zeros(*parameter.shape, 2), torch.tensor([1.0, 0.1])),
    ).to_event(parameter.dim())


@pytest.mark.parametrize("name", ["normal", "lowrank", "matrix", "pyro", "ensemble", "sghmc", "nuts"])
def test_spike_and_slab_by_pyro_runs(data, name):
    posterior = METHODS[name].fit(Detector(network(), {"3": spike_and_slab}), data)
    draws = posterior.draws(4 if posterior.sampler.capacity is None else None)["posterior"]
    assert all(np.isfinite(draws[site]).all() for site in draws.data_vars)


def test_spike_and_slab_has_the_mode_of_the_scale_mixture(data):
    """The same density, so the same steps, where nothing is random but the order of the images."""
    given = (spike_and_slab, priors.scale_mixture(0.25, 1.0, 0.1))
    found = [MAP(**QUICK).fit(Detector(network(), {"3": prior}), data) for prior in given]
    first, second = (posterior.draws(1)["posterior/3.weight"].values for posterior in found)
    np.testing.assert_allclose(first, second, atol=1e-4)

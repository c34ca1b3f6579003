"""A network of one logit z is the network of the two logits (0, z): the same posterior, the same predictions."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from bayesdf import analysis
from bayesdf.errors import BayesdfError
from bayesdf.inference import (
    MAP,
    NUTS,
    SGMCMC,
    SVI,
    SWAG,
    DeepEnsemble,
    Laplace,
    MCDropout,
    input_gradients,
    load_posterior,
    logit_moments,
)
from bayesdf.models import Detector, build, priors
from tests.inference.linear import PRIOR_SCALE, Logistic, correlated, exact, simulate

# Fits here are short on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::bayesdf.errors.BayesdfWarning")

WEIGHTS = torch.tensor([1.0, -0.5])


class Column(Logistic):
    """Logits (B, 1)."""

    def forward(self, images):
        return self.linear(images.flatten(1))


class Flat(Logistic):
    """Logits (B,)."""

    def forward(self, images):
        return self.linear(images.flatten(1))[:, 0]


class Untraceable(Flat):
    """Its forward depends on the images, so that it is not split."""

    def forward(self, images):
        return super().forward(images) if images.sum() > -1e9 else images


CLOSE = {"epochs": 20, "lr": 0.05, "batch_size": 80, "progress": False}
METHODS = {
    "map": MAP(**CLOSE),
    "svi": SVI(**CLOSE),
    "svi_local": SVI(estimator="local", **CLOSE),
    "svi_full": SVI(guide="full", **CLOSE),
    "laplace": Laplace(**CLOSE),
    "laplace_kron": Laplace(structure="kron", **CLOSE),
    "swag": SWAG(collect_epochs=4, snapshots=4, rank=2, **{**CLOSE, "batch_size": 20}),
    "ensemble": DeepEnsemble(members=2, **CLOSE),
    "sgmcmc": SGMCMC(sampling_epochs=20, stored_draws=4, **CLOSE),
    "prefix": SVI(freeze="prefix", **CLOSE),
}


@pytest.fixture(scope="module")
def train():
    return simulate(correlated(80), WEIGHTS, seed=0)


def fitted(method, network, train, validation=None):
    return method.fit(Detector(network, {"linear": priors.normal(PRIOR_SCALE)}), train, validation)


def logits(tree):
    return tree["posterior_predictive/logits"].values


@pytest.mark.parametrize(("name", "network"), list(zip(METHODS, itertools.cycle([Column, Flat]), strict=False)))
def test_every_method_finds_the_posterior_of_two_logits(train, name, network):
    two, one = (fitted(METHODS[name], form(2), train, train) for form in (Logistic, network))
    expected, found = two.predict(train, draws=1), one.predict(train, draws=1)
    assert found["posterior_predictive/logits"].shape == expected["posterior_predictive/logits"].shape
    np.testing.assert_allclose(logits(found), logits(expected), atol=1e-2)  # rounding, after as many steps
    np.testing.assert_allclose(one.sample_stats["validation_nll"], two.sample_stats["validation_nll"], rtol=1e-3)
    assert analysis.decompose(found).sizes["image"] == 80


def test_laplace_and_nuts_find_the_exact_posterior(train):
    mean, covariance = exact(train)
    sd = np.sqrt(np.diag(covariance))
    settings = {"lr": 0.05, "batch_size": 80, "class_balanced": False, "progress": False}
    laplace = fitted(Laplace(epochs=300, **settings), Flat(2), train)
    np.testing.assert_allclose(laplace.sampler.factor.square().sum(1).sqrt(), sd, rtol=0.1)
    nuts = fitted(NUTS(epochs=100, chains=1, warmup=60, samples=200, **settings), Column(2), train)
    draws = nuts.draws()["posterior/linear.weight"].values.reshape(-1, 2)
    assert (abs(draws.mean(0) - mean) / sd).max() < 0.5  # five standard errors of 100 independent draws


def test_a_network_that_cannot_be_split_too(train):
    expected, found = (fitted(METHODS["svi"], form(2), train).predict(train, draws=2) for form in (Flat, Untraceable))
    np.testing.assert_allclose(logits(found), logits(expected), atol=1e-4)


def test_mc_dropout_trains_one_logit_as_two():
    torch.manual_seed(0)
    images = torch.randn(40, 3, 2, 2)
    data = TensorDataset(images, (images.sum((1, 2, 3)) > 0).long())
    one = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 1))
    two = copy.deepcopy(one)
    two[3] = nn.Linear(8, 2)
    with torch.no_grad():
        for old, new in zip(one[3].parameters(), two[3].parameters(), strict=True):
            new.copy_(torch.cat([torch.zeros_like(old), old]))
    # With weights as they are, all that is random is the masks.
    trees = [
        MCDropout(epochs=0, progress=False).fit(Detector(network, {}), data).predict(data, draws=3)
        for network in (one, two)
    ]
    np.testing.assert_allclose(logits(trees[0]), logits(trees[1]), atol=1e-5)
    posterior = MCDropout(epochs=30, lr=0.05, progress=False).fit(Detector(one, {}), data, data)
    assert posterior.sample_stats["validation_accuracy"][-1] > 0.8


def test_closed_form_and_gradients(train):
    posteriors = [fitted(METHODS["laplace"], form(2), train) for form in (Flat, Column)]
    for posterior in posteriors:
        moments, drawn = logit_moments(posterior, train), logits(posterior.predict(train, draws=2000))[0]
        np.testing.assert_array_equal(moments["mean"][:, 0], 0)
        spread = np.sqrt(moments["covariance"][:, 1, 1])
        assert (abs(drawn[..., 1].mean(0) - moments["mean"][:, 1]) / spread).max() < 5 / np.sqrt(2000)
        np.testing.assert_allclose(drawn[..., 1].std(0), spread, rtol=0.1)
        assert np.isfinite(input_gradients(posterior, train.tensors[0], draws=5)["epistemic"]).all()


def test_a_store_keeps_it(train, tmp_path):
    posterior = fitted(METHODS["svi"], Column(2), train)
    posterior.save(tmp_path / "p.zarr")
    again = load_posterior(tmp_path / "p.zarr", Detector(Column(2), {"linear": priors.normal(1.0)}))
    np.testing.assert_array_equal(logits(again.predict(train, draws=2)), logits(posterior.predict(train, draws=2)))


def test_the_given_network_stays_as_it_is(train):
    network = Column(2)
    fitted(METHODS["map"], network, train)
    assert network(train.tensors[0]).shape == (80, 1)


def test_a_network_by_name(tmp_path):
    detector = Detector(build("mobilenet", 1), {"classifier": priors.normal(0.1)})
    data = TensorDataset(torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 0, 1]))
    posterior = SVI(epochs=1, batch_size=4, progress=False).fit(detector, data)
    posterior.save(tmp_path / "p.zarr")
    expected, found = (logits(p.predict(data, draws=2)) for p in (posterior, load_posterior(tmp_path / "p.zarr")))
    assert found.shape == (1, 2, 4, 2) and (found[..., 0] == 0).all()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_three_classes_need_three_logits():
    data = TensorDataset(torch.rand(6, 2, 1, 1), torch.arange(6) % 3)
    with pytest.raises(BayesdfError, match="one logit, which tells 2 classes apart, but the task has 3"):
        fitted(METHODS["map"], Flat(2), data)

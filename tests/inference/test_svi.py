"""SVI finds the posterior: against exact integration, and what its options do."""

from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoLowRankMultivariateNormal, AutoMultivariateNormal, AutoNormal
from torch import nn
from torch.utils.data import TensorDataset

from bayesdf.errors import BayesdfError
from bayesdf.inference import NUTS, SGMCMC, SVI, SWAG, Diverged, Laplace, svi
from bayesdf.inference.guides import full
from bayesdf.inference.training.history import History
from bayesdf.inference.training.rates import SCALE_RATE
from bayesdf.models import Detector, priors
from tests.inference.convolutional import convolutional, pictures, short
from tests.inference.linear import PRIOR_SCALE, Logistic, correlated, exact, separate, simulate

WEIGHTS = torch.tensor([1.0, -0.5])
CLOSE = {"epochs": 500, "batch_size": 40, "lr": 0.05, "scale_lr": 0.05, "class_balanced": False}


def detector(features=2, prior=None):
    return Detector(Logistic(features), {"linear": prior or priors.normal(PRIOR_SCALE)})


def fit(train, prior=None, validation=None, **settings):
    method = SVI(**{**CLOSE, "progress": False, **settings})
    return method.fit(detector(train.tensors[0].shape[1], prior), train, validation)


def draws(posterior, count=2000):
    return posterior.draws(count)["posterior/linear.weight"].values.reshape(count, -1)


# --- the posterior is right -----------------------------------------------------------------------------------------


def test_mean_field_matches_the_exact_posterior_that_factorises():
    """Mean within 0.15 of a standard deviation, standard deviation within 8 %; a batch is half of the data."""
    train = simulate(separate(80), WEIGHTS, seed=0)
    mean, covariance = exact(train)
    sd = np.sqrt(np.diag(covariance))
    found = draws(fit(train, epochs=1000))
    assert (abs(found.mean(0) - mean) / sd).max() < 0.15
    np.testing.assert_allclose(found.std(0), sd, rtol=0.08)


@pytest.mark.slow
def test_a_pyro_guide_with_covariance_matches_a_correlated_posterior():
    """Mean within 0.15 of a standard deviation, standard deviations within 12 %, correlation within 0.03 of -0.96."""
    train = simulate(correlated(80), WEIGHTS, seed=0)
    mean, covariance = exact(train)
    sd = np.sqrt(np.diag(covariance))
    correlation = covariance[0, 1] / sd.prod()
    assert correlation < -0.9
    posterior = fit(train, guide=AutoMultivariateNormal, epochs=2000, batch_size=80, stored_draws=2000)
    found = draws(posterior)
    assert (abs(found.mean(0) - mean) / sd).max() < 0.15
    np.testing.assert_allclose(found.std(0), sd, rtol=0.12)
    assert np.corrcoef(found.T)[0, 1] == pytest.approx(correlation, abs=0.03)


def test_standard_deviation_falls_with_the_roots_of_n_and_of_the_temperature():
    """Half the deviation with four times the data at the same batch size, for the likelihood is scaled to N; and again
    at a quarter of the temperature."""
    little, much = (simulate(separate(count), WEIGHTS, seed=1) for count in (100, 400))
    base = draws(fit(much, epochs=100)).std(0)
    assert (abs(draws(fit(little, epochs=400)).std(0) / base - 2) < 0.35).all()
    assert (abs(base / draws(fit(much, epochs=100, temperature=0.25)).std(0) - 2) < 0.35).all()


@pytest.mark.slow
def test_hierarchical_prior_recovers_its_scale():
    """400 weights simulated with scale 0.8, many observations each; the hyperprior's posterior must lie around it."""
    count, scale = 400, 0.8
    noise = torch.Generator().manual_seed(0)
    weights = scale * torch.randn(count, generator=noise)
    features = torch.eye(count).repeat(60, 1) * 2

    def spike(name, parameter):
        scale = pyro.sample(f"{name}.scale", dist.HalfCauchy(0.1))
        return dist.Normal(torch.zeros_like(parameter), scale).to_event(parameter.dim())

    train = simulate(features, weights, seed=2)
    settings = {"epochs": 6, "batch_size": 400, "lr": 0.05, "scale_lr": 0.05}
    found = fit(train, prior=spike, **settings).draws(500)["posterior/linear.weight.scale"]
    assert float(found.mean()) == pytest.approx(scale, rel=0.12)
    assert float(found.std()) < 0.15


def test_positive_sites_have_the_jacobian():
    """A hyperprior without data keeps its prior: a log-normal stays what it is."""

    def prior(name, parameter):
        pyro.sample(f"{name}.scale", dist.LogNormal(-1.0, 0.5))
        return dist.Normal(torch.zeros_like(parameter), 1.0).to_event(parameter.dim())

    train = simulate(separate(40), WEIGHTS, seed=0)
    for guide in ("normal", "lowrank"):
        found = fit(train, prior=prior, guide=guide, rank=1).draws(2000)["posterior/linear.weight.scale"]
        assert float(np.log(found).mean()) == pytest.approx(-1.0, abs=0.1)
        assert float(np.log(found).std()) == pytest.approx(0.5, rel=0.15)


@pytest.mark.parametrize(
    "prior",
    [
        priors.laplace(0.5),
        priors.student_t(4.0, 0.5),
        priors.scale_mixture(0.5, 1.0, 0.1),
        priors.he_normal(),
        priors.horseshoe(0.5),
        priors.moped(0.5),
    ],
)
@pytest.mark.parametrize("guide", ["normal", "matrix", "lowrank", "full"])
def test_every_prior_with_every_guide(prior, guide):
    posterior = fit(simulate(separate(40), WEIGHTS, seed=0), prior=prior, guide=guide, epochs=2)
    assert np.isfinite(posterior.sample_stats["elbo"]).all()
    assert np.isfinite(draws(posterior, 5)).all()


# --- class balance --------------------------------------------------------------------------------------------------


class Biased(nn.Module):
    """Ignores the image: logits (0, b)."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        score = images.flatten(1)[:, :1] * 0 + self.bias
        return torch.cat([torch.zeros_like(score), score], dim=1)


@pytest.mark.parametrize(("balanced", "expected"), [(True, 0.5), (False, 0.8)])
def test_class_balance(balanced, expected):
    """80 % of the labels are 1: the balanced likelihood forgets it, and its weight against the prior stays N."""
    train = TensorDataset(torch.zeros(200, 1, 1, 1), (torch.arange(200) % 5 > 0).long())
    method = SVI(**{**CLOSE, "class_balanced": balanced, "batch_size": 200, "progress": False})
    found = method.fit(Detector(Biased(), {"bias": priors.normal(10.0)}), train).draws(2000)["posterior/bias"]
    probability = 1 / (1 + np.exp(-float(found.mean())))
    assert probability == pytest.approx(expected, abs=0.03)
    fisher = 1 / np.sqrt(200 * expected * (1 - expected))
    assert float(found.std()) == pytest.approx(fisher, rel=0.2)


# --- guides of the user's own ----------------------------------------------------------------------------------------


def test_a_function_is_a_guide_and_its_draws_are_stored():
    def guide(images, labels):
        loc = pyro.param("loc", torch.zeros(1, 2))
        scale = pyro.param("scale", torch.full((1, 2), 0.1), constraint=dist.constraints.positive)
        pyro.sample("linear.weight", dist.Normal(loc, scale).to_event(2))

    train = simulate(separate(80), WEIGHTS, seed=0)
    posterior = fit(train, guide=guide, stored_draws=100)
    mean, covariance = exact(train)
    assert (abs(draws(posterior, 100).mean(0) - mean) / np.sqrt(np.diag(covariance))).max() < 0.4
    with pytest.raises(BayesdfError, match="holds 100"):
        posterior.draws(101)


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"guide": "gaussian"},
        {"epochs": -1},
        {"lr": 0.0},
        {"batch_size": 0},
        {"freeze": "some"},
        {"temperature": 0.0},
        {"init_scale": -1.0},
        {"patience": 0},
        {"seed": -1},
        {"rank": 0},
        {"stored_draws": 0},
    ],
)
def test_settings_out_of_range(settings):
    with pytest.raises(BayesdfError, match=next(iter(settings))):
        SVI(**settings)


def test_data_that_cannot_be_fitted():
    train = simulate(separate(20), WEIGHTS, seed=0)
    images = train.tensors[0]
    one = TensorDataset(images, torch.ones(20, dtype=torch.long))
    with pytest.raises(BayesdfError, match="all 20 training images are of class '1'"):
        fit(one)
    with pytest.raises(BayesdfError, match="empty"):
        fit(TensorDataset(images[:0], train.tensors[1][:0]))
    with pytest.raises(BayesdfError, match="num_classes=3"):
        fit(TensorDataset(images, torch.arange(20) % 3))


def test_a_guide_that_cannot_hold_the_hyperpriors_names_says_so():
    with pytest.raises(BayesdfError, match="_scale"):
        fit(simulate(separate(20), WEIGHTS, seed=0), prior=priors.horseshoe(0.5), guide=AutoNormal)


def test_automatic_guides_come_as_classes():
    train = simulate(separate(20), WEIGHTS, seed=0)
    guide = partial(AutoLowRankMultivariateNormal, rank=1, init_scale=0.3)
    assert fit(train, guide=guide, epochs=2, stored_draws=7).sampler.capacity == 7
    with pytest.raises(BayesdfError, match="pass the class"):
        fit(train, guide=AutoMultivariateNormal(detector().model))


def test_no_priors():
    with pytest.raises(BayesdfError, match="no priors"):
        SVI(progress=False).fit(Detector(Logistic(2), {}), simulate(separate(20), WEIGHTS, seed=0))


def test_images_that_are_not_finite_name_the_image():
    train = simulate(separate(20), WEIGHTS, seed=0)
    train.tensors[0][3] = float("nan")
    with pytest.raises(BayesdfError, match="index 3"):
        fit(train, batch_size=20)


@pytest.mark.filterwarnings("ignore:Encountered NaN")
def test_a_fit_that_diverges_says_where_and_keeps_the_last_good_state():
    """The third epoch's images are no numbers any more: the posterior is that of two epochs."""
    calls = []

    def poisoned(images, noise):
        calls.append(1)
        return images if len(calls) <= 6 else images * float("nan")

    network = convolutional()
    model = Detector(network, {"3": priors.normal(0.1)})
    with pytest.raises(Diverged, match=r"the loss is nan at step 6 \(epoch 2\), where images of the") as caught:
        short(epochs=4, augment=poisoned).fit(model, pictures())
    kept = caught.value.posterior
    assert len(kept.sample_stats["elbo"]) == 6 and np.isfinite(kept.sample_stats["elbo"]).all()
    for value in kept.draws(2)["posterior"].data_vars.values():
        assert np.isfinite(value).all()


def test_an_elbo_that_explodes_is_stopped_and_names_the_site():
    train = simulate(separate(20), WEIGHTS, seed=0)
    with pytest.raises(Diverged, match=r"exploded.*site linear\.weight") as caught:
        fit(train, lr=1e5, scale_lr=1e-3, epochs=50, batch_size=20)
    assert caught.value.posterior is not None


def test_a_guide_that_misses_sites_names_them():
    def guide(images, labels):
        pyro.sample("linear.weight", dist.Normal(torch.zeros(1, 2), 1.0).to_event(2))

    def spike(name, parameter):
        scale = pyro.sample(f"{name}_scale", dist.HalfCauchy(0.1))
        return dist.Normal(torch.zeros_like(parameter), scale).to_event(parameter.dim())

    with pytest.raises(BayesdfError, match=r"guide guide misses 1 of the 2 sites.*linear\.weight_scale"):
        fit(simulate(separate(20), WEIGHTS, seed=0), prior=spike, guide=guide)


def test_guide_full_is_for_few_numbers(monkeypatch):
    monkeypatch.setattr(full, "FULL_NUMBERS", 1)
    with pytest.raises(BayesdfError, match="lowrank"):
        fit(simulate(separate(20), WEIGHTS, seed=0), guide="full")


def test_moped_starts_at_a_share_of_each_weight_and_annealing_ends_at_the_whole_kl():
    network = convolutional()
    posterior = short(epochs=0, moped=0.1).fit(Detector(network, {"3.weight": priors.normal(0.1)}), pictures())
    weight = network[3].weight.detach()
    scale = posterior.sampler.scale["3.weight"]
    torch.testing.assert_close(scale, 0.1 * weight.abs().clamp_min(0.01), rtol=1e-5, atol=1e-7)
    with pytest.raises(BayesdfError, match="kl_annealing"):
        SVI(kl_annealing=1.5)


def test_support_without_a_transform():
    def prior(name, parameter):
        pyro.sample(f"{name}.shares", dist.Dirichlet(torch.ones(3)))
        return dist.Normal(torch.zeros_like(parameter), 1.0).to_event(parameter.dim())

    with pytest.raises(BayesdfError, match="pass a Pyro guide"):
        fit(simulate(separate(20), WEIGHTS, seed=0), prior=prior)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(2, 2), r"guide guide fails|linear\.weight shape \(2, 2\)"),
        (torch.full((1, 2), torch.nan), "finite"),
    ],
)
def test_a_guide_whose_sites_do_not_fit_is_refused(value, message):
    def guide(images, labels):
        pyro.sample("linear.weight", dist.Delta(value).to_event(2))

    model = Detector(Logistic(2), {"linear": priors.normal(1.0)})
    with pytest.raises(BayesdfError, match=message):
        SVI(guide=guide, epochs=1, progress=False).fit(model, simulate(separate(20), WEIGHTS, seed=0))


@pytest.mark.parametrize(
    "method",
    [
        NUTS(epochs=0),
        SGMCMC(epochs=0, chains=1, sampling_epochs=100, stored_draws=20),
        Laplace(structure="kron", epochs=0),
        Laplace(epochs=0),
        SWAG(epochs=0),
    ],
    ids=lambda method: type(method).__name__,
)
def test_images_that_are_no_numbers_are_refused_where_nothing_is_learnt_first(method):
    train = simulate(separate(200), WEIGHTS, seed=0)
    train.tensors[0][7] = torch.nan
    with pytest.raises(BayesdfError, match="index 7"):
        method.fit(Detector(Logistic(2), {"linear": priors.normal(1.0)}), train)


@pytest.mark.parametrize(("guide", "rows"), [("full", 6), ("lowrank", 6), ("matrix", 3)])
def test_the_entries_of_a_factor_move_less_the_more_there_are(guide, rows, monkeypatch):
    """Where no rate is given: a factor of n rows at 1/√n of the rate of scales. A rate that is given is that of all."""
    found = []

    def look(problem, objective):
        found.append({value.shape: group["lr"] for group in objective.groups() for value in group["params"]})
        return History()

    monkeypatch.setattr(svi, "minimise", look)
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 3, bias=False))
    data = TensorDataset(torch.zeros(6, 2, 1, 1), torch.arange(6) % 3)
    for settings in ({}, {"scale_lr": 0.2}):
        SVI(guide=guide, rank=2, progress=False, **settings).fit(Detector(network, {"1": priors.normal(1.0)}), data)
    factor = torch.Size((rows, 2 if guide == "lowrank" else rows))
    assert found[0][factor] == pytest.approx(SCALE_RATE / rows**0.5)
    assert found[1][factor] == 0.2

"""Every fit says whether it is the posterior that was asked for: fits that are known to be bad, and good ones."""

import json
import warnings

import arviz
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDelta

from bayesdf.errors import ConvergenceWarning
from bayesdf.inference import (
    MAP,
    NUTS,
    SGMCMC,
    SVI,
    SWAG,
    DeepEnsemble,
    Diverged,
    Laplace,
    MCDropout,
    load_posterior,
    pareto_k,
)
from bayesdf.inference.convergence import Verdict, e_bfmi, judge_chains, k_hat
from bayesdf.inference.training import schedule
from bayesdf.models import Detector, priors
from tests.inference.linear import Logistic, simulate

QUIET = {"progress": False}


def problem(features=4, images=100, seed=0, prior=None):
    noise = torch.Generator().manual_seed(seed)
    train = simulate(torch.randn(images, features, generator=noise), torch.randn(features, generator=noise), seed)
    return Detector(Logistic(features), {"linear": prior or priors.normal(1.0)}), train


def spike(name, parameter):
    scale = pyro.sample(f"{name}_scale", dist.HalfCauchy(0.1))  # AutoDelta bears no dot
    return dist.Normal(torch.zeros_like(parameter), scale).to_event(parameter.dim())


def flagged(method, detector, train):
    """Whether the fit says that it is not to be trusted: by a warning and in the store, or by refusing."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            posterior = method.fit(detector, train)
        except Diverged as error:
            assert error.posterior.sample_stats.attrs["converged"] == 0
            return True
    warned = any(issubclass(one.category, ConvergenceWarning) for one in caught)
    assert warned == (posterior.sample_stats.attrs["converged"] == 0)
    assert posterior.sample_stats.attrs["verdict"] in repr(posterior)
    return warned


FEW = {**QUIET, "epochs": 10, "lr": 1e-3}
BAD = {
    "map, few steps": MAP(**FEW),
    "map, none": MAP(epochs=0, **QUIET),
    "map, tiny rate": MAP(lr=1e-6, epochs=100, **QUIET),
    "map, huge rate": MAP(lr=300.0, epochs=100, **QUIET),
    "svi, few steps": SVI(**FEW),
    "svi, tiny rate": SVI(lr=1e-6, scale_lr=1e-6, epochs=100, **QUIET),
    "svi, scales that cannot move": SVI(scale_lr=1e-5, epochs=300, **QUIET),
    "full, few steps": SVI(guide="full", **FEW),
    "lowrank, few steps": SVI(guide="lowrank", rank=2, **FEW),
    "matrix, few steps": SVI(guide="matrix", **FEW),
    "dropout, few steps": MCDropout(**FEW),
    "concrete, few steps": MCDropout(concrete=True, **FEW),
    "ensemble, few steps": DeepEnsemble(members=2, **FEW),
    "swag, few steps": SWAG(**FEW),
    "laplace, none": Laplace(epochs=0, **QUIET),
    "kron, none": Laplace(structure="kron", epochs=0, **QUIET),
    "nuts, stuck": NUTS(chains=2, warmup=1, samples=20, max_tree_depth=1, **QUIET),
    "sghmc, short": SGMCMC(chains=2, sampling_epochs=20, stored_draws=20, **QUIET),
    "sgld, tiny steps": SGMCMC(chains=2, dynamics="sgld", step_size=1e-3, sampling_epochs=50, stored_draws=50, **QUIET),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_fit_says_so(name):
    assert flagged(BAD[name], *problem())


@pytest.mark.parametrize(
    "method", [MAP(**QUIET), SWAG(**QUIET), SVI(guide=AutoDelta, **QUIET)], ids=lambda m: repr(m)[:4]
)
def test_a_scale_that_ran_to_zero_is_named(method, monkeypatch):
    """With forty weights of which the data says nothing, the joint density has no maximum but at a scale of 0."""
    monkeypatch.setattr(schedule, "BUDGET_STEPS", 2_000)
    detector, train = problem(features=40, images=60, prior=spike)
    train.tensors[0].mul_(0.01)
    with pytest.warns(ConvergenceWarning, match=r"linear\.weight_scale .* boundary"):
        method.fit(detector, train)


GOOD = {
    "map": MAP(**QUIET),
    "svi": SVI(**QUIET),
    "full": SVI(guide="full", **QUIET),
    "dropout": MCDropout(**QUIET),
    "ensemble": DeepEnsemble(members=2, **QUIET),
    "swag": SWAG(**QUIET),
    "laplace": Laplace(**QUIET),
    "kron": Laplace(structure="kron", **QUIET),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_fit_says_so(name):
    assert not flagged(GOOD[name], *problem(seed=1))


def test_a_verdict_is_kept_in_stores_and_trees(tmp_path):
    detector, train = problem()
    posterior = MAP(**FEW).fit(detector, train)
    posterior.save(tmp_path / "map.zarr")
    again = load_posterior(tmp_path / "map.zarr", detector)
    assert repr(again) == repr(posterior) and "NOT converged" in repr(again)
    assert posterior.predict(train)["sample_stats"].attrs == again.sample_stats.attrs
    json.dumps(again.sample_stats.attrs)


def test_the_newton_gain_is_the_distance_from_the_mode():
    """Of a density that is nearly quadratic: the log density at the mode, less that where the curvature was taken."""
    detector, train = problem(images=400)
    best = Laplace(**QUIET).fit(detector, train)
    assert best.sample_stats.attrs["newton_gain_nats"] < 0.01
    mode = best.sampler.point()["linear.weight"]
    with torch.no_grad():
        detector.network.linear.weight.copy_(mode + 0.1)
    far = Laplace(epochs=0, **QUIET).fit(detector, train)

    def log_joint(weight):
        labels = train.tensors[1]
        weights = len(labels) / (2 * torch.bincount(labels))[labels]  # classes weigh alike in a fit
        likelihood = dist.Bernoulli(logits=train.tensors[0].flatten(1) @ weight[0]).log_prob(labels.float())
        return float((weights * likelihood).sum() + dist.Normal(0.0, 1.0).log_prob(weight).sum())

    gain = log_joint(mode) - log_joint(mode + 0.1)
    assert gain > 0.2
    assert far.sample_stats.attrs["newton_gain_nats"] == pytest.approx(gain, rel=0.15)


def test_laplace_ends_at_the_maximum_wherever_its_search_ended():
    detector, train = problem(images=400)
    short, long = (Laplace(epochs=count, lr=0.01, **QUIET).fit(detector, train) for count in (1, 300))
    first, second = (posterior.sampler.point()["linear.weight"] for posterior in (short, long))
    torch.testing.assert_close(first, second, atol=0.005, rtol=0)


@pytest.mark.parametrize(
    "method",
    [NUTS(chains=2, warmup=1, samples=20, max_tree_depth=1, epochs=20, **QUIET), MAP(lr=30.0, epochs=30, **QUIET)],
    ids=["nuts", "map"],
)
def test_an_early_stop_hides_nothing_else(method):
    detector, train = problem()
    with pytest.warns(ConvergenceWarning):
        method.fit(detector, train, problem(seed=5)[1])


def test_an_early_stop_alone_is_said_and_no_reason_to_warn():
    """Labels of a coin: the first epochs are the best on other images."""
    noise = torch.Generator().manual_seed(0)
    sets = [
        torch.utils.data.TensorDataset(torch.randn(60, 30, 1, 1, generator=noise), torch.arange(60) % 2) for _ in "ab"
    ]
    detector = Detector(Logistic(30), {"linear": priors.normal(10.0)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = MAP(epochs=400, lr=0.02, **QUIET).fit(detector, *sets)
    assert found.sample_stats.attrs["early_stop"] == 1 and "stopped early" in repr(found)


def test_a_dead_network_is_no_better_than_guessing():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    with torch.no_grad():
        network[1].bias.fill_(-100.0)
    with pytest.warns(ConvergenceWarning, match="no better than their class shares"):
        MAP(**QUIET).fit(Detector(network, {"3": priors.normal(1.0)}), problem()[1])


def test_k_hat_tells_a_guide_that_is_too_narrow():
    """Mean field over two nearly equal features is several times too narrow, a full covariance is not."""
    assert pareto_k.DRAWS == 500  # other modules of these tests take fewer
    noise = torch.Generator().manual_seed(0)
    common = torch.randn(100, 1, generator=noise)
    train = simulate(common + 0.05 * torch.randn(100, 2, generator=noise), torch.tensor([1.0, 1.0]), 0)
    detector = Detector(Logistic(2), {"linear": priors.normal(1.0)})
    narrow, full = (SVI(guide=guide, **QUIET).fit(detector, train).sample_stats.attrs for guide in ("normal", "full"))
    assert narrow["k_hat"] > 0.7 and "k-hat" in narrow["verdict"]
    assert full["k_hat"] < 0.5 and "k-hat" not in full["verdict"]


def test_k_hat_is_that_of_a_pareto_tail():
    """Weights of a Pareto distribution with tail index 1 / k have k̂ = k, within four standard errors."""
    for shape in (0.3, 0.6, 1.0):
        log_weights = np.random.default_rng(0).exponential(size=4000) * shape
        tail = 3 * np.sqrt(4000)
        assert k_hat(log_weights) == pytest.approx(shape, abs=4 * (1 + shape) / np.sqrt(tail))


def chains(seed=0, shape=(4, 300, 3)):
    return np.random.default_rng(seed).normal(size=shape)


def test_chains_that_disagree_or_stand_still_are_flagged():
    good = chains()
    assert judge_chains({"w": good}, "").converged
    apart = good + np.array([0, 0, 0, 2.0])[:, None, None]
    assert "R-hat" in judge_chains({"w": apart}, "").text
    still = good.copy()
    still[..., 1] = 1.0
    assert "never moved" in judge_chains({"w": still}, "").text
    slow = np.cumsum(chains(1), 1)
    assert not judge_chains({"w": slow}, "").converged
    assert "diverged" in judge_chains({"w": good}, "", {"diverging": good[..., 0] > 3}).text
    energy = np.cumsum(0.05 * good[..., 0], 1)
    assert "E-BFMI" in judge_chains({"w": good}, "", {"energy": energy}).text


def test_e_bfmi_is_that_of_arviz():
    energy = np.cumsum(chains()[..., 0], 1) * 0.3 + chains(1)[..., 0]
    assert e_bfmi(energy) == pytest.approx(arviz.bfmi(energy).min(), rel=1e-2)


def test_the_worse_of_two_verdicts_is_said():
    good, bad = Verdict(True, "fine", {"a": 1.0}), Verdict(False, "broken", {"b": 2.0})
    assert str(good & bad) == str(bad & good) == "NOT converged: broken; fine"
    assert (good & bad).figures == {"a": 1.0, "b": 2.0}
    assert str(good & good) == "converged: fine; fine"

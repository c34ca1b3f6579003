"""NUTS samples the posterior itself: exact posteriors, R-hat, divergences, and what is left of a stopped fit."""

import random

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from bayesdf.analysis import convergence
from bayesdf.errors import BayesdfError, BayesdfWarning
from bayesdf.inference import NUTS, load_posterior, nuts, whitening
from bayesdf.inference.joint import Joint
from bayesdf.inference.problem import prepare
from bayesdf.models import Detector, priors
from tests.inference.linear import (
    NOISE,
    PRIOR_SCALE,
    Gaussian,
    Logistic,
    check_chains,
    conjugate,
    correlated,
    exact,
    separate,
    simulate,
)

WEIGHTS = torch.tensor([1.0, -0.5])
CLOSE = {"epochs": 100, "batch_size": 80, "lr": 0.05, "class_balanced": False, "progress": False}
QUICK = {"chains": 2, "warmup": 10, "samples": 6, "epochs": 5, "lr": 0.05, "progress": False}


def detector(prior=None, kind=Detector):
    return kind(Logistic(2), {"linear": prior or priors.normal(PRIOR_SCALE)})


def worst_r_hat(posterior):
    table = convergence(posterior.draws()).sel(statistic="r_hat")
    return max(float(site.max()) for site in table.data_vars.values())


# --- the posterior is right -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_chains_agree_on_the_exact_posterior():
    """R-hat at most 1.03, where chance alone gives 1.01 to 1.02; mean, standard
    deviations and the correlation, below -0.9, within four standard errors."""
    train = simulate(correlated(80), WEIGHTS, seed=0)
    mean, covariance = exact(train)
    assert covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]) < -0.9
    posterior = NUTS(warmup=100, samples=250, **CLOSE).fit(detector(), train)
    assert worst_r_hat(posterior) <= 1.03
    check_chains(posterior.draws()["posterior/linear.weight"].values[:, :, 0], mean, covariance)
    stats = posterior.sample_stats
    assert not stats["diverging"].any() and float(stats["tree_depth"].mean()) < 3


@pytest.mark.slow
def test_chains_agree_on_the_last_layer_of_a_network():
    """8 random features, 2 classes: R-hat of all 18 numbers at most 1.05, where chance alone gives 1.02 to 1.03."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 2))
    images = torch.rand(100, 3, 2, 2)
    train = simulate(images.flatten(1) - 0.5, 2 * torch.randn(12), seed=0)
    train.tensors = (images, train.tensors[1])
    method = NUTS(
        warmup=50, samples=250, target_accept=0.7, epochs=100, lr=0.02, batch_size=100, freeze="all", progress=False
    )
    posterior = method.fit(Detector(network, {"3": priors.normal(1.0)}), train)
    assert sum(value[0, 0].numel() for value in posterior.sampler.values.values()) == 18
    assert worst_r_hat(posterior) <= 1.05
    assert torch.equal(posterior.network[1].weight, network[1].weight)
    assert float(posterior.sample_stats["n_steps"].mean()) < 16


@pytest.mark.slow
@pytest.mark.parametrize("dense", [0, whitening.DENSE])
def test_positive_sites_have_the_jacobian(monkeypatch, dense):
    """A hyperprior without data keeps its prior: a log-normal stays what it is."""
    monkeypatch.setattr(whitening, "DENSE", dense)

    def prior(name, parameter):
        pyro.sample(f"{name}.scale", dist.LogNormal(-1.0, 0.5))
        return dist.Normal(torch.zeros_like(parameter), 1.0).to_event(parameter.dim())

    train = simulate(separate(40), WEIGHTS, seed=0)
    posterior = NUTS(chains=1, warmup=100, samples=500, **CLOSE).fit(detector(prior), train)
    found = np.log(posterior.draws()["posterior/linear.weight.scale"].values)
    check_chains(found[..., None], np.array([-1.0]), np.array([[0.25]]), least=100)


# --- coordinates ----------------------------------------------------------------------------------------------------


def test_whitening_of_a_normal_posterior_has_its_covariance():
    train = simulate(correlated(80), WEIGHTS, seed=0)
    model = detector(kind=Gaussian)
    problem = prepare(model, NUTS(**CLOSE), train, None)
    joint = Joint(model, problem)
    torch.manual_seed(0)
    space = nuts._Space(joint, problem, joint.start)
    np.testing.assert_allclose((space.scale @ space.scale.T).numpy(), conjugate(train)[1], rtol=0.25)
    features = train.tensors[0].flatten(1)
    hessian = whitening.hessian(joint, problem, space.centre, space.data)
    torch.testing.assert_close(hessian, features.T @ features / NOISE**2, rtol=1e-4, atol=1e-4)
    # At 0 all targets are 1 away, and an image's slope is its features over the variance of the noise, up to the sign.
    slopes = whitening.image_information(joint, problem, torch.zeros(2))
    torch.testing.assert_close(slopes, features.T @ features / NOISE**4, rtol=1e-4, atol=1e-4)


class Stubborn(torch.autograd.Function):
    """x², whose gradient looks at numbers, and so is had one at a time only."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 2 * x * gradient if gradient.abs().sum() > 0 else torch.zeros_like(x)


class Bent(nn.Module):
    def forward(self, x):
        return Stubborn.apply(x)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rows", [1, 100, 16_384])
@pytest.mark.parametrize(
    ("first", "bend", "together"),
    [(nn.Flatten(), nn.Tanh(), True), (nn.Flatten(), Bent(), False), (nn.Conv2d(3, 4, 3), nn.Tanh(), None)],
)
def test_rows_of_the_hessian_may_be_made_at_once(monkeypatch, first, bend, together, rows):
    """They are those of the double gradient, whatever operations the network has."""
    monkeypatch.setattr(whitening, "_ROWS", rows)
    made, at_once = [], whitening._add_rows_together
    monkeypatch.setattr(whitening, "_add_rows_together", lambda *given: made.append(at_once(*given)) or made[-1])
    torch.manual_seed(0)
    network = nn.Sequential(first, nn.LazyLinear(4) if together is not None else nn.Flatten(), bend, nn.LazyLinear(2))
    images, labels = torch.rand(10, 3, 5, 5), torch.arange(10) % 2
    network(images)
    names = [str(place) for place, layer in enumerate(network) if hasattr(layer, "weight")]
    model = Detector(network, dict.fromkeys(names, priors.normal(1.0)))
    problem = prepare(model, NUTS(**CLOSE), TensorDataset(images, labels), None)
    joint = Joint(model, problem)
    data = list(whitening.features(problem, 4))
    centre = whitening.flatten(joint.start)
    found = whitening.hessian(joint, problem, centre, data)
    assert made == ([together] * len(data) if together is not None else [])

    def minus_log_likelihood(vector):
        logits = functional_call(network.eval(), whitening.sites(joint, vector), images)
        return cross_entropy(logits, labels, reduction="sum")

    expected = torch.autograd.functional.hessian(minus_log_likelihood, centre)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_information_of_priors_knows_parents_children_and_the_scale():
    """A normal has 1 / s² for each weight, and 2 for each child of the logarithm of its scale; a log-normal 1 / σ²."""

    def prior(name, parameter):
        scale = pyro.sample(f"{name}.scale", dist.LogNormal(-1.0, 0.5))
        return dist.Normal(torch.zeros_like(parameter), scale).to_event(parameter.dim())

    model = Detector(Logistic(50), {"linear": prior})
    train = simulate(torch.randn(20, 50), torch.zeros(50), seed=0)
    problem = prepare(model, NUTS(progress=False), train, None)
    joint = Joint(model, problem)
    torch.manual_seed(0)
    found = whitening.sites(joint, whitening.prior_information(joint, problem, whitening.flatten(joint.start)))
    scale = joint.values(joint.start)["linear.weight.scale"]
    assert float(found["linear.weight"].mean()) == pytest.approx(float(scale) ** -2, rel=0.05)
    assert float(found["linear.weight.scale"]) == pytest.approx(2 * 50 + 1 / 0.5**2, rel=0.3)


# --- what it reports ------------------------------------------------------------------------------------------------


def test_shape_of_what_it_reports():
    train = simulate(separate(40), WEIGHTS, seed=0)
    posterior = NUTS(**QUICK).fit(detector(), train)
    tree = posterior.draws()
    assert tree["posterior/linear.weight"].dims[:2] == ("chain", "draw")
    assert tree["posterior/linear.weight"].shape == (2, 6, 1, 2)
    stats = tree["sample_stats"]
    for name, kind in {"diverging": "b", "acceptance_rate": "f", "lp": "f", "n_steps": "i", "tree_depth": "i"}.items():
        assert stats[name].dims == ("chain", "draw") and stats[name].shape == (2, 6) and stats[name].dtype.kind == kind
    assert ((stats["acceptance_rate"] >= 0) & (stats["acceptance_rate"] <= 1)).all()
    assert (2 ** stats["tree_depth"] - 1 <= stats["n_steps"]).all()
    assert stats["loss"].sizes["step"] == 10
    starts = posterior.sampler.values["linear.weight"]
    assert not torch.equal(starts[0], starts[1])


def test_lp_is_the_log_density_of_the_draw():
    train = simulate(separate(40), WEIGHTS, seed=0)
    posterior = NUTS(**QUICK, class_balanced=False).fit(detector(), train)
    weight = posterior.sampler.values["linear.weight"][:, :, 0]
    score = weight @ train.tensors[0].flatten(1).T
    expected = dist.Bernoulli(logits=score).log_prob(train.tensors[1].float()).sum(-1)
    expected = expected + dist.Normal(0.0, PRIOR_SCALE).log_prob(weight).sum(-1)
    np.testing.assert_allclose(posterior.sample_stats["lp"], expected, rtol=1e-4)


def test_trees_are_no_deeper_than_allowed():
    posterior = NUTS(**QUICK, max_tree_depth=1).fit(detector(), simulate(separate(40), WEIGHTS, seed=0))
    assert (posterior.sample_stats["n_steps"] == 1).all() and (posterior.sample_stats["tree_depth"] == 1).all()


class Wall(dist.Normal):
    """Next to nothing lies above 0.2, and no slope says so: every second trajectory runs into it."""

    def log_prob(self, value):
        return super().log_prob(value) - 5000.0 * (value > 0.2)


def test_divergences_are_said():
    def walled(name, parameter):
        return Wall(torch.zeros_like(parameter), 1.0).to_event(parameter.dim())

    train = simulate(0.01 * torch.ones(10, 2), torch.zeros(2), seed=0)
    with pytest.warns(BayesdfWarning, match=r"of 40 trajectories diverged.*target_accept above 0\.6"):
        posterior = NUTS(**{**QUICK, "samples": 20}, target_accept=0.6).fit(detector(walled), train)
    assert posterior.sample_stats["diverging"].any()


def test_draws_come_back_from_disk(tmp_path):
    posterior = NUTS(**QUICK).fit(detector(), simulate(separate(40), WEIGHTS, seed=0))
    loaded = load_posterior(posterior.save(tmp_path / "a.zarr"), detector())
    assert loaded.draws()["posterior"].identical(posterior.draws()["posterior"])
    assert loaded.sample_stats["diverging"].dtype == bool


# --- seeds and checkpoints ------------------------------------------------------------------------------------------


def test_same_seed_same_draws_and_the_callers_random_numbers_are_left_alone():
    model, train = detector(), simulate(separate(40), WEIGHTS, seed=0)
    pyro.clear_param_store()
    torch.manual_seed(7)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    first, second, other = (NUTS(**QUICK, seed=seed).fit(model, train) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[2]
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert not pyro.get_param_store().keys()
    values = [posterior.sampler.values["linear.weight"] for posterior in (first, second, other)]
    assert torch.equal(values[0], values[1]) and not torch.equal(values[0], values[2])


def test_a_stopped_fit_goes_on_with_the_chain_that_was_not_finished(tmp_path, monkeypatch):
    train, path = simulate(separate(40), WEIGHTS, seed=0), tmp_path / "fit.pt"
    method = NUTS(**{**QUICK, "chains": 3}, checkpoint=path)
    whole = NUTS(**{**QUICK, "chains": 3}).fit(detector(), train)
    run, begun = nuts._run, []

    def stop(space, settings, number, report):
        def interrupted(state, steps):
            raise KeyboardInterrupt

        begun.append(number)
        return run(space, settings, number, interrupted if len(begun) == 2 else report)

    monkeypatch.setattr(nuts, "_run", stop)
    with pytest.raises(KeyboardInterrupt):
        method.fit(detector(), train)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["fit.pt", "fit.pt.1"]
    again = method.fit(detector(), train)
    assert begun == [0, 1, 1, 2]
    assert torch.equal(again.sampler.values["linear.weight"], whole.sampler.values["linear.weight"])
    assert again.sample_stats.identical(whole.sample_stats)
    assert torch.equal(
        method.fit(detector(), train).sampler.values["linear.weight"], again.sampler.values["linear.weight"]
    )
    assert len(begun) == 4  # all was done
    method.forget()
    assert not list(tmp_path.iterdir())


def test_a_chain_of_another_fit_or_a_damaged_one_is_refused(tmp_path):
    train, path = simulate(separate(40), WEIGHTS, seed=0), tmp_path / "fit.pt"
    NUTS(**QUICK, checkpoint=path).fit(detector(), train)
    chain = tmp_path / "fit.pt.2"
    path.unlink()
    with pytest.raises(BayesdfError, match=r"fit\.pt\.1 is of other data, settings or weights"):
        NUTS(**QUICK, target_accept=0.9, checkpoint=path).fit(detector(), train)
    chain.write_bytes(chain.read_bytes()[:100])
    path.unlink()
    with pytest.raises(BayesdfError, match=r"fit\.pt\.2 is not a checkpoint of a chain"):
        NUTS(**QUICK, checkpoint=path).fit(detector(), train)


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"chains": 0},
        {"warmup": 0},
        {"samples": 0},
        {"max_tree_depth": 0},
        {"target_accept": 1.0},
        {"target_accept": 0.0},
    ],
)
def test_settings_out_of_range(settings):
    with pytest.raises(BayesdfError, match=next(iter(settings))):
        NUTS(**settings)


def test_too_many_numbers_name_the_largest_site():
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 30_000), nn.Linear(30_000, 2))
    model = Detector(network, {"1.weight": priors.normal(1.0), "2.bias": priors.normal(1.0)})
    with pytest.raises(BayesdfError, match=r"60002 numbers, 60000 of them in 1\.weight, but at most 50000"):
        NUTS(progress=False).fit(model, simulate(separate(20), WEIGHTS, seed=0))


def test_support_without_a_transform():
    def prior(name, parameter):
        pyro.sample(f"{name}.shares", dist.Dirichlet(torch.ones(3)))
        return dist.Normal(torch.zeros_like(parameter), 1.0).to_event(parameter.dim())

    with pytest.raises(BayesdfError, match="pass a Pyro guide"):
        NUTS(**QUICK).fit(detector(prior), simulate(separate(20), WEIGHTS, seed=0))

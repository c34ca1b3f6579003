"""Stochastic gradient MCMC: the variance its steps leave, its cycles, and what is left of a stopped fit."""

import itertools
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from bayesdf.analysis import convergence
from bayesdf.errors import BayesdfError
from bayesdf.inference import SGMCMC, Diverged, sgmcmc
from bayesdf.inference.joint import Joint
from bayesdf.inference.map import Point
from bayesdf.inference.sgmcmc import Langevin
from bayesdf.inference.training import loop
from bayesdf.inference.training.problem import prepare
from bayesdf.models import Detector, priors
from tests.inference.linear import NOISE, PRIOR_SCALE, Gaussian, Logistic, conjugate, correlated, separate, simulate

WEIGHTS = torch.tensor([1.0, -0.5])
CLOSE = {"chains": 1, "epochs": 100, "batch_size": 80, "lr": 0.05, "class_balanced": False, "progress": False}
QUICK = {"chains": 1, "epochs": 3, "batch_size": 8, "sampling_epochs": 20, "cycles": 2, "stored_draws": 8}
QUICK["progress"] = False


def detector(prior=None, kind=Detector):
    return kind(Logistic(2), {"linear": prior or priors.normal(PRIOR_SCALE)})


def convolutional():
    torch.manual_seed(3)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def pictures(count=24):
    noise = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    return TensorDataset(torch.rand(count, 3, 8, 8, generator=noise) + 0.3 * labels[:, None, None, None], labels)


def noisy(images, noise):
    return images + 0.1 * torch.rand(images.shape, generator=noise)


# --- the variance is right ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("h", [0.5, 1.0])
@pytest.mark.parametrize("friction", [None, 0.3, 2.0])
def test_steps_leave_the_stated_variance(h, friction):
    """20,000 independent numbers for each curvature: within 4 %, which is four standard errors; sgld is too wide by 1 /
    (1 - h² λ / 4), sghmc is exact."""
    torch.manual_seed(0)
    curvature = torch.tensor([1.0, 0.5, 0.1])[:, None]
    u = torch.zeros(3, 20_000, requires_grad=True)
    size = 7
    optimiser = Langevin([{"params": [u]}], h, size, friction)
    for _ in range(int(200 / h**2)):
        optimiser.zero_grad()
        (0.5 * (curvature * u.square()).sum() / size).backward()
        optimiser.step()
    expected = 1 / curvature[:, 0]
    if friction is None:
        expected = expected / (1 - h**2 * curvature[:, 0] / 4)
    torch.testing.assert_close(u.detach().var(1), expected, rtol=0.04, atol=0)


@pytest.mark.slow
def test_batches_leave_the_variance_as_it_is():
    """Mean within 0.2 of a standard deviation, standard deviations within 15 %, correlation within 0.03 of -0.97."""
    train = simulate(correlated(80), WEIGHTS, seed=0)
    mean, covariance = conjugate(train)
    sd = np.sqrt(np.diag(covariance))
    settings = {**CLOSE, "batch_size": 16, "sampling_epochs": 800, "stored_draws": 600}
    posterior = SGMCMC(**settings).fit(detector(kind=Gaussian), train)
    found = posterior.draws()["posterior/linear.weight"].values.reshape(-1, 2)
    assert (abs(found.mean(0) - mean) / sd).max() < 0.2
    np.testing.assert_allclose(found.std(0), sd, rtol=0.15)
    assert np.corrcoef(found.T)[0, 1] == pytest.approx(covariance[0, 1] / sd.prod(), abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_defaults_work_for_any_prior_scale(scale):
    """Standard deviations within 20 %, at the default steps."""
    train = simulate(separate(80), WEIGHTS, seed=0)
    covariance = conjugate(train, scale)[1]
    settings = {**CLOSE, "sampling_epochs": 3000, "stored_draws": 500, "epochs": 200}
    posterior = SGMCMC(**settings).fit(detector(priors.normal(scale), Gaussian), train)
    found = posterior.draws()["posterior/linear.weight"].values.reshape(-1, 2)
    np.testing.assert_allclose(found.std(0), np.sqrt(np.diag(covariance)), rtol=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("dense", [0, sgmcmc.whitening.DENSE])
def test_positive_sites_have_the_jacobian(monkeypatch, dense):
    """A hyperprior without data keeps its prior: a log-normal stays what it is."""
    monkeypatch.setattr(sgmcmc.whitening, "DENSE", dense)

    def prior(name, parameter):
        pyro.sample(f"{name}.scale", dist.LogNormal(-1.0, 0.5))
        return dist.Normal(torch.zeros_like(parameter), 1.0).to_event(parameter.dim())

    settings = {**CLOSE, "sampling_epochs": 3000, "stored_draws": 500}
    posterior = SGMCMC(**settings).fit(detector(prior), simulate(separate(40), WEIGHTS, seed=0))
    found = np.log(posterior.draws()["posterior/linear.weight.scale"])
    assert float(found.mean()) == pytest.approx(-1.0, abs=0.1)
    assert float(found.std()) == pytest.approx(0.5, rel=0.15)


def chain(train, batch_size, **settings):
    """A chain, its problem, and the batches of an epoch."""
    model = detector()
    method = SGMCMC(**{**CLOSE, "batch_size": batch_size, "freeze": "all", **settings})
    problem = prepare(model, method, train, None)
    joint = Joint(model, problem)
    torch.manual_seed(0)
    space = sgmcmc._space(joint, problem, Point(joint, problem))
    found = sgmcmc._Chain(joint, problem, space, method, sgmcmc._step_sizes(method, problem))
    data = [
        ((images.flatten(1)[:, :, None, None],), labels)
        for images, labels in zip(train.tensors[0].split(batch_size), train.tensors[1].split(batch_size), strict=True)
    ]
    return found, problem, [(problem.parts.prefix(*images), labels) for images, labels in data]


def test_the_control_variate_keeps_the_mean_of_the_slopes_and_takes_their_noise():
    train = simulate(correlated(80), WEIGHTS, seed=0)
    controlled, problem, data = chain(train, 8)
    plain, _, _ = chain(train, 8)
    plain.varied = False
    for inputs, labels in 20 * data:  # after an epoch the mean at the anchor is exact; others hold it there
        controlled.loss(problem.module, inputs, labels)
    found = {}
    for name, objective in (("controlled", controlled), ("plain", plain)):
        with torch.no_grad():
            objective.u.copy_(torch.tensor([0.5, -0.5]))
        slopes, losses = [], []
        for inputs, labels in data:
            loss = objective.loss(problem.module, inputs, labels)
            slopes.append(torch.autograd.grad(loss, objective.u)[0])
            losses.append(loss.detach())
        found[name] = torch.stack(slopes), torch.stack(losses)
    torch.testing.assert_close(found["controlled"][0].mean(0), found["plain"][0].mean(0), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found["controlled"][1].mean(), found["plain"][1].mean(), rtol=1e-3, atol=1e-3)
    for part in (0, 1):
        assert (found["controlled"][part].std(0) < 0.35 * found["plain"][part].std(0)).all()


# --- cycles ---------------------------------------------------------------------------------------------------------


def test_steps_follow_the_cycles_and_draws_are_of_their_last_parts():
    method = SGMCMC(chains=1, sampling_epochs=100, cycles=4, burn_in=0.6, stored_draws=40, step_size=0.8, batch_size=10)
    problem = prepare(detector(), method, simulate(separate(40), WEIGHTS, seed=0), None)
    steps = sgmcmc._step_sizes(method, problem)
    assert len(steps) == 400 and np.array_equal(steps[:100], steps[300:])
    alpha = steps[:100] ** 2 / 0.8**2
    np.testing.assert_allclose(alpha, [(math.cos(math.pi * k / 100) + 1) / 2 for k in range(100)], atol=1e-12)
    places = sgmcmc._stored_steps(method, steps)
    assert len(places) == 40 and (places % 100 >= 60).all()
    assert [int((places // 100 == cycle).sum()) for cycle in range(4)] == [10] * 4
    between = [
        (steps[start + 1 : end + 1] ** 2)[(np.arange(start + 1, end + 1) % 100) >= 60].sum()
        for start, end in itertools.pairwise(places)
    ]
    assert max(between) < 2.5 * min(between)


def test_too_few_steps_for_the_draws():
    with pytest.raises(BayesdfError, match=r"60 steps are too few for 100 draws .* \(at most 1[01] fit\)"):
        SGMCMC(**{**QUICK, "stored_draws": 100}).fit(Detector(convolutional(), {"7": priors.normal(0.1)}), pictures())


# --- what it reports, and what it leaves alone ----------------------------------------------------------------------


@pytest.mark.parametrize("dynamics", ["sgld", "sghmc"])
def test_shape_of_what_it_reports(dynamics):
    method = SGMCMC(**{**QUICK, "chains": 2}, dynamics=dynamics)
    posterior = method.fit(Detector(convolutional(), {"3": priors.normal(0.1)}), pictures(), pictures())
    tree = posterior.draws()
    assert tree["posterior/3.weight"].shape == (2, 4, 4, 4, 3, 3)
    stats = tree["sample_stats"]
    for name in ("step_size", "potential"):
        assert stats[name].dims == ("chain", "draw") and stats[name].shape == (2, 4) and np.isfinite(stats[name]).all()
    assert (stats["step_size"] > 0).all() and (stats["step_size"] <= 0.5).all()
    assert stats["loss"].sizes["step"] == 9 and stats["validation_nll"].sizes["epoch"] == 3
    values = posterior.sampler.values["3.weight"]
    assert not torch.equal(values[0], values[1]) and not torch.equal(values[0, 0], values[0, 1])
    assert convergence(tree)["3.weight"].shape == (2, 4, 4, 3, 3)


def test_potential_is_of_the_draw():
    train = simulate(separate(40), WEIGHTS, seed=0)
    method = SGMCMC(**{**CLOSE, "batch_size": 40}, sampling_epochs=40, stored_draws=8)
    posterior = method.fit(detector(), train)
    weight = posterior.sampler.values["linear.weight"][:, :, 0]
    log_joint = dist.Bernoulli(logits=weight @ train.tensors[0].flatten(1).T).log_prob(train.tensors[1].float()).sum(-1)
    log_joint = log_joint + dist.Normal(0.0, PRIOR_SCALE).log_prob(weight).sum(-1)
    np.testing.assert_allclose(posterior.sample_stats["potential"], -log_joint, rtol=1e-4)


def test_weights_without_a_prior_and_batch_statistics_stay_at_the_maximum():
    """What phase 0 leaves is what is there in the end, although nothing is frozen for it."""
    model, train = Detector(convolutional(), {"3": priors.normal(0.1)}), pictures()
    phases = {}
    minimise = sgmcmc.minimise

    def watched(problem, *rest, **settings):
        history = minimise(problem, *rest, **settings)
        phases[settings.get("phase", 0)] = {name: value.clone() for name, value in problem.network.state_dict().items()}
        return history

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sgmcmc, "minimise", watched)
        posterior = SGMCMC(**QUICK).fit(model, train)
    assert set(phases) == {0, 1}
    assert not torch.equal(phases[0]["0.weight"], model.network.state_dict()["0.weight"])
    for name, value in posterior.network.state_dict().items():
        assert torch.equal(value, phases[0][name]) == (not name.startswith("3.")), name


def test_same_seed_same_draws_and_another_seed_others():
    model = Detector(convolutional(), {"3": priors.normal(0.1)})
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first, second, other = (SGMCMC(**QUICK, seed=seed).fit(model, pictures()) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    values = [posterior.sampler.values["3.weight"] for posterior in (first, second, other)]
    assert torch.equal(values[0], values[1]) and not torch.equal(values[0], values[2])


@pytest.mark.parametrize(("dynamics", "step"), [("sghmc", 7), ("sgld", 30), ("sghmc", 30), ("sghmc", 100)])
def test_a_stopped_fit_goes_on_to_the_same_posterior(tmp_path, monkeypatch, dynamics, step):
    """Stopped in the maximum a posteriori (9 steps), in the first chain (60), and in the second one."""
    model, train = Detector(convolutional(), {"3": priors.normal(0.1)}), pictures()
    settings = {**QUICK, "dynamics": dynamics, "chains": 2, "augment": noisy}
    whole = SGMCMC(**settings).fit(model, train)
    resumable = SGMCMC(**settings, checkpoint=tmp_path / "fit.pt")
    sound, seen = loop.check_value, []

    def stop(value, name, history):
        seen.append(name)
        if seen.count("loss") == step:
            raise KeyboardInterrupt
        sound(value, name, history)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "check_value", stop)
        with pytest.raises(KeyboardInterrupt):
            resumable.fit(model, train)
    again = resumable.fit(model, train)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["fit.pt", "fit.pt.1", "fit.pt.2"]
    assert again.sample_stats.identical(whole.sample_stats)
    assert torch.equal(again.sampler.values["3.weight"], whole.sampler.values["3.weight"])
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name]), name


@pytest.mark.parametrize(
    ("chain", "step", "shape", "kind"),
    [(0, 5, (1, 2), "delta"), (0, 25, (1, 2), "stored"), (1, 5, (1, 4), "stored")],
)
def test_a_chain_that_diverges_gives_back_what_was_sampled(chain, step, shape, kind):
    """Before the first draw the maximum, in the first chain its draws so far, then the chains that were finished."""
    model, train = detector(), simulate(separate(40), WEIGHTS, seed=0)
    settings = {**CLOSE, "epochs": 50, "chains": 2, "sampling_epochs": 40, "stored_draws": 8}
    whole = SGMCMC(**settings).fit(model, train)
    sound, steps = loop.check_value, []

    def burst(value, name, history):
        if name == "loss":
            steps.append(len(history.loss))
        late = name == "loss" and len(steps) == 50 + 40 * chain + step + 1
        sound(math.nan if late else value, name, history)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "check_value", burst)
        with pytest.raises(Diverged, match=f"SGMCMC: the loss is nan at step {step} ") as caught:
            SGMCMC(**settings).fit(model, train)
    found = caught.value.posterior
    assert found.sampler.kind == kind and len(found.sample_stats["loss"]) == 50
    assert found.draws(shape[1])["posterior/linear.weight"].shape == (*shape, 1, 2)
    if kind == "stored":
        expected = whole.sampler.values["linear.weight"][:1, : shape[1]]
        assert torch.equal(found.sampler.values["linear.weight"], expected)


@pytest.mark.parametrize(
    "settings",
    [
        {"dynamics": "hmc"},
        {"chains": 0},
        {"sampling_epochs": 0},
        {"cycles": 0},
        {"burn_in": 1.0},
        {"step_size": 0.0},
        {"step_size": 2.0},
        {"friction": 0.0},
        {"stored_draws": 0},
        {"stored_draws": 201, "chains": 2},
    ],
)
def test_settings_out_of_range(settings):
    with pytest.raises(BayesdfError, match=next(iter(settings))):
        SGMCMC(**settings)


@pytest.mark.parametrize("size", [0.05, 0.5])
def test_a_scale_that_weights_share_neither_collapses_nor_explodes(size):
    """Of a linear model the scale's posterior is known: the weights integrate out. With weak data and with strong."""

    def spike(name, parameter):
        scale = pyro.sample(f"{name}.scale", dist.HalfCauchy(0.1))
        return dist.Normal(torch.zeros_like(parameter), scale).to_event(parameter.dim())

    noise = torch.Generator().manual_seed(0)
    features = torch.randn(120, 10, generator=noise)
    train = simulate(features, size * torch.randn(10, generator=noise), seed=0)
    targets, grid = (2.0 * train.tensors[1] - 1.0).double(), torch.logspace(-4, 1, 400, dtype=torch.float64)
    covariance = grid[:, None, None] ** 2 * (features @ features.T).double() + NOISE**2 * torch.eye(120).double()
    density = dist.MultivariateNormal(torch.zeros(120).double(), covariance).log_prob(targets)
    weight = (density + dist.HalfCauchy(0.1).log_prob(grid)).softmax(0) * grid  # per step of the logarithm
    exact = weight.cumsum(0) / weight.sum()
    settings = {**CLOSE, "batch_size": 120, "sampling_epochs": 1500, "stored_draws": 150}
    posterior = SGMCMC(**settings).fit(Gaussian(Logistic(10), {"linear": spike}), train)
    found = posterior.draws()["posterior/linear.weight.scale"].values
    below = float(exact[torch.searchsorted(grid, float(np.median(found)))])
    assert 0.2 < below < 0.8

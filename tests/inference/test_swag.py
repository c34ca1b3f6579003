"""SWAG: where SGD wanders on a quadratic is known exactly; its moments, averages and checkpoints."""

import numpy as np
import pytest
import torch
from scipy.linalg import solve_discrete_lyapunov
from torch import nn
from torch.utils.data import TensorDataset

from bayesdf.errors import BayesdfError
from bayesdf.inference import SWAG, Diverged, load_posterior
from bayesdf.inference.swag import MOMENTUM, _Walk
from bayesdf.inference.whitening import flatten
from bayesdf.models import Detector, priors
from tests.inference.convolutional import convolutional, noisy, pictures, stop
from tests.inference.linear import NOISE, PRIOR_SCALE, Gaussian, Logistic, correlated, simulate

QUICK = {"epochs": 0, "class_balanced": False, "progress": False}


def signs(count, seed=0):
    """Images of one feature, 1 or -1: the loss of every image has the same curvature."""
    noise = torch.Generator().manual_seed(seed)
    features = (torch.rand(count, 1, generator=noise) < 0.5).float() * 2 - 1
    labels = (torch.rand(count, generator=noise) < 0.6).long()
    return TensorDataset(features[:, :, None, None], labels)


def linear(features, scale=PRIOR_SCALE):
    return Gaussian(Logistic(features), {"linear": priors.normal(scale)})


def stationary(data, batch, share):
    """Variance of SGD at that share of the largest rate on `signs`, on average over the steps of an epoch.

    The weight's distance x from the maximum and the velocity v take linear steps, ``v ← μ v + A x + ξ``, ``x ← x - ε
    v``. Batches of an epoch are disjoint: their noise ξ adds to zero, so two of them have the correlation
    ``-1 / (K - 1)``.
    """
    features, labels = data.tensors[0].flatten().numpy().astype(float), data.tensors[1].numpy()
    count, steps = len(features), len(features) // batch
    curvature = 1 / NOISE**2 + 1 / (count * PRIOR_SCALE**2)
    rate = share * 2 * (1 + MOMENTUM) / curvature
    gradient = (features * (2.0 * labels - 1) / NOISE**2).var()
    variance = gradient / batch * (count - batch) / (count - 1)
    step = np.array([[1 - rate * curvature, -rate * MOMENTUM], [curvature, MOMENTUM]])
    powers = [np.eye(2)]
    for _ in range(steps):
        powers.append(step @ powers[-1])
    response = np.array([power @ [-rate, 1.0] for power in powers[:steps]])  # to noise so many steps ago
    both = np.cumsum(response[:, :, None] * response[:, None, :], 0)
    together = np.cumsum(response, 0)
    own = variance * (both * steps - together[:, :, None] * together[:, None, :]) / (steps - 1)
    start = solve_discrete_lyapunov(powers[steps], own[-1])
    return np.mean([(powers[now + 1] @ start @ powers[now + 1].T + own[now])[0, 0] for now in range(steps)]), rate


@pytest.mark.slow
@pytest.mark.parametrize(("count", "share"), [(100, 0.2), (200, 0.05)])
def test_stationary_variance_on_a_quadratic(count, share):
    """Within 15 % of the exact value, in both halves of the covariance; the mean within 0.15 of its root."""
    train = signs(count)
    shots = {"collect_epochs": 40000 // count, "snapshots": 2000, "rank": 2000}
    posterior = SWAG(swag_lr=share, batch_size=10, **shots, **QUICK).fit(linear(1), train)
    expected, rate = stationary(train, 10, share)
    assert float(posterior.sample_stats["rate"]) == pytest.approx(rate, rel=1e-3)
    sampler = posterior.sampler
    assert 2 * float(sampler.diagonal) == pytest.approx(expected, rel=0.15)
    assert 2 * float(sampler.factor.square().sum()) == pytest.approx(expected, rel=0.15)
    features, labels = train.tensors[0].flatten().numpy(), train.tensors[1].numpy()
    mean = (features * (2.0 * labels - 1)).sum() / (count + NOISE**2 / PRIOR_SCALE**2)
    assert abs(float(sampler.loc) - mean) < 0.15 * expected**0.5


def test_the_formula_of_the_docstring_holds_at_small_rates_and_many_batches():
    """The exact value against ``A Σ + Σ A = ε / ((1 - μ) S) C``: what disjoint batches and finite rates change is
    small where an epoch is long, and not where it is short."""
    batch, share = 10, 0.002

    def ratio(count):
        train = signs(count)
        expected, rate = stationary(train, batch, share)
        gradient = (train.tensors[0].flatten() * (2.0 * train.tensors[1] - 1)).numpy().var() / NOISE**4
        curvature = share * 2 * (1 + MOMENTUM) / rate
        return expected / (rate * gradient / ((1 - MOMENTUM) * batch * 2 * curvature))

    assert ratio(40000) == pytest.approx(1.0, rel=0.05)
    assert ratio(100) < 0.5


def test_the_rate_is_a_share_of_the_largest_stable_one():
    """All images the same, so the curvature is known."""
    features = torch.tensor([1.0, 2.0]).repeat(40, 1)
    train = TensorDataset(features[:, :, None, None], torch.arange(40) % 2)
    settings = {"batch_size": 10, "collect_epochs": 20, "snapshots": 20, **QUICK}
    found = float(SWAG(swag_lr=0.5, **settings).fit(linear(2), train).sample_stats["rate"])
    largest = 5 / NOISE**2 + 1 / (40 * PRIOR_SCALE**2)
    assert found == pytest.approx(0.5 * 2 * (1 + MOMENTUM) / largest, rel=1e-3)


class Stiff(Logistic):
    """A weight without a prior, of a curvature of its own."""

    def __init__(self):
        super().__init__(1)
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        return super().forward(images) + torch.cat([torch.zeros(1), 100 * self.shift])


def test_stiff_weights_without_a_prior_do_not_hold_the_sites_back(monkeypatch):
    """Each has its own rate, half of what it would have alone, and the walk is as stable."""
    rates = []

    def remember(self, groups, schedule):
        rates.extend(group["lr"] for group in groups)
        return optimiser(self, groups, schedule)

    optimiser = _Walk.optimiser
    monkeypatch.setattr(_Walk, "optimiser", remember)
    train = signs(60)
    detector = Gaussian(Stiff(), {"linear": priors.normal(PRIOR_SCALE)})
    SWAG(swag_lr=0.9, batch_size=10, collect_epochs=50, **QUICK).fit(detector, train)
    largest = np.array([1 / NOISE**2 + 1 / (60 * PRIOR_SCALE**2), 1e4 / NOISE**2])
    np.testing.assert_allclose(rates, 0.9 * (1 + MOMENTUM) / largest, rtol=1e-3)


def test_units_do_not_matter():
    """Images ten times as large under a prior a tenth as wide: the same functions."""
    train = simulate(correlated(80), torch.tensor([1.0, -0.5]), seed=0)
    larger = TensorDataset(10 * train.tensors[0], train.tensors[1])
    method = SWAG(batch_size=20, collect_epochs=10, snapshots=20, rank=5, **QUICK)
    first = method.fit(linear(2), train).predict(train, draws=5)["posterior_predictive/logits"]
    second = method.fit(linear(2, PRIOR_SCALE / 10), larger).predict(larger, draws=5)["posterior_predictive/logits"]
    np.testing.assert_allclose(second, first, rtol=2e-3, atol=1e-4)
    assert float(first.std("draw").max()) > 0.05


# --- moments and averages -------------------------------------------------------------------------------------------


def test_moments_and_averages_are_those_of_the_snapshots(monkeypatch):
    """12 steps, 5 snapshots, 3 deviations: after steps 3, 5, 8, 10 and 12; the first layer has no prior."""
    seen, end_of_step = [], _Walk.end_of_step

    def record(self, step):
        end_of_step(self, step)
        others = {
            name: value.detach().clone() for name, value in self.problem.trained_parameters(exclude=set(self.z)).items()
        }
        seen.append((flatten(self.z), others))

    monkeypatch.setattr(_Walk, "end_of_step", record)
    detector = Detector(convolutional(), {"3": priors.normal(0.1)})
    method = SWAG(epochs=1, batch_size=8, collect_epochs=4, snapshots=5, rank=3, progress=False)
    posterior = method.fit(detector, pictures())
    taken = torch.stack([seen[step - 1][0] for step in (3, 5, 8, 10, 12)])
    sampler = posterior.sampler
    torch.testing.assert_close(sampler.loc, taken.mean(0))
    torch.testing.assert_close(sampler.diagonal, taken.var(0, correction=0) / 2)
    running = torch.stack([taken[: count + 1].mean(0) for count in range(5)])
    torch.testing.assert_close(sampler.factor, ((taken - running)[-3:] / 2).T)  # sqrt(2 (3 - 1)) is 2
    for name in seen[0][1]:
        average = torch.stack([seen[step - 1][1][name] for step in (3, 5, 8, 10, 12)]).mean(0)
        torch.testing.assert_close(posterior.network.state_dict()[name], average)
    stats = posterior.sample_stats
    assert stats["loss"].sizes == {"step": 3} and stats["collect_loss"].sizes == {"collect_step": 12}


def test_running_statistics_are_those_of_the_averaged_weights():
    detector = Detector(convolutional(), {"3": priors.normal(0.1)})
    settings = {"epochs": 1, "batch_size": 8, "collect_epochs": 4, "snapshots": 5, "rank": 3, "progress": False}
    network = SWAG(**settings).fit(detector, pictures()).network
    with torch.no_grad():
        features = network[0](pictures().tensors[0])
    torch.testing.assert_close(network[1].running_mean, features.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert network[1].momentum == 0.1 and not network.training
    frozen = SWAG(freeze="prefix", **settings).fit(detector, pictures()).network
    assert torch.equal(frozen[1].running_mean, detector.network[1].running_mean)
    assert torch.equal(frozen[4].running_mean, detector.network[4].running_mean)


def test_the_progress_bar_says_which_phase_it_shows(capsys):
    method = SWAG(epochs=1, batch_size=8, collect_epochs=4, snapshots=5, rank=3)
    method.fit(Detector(convolutional(), {"3": priors.normal(0.1)}), pictures())
    shown = capsys.readouterr().out
    assert "maximum: epoch 1" in shown and "snapshots: epoch 4" in shown


def test_to_disk_and_back(tmp_path):
    detector = Detector(convolutional(), {"3": priors.horseshoe(0.1)})
    method = SWAG(epochs=1, batch_size=8, collect_epochs=2, snapshots=6, rank=3, progress=False)
    posterior = method.fit(detector, pictures())
    loaded = load_posterior(posterior.save(tmp_path / "a.zarr"), detector)
    assert posterior.draws(3)["posterior"].identical(loaded.draws(3)["posterior"])
    assert (posterior.draws(3)["posterior/3.weight.tau"] > 0).all()


# --- checkpoints ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("epochs", "collect", "files"), [(6, 4, ["fit.pt"]), (2, 6, ["fit.pt", "fit.pt.1"])])
@pytest.mark.parametrize("freeze", [None, "prefix"])
def test_a_fit_stopped_in_either_phase_goes_on_to_the_same_posterior(tmp_path, epochs, collect, files, freeze):
    *layers, last = convolutional()
    model = Detector(nn.Sequential(*layers, nn.Dropout(0.2), last), {"3": priors.normal(0.1)})
    train = pictures()
    settings = {"epochs": epochs, "collect_epochs": collect, "snapshots": 7, "rank": 4, "batch_size": 8, "lr": 0.01}
    settings |= {"augment": noisy, "freeze": freeze, "progress": False}
    whole = SWAG(**settings).fit(model, train, pictures())
    resumable = SWAG(checkpoint=tmp_path / "fit.pt", **settings)
    stop(resumable, model, train, pictures(), step=11)  # of the first phase that has so many
    assert sorted(path.name for path in tmp_path.iterdir()) == files
    again = resumable.fit(model, train, pictures())
    assert again.sample_stats.drop_attrs().identical(whole.sample_stats.drop_attrs())
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name]), name
    assert whole.draws(3)["posterior"].to_dataset().equals(again.draws(3)["posterior"].to_dataset())
    resumable.forget()
    assert not list(tmp_path.iterdir())


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [{"swag_lr": 0.0}, {"swag_lr": 1.0}, {"collect_epochs": 0}, {"rank": 1}, {"rank": 41}, {"snapshots": 19}],
)
def test_settings_out_of_range(settings):
    with pytest.raises(BayesdfError, match=next(iter(settings))):
        SWAG(**settings)


def test_too_few_steps_and_batches_without_noise():
    with pytest.raises(BayesdfError, match="which makes 30 steps for 40 snapshots"):
        SWAG(collect_epochs=5, batch_size=10, progress=False).fit(linear(1), signs(60))
    # A batch of all images has no noise: a quarter of them is taken instead.
    posterior = SWAG(collect_epochs=10, snapshots=20, **{**QUICK, "batch_size": 60}).fit(linear(1), signs(60))
    assert posterior.sample_stats.sizes["collect_step"] == 40


def test_a_collection_that_diverges_gives_the_last_good_point(monkeypatch):
    monkeypatch.setattr("bayesdf.inference.swag._largest_curvature", lambda *args: 1e-3)
    with pytest.raises(Diverged, match="exploded") as caught:
        SWAG(batch_size=10, collect_epochs=7, **QUICK).fit(linear(1), signs(60))
    rescued = caught.value.posterior
    assert np.isfinite(rescued.predict(signs(60), draws=2)["posterior_predictive/logits"]).all()

"""SVI finds the posterior: against exact integration, and what its options do."""

import itertools
from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoLowRankMultivariateNormal, AutoMultivariateNormal, AutoNormal
from torch import nn
from torch.utils.data import TensorDataset

from bayesdf.errors import BayesdfError, BayesdfWarning
from bayesdf.inference import NUTS, SGMCMC, SVI, SWAG, Diverged, Laplace, feature_cache, training
from bayesdf.inference.guides import full
from bayesdf.models import Detector, priors
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
def test_a_pyro_guide_with_covariance_matches_a_correlated_posterior_and_mean_field_does_not():
    """Mean within 0.15 of a standard deviation, standard deviations within 12 %, correlation within 0.03 of -0.96."""
    train = simulate(correlated(80), WEIGHTS, seed=0)
    mean, covariance = exact(train)
    sd = np.sqrt(np.diag(covariance))
    correlation = covariance[0, 1] / sd.prod()
    assert correlation < -0.9
    posterior = fit(train, guide=AutoMultivariateNormal, epochs=2500, batch_size=80, stored_draws=2000)
    found = draws(posterior)
    assert (abs(found.mean(0) - mean) / sd).max() < 0.15
    np.testing.assert_allclose(found.std(0), sd, rtol=0.12)
    assert np.corrcoef(found.T)[0, 1] == pytest.approx(correlation, abs=0.03)
    narrow = draws(fit(train))
    assert abs(np.corrcoef(narrow.T)[0, 1]) < 0.1
    assert (narrow.std(0) < 0.5 * sd).all()


def test_standard_deviation_falls_with_the_root_of_n():
    """Four times the data, half the deviation, at the same batch size: the likelihood is scaled to N."""
    little, much = (simulate(separate(count), WEIGHTS, seed=1) for count in (100, 400))
    ratio = draws(fit(little, epochs=400)).std(0) / draws(fit(much, epochs=100)).std(0)
    assert (abs(ratio - 2) < 0.35).all()


def test_temperature_scales_the_variance():
    train = simulate(separate(400), WEIGHTS, seed=1)
    settings = {"epochs": 150, "batch_size": 40}
    ratio = draws(fit(train, **settings)).std(0) / draws(fit(train, temperature=0.25, **settings)).std(0)
    assert (abs(ratio - 2) < 0.35).all()


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


# --- seeds, states, freezing ----------------------------------------------------------------------------------------


def convolutional():
    torch.manual_seed(3)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def pictures(count=24):
    noise = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    return TensorDataset(torch.rand(count, 3, 8, 8, generator=noise) + 0.3 * labels[:, None, None, None], labels)


def short(**settings):
    return SVI(**{"epochs": 3, "batch_size": 8, "lr": 0.01, "progress": False, **settings})


def noisy(images, noise):
    return images + 0.1 * torch.rand(images.shape, generator=noise)


def test_same_seed_same_posterior_and_another_seed_another():
    network = convolutional()
    first, second, other = (
        short(seed=seed).fit(Detector(network, {"3": priors.normal(0.1)}), pictures()) for seed in (0, 0, 1)
    )
    for name, value in first.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name])
    assert torch.equal(first.sampler.draw(0, 0)["3.weight"], second.sampler.draw(0, 0)["3.weight"])
    assert not torch.equal(first.sampler.draw(0, 0)["3.weight"], other.sampler.draw(0, 0)["3.weight"])


def test_detector_random_state_and_parameter_store_are_left_alone():
    network = convolutional()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    pyro.clear_param_store()
    pyro.param("mine", torch.tensor(1.0))
    model = Detector(network, {"3": priors.normal(0.1)})
    torch.manual_seed(7)
    expected = torch.rand(3)
    for guide in ("normal", "lowrank", AutoMultivariateNormal):
        torch.manual_seed(7)
        posterior = short(guide=guide, epochs=1).fit(model, pictures(), pictures())
        posterior.predict(pictures(), draws=2)
        assert torch.equal(torch.rand(3), expected)
    assert list(pyro.get_param_store().keys()) == ["mine"]
    assert network.training
    for name, value in before.items():
        assert torch.equal(network.state_dict()[name], value)
    pyro.clear_param_store()


def test_an_interrupted_fit_leaves_nothing_behind():
    network = convolutional()
    before = {name: value.clone() for name, value in network.state_dict().items()}

    def interrupt(images, noise):
        raise KeyboardInterrupt

    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    with pytest.raises(KeyboardInterrupt):
        short(augment=interrupt).fit(Detector(network, {"3": priors.normal(0.1)}), pictures())
    assert torch.equal(torch.rand(3), expected) and not pyro.get_param_store().keys()
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())


@pytest.mark.parametrize(
    ("freeze", "changed"),
    [
        (None, {"0.weight", "1.weight", "1.running_mean", "4.weight", "4.running_mean", "7.weight"}),
        ("prefix", {"4.weight", "7.weight"}),
        ("all", set()),
    ],
)
@pytest.mark.parametrize("augmented", [False, True])
def test_what_is_frozen(freeze, changed, augmented):
    network = convolutional()
    augment = (lambda images, noise: images.flip(-1)) if augmented else None
    posterior = short(freeze=freeze, augment=augment).fit(Detector(network, {"3": priors.normal(0.1)}), pictures())
    before, after = network.state_dict(), posterior.network.state_dict()
    moved = {
        name for name in before if name.endswith(("weight", "mean")) and not torch.equal(before[name], after[name])
    }
    assert moved - {"3.weight"} == changed


def test_cached_features_give_the_same_posterior_as_running_the_prefix():
    model = Detector(convolutional(), {"3": priors.normal(0.1)})
    cached = short(freeze="prefix").fit(model, pictures())
    run = short(freeze="prefix", augment=lambda images, noise: images).fit(model, pictures())
    torch.testing.assert_close(cached.sampler.loc["3.weight"], run.sampler.loc["3.weight"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("disk", [True, False])
def test_features_beyond_memory_are_kept_on_disk_or_made_again(monkeypatch, disk):
    network = convolutional()
    fitted = short(freeze="prefix").fit(Detector(network, {"3": priors.normal(0.1)}), pictures())
    runs = []
    kept = feature_cache.TrainingBatches._compute_features

    def count(feed, views):
        runs.append(kept(feed, views))
        return runs[-1]

    monkeypatch.setattr(feature_cache.TrainingBatches, "_compute_features", count)
    monkeypatch.setattr(feature_cache, "CACHE_BYTES", 1)
    if not disk:
        monkeypatch.setattr(feature_cache.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 0}))
    again = short(freeze="prefix").fit(Detector(network, {"3": priors.normal(0.1)}), pictures())
    assert (runs[0] is not None) == disk
    for name, value in fitted.draws(3)["posterior"].data_vars.items():
        np.testing.assert_allclose(again.draws(3)["posterior"][name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("freeze", "room", "runs"), [(None, 1 << 30, 6), ("prefix", 1 << 30, 2), ("prefix", 1, 6)])
def test_validation_features_are_computed_once_where_the_prefix_is_frozen(monkeypatch, freeze, room, runs):
    model, train, validation = Detector(convolutional(), {"7": priors.normal(0.1)}), pictures(), pictures(32)
    monkeypatch.setattr(feature_cache, "CACHE_BYTES", room)
    asked, whole = [], feature_cache.batches

    def counted(dataset, *rest):
        for batch in whole(dataset, *rest):
            if dataset is validation:
                asked.append(len(batch[0]))
            yield batch

    monkeypatch.setattr(feature_cache, "batches", counted)
    fitted = short(freeze=freeze, epochs=3).fit(model, train, validation)
    assert len(asked) == runs  # 32 images in two batches, in each of three epochs or once
    assert fitted.sample_stats["validation_nll"].sizes["epoch"] == 3


def test_views_are_augmented_once_and_take_turns(monkeypatch):
    model = Detector(convolutional(), {"3": priors.normal(0.1)})
    times = itertools.count()

    def brighter(images, noise):
        return images + 0.1 * (next(times) // 3)  # 24 pictures are 3 batches: every view is brighter than the last

    kept = short(freeze="prefix", augment=brighter, views=2, epochs=4).fit(model, pictures())
    assert next(times) == 6  # no more images were augmented than those of two views
    seen = itertools.count()

    def turns(images, noise):
        return images + 0.1 * (next(seen) // 3 % 2)  # the same by hand: a view an epoch

    by_hand = short(freeze="prefix", augment=turns, epochs=4).fit(model, pictures())
    torch.testing.assert_close(kept.sampler.loc["3.weight"], by_hand.sampler.loc["3.weight"], rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(feature_cache, "CACHE_BYTES", 1)
    monkeypatch.setattr(feature_cache.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 0}))
    with pytest.warns(BayesdfWarning, match="new versions"):
        short(freeze="prefix", augment=brighter, views=2, epochs=4).fit(model, pictures())
    assert next(times) == 7 + 1 + 4 * 3  # no room, as the first batch shows: every epoch sees new versions


@pytest.mark.parametrize(
    "settings",
    [{"views": 0, "freeze": "prefix", "augment": noisy}, {"views": 2, "augment": noisy}, {"views": 2, "freeze": "all"}],
)
def test_views_need_a_frozen_prefix(settings):
    with pytest.raises(BayesdfError, match="views is"):
        short(**settings)


def test_augmentation_gets_images_and_a_seeded_generator():
    seen = []

    def augment(images, noise):
        assert images.shape[1:] == (3, 8, 8)
        seen.append(float(torch.rand((), generator=noise)))
        return images

    for _ in range(2):
        short(augment=augment).fit(Detector(convolutional(), {"7": priors.normal(0.1)}), pictures())
    assert seen[: len(seen) // 2] == seen[len(seen) // 2 :] and len(set(seen)) == 9


def stop(method, model, train, validation=None, step=11):
    """Fit, and stop at a step: by default in the middle of the fourth epoch of three batches."""

    def check(value, name, history):
        if len(history.loss) == step:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "check_value", check)
        with pytest.raises(KeyboardInterrupt):
            method.fit(model, train, validation)


@pytest.mark.parametrize("settings", [{}, {"freeze": "prefix", "views": 2}, {"guide": "lowrank", "patience": 9}])
def test_a_stopped_fit_goes_on_to_the_same_posterior(tmp_path, settings):
    model, train = Detector(convolutional(), {"3": priors.normal(0.1)}), pictures()
    validation = pictures() if "patience" in settings else None
    whole = short(epochs=6, augment=noisy, **settings).fit(model, train, validation)
    resumable = short(epochs=6, augment=noisy, checkpoint=tmp_path / "fit.pt", **settings)
    stop(resumable, model, train, validation)
    assert (tmp_path / "fit.pt").is_file()
    again = resumable.fit(model, train, validation)
    assert [item.name for item in tmp_path.iterdir()] == ["fit.pt"]
    assert again.sample_stats.drop_attrs().identical(whole.sample_stats.drop_attrs())
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name]), name
    assert whole.draws(3)["posterior"].to_dataset().equals(again.draws(3)["posterior"].to_dataset())


def test_a_checkpoint_of_another_fit_or_a_damaged_one_is_refused(tmp_path):
    model, path = Detector(convolutional(), {"3": priors.normal(0.1)}), tmp_path / "fit.pt"
    stop(short(checkpoint=path), model, pictures(), step=5)
    wider = Detector(convolutional(), {"3": priors.normal(0.2)})
    for seed, other, data in ((1, model, pictures()), (0, model, pictures(26)), (0, wider, pictures())):
        with pytest.raises(BayesdfError, match=r"fit\.pt is of other data, settings or weights"):
            short(checkpoint=path, seed=seed).fit(other, data)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BayesdfError, match=r"fit\.pt is not a checkpoint of a fit"):
        short(checkpoint=path).fit(model, pictures())


def test_forgetting_deletes_what_the_fit_noted_and_nothing_else(tmp_path):
    method = short(checkpoint=tmp_path / "fit")
    others = [tmp_path / name for name in ("fit.csv", "fit.zarr", "fitting")]
    for path in others:
        path.mkdir() if path.suffix == ".zarr" else path.write_text("")
    method.fit(Detector(convolutional(), {"3": priors.normal(0.1)}), pictures())
    (tmp_path / "fit.1").write_text("")
    method.forget()
    assert sorted(tmp_path.iterdir()) == sorted(others)


def test_validation_restores_the_best_epoch_and_patience_stops():
    train, validation = pictures(), pictures()
    wrong = TensorDataset(validation.tensors[0], 1 - validation.tensors[1])  # every step makes it worse
    model = Detector(convolutional(), {"7": priors.normal(1.0)})
    posterior = short(epochs=40, lr=0.05, patience=3).fit(model, train, wrong)
    nll = posterior.sample_stats["validation_nll"]
    assert nll.sizes["epoch"] < 40
    assert posterior.sample_stats.attrs["best_epoch"] == int(nll.values.argmin())
    assert nll.sizes["epoch"] == int(nll.values.argmin()) + 4
    logits = posterior.predict(wrong, draws=50)["posterior_predictive/logits"].values[0]
    probability = np.exp(logits - np.logaddexp.reduce(logits, -1, keepdims=True)).mean(0)
    found = -np.log(probability[np.arange(24), wrong.tensors[1]]).mean()
    assert found == pytest.approx(float(nll.min()), abs=0.15)


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


def test_elbo_and_prediction_are_of_the_same_function_behind_a_frozen_prefix():
    """A batch normalisation in the suffix: what an image is worth must not depend on its neighbours in the batch."""
    network = convolutional()
    posterior = short(freeze="prefix").fit(Detector(network, {"3": priors.normal(0.1)}), pictures())
    for name, value in network.state_dict().items():
        if "running" in name:
            assert torch.equal(value, posterior.network.state_dict()[name]), name


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

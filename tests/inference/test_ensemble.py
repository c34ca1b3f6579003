"""Deep ensembles: members are what MAP finds from other starts, and each predicts as it was trained."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.func import functional_call

from bayesdf.errors import BayesdfError
from bayesdf.inference import MAP, DeepEnsemble, Diverged, ensemble, load_posterior
from bayesdf.inference.training import loop
from bayesdf.models import Detector, priors
from tests.inference.convolutional import convolutional, noisy, pictures
from tests.inference.linear import PRIOR_SCALE, Gaussian, Logistic, conjugate, separate, simulate

WEIGHTS = torch.tensor([1.0, -0.5])


def fit(network=None, prior=None, validation=None, **settings):
    method = DeepEnsemble(**{"members": 3, "epochs": 2, "batch_size": 8, "lr": 0.01, "progress": False, **settings})
    return method.fit(Detector(network or convolutional(), prior or {"3": priors.normal(0.1)}), pictures(), validation)


def logits(posterior, **settings):
    return posterior.predict(pictures(), **settings)["posterior_predictive/logits"].values[0]


def test_members_agree_where_there_is_one_mode():
    """Of a linear model: each within a twentieth of a standard deviation of the exact maximum, from wherever."""
    train = simulate(separate(80), WEIGHTS, seed=0)
    mean, covariance = conjugate(train)
    settings = {"epochs": 200, "lr": 0.1, "batch_size": 80, "class_balanced": False, "progress": False}
    detector = Gaussian(Logistic(2), {"linear": priors.normal(PRIOR_SCALE)})
    members = DeepEnsemble(members=3, **settings).fit(detector, train).sampler.values["linear.weight"][0, :, 0].numpy()
    assert (abs(members - mean) / np.sqrt(np.diag(covariance))).max() < 0.05


def test_sites_start_from_a_draw_of_the_prior():
    """Nothing is learnt in no epochs: 60 members of 8 weights are draws of the prior, hyperpriors and all."""

    def prior(name, parameter):
        each = dist.LogNormal(-torch.ones_like(parameter), 0.5).to_event(parameter.dim())
        return dist.Normal(torch.full_like(parameter, 2.0), pyro.sample(f"{name}.scale", each)).to_event(2)

    drawn = fit(prior={"7.weight": prior}, members=60, epochs=0).sampler.values
    log_scale = drawn["7.weight.scale"].log()
    assert float(log_scale.mean()) == pytest.approx(-1.0, abs=0.1) and float(log_scale.std()) == pytest.approx(
        0.5, rel=0.15
    )
    standard = (drawn["7.weight"] - 2.0) / drawn["7.weight.scale"]
    assert float(standard.mean()) == pytest.approx(0.0, abs=0.18)  # four standard errors
    assert float(standard.std()) == pytest.approx(1.0, abs=0.13)
    assert set(drawn) == {"7.weight", "7.weight.scale"}


@pytest.mark.parametrize("freeze", [None, "prefix", "all"])
def test_each_member_predicts_exactly_as_it_was_trained(monkeypatch, freeze):
    """Running statistics of batch normalisation included: against the networks as they were left, in one piece."""
    left, minimise = [], loop.minimise

    def watched(problem, point, **settings):
        history = minimise(problem, point, **settings)
        with torch.no_grad():
            left.append(functional_call(problem.network, point.values(), (pictures().tensors[0],)).numpy())
        return history

    monkeypatch.setattr(ensemble, "minimise", watched)
    posterior = fit(freeze=freeze, members=3)
    found = logits(posterior)
    assert found.shape == (3, 24, 2) and np.ptp(found, axis=0).max() > 1e-3
    matches = [[np.allclose(one, other, rtol=1e-4, atol=1e-5) for other in left] for one in found]
    assert np.array_equal(np.sort(np.argmax(matches, 1)), [0, 1, 2]) and np.sum(matches) == 3
    with torch.no_grad():
        np.testing.assert_allclose(posterior.network(pictures().tensors[0]), left[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("freeze", "expected"),
    [
        (
            None,
            {f"{layer}.{part}" for layer in (0, 1, 3, 4, 7) for part in ("weight", "bias")}
            | {f"{layer}.running_{part}" for layer in (1, 4) for part in ("mean", "var")},
        ),
        ("prefix", {f"{layer}.{part}" for layer in (3, 4, 7) for part in ("weight", "bias")}),
        ("all", {"3.weight", "3.bias"}),
    ],
)
def test_a_draw_is_what_members_differ_in(freeze, expected):
    posterior = fit(freeze=freeze)
    assert set(posterior.sampler.shapes) == expected
    assert list(posterior.sampler.shapes)[:2] == ["3.weight", "3.bias"]
    assert not any("tracked" in name for name in posterior.sampler.shapes)


def test_one_member_is_a_map_fit_from_another_start():
    """Its sites alone are kept; the rest is in the network."""
    posterior = fit(members=1)
    assert set(posterior.sampler.shapes) == {"3.weight", "3.bias"} and posterior.sampler.capacity == 1
    with torch.no_grad():
        images = pictures().tensors[0].to(memory_format=torch.channels_last)
        np.testing.assert_allclose(logits(posterior)[0], posterior.network(images), rtol=1e-4, atol=1e-5)


def test_a_member_does_not_depend_on_those_before_it():
    """Every member starts from the detector's network, with a seed of its own."""
    few, many = fit(members=2, seed=3), fit(members=6, seed=1)
    for name in few.sampler.shapes:
        assert torch.equal(few.sampler.values[name][0], many.sampler.values[name][0, :2]), name  # seeds 6 and 7
    network = convolutional()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fit(network)
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())


def test_seeds_share_no_member():
    first, second = (fit(seed=seed).sampler.values["3.weight"][0].flatten(1) for seed in (0, 1))
    assert torch.cdist(first, second).min() > 0.1
    again = fit(seed=1).sampler.values["3.weight"][0].flatten(1)
    assert torch.equal(second, again)


def test_what_the_loop_saw_of_each_member():
    posterior = fit(validation=pictures(), epochs=20, lr=0.03, patience=1)
    stats = posterior.sample_stats
    epochs = stats["validation_nll"].notnull().sum("epoch")
    assert stats["loss"].dims == ("member", "step") and stats["loss"].sizes["member"] == 3
    assert (stats["loss"].notnull().sum("step") == 3 * epochs).all() and (stats["best_epoch"] == epochs - 2).all()
    assert len(np.unique(epochs)) > 1  # or this test sees nothing


# --- on disk --------------------------------------------------------------------------------------------------------


def test_to_disk_and_back(tmp_path):
    posterior = fit()
    loaded = load_posterior(posterior.save(tmp_path / "a.zarr"), Detector(convolutional(), {"3": priors.normal(0.1)}))
    assert np.array_equal(logits(posterior), logits(loaded))
    assert loaded.sample_stats.equals(posterior.sample_stats)


@pytest.mark.parametrize("step", [4, 11])
def test_a_stopped_fit_goes_on_to_the_same_posterior(tmp_path, step):
    """Stopped in the second epoch of the first member, and in the fourth of the second."""
    settings = {"epochs": 6, "augment": noisy, "members": 2}
    whole = fit(**settings)
    stopping = step if step == 4 else 18 + step
    seen = []

    def check(value, name, history):
        if name == "loss":
            seen.append(value)
        if len(seen) > stopping:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "check_value", check)
        with pytest.raises(KeyboardInterrupt):
            fit(checkpoint=tmp_path / "fit.pt", **settings)
    again = fit(checkpoint=tmp_path / "fit.pt", **settings)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fit.pt", "fit.pt.1"]
    for name, value in whole.sampler.values.items():
        assert torch.equal(value, again.sampler.values[name]), name
    assert again.sample_stats.equals(whole.sample_stats)


# --- bad input ------------------------------------------------------------------------------------------------------


def test_a_member_that_diverges_passes_on_those_before_it(monkeypatch):
    minimise = loop.minimise

    def failing(problem, point, *, phase, title):
        if phase == 2:
            raise Diverged("no", minimise(problem, point, phase=phase))
        return minimise(problem, point, phase=phase)

    whole = fit(members=3)
    monkeypatch.setattr(ensemble, "minimise", failing)
    with pytest.raises(Diverged) as caught:
        fit(members=5, seed=0)
    assert caught.value.posterior.sampler.capacity == 3
    assert np.array_equal(logits(caught.value.posterior), logits(whole))


def test_settings_out_of_range():
    with pytest.raises(BayesdfError, match="members is 0"):
        DeepEnsemble(members=0)
    with pytest.raises(BayesdfError, match="holds 3"):
        fit().predict(pictures(), draws=4)


def test_as_good_as_map():
    """On what can be learnt, every member learns it."""
    settings = {"epochs": 20, "lr": 0.02}
    point = MAP(batch_size=8, progress=False, **settings).fit(
        Detector(convolutional(), {"3": priors.normal(0.1)}), pictures()
    )
    labels = pictures().tensors[1].numpy()
    for member in [*logits(fit(**settings)), logits(point, draws=1)[0]]:
        assert (member.argmax(1) == labels).mean() > 0.9

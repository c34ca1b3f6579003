"""The training loop: what is random, what is trained, and which epoch is kept."""

import numpy as np
import pyro
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal
from torch.utils.data import TensorDataset

from bayesdf.models import Detector, priors
from tests.inference.convolutional import convolutional, pictures, short


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


def test_augmentation_gets_images_and_a_seeded_generator():
    seen = []

    def augment(images, noise):
        assert images.shape[1:] == (3, 8, 8)
        seen.append(float(torch.rand((), generator=noise)))
        return images

    for _ in range(2):
        short(augment=augment).fit(Detector(convolutional(), {"7": priors.normal(0.1)}), pictures())
    assert seen[: len(seen) // 2] == seen[len(seen) // 2 :] and len(set(seen)) == 9


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


def test_elbo_and_prediction_are_of_the_same_function_behind_a_frozen_prefix():
    """A batch normalisation in the suffix: what an image is worth must not depend on its neighbours in the batch."""
    network = convolutional()
    posterior = short(freeze="prefix").fit(Detector(network, {"3": priors.normal(0.1)}), pictures())
    for name, value in network.state_dict().items():
        if "running" in name:
            assert torch.equal(value, posterior.network.state_dict()[name]), name

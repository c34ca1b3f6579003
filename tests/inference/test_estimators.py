"""Estimators of the ELBO: the same expectation, with less noise."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from bayesdf.errors import BayesdfError
from bayesdf.inference import SVI
from bayesdf.inference.estimators import eligible_layers, noise_of_each_image
from bayesdf.inference.problem import prepare
from bayesdf.inference.seeds import seeded
from bayesdf.inference.svi import _Objective
from bayesdf.models import Detector, priors

LAYERS = {
    "linear": (nn.Linear(6, 4), (5, 6)),
    "convolution": (nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (5, 4, 7, 7)),
}


@pytest.mark.parametrize("estimator", ["local", "flipout"])
@pytest.mark.parametrize("name", LAYERS)
def test_outputs_of_an_image_have_the_moments_of_sampled_weights(name, estimator):
    """Mean ``x M + b`` and variance ``x² S²`` of each output, within five standard errors of 4000 draws."""
    torch.manual_seed(0)
    layer, shape = LAYERS[name]
    x, log_scale = torch.randn(shape), 0.3 * torch.randn_like(layer.weight) - 1.5
    twin = type(layer).__new__(type(layer))
    twin.__dict__ = dict(layer.__dict__)
    twin._parameters = {"weight": (2 * log_scale).exp(), "bias": None}
    with torch.no_grad():
        mean, variance = layer(x), twin(x.square())
        with noise_of_each_image(estimator, {"weight": layer}, lambda site: (layer.weight, log_scale)):
            outputs = torch.stack([layer(x) for _ in range(4000)])
    error = (outputs.mean(0) - mean).abs() / (variance / 4000).sqrt()
    assert error.max() < 5
    ratio = outputs.var(0) / variance
    assert (ratio - 1).abs().max() < 5 * (2 / 4000) ** 0.5 * (1.0 if estimator == "local" else 1.5)
    assert not torch.allclose(layer(x), outputs[0])  # the hooks are gone, so is the noise


def images_and_network():
    torch.manual_seed(1)
    labels = torch.arange(16) % 2
    data = TensorDataset(torch.rand(16, 3, 8, 8) + 0.2 * labels[:, None, None, None], labels)
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)]
    return data, nn.Sequential(*layers)


def losses(estimator, count=600, sites=None, of="0.weight.loc"):
    data, network = images_and_network()
    settings = SVI(estimator=estimator, init_scale=0.5, freeze="all", progress=False, class_balanced=False)
    sites = sites or {"0": priors.normal(0.3), "3": priors.laplace(0.3)}
    detector = Detector(network, sites)
    problem = prepare(detector, settings, data, None)
    with seeded(0, problem.device):
        objective = _Objective(detector, problem, settings)
        batch = (data.tensors[0],)
        own = objective.own[of]
        found = []
        for _ in range(count):
            loss = objective.loss(problem.network, batch, data.tensors[1])
            found.append((loss.detach(), torch.autograd.grad(loss, own)[0].flatten()))
    return torch.stack([loss for loss, _ in found]), torch.stack([gradient for _, gradient in found])


def test_all_estimate_the_same_elbo_and_gradient():
    """Means over 600 estimates agree within five standard errors, also where the KL has no closed form."""
    plain, gradient = losses("plain")
    for estimator in ("local", "flipout"):
        loss, other = losses(estimator)
        assert (loss.mean() - plain.mean()).abs() < 5 * ((loss.var() + plain.var()) / 600).sqrt()
        error = (other.mean(0) - gradient.mean(0)).abs() / ((other.var(0) + gradient.var(0)) / 600).sqrt()
        assert error.max() < 5


def test_gradients_of_local_reparameterisation_are_less_noisy():
    only = {"sites": {"3.weight": priors.normal(0.3)}, "of": "3.weight.loc"}
    _, plain = losses("plain", 300, **only)
    _, local = losses("local", 300, **only)
    assert local.var(0).sum() < 0.5 * plain.var(0).sum()


def test_what_has_no_such_layer_is_sampled_plainly_or_refused():
    data, network = images_and_network()
    images = data.tensors[0]
    assert list(eligible_layers(network, ["0.weight", "0.bias", "3.weight"], images)) == ["0.weight", "3.weight"]

    class Unusual(nn.Module):
        """A layer that runs twice, one whose weight is used without it, and one as usual."""

        def __init__(self):
            super().__init__()
            self.twice, self.weight_alone, self.once = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, images):
            seen = self.twice(self.twice(images.mean((2, 3)).repeat(1, 2)[:, :4]))
            return self.once(nn.functional.linear(seen, self.weight_alone.weight))

    sites = ["twice.weight", "weight_alone.weight", "once.weight"]
    assert list(eligible_layers(Unusual(), sites, images)) == ["once.weight"]
    with pytest.raises(BayesdfError, match="no site is one"):
        SVI(estimator="local", epochs=1, progress=False).fit(Detector(network, {"3.bias": priors.normal(1.0)}), data)
    with pytest.raises(BayesdfError, match="needs guide 'normal'"):
        SVI(estimator="flipout", guide="lowrank")


def test_weights_that_two_layers_share_are_sampled():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 2)
            self.b.weight = self.a.weight

        def forward(self, images):
            return self.c(self.b(torch.relu(self.a(images.flatten(1)))))

    assert set(eligible_layers(Tied(), ["a.weight", "c.weight"], torch.rand(2, 3, 2, 2))) == {"c.weight"}

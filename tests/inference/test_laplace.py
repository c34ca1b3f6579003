"""Laplace at the last layer: the curvature against closed forms, brute force and laplace-torch; its limits."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

from bayesdf.errors import BayesdfError
from bayesdf.inference import MAP, Laplace, laplace, load_posterior
from bayesdf.models import Detector, priors
from tests.inference.convolutional import convolutional, pictures
from tests.inference.linear import PRIOR_SCALE, Gaussian, Logistic, conjugate, correlated, exact, simulate

WEIGHTS = torch.tensor([1.0, -0.5])
AS_IT_IS = {"epochs": 0, "batch_size": 7, "progress": False}
CLASSES, FEATURES = 3, 4


class Small(nn.Module):
    """A layer before the last linear one, and three classes."""

    def __init__(self, after=None):
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Linear(5, FEATURES)
        self.head = nn.Linear(FEATURES, CLASSES)
        self.after = nn.Identity() if after is None else after

    def forward(self, images):
        return self.after(self.head(torch.tanh(self.body(images.flatten(1)))))


def data(count=30):
    noise = torch.Generator().manual_seed(2)
    images = torch.randn(count, 5, 1, 1, generator=noise)
    return TensorDataset(images, torch.arange(count) % 5 % CLASSES)  # classes are not balanced


def covariance(sampler):
    """Of all sites together, in their order, as the sampler's draws have it."""
    if hasattr(sampler, "factor"):
        return (sampler.factor.double() @ sampler.factor.double().T).numpy()
    blocks = []
    for site in sampler.sites.values():
        columns = torch.eye(site.scale.shape[1]) if site.columns is None else site.columns
        root = torch.kron(site.rows.double(), columns.double()) * site.scale.double().flatten()
        blocks.append(root @ root.T)
    return torch.block_diag(*blocks).numpy()


def log_joint(network, train, weights, prior_scale):
    """Of the head's weights, flat: the categorical likelihood, each image to its weight, and a normal prior."""

    def density(flat):
        weight, bias = flat[: CLASSES * FEATURES].view(CLASSES, FEATURES), flat[CLASSES * FEATURES :]
        features = torch.tanh(F.linear(train.tensors[0].flatten(1).double(), *map(double, network.body.parameters())))
        losses = F.cross_entropy(network.after(F.linear(features, weight, bias)), train.tensors[1], reduction="none")
        return -(weights * losses).sum() - 0.5 * (flat**2 / prior_scale**2).sum()

    return density


def double(value):
    return value.detach().double()


def hessian(network, train, weights, prior_scale=PRIOR_SCALE):
    flat = torch.cat([double(value).flatten() for value in network.head.parameters()])
    return torch.autograd.functional.hessian(log_joint(network, train, weights, prior_scale), flat).numpy()


def head(network, scale=PRIOR_SCALE):
    return Detector(network, {"head": priors.normal(scale)})


# --- the curvature --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", ["full", "kron"])
def test_the_posterior_of_a_conjugate_model_is_exact(structure):
    """Covariance to a thousandth: one output of constant curvature is a Kronecker product."""
    train = simulate(correlated(80), WEIGHTS, seed=0)
    _, expected = conjugate(train)
    method = Laplace(structure=structure, class_balanced=False, **AS_IT_IS)
    posterior = method.fit(Gaussian(Logistic(2), {"linear": priors.normal(PRIOR_SCALE)}), train)
    np.testing.assert_allclose(covariance(posterior.sampler), expected, rtol=1e-3)


def test_logistic_regression_is_near_its_exact_posterior():
    """400 images: the mode within 0.2 standard deviations of the mean, standard deviations within 5 %."""
    train = simulate(correlated(400), WEIGHTS, seed=0)
    mean, expected = exact(train)
    method = Laplace(epochs=300, lr=0.05, batch_size=400, class_balanced=False, progress=False)
    sampler = method.fit(Detector(Logistic(2), {"linear": priors.normal(PRIOR_SCALE)}), train).sampler
    sd = np.sqrt(np.diag(expected))
    assert (abs(sampler.loc.numpy() - mean) / sd).max() < 0.2
    np.testing.assert_allclose(np.sqrt(np.diag(covariance(sampler))), sd, rtol=0.05)


@pytest.mark.parametrize("balanced", [False, True])
def test_full_is_the_hessian_of_the_log_joint(balanced):
    """A linear last layer: Gauss-Newton leaves nothing out. Classes of 12, 12 and 6 images."""
    network, train = Small(), data()
    counts = torch.bincount(train.tensors[1])
    weights = (30 / (3 * counts))[train.tensors[1]] if balanced else torch.ones(30)
    posterior = Laplace(class_balanced=balanced, **AS_IT_IS).fit(head(network), train)
    found = np.linalg.inv(covariance(posterior.sampler))
    np.testing.assert_allclose(found, -hessian(network, train, weights), rtol=1e-3, atol=1e-3)


def test_what_follows_the_last_linear_layer_counts():
    """Logits that are a linear map of the layer's outputs: the same matrix of another basis."""
    torch.manual_seed(3)
    network, train = Small(after=nn.Hardtanh(-100, 100)), data()
    plain = Laplace(class_balanced=False, **AS_IT_IS).fit(head(Small()), train)
    found = Laplace(class_balanced=False, **AS_IT_IS).fit(head(network), train)
    np.testing.assert_allclose(covariance(found.sampler), covariance(plain.sampler), rtol=1e-5)

    class Halved(nn.Module):
        def forward(self, logits):
            return logits * 0.5

    network = Small(after=Halved())
    found = np.linalg.inv(covariance(Laplace(class_balanced=False, **AS_IT_IS).fit(head(network), train).sampler))
    np.testing.assert_allclose(found, -hessian(network, train, torch.ones(30)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("site", ["head.weight", "head.bias"])
def test_one_of_weight_and_bias(site):
    """The precision of one site alone is its block of the precision of both."""
    network, train = Small(), data()
    posterior = Laplace(class_balanced=False, **AS_IT_IS).fit(
        Detector(network, {site: priors.normal(PRIOR_SCALE)}), train
    )
    kept = slice(0, CLASSES * FEATURES) if site == "head.weight" else slice(CLASSES * FEATURES, None)
    expected = -hessian(network, train, torch.ones(30))[kept, kept]
    np.testing.assert_allclose(np.linalg.inv(covariance(posterior.sampler)), expected, rtol=1e-3, atol=1e-3)


def test_kron_is_the_product_of_its_factors():
    """Against the formula in numpy; the bias's block is the exact one."""
    network, train = Small(), data()
    posterior = Laplace(structure="kron", class_balanced=False, **AS_IT_IS).fit(head(network), train)
    features = torch.tanh(network.body(train.tensors[0].flatten(1))).detach().double().numpy()
    probability = network.head(torch.tensor(features).float()).softmax(1).detach().double().numpy()
    inputs = features.T @ features / 30
    outputs = np.diag(probability.sum(0)) - probability.T @ probability
    weight = np.kron(outputs, inputs) + np.eye(12) / PRIOR_SCALE**2
    bias = outputs + np.eye(3) / PRIOR_SCALE**2
    found = np.linalg.inv(covariance(posterior.sampler))
    np.testing.assert_allclose(found[:12, :12], weight, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found[12:, 12:], bias, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(bias, -hessian(network, train, torch.ones(30))[12:, 12:], rtol=1e-5)


@pytest.mark.parametrize("structure", ["full", "kron"])
def test_laplace_torch_finds_the_same(structure):
    """Daxberger et al.'s own library, in float64: posterior precision to a thousandth."""
    from bayesdf import _torchvision  # noqa: F401  (laplace-torch imports torchvision)

    library = pytest.importorskip("laplace")
    network, train = Small(), data()
    posterior = Laplace(structure=structure, class_balanced=False, **AS_IT_IS).fit(head(network), train)
    settings = {"subset_of_weights": "last_layer", "hessian_structure": structure, "last_layer_name": "head"}
    other = library.Laplace(Small().double(), "classification", prior_precision=1 / PRIOR_SCALE**2, **settings)
    images, labels = train.tensors
    other.fit(torch.utils.data.DataLoader(TensorDataset(images.double(), labels), batch_size=30))
    expected = other.posterior_precision
    expected = expected if structure == "full" else expected.to_matrix()
    found = np.linalg.inv(covariance(posterior.sampler))
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-3, atol=1e-3)


def test_draws_have_the_covariance_that_is_held():
    train = data()
    for structure in ("full", "kron"):
        posterior = Laplace(structure=structure, **AS_IT_IS).fit(head(Small()), train)
        drawn = posterior.draws(4000)["posterior"].to_dataset()
        flat = np.concatenate([drawn[f"head.{part}"].values.reshape(4000, -1) for part in ("weight", "bias")], 1)
        expected = covariance(posterior.sampler)
        scale = np.sqrt(np.diag(expected))
        assert abs((np.cov(flat.T) - expected) / np.outer(scale, scale)).max() < 0.1


# --- priors ---------------------------------------------------------------------------------------------------------


def test_each_weight_has_the_precision_of_its_own_prior():
    network, train = Small(), data()
    detector = Detector(network, {"head.weight": priors.moped(0.5), "head.bias": priors.normal(0.3)})
    found = np.linalg.inv(covariance(Laplace(class_balanced=False, **AS_IT_IS).fit(detector, train).sampler))
    weight = 0.5 * network.head.weight.detach().abs().clamp_min(0.01).double().flatten()
    scale = torch.cat([weight, torch.full((CLASSES,), 0.3)])
    np.testing.assert_allclose(found, -hessian(network, train, torch.ones(30), scale), rtol=2e-3, atol=2e-2)
    with pytest.raises(BayesdfError, match=r"moped\(delta=0.5, floor=0.01\) of head.weight has several scales"):
        Laplace(structure="kron", **AS_IT_IS).fit(detector, train)


def spike(name, parameter):
    scale = pyro.sample(f"{name}.scale", dist.HalfCauchy(0.1))
    return dist.Normal(torch.zeros_like(parameter), scale).to_event(parameter.dim())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"head": priors.laplace(1.0)}, r"laplace\(scale=1.0, loc=0.0\) of head.weight is a Laplace"),
        ({"head.bias": spike}, r"spike of head.bias has hyperpriors \(head.bias.scale\)"),
        ({"head": priors.normal(1.0), "body.bias": priors.normal(1.0)}, "body.bias is not of the last linear layer"),
    ],
)
def test_other_priors_and_sites_are_refused(given, message):
    with pytest.raises(BayesdfError, match=message):
        Laplace(**AS_IT_IS).fit(Detector(Small(), given), data())


# --- the way there --------------------------------------------------------------------------------------------------


def test_the_search_is_that_of_map_and_ends_at_the_maximum():
    settings = {"epochs": 4, "batch_size": 8, "lr": 0.02, "progress": False, "freeze": "prefix"}
    detector = Detector(convolutional(), {"7": priors.normal(0.5)})
    found, point = (method(**settings).fit(detector, pictures()) for method in (Laplace, MAP))
    for name, value in point.network.state_dict().items():  # its own sites it moves on to their maximum
        assert torch.equal(found.network.state_dict()[name], value) == (name not in detector.sites), name
    assert found.sample_stats.equals(point.sample_stats)
    assert found.sample_stats.attrs["newton_gain_nats"] < 0.01


def test_batches_and_augmentation_do_not_change_the_curvature():
    def broken(images, noise):
        raise AssertionError("the curvature is of the images as they are")

    network, train = Small(), data()
    expected = covariance(Laplace(**{**AS_IT_IS, "batch_size": 30}).fit(head(network), train).sampler)
    found = covariance(Laplace(augment=broken, **AS_IT_IS).fit(head(network), train).sampler)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("structure", ["full", "kron"])
def test_to_disk_and_back(tmp_path, structure):
    detector, train = head(Small()), data()
    posterior = Laplace(structure=structure, **AS_IT_IS).fit(detector, train)
    loaded = load_posterior(posterior.save(tmp_path / "a.zarr"), detector)
    first, second = (one.predict(train, draws=3)["posterior_predictive/logits"].values for one in (posterior, loaded))
    assert np.array_equal(first, second) and np.ptp(first, axis=1).min() > 0


# --- bad input ------------------------------------------------------------------------------------------------------


def test_too_many_weights_for_a_full_covariance(monkeypatch):
    monkeypatch.setattr(laplace, "FULL_NUMBERS", 14)
    with pytest.raises(BayesdfError, match=r'the 15 weights of head .* structure="kron"'):
        Laplace(**AS_IT_IS).fit(head(Small()), data())
    Laplace(structure="kron", **AS_IT_IS).fit(head(Small()), data())


def test_a_layer_that_sees_more_than_a_vector_an_image():
    class Rows(Small):
        def forward(self, images):
            return self.head(torch.tanh(self.body(images.flatten(1)))[:, None]).mean(1)

    with pytest.raises(BayesdfError, match=r"head, must see one vector for each label, .* images \(2,\)"):
        Laplace(**AS_IT_IS).fit(head(Rows()), data())


def test_a_prior_that_leaves_the_precision_without_an_inverse():
    """Softmax does not mind a number added to all biases: a prior as wide as this one says nothing about it."""
    with pytest.raises(BayesdfError, match="give a narrower one"):
        Laplace(**AS_IT_IS).fit(head(Small(), 1e12), data())


def test_settings_out_of_range():
    with pytest.raises(BayesdfError, match="structure is 'diagonal'"):
        Laplace(structure="diagonal")

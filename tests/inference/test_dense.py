"""A label at each location: the posterior is that of as many images, and only the shapes are new."""

import copy

import arviz
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from bayesdf import analysis
from bayesdf.errors import BayesdfError
from bayesdf.inference import (
    MAP,
    NUTS,
    SGMCMC,
    SVI,
    SWAG,
    DeepEnsemble,
    Laplace,
    MCDropout,
    Posterior,
    load_posterior,
    logit_moments,
    matched_noise,
    prior_predictive,
    whitening,
)
from bayesdf.inference.joint import Joint
from bayesdf.inference.training.problem import prepare
from bayesdf.models import Detector, build, dense_head, located, priors
from tests.inference.linear import PRIOR_SCALE, check_chains, correlated, exact, simulate

# Fits here are short on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::bayesdf.errors.BayesdfWarning")

FEATURES, CLASSES, GRID = 3, 3, (2, 4)
CLOSE = {"epochs": 20, "lr": 0.05, "batch_size": 80, "progress": False}
METHODS = {
    "map": MAP(**CLOSE),
    "svi": SVI(**CLOSE),
    "svi_local": SVI(estimator="local", **CLOSE),
    "svi_flipout": SVI(estimator="flipout", **CLOSE),
    "svi_full": SVI(guide="full", **CLOSE),
    "svi_matrix": SVI(guide="matrix", **CLOSE),
    "laplace": Laplace(**CLOSE),
    "laplace_kron": Laplace(structure="kron", **CLOSE),
    "swag": SWAG(collect_epochs=4, snapshots=4, rank=2, **{**CLOSE, "batch_size": 20}),
    "ensemble": DeepEnsemble(members=2, **CLOSE),
    "sgmcmc": SGMCMC(sampling_epochs=20, stored_draws=4, **CLOSE),
    "nuts": NUTS(chains=1, warmup=5, samples=5, **CLOSE),
    "dropout": MCDropout(rate=0.3, layers="drop", **CLOSE),
    "prefix": SVI(freeze="prefix", **CLOSE),
}


class Vectors(nn.Module):
    """A linear layer on images (B, F, 1, 1), each of which is a vector."""

    def __init__(self, classes=CLASSES):
        super().__init__()
        self.drop = nn.Identity()
        self.head = nn.Linear(FEATURES, classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, images):
        return self.head(self.drop(images).flatten(1))


class Locations(Vectors):
    """The same linear layer at each location of images (B, F, H, W)."""

    def __init__(self, classes=CLASSES):
        super().__init__(classes)
        self.head = nn.Conv2d(FEATURES, classes, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, images):
        return self.head(self.drop(images))


class Everywhere(Vectors):
    """The same with `nn.Linear`, which rounds as it does for vectors."""

    def forward(self, images):
        return self.head(self.drop(images).movedim(1, -1)).movedim(-1, 1)


class Untraceable(Locations):
    """Its forward depends on the images, so that it is not split."""

    def forward(self, images):
        return super().forward(images) if images.sum() > -1e9 else images


def detector(network):
    return Detector(network, {"head.weight": priors.normal(1.0), "head.bias": priors.normal(2.0)})


def grids(count=40, grid=GRID, classes=CLASSES):
    """Images (N, F, *grid) and labels (N, *grid) that depend on the vector at each location."""
    noise = torch.Generator().manual_seed(0)
    images = torch.randn(count, FEATURES, *grid, generator=noise)
    weights = torch.randn(classes, FEATURES, generator=noise)
    logits = torch.einsum("cf,nfyx->nyxc", weights, images)
    return TensorDataset(images, torch.distributions.Categorical(logits=logits).sample())


def as_vectors(data):
    """Each location of the images as an image of its own."""
    images, labels = data.tensors
    return TensorDataset(images.movedim(1, -1).reshape(-1, FEATURES, 1, 1), labels.flatten())


def sites(posterior, draws=None):
    return {name: value.values for name, value in posterior.draws(draws)["posterior"].data_vars.items()}


@pytest.mark.parametrize("name", METHODS)
def test_one_location_is_an_image(name):
    """The same seed gives the same draws and the same predictions, whatever the method."""
    data = grids(grid=(1, 1))
    vectors = TensorDataset(data.tensors[0], data.tensors[1].flatten())
    dense = METHODS[name].fit(detector(Everywhere()), data, data)
    plain = METHODS[name].fit(detector(Vectors()), vectors, vectors)
    found, expected = (sites(one, min(4, one.sampler.capacity or 4)) for one in (dense, plain))
    assert found.keys() == expected.keys()
    for site in found:
        np.testing.assert_allclose(found[site].reshape(expected[site].shape), expected[site], rtol=2e-3, atol=2e-4)
    logits = dense.predict(data, draws=1)["posterior_predictive/logits"]
    assert logits.dims == ("chain", "draw", "image", "y", "x", "class")
    given = plain.predict(vectors, draws=1)["posterior_predictive/logits"]
    np.testing.assert_allclose(logits.values[:, :, :, 0, 0], given.values, rtol=2e-3, atol=2e-3)
    nll, known = (part.sample_stats.get("validation_nll") for part in (dense, plain))
    if known is not None:
        np.testing.assert_allclose(nll.values, known.values, rtol=1e-3)


def test_locations_are_as_many_images():
    """Log density, its curvature, and Laplace's normal are those of N H W vectors."""
    data = grids()
    settings = Laplace(**{**CLOSE, "class_balanced": True})
    cases = [(detector(Locations()), data), (detector(Vectors()), as_vectors(data))]
    found = []
    for one, train in cases:
        problem = prepare(one, settings, train, None)
        joint = Joint(one, problem)
        noise = torch.Generator().manual_seed(1)
        z = {name: torch.randn(value.numel(), generator=noise).view(value.shape) for name, value in joint.start.items()}
        batches = list(whitening.features(problem, 1000))
        density = joint.log_density(z, problem.parts.suffix, *batches[0], jacobian=True)
        curvature = whitening.hessian(joint, problem, whitening.flatten(z), batches)
        found.append((density, curvature, problem.class_weights))
    for dense, plain in zip(*found, strict=True):
        torch.testing.assert_close(dense, plain, rtol=1e-4, atol=1e-3)
    for structure in ("full", "kron"):
        method = Laplace(structure=structure, **{**CLOSE, "epochs": 200, "batch_size": 1000})
        draws = [sites(method.fit(*case), 500) for case in cases]
        for site in draws[0]:
            one, other = (part[site].reshape(500, -1) for part in draws)
            np.testing.assert_allclose(one, other, atol=0.02 * other.std())


@pytest.mark.slow
def test_the_posterior_of_locations_by_a_sum_over_a_grid():
    """NUTS on a dense network of one logit has the moments of the exact posterior of the same vectors."""
    features = correlated(80)
    vectors = simulate(features, torch.tensor([1.0, -0.5]), seed=0)
    mean, covariance = exact(vectors)
    images = features.reshape(10, 2, 4, 2).movedim(-1, 1)
    data = TensorDataset(images, vectors.tensors[1].reshape(10, 2, 4))
    network = nn.Sequential(nn.Conv2d(2, 1, 1, bias=False))
    method = NUTS(epochs=50, warmup=100, samples=500, chains=2, class_balanced=False, progress=False)
    posterior = method.fit(Detector(network, {"0.weight": priors.normal(PRIOR_SCALE)}), data)
    check_chains(posterior.draws()["posterior/0.weight"].values.reshape(1, -1, 2), mean, covariance)


def test_predictions_of_locations_are_those_of_images():
    """Each location as an image of its own has the same logits, log-likelihood and uncertainty; so have the pieces."""
    data = grids()
    posterior = Laplace(**CLOSE).fit(detector(Locations()), data)
    tree = posterior.predict(data, draws=7, seed=3, log_likelihood=True, batch_size=16)
    logits = tree["posterior_predictive/logits"]
    assert logits.dims == ("chain", "draw", "image", "y", "x", "class") and logits.shape == (1, 7, 40, *GRID, CLASSES)
    assert (tree["observed_data/label"].values == data.tensors[1].numpy()).all()
    assert logits["y"].values.tolist() == [0, 1] and logits["x"].values.tolist() == [0, 1, 2, 3]  # a cell is a pixel
    stacked = logits.stack(place=("image", "y", "x")).transpose("chain", "draw", "place", "class")
    images = stacked.drop_vars(["place", "image", "y", "x"]).rename(place="image")
    one, other = analysis.decompose(tree), analysis.decompose(images)
    for name in other.data_vars:
        assert one[name].dims[:3] == ("image", "y", "x")
        np.testing.assert_allclose(one[name].values.reshape(other[name].shape), other[name].values, rtol=1e-12)
    pieces = analysis.decompose(posterior.stream(data, draws=7, seed=3, batch_size=16))
    np.testing.assert_allclose(pieces["epistemic"].values, one["epistemic"].values, rtol=1e-9, atol=1e-12)
    assert (pieces["y"] == one["y"]).all()
    piece = next(posterior.stream(data, draws=1))
    assert piece["label"].dims == ("image", "y", "x")
    coarse = TensorDataset(data.tensors[0], data.tensors[1][:, :1])
    assert "label" not in next(posterior.stream(coarse, draws=1)).coords
    assert posterior.predict(coarse, draws=1)["observed_data/label"].shape == (40, 1, 4)
    of_label = tree["log_likelihood/label"]
    expected = torch.from_numpy(logits.values).log_softmax(-1)
    labels = data.tensors[1][None, None, ..., None].expand(1, 7, -1, -1, -1, 1)
    assert of_label.dims == ("chain", "draw", "image", "y", "x")
    np.testing.assert_allclose(of_label.values, expected.gather(-1, labels)[..., 0].numpy())
    assert np.isfinite(arviz.loo(arviz.InferenceData.from_datatree(tree)).elpd_loo)


def test_pictures_and_cells():
    """Cells are larger than pixels; images may have labels of their own, or none."""
    network = dense_head(build("resnet10t_half", 2), "layer2")
    images = torch.rand(6, 3, 64, 32)
    labels = torch.randint(0, 2, (6, 8, 4), generator=torch.Generator().manual_seed(0))
    posterior = MAP(epochs=1, freeze="prefix", progress=False).fit(
        Detector(network, {"head": priors.normal(1.0)}), TensorDataset(images, labels)
    )
    tree = posterior.predict(TensorDataset(images, torch.arange(6) % 2), draws=1)
    logits = tree["posterior_predictive/logits"]
    assert logits.shape == (1, 1, 6, 8, 4, 2)
    assert logits["y"].values[:2].tolist() == [3.5, 11.5] and logits["x"].values[-1] == 27.5
    assert tree["observed_data/label"].dims == ("image",)
    assert "observed_data" not in posterior.predict(images, draws=1).children
    with pytest.raises(BayesdfError, match=r"labels are one an image, but .* grid of 8 x 4"):
        posterior.predict(TensorDataset(images, torch.arange(6) % 2), draws=1, log_likelihood=True)
    with pytest.raises(BayesdfError, match="use draws"):
        logit_moments(posterior, TensorDataset(images, labels))
    with pytest.raises(BayesdfError, match=r"dense detector.*decompose"):
        analysis.evaluate(tree)


@pytest.mark.parametrize("network", [Locations, Untraceable])
@pytest.mark.parametrize("classes", [1, CLASSES])
def test_a_saved_posterior_predicts_the_same(tmp_path, network, classes):
    data = grids(classes=max(2, classes))
    posterior = SVI(**CLOSE).fit(detector(network(classes)), data)
    before = posterior.predict(data, draws=3)["posterior_predictive/logits"]
    assert before.shape[-1] == max(2, classes)
    posterior.save(tmp_path / "posterior.zarr")
    again = load_posterior(tmp_path / "posterior.zarr", detector=detector(network(classes)))
    np.testing.assert_array_equal(again.predict(data, draws=3)["posterior_predictive/logits"].values, before.values)


@pytest.mark.parametrize("method", [MAP, MCDropout, Laplace])
@pytest.mark.parametrize("kind", ["located", "head"])
def test_networks_that_were_made_dense(method, kind, tmp_path):
    """They fit, copies of them predict the same, and a store rebuilds them by their recipe."""
    network = build("resnet10t_half", 1, high_pass=True)
    network, site = (located(network), "fc") if kind == "located" else (dense_head(network, "layer4", 1), "head")
    images = torch.rand(8, 3, 64, 64)
    labels = (torch.arange(8)[:, None, None] + torch.arange(4).view(2, 2)) % 2
    data = TensorDataset(images, labels)
    fit = method(epochs=1, freeze="prefix", progress=False)
    posterior = fit.fit(Detector(network, {site: priors.normal(1.0)}), data)
    logits = posterior.predict(images, draws=1)["posterior_predictive/logits"]
    assert logits.shape == (1, 1, 8, 2, 2, 2)
    if method is MCDropout:
        assert list(posterior.sampler.shapes) == [f"{site}.input_dropout.mask"]
    moved = Posterior(copy.deepcopy(posterior.network), posterior.sampler, posterior.sample_stats, posterior.attrs)
    assert moved.recipe == posterior.recipe and moved.recipe["name"] == "resnet10t_half"
    posterior.save(tmp_path / "posterior.zarr")
    for other in (moved, load_posterior(tmp_path / "posterior.zarr")):
        np.testing.assert_array_equal(other.predict(images, draws=1)["posterior_predictive/logits"], logits)
    again = Detector(posterior.network, {site: priors.normal(1.0)})  # a fit that begins where another ended
    MAP(epochs=0, freeze="all", progress=False).fit(again, data)
    assert matched_noise(posterior, network).predict(images, draws=1)["posterior_predictive/logits"].dims == logits.dims


def test_the_prior_of_a_dense_detector_predicts_locations():
    tree = prior_predictive(detector(Locations()), grids(), draws=1)
    assert tree["prior_predictive/probability"].dims == ("chain", "draw", "image", "y", "x", "class")


def _labels(change):
    data = grids()
    return TensorDataset(data.tensors[0], change(data.tensors[1]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda labels: labels[:, :1], r"on a grid of 1 x 4, but .* grid of 2 x 4: give labels \(N, 2, 4\)$"),
        (lambda labels: labels[:, 0, 0], r"labels are one an image, but .* grid of 2 x 4"),
        (lambda labels: labels * 0.9, "soft labels are not supported"),
        (lambda labels: labels + 1, "subtract 1"),
        (lambda labels: labels - 1, "numbered from 0"),
        (lambda labels: labels[:, None], r"take labels\[:, 0\]"),
        (lambda labels: labels * 0, "all 320 locations of images are of class '0'"),
    ],
)
def test_bad_labels_get_one_line(change, message):
    with pytest.raises(BayesdfError, match=message) as error:
        MAP(**CLOSE).fit(detector(Locations()), _labels(change))
    assert "\n" not in str(error.value)


def test_labels_of_validation_and_of_networks_of_images():
    data = grids()
    with pytest.raises(BayesdfError, match="labels are one an image"):
        MAP(**CLOSE).fit(detector(Locations()), data, _labels(lambda labels: labels[:, 0, 0]))
    one = grids(grid=(1, 1))
    with pytest.raises(BayesdfError, match=r"grid of 1 x 1, but the network tells one class an image.*dense_head"):
        MAP(**CLOSE).fit(detector(Vectors()), one)
    square = grids(grid=(2, 2))
    with pytest.raises(BayesdfError, match=r"pixel_labels\(dataset, 2\)"):
        MAP(**CLOSE).fit(detector(Locations()), TensorDataset(square.tensors[0], square.tensors[1][:, 0, 0]))


def test_laplace_refuses_what_mixes_locations():
    class Smoothed(Locations):
        def forward(self, images):
            return nn.functional.avg_pool2d(super().forward(images), 3, 1, 1)

    with pytest.raises(BayesdfError, match="mixes locations: use another method"):
        Laplace(**CLOSE).fit(detector(Smoothed()), grids())

    class Coarse(Locations):
        def forward(self, images):
            return nn.functional.avg_pool2d(super().forward(images), 2)

    data = grids()
    with pytest.raises(BayesdfError, match="one vector for each label"):
        Laplace(**CLOSE).fit(detector(Coarse()), TensorDataset(data.tensors[0], data.tensors[1][:, :1, :2]))

"""MC dropout: where it goes, what its masks are, and what it does to predictions."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from bayesdf.errors import BayesdfError
from bayesdf.inference import MCDropout
from bayesdf.inference.channel_dropout import ChannelDropout, insert, masks_before, places
from bayesdf.inference.samplers import MaskSampler
from bayesdf.models import Detector, build
from tests.inference.linear import Logistic, correlated, simulate


def small(dropout=True):
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    own = [nn.Dropout(0.5)] if dropout else []
    return nn.Sequential(*layers, *own, nn.Linear(8, 2))


def data(count=24, seed=0):
    noise = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    images = torch.rand(count, 3, 8, 8, generator=noise) * 0.5 + 0.5 * labels[:, None, None, None]
    return TensorDataset(images, labels)


def fit(network, epochs=3, **settings):
    return MCDropout(epochs=epochs, batch_size=8, progress=False, **settings).fit(Detector(network, {}), data())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", ["layer4.0.dropout", "layer4.1.dropout", "fc.input_dropout"]),
        ("xception", ["block12.dropout", "fc.input_dropout"]),
        ("efficientnet", ["blocks.6.0.dropout", "classifier.input_dropout"]),
        ("mobilenet", ["blocks.5.0.dropout", "classifier.input_dropout"]),
    ],
)
def test_default_places(name, expected):
    network = build(name, 2).eval()
    assert places(network) == expected
    counts = insert(network, 0.2, None, torch.rand(1, 3, 64, 64))
    assert list(counts) == expected
    linear = network.get_submodule(expected[-1].rpartition(".")[0])
    assert counts[expected[-1]] == linear.in_features


def test_the_networks_own_dropout_is_used():
    network = small()
    assert insert(network, 0.2, None, torch.rand(1, 3, 8, 8)) == {"4": 8}
    assert isinstance(network[4], ChannelDropout) and network[4].rate == 0.2


def test_layers_by_pattern_come_besides_the_networks_own():
    assert insert(small(), 0.2, "0", torch.rand(1, 3, 8, 8)) == {"4": 8, "0.dropout": 8}
    with pytest.raises(BayesdfError, match="matches no module"):
        insert(small(), 0.2, "layer9", torch.rand(1, 3, 8, 8))


def test_mean_and_variance_of_the_masks():
    rate = 0.3
    masks = MaskSampler({"a.mask": torch.full((400,), rate)})
    sample = torch.stack([masks.draw(index, 0)["a.mask"] for index in range(400)])
    assert sorted(sample.unique().tolist()) == pytest.approx([0.0, 1 / (1 - rate)])
    assert float(sample.mean()) == pytest.approx(1.0, abs=0.01)
    assert float(sample.var()) == pytest.approx(rate / (1 - rate), rel=0.02)
    assert abs(float(torch.corrcoef(sample[:, :2].T)[0, 1])) < 0.2  # channels are independent


@pytest.mark.parametrize("shape", [(3000, 4), (3000, 4, 2, 2), (3000, 5, 4)])
def test_training_masks_differ_between_images_and_keep_the_mean(shape):
    torch.manual_seed(0)
    dropout = ChannelDropout(4, 0.25).train()
    out = dropout(torch.ones(shape))
    channel_last = out.movedim(1, -1) if len(shape) == 4 else out
    per_image = channel_last.reshape(shape[0], -1, 4)
    assert (per_image == per_image[:, :1]).all()  # a channel is there or not, everywhere
    assert per_image[:, 0].mean(0).tolist() == pytest.approx([1.0] * 4, abs=0.05)
    assert torch.equal(dropout.eval()(torch.ones(shape)), torch.ones(shape))


def test_rate_zero_has_no_epistemic_uncertainty():
    logits = fit(small(), rate=0.0).predict(data(), draws=5)["posterior_predictive/logits"]
    assert (logits.values == logits.values[:, :1]).all()
    logits = fit(small(), rate=0.3).predict(data(), draws=5)["posterior_predictive/logits"]
    assert float(logits.std("draw").min()) > 0.0


def test_a_draw_is_one_function_of_all_images():
    posterior = fit(small(), rate=0.5)
    images, labels = data(6).tensors
    same = TensorDataset(images[:1].expand(6, -1, -1, -1), labels)
    logits = posterior.predict(same, draws=8, batch_size=2)["posterior_predictive/logits"]
    assert float(logits.std("image").max()) < 1e-5
    assert float(logits.std("draw").min()) > 0.0


def test_mean_of_draws_of_a_linear_head_is_the_point_prediction():
    posterior = fit(small(), rate=0.3)
    logits = posterior.predict(data(8), draws=1500)["posterior_predictive/logits"]
    with torch.no_grad():
        expected = posterior.network(data(8).tensors[0])
    standard_error = logits.std("draw").values[0] / 1500**0.5
    error = (logits.mean(("chain", "draw")).values - expected.numpy()) / standard_error
    assert abs(error).max() < 4.5


def test_sites_and_their_draws():
    posterior = fit(small(), rate=0.3)
    draws = posterior.draws(7)["posterior/4.mask"]
    assert draws.dims == ("chain", "draw", "4.mask_dim_0") and draws.shape == (1, 7, 8)


def test_weight_decay_is_the_prior():
    """Without dropout the fit is the MAP under N(0, prior_scale²), found here by Newton's method."""
    train = simulate(correlated(60), torch.tensor([1.0, -0.5]), seed=0)
    settings = {"rate": 0.0, "prior_scale": 0.7, "epochs": 400, "lr": 0.02, "batch_size": 60}
    method = MCDropout(**settings, class_balanced=False, progress=False)
    found = method.fit(Detector(Logistic(2), {}), train).network.linear.weight.detach()[0]

    features, labels = train.tensors[0].flatten(1), train.tensors[1].float()
    weight = torch.zeros(2)
    for _ in range(20):
        probability = torch.sigmoid(features @ weight)
        gradient = features.T @ (probability - labels) + weight / 0.7**2
        curvature = features.T @ (features * (probability * (1 - probability))[:, None]) + torch.eye(2) / 0.7**2
        weight = weight - torch.linalg.solve(curvature, gradient)
    torch.testing.assert_close(found, weight, rtol=0, atol=2e-3)


def test_the_layer_behind_a_mask_has_the_masked_prior():
    network = build("resnet18", 2).eval()
    insert(network, 0.2, None, torch.rand(1, 3, 32, 32))
    assert masks_before(network, torch.rand(1, 3, 32, 32)) == {
        "layer4.1.conv1.weight": ("layer4.0.dropout.mask",),
        "fc.weight": ("layer4.1.dropout.mask", "fc.input_dropout.mask"),
    }


def test_frozen_networks_keep_their_weights():
    network = small(dropout=False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    posterior = fit(network, rate=0.2, freeze="all")
    for name, value in before.items():
        assert torch.equal(posterior.network.state_dict()[name], value)
        assert torch.equal(network.state_dict()[name], value)
    trained = fit(network, rate=0.2, freeze="prefix").network.state_dict()
    assert torch.equal(trained["0.weight"], before["0.weight"])
    assert not torch.equal(trained["4.weight"], before["4.weight"])


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_rate_out_of_range(rate):
    with pytest.raises(BayesdfError, match="rate"):
        MCDropout(rate=rate)


def test_no_known_place():
    with pytest.raises(BayesdfError, match="layers="):
        places(nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten()))


# --- concrete dropout -----------------------------------------------------------------------------------------------


def rates(posterior):
    return {site: float(rate[0]) for site, rate in posterior.sampler.rates.items()}


def test_learnt_rates_fall_with_the_data():
    """What there is little data about stays uncertain: the rate is higher with 40 images than with 2000."""
    found = []
    for count, epochs in ((40, 250), (2000, 5)):
        train = simulate(correlated(count), torch.tensor([3.0, 3.0]), seed=0)
        method = MCDropout(rate=0.2, concrete=True, layers="widen", epochs=epochs, lr=0.02, progress=False)
        found.append(rates(method.fit(Detector(Wide(), {}), train))["widen.dropout.mask"])
    assert found[0] > 2 * found[1]
    assert 0 < found[1] < 0.2


def test_masks_pull_at_large_weights_as_the_bound_has_it():
    """|M|² (1 - p) = |w|² / (1 - p): of weights that stay as they are, the less is dropped the tighter their prior."""
    train = simulate(correlated(200), torch.tensor([3.0, 3.0]), seed=0)
    found = []
    for scale in (0.3, 1.0, 3.0):
        settings = {"rate": 0.1, "prior_scale": scale, "layers": "widen", "epochs": 30, "lr": 0.003, "progress": False}
        found.append(rates(MCDropout(concrete=True, **settings).fit(Detector(Wide(), {}), train))["widen.dropout.mask"])
    assert found[0] < 0.8 * found[1] and found[1] < found[2]


class Wide(nn.Module):
    """Two features repeated 16 times, so that masks can drop some of them."""

    def __init__(self):
        super().__init__()
        self.widen, self.linear = nn.Linear(2, 32), nn.Linear(32, 2)
        torch.manual_seed(0)
        for layer in (self.widen, self.linear):
            nn.init.normal_(layer.weight, std=0.3)

    def forward(self, images):
        return self.linear(torch.relu(self.widen(images.flatten(1))))


def test_learnt_rates_are_those_of_the_posterior_and_leave_the_network_plain():
    posterior = MCDropout(concrete=True, epochs=3, batch_size=8, progress=False).fit(Detector(small(), {}), data())
    assert set(rates(posterior)) == {"4.mask"} and rates(posterior)["4.mask"] != 0.2
    dropout = posterior.network.get_submodule("4")
    assert dropout.logit is None and dropout.rate == pytest.approx(rates(posterior)["4.mask"])
    share = (posterior.draws(400)["posterior/4.mask"].values == 0).mean()
    assert share == pytest.approx(dropout.rate, abs=0.03)


def test_rates_can_only_be_learnt_with_weights():
    for settings in ({"rate": 0.0}, {"freeze": "all"}):
        with pytest.raises(BayesdfError, match="concrete"):
            MCDropout(concrete=True, **settings)

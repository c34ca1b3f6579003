"""The classifier at each location: the mean over locations is the image's logits."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

import bayesdf
from bayesdf.errors import BayesdfError
from bayesdf.models import build, located, priors


@pytest.mark.parametrize("name", ["resnet18", "resnet10t_half", "xception", "efficientnet", "densenet121"])
def test_logits_of_locations_average_to_those_of_the_image(name):
    network = build(name, 3, high_pass=name == "resnet10t_half").eval()
    images = torch.rand(2, 3, 96, 64)
    with torch.no_grad():
        logits = located(network)(images)
        assert logits.shape[:2] == (2, 3) and logits.shape[2] > logits.shape[3]
        assert logits.flatten(2).std(-1).min() > 0
        torch.testing.assert_close(logits.mean((2, 3)), network(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("mobilenet", r"before its classifier, classifier, is Hardswish \(act2\)"),
        ("mobilenet_v3_small", "is Hardswish"),
        ("timm/convnext_atto", "is LayerNorm2d"),
        ("vit_tiny_patch16_224", "cannot be traced"),
    ],
)
def test_networks_without_the_form_name_the_methods_that_will_do(name, why):
    with pytest.raises(BayesdfError, match=f"{why}.*occlusion and superpixels$") as error:
        located(build(name, 2))
    assert "\n" not in str(error.value)


class _Head(nn.Module):
    """A small network whose pooling and head are given as functions."""

    def __init__(self, pool, head=None, outputs=2):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, stride=8)
        self.fc = nn.Linear(5, outputs)
        self.pool, self.head = pool, head or nn.Identity()

    def forward(self, images):
        return self.head(self.fc(self.pool(self.conv(images))))


def _view(x):
    return F.dropout(F.adaptive_avg_pool2d(x, 1).view(x.size(0), -1), 0.5, False)


@pytest.mark.parametrize(
    "pool",
    [
        _view,
        lambda x: x.mean((2, 3)),
        lambda x: F.avg_pool2d(x, kernel_size=x.shape[-2:])[:, :, 0, 0],
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Identity()),
    ],
)
@pytest.mark.parametrize("outputs", [1, 4])
def test_ways_to_write_an_average(pool, outputs):
    network = _Head(pool, (lambda z: z.squeeze(1)) if outputs == 1 else None, outputs).eval()
    images = torch.rand(3, 3, 40, 48)
    found = located(network)(images)
    assert found.shape == (3, outputs, 5, 6)
    torch.testing.assert_close(found.mean((2, 3)).reshape(network(images).shape), network(images))


@pytest.mark.parametrize(
    ("network", "why"),
    [
        (_Head(lambda x: x.amax((2, 3))), "amax, which is no global average"),
        (_Head(nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten())), "AdaptiveMaxPool2d"),
        (_Head(lambda x: x.mean((2, 3)).relu()), "is relu and not"),
        (_Head(lambda x: x.mean((2, 3)), nn.ReLU()), "more than that of its last linear layer"),
        (nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 2)), "AdaptiveAvgPool2d"),
        (nn.Sequential(nn.Conv2d(3, 2, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten()), "no linear layer"),
        (nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), "0, is a convolution"),
        (
            nn.Sequential(
                nn.Conv2d(3, 4, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)
            ),
            "ReLU",
        ),
    ],
)
def test_other_forms_are_refused(network, why):
    with pytest.raises(BayesdfError, match=why):
        located(network)


def test_it_shares_parameters_and_names():
    network = build("resnet10t_half", 2)
    module = located(network)
    assert module.training and not copy.deepcopy(located(network.eval())).training
    assert dict(module.named_parameters()).keys() == dict(network.named_parameters()).keys()
    assert all(value is dict(network.named_parameters())[name] for name, value in module.named_parameters())


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("method", [bayesdf.MAP, bayesdf.MCDropout])
def test_the_draws_of_a_posterior_fit_it(method, outputs):
    network = build("resnet10t_half", outputs)
    data = TensorDataset(torch.rand(8, 3, 64, 96), torch.arange(8) % 2)
    fit = method(epochs=1, freeze="prefix", progress=False)
    posterior = fit.fit(bayesdf.Detector(network, {"fc": priors.normal(1.0)}), data)
    draw = posterior.sampler.draw(3, 0)
    images = data.tensors[0]
    with torch.no_grad():
        of_image = torch.func.functional_call(posterior.network, draw, (images,))
        by_location = torch.func.functional_call(located(posterior.network), draw, (images,))
    assert by_location.shape == (8, 2, 2, 3)
    torch.testing.assert_close(by_location.mean((2, 3)), of_image, rtol=1e-4, atol=1e-4)

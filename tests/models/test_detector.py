"""The Pyro model of a detector: its sites, its likelihood, and what bad input gets."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from bayesdf.errors import BayesdfError
from bayesdf.models import Detector, build, priors

IMAGES, LABELS = torch.rand(6, 3, 2, 2), torch.tensor([0, 1, 0, 0, 1, 0])


def linear(classes=2):
    return nn.Sequential(nn.Flatten(), nn.Linear(12, classes))


def spike(name, parameter):  # a custom prior is a function; hyperpriors are ordinary sites
    scale = pyro.sample(f"{name}.scale", dist.HalfCauchy(0.1))
    return dist.Normal(torch.zeros_like(parameter), scale).to_event(parameter.dim())


def trace(detector, *args, **kwargs):
    return pyro.poutine.trace(detector.model).get_trace(*args, **kwargs)


def test_sites_are_parameters_in_order_and_hyperpriors_come_along():
    detector = Detector(
        build("resnet18", num_classes=2),
        priors={
            "fc": spike,
            "layer4.*.conv2": priors.moped(delta=0.1),
            "layer4.0.conv1": priors.normal(scale=0.05),
        },
    )
    assert list(detector.sites) == [
        "layer4.0.conv1.weight",
        "layer4.0.conv2.weight",
        "layer4.1.conv2.weight",
        "fc.weight",
        "fc.bias",
    ]
    sites = trace(detector, torch.rand(2, 3, 32, 32)).nodes
    assert {"fc.weight.scale", "fc.bias.scale"} <= set(sites)
    assert sites["fc.weight"]["fn"].base_dist.scale.unique() == sites["fc.weight.scale"]["value"]


def test_network_runs_with_the_sampled_weights():
    detector = Detector(linear(), {"1": priors.normal(1.0)})
    nodes = trace(detector, IMAGES).nodes
    expected = IMAGES.flatten(1) @ nodes["1.weight"]["value"].T + nodes["1.bias"]["value"]
    torch.testing.assert_close(nodes["label"]["fn"].logits, expected.log_softmax(-1))


def test_likelihood_is_scaled_to_the_whole_data_set():
    detector = Detector(linear(), {"1": priors.normal(1.0)})
    full = trace(detector, IMAGES, LABELS)
    held = pyro.poutine.condition(detector.model, data={n: full.nodes[n]["value"] for n in detector.sites})
    scaled = pyro.poutine.trace(held).get_trace(IMAGES, LABELS, size=60)
    full.compute_log_prob()
    scaled.compute_log_prob()
    assert float(scaled.nodes["label"]["log_prob_sum"]) == pytest.approx(
        10 * float(full.nodes["label"]["log_prob_sum"]), rel=1e-5
    )
    assert float(scaled.nodes["1.bias"]["log_prob_sum"]) == float(full.nodes["1.bias"]["log_prob_sum"])


def test_class_weights_are_powers_of_the_likelihood():
    detector = Detector(linear(), {"1": priors.normal(1.0)})
    weights = torch.tensor([0.75, 1.5])
    nodes = trace(detector, IMAGES, LABELS, class_weights=weights)
    nodes.compute_log_prob()
    label = nodes.nodes["label"]
    expected = (weights[LABELS] * label["fn"].log_prob(LABELS)).sum()
    torch.testing.assert_close(label["log_prob_sum"], expected)


def test_labels_are_sampled_where_absent():
    assert trace(Detector(linear(3), {"1": priors.normal(1.0)}), IMAGES).nodes["label"]["value"].shape == (6,)


def test_none_leaves_a_parameter_without_prior():
    assert list(Detector(linear(), {"1": priors.normal(1.0), "1.bias": None}).sites) == ["1.weight"]


def test_making_a_detector_leaves_the_random_state_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    network = linear()
    torch.manual_seed(0)
    Detector(network, {"1": spike})
    assert torch.rand(1) == expected


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (lambda name, p: dist.Normal(torch.zeros_like(p), 1.0), r"\.to_event\(2\)"),
        (lambda name, p: dist.Normal(torch.zeros_like(p), 1.0).to_event(1), r"\.to_event\(1\)"),
        (lambda name, p: dist.Normal(0.0, 1.0), r"expand"),
        (lambda name, p: torch.distributions.Normal(0.0, 1.0), "pyro.distributions"),
        (lambda name, p: 3.0, "returns float"),
    ],
)
def test_a_prior_of_the_wrong_shape_says_what_to_change(prior, message):
    with pytest.raises(BayesdfError, match=message) as caught:
        Detector(linear(), {"1.weight": prior})
    assert "\n" not in str(caught.value)


def test_wrong_pattern():
    with pytest.raises(BayesdfError, match=r"'2' matches no"):
        Detector(linear(), {"2": priors.normal(1.0)})


class Maps(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)

    def forward(self, images):
        return self.conv(images).flatten(2)


@pytest.mark.parametrize(
    ("network", "images", "message"),
    [
        (linear(3), IMAGES, "num_classes=2"),
        (Maps(), IMAGES, r"returns \(6, 2, 4\) for 6 images.*\(6, 2\), or \(6, 2, h, w\)"),
        (linear(), torch.rand(2, 3, 5, 5), "fails on images of shape"),
    ],
)
def test_output_that_does_not_fit_the_task(network, images, message):
    detector = Detector(network, {"*": priors.normal(1.0)})
    with pytest.raises(BayesdfError, match=message):
        detector.check_output(["real", "fake"], images)


def test_output_that_fits_the_task():
    Detector(linear(), {"*": priors.normal(1.0)}).check_output(["real", "fake"], IMAGES)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (priors.normal(1.0), "priors is the function prior|priors is the function normal.*must map patterns"),
        ([priors.normal(1.0)], "priors is a list, but must map patterns"),
        (dist.Normal(0.0, 1.0), "priors is a Normal, but must map patterns"),
        ({"1": dist.Normal(0.0, 1.0)}, r"the prior of '1' is a distribution \(Normal\), but must be a function"),
        ({"1": 0.1}, "the prior of '1' is a float, but must be a function"),
        ({"1": priors.normal}, "is priors.normal itself: call it"),
        ({"1": lambda parameter: dist.Normal(0.0, 1.0)}, r"must take \(name, parameter\): too many"),
        ({1: priors.normal(1.0)}, "pattern 1 is no string"),
    ],
)
def test_priors_that_are_none_get_one_line(given, message):
    with pytest.raises(BayesdfError, match=message) as caught:
        Detector(linear(), given)
    assert "\n" not in str(caught.value)


def test_a_network_that_is_none_gets_one_line():
    with pytest.raises(BayesdfError, match="the network is a function"):
        Detector(lambda images: images, {"1": priors.normal(1.0)})


def test_double_precision_gets_one_line():
    with pytest.raises(BayesdfError, match=r"1\.weight of the network is torch.float64: call network.float\(\)"):
        Detector(linear().double(), {"1": priors.normal(1.0)})
    detector = Detector(linear(), {"1": priors.normal(1.0)})
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(BayesdfError, match=r"set_default_dtype\(torch.float32\)"):
            detector.check_output(["real", "fake"], IMAGES)
    finally:
        torch.set_default_dtype(torch.float32)


def layers():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.Tanh(), nn.Linear(3, 2))


def of_one_scale(scale):
    return lambda name, parameter: dist.Normal(torch.zeros_like(parameter), scale()).to_event(parameter.dim())


def test_a_shared_hyperprior_is_one_site_and_the_density_is_that_of_the_hierarchy():
    scale = priors.shared(lambda: pyro.sample("scale", dist.HalfCauchy(0.5)))
    detector = Detector(layers(), {"1": of_one_scale(scale), "3": of_one_scale(scale), "3.bias": of_one_scale(scale)})
    first, second = trace(detector, IMAGES), trace(detector, IMAGES)
    assert first.nodes["scale"]["value"] != second.nodes["scale"]["value"]  # each run of the model has its own
    nodes = {name: node for name, node in first.nodes.items() if name in {"scale", *detector.sites}}
    value = nodes["scale"]["value"]
    assert all(node["fn"].base_dist.scale.unique() == value for name, node in nodes.items() if name != "scale")
    first.compute_log_prob()
    weights = torch.cat([nodes[name]["value"].flatten() for name in detector.sites])
    expected = dist.HalfCauchy(0.5).log_prob(value) + dist.Normal(0.0, value).log_prob(weights).sum()
    torch.testing.assert_close(sum(node["log_prob_sum"] for node in nodes.values()), expected)


def test_a_site_sampled_twice_gets_one_line():
    with pytest.raises(BayesdfError, match=r"site 'scale' is sampled more than once.*priors\.shared"):
        Detector(layers(), {"*.weight": of_one_scale(lambda: pyro.sample("scale", dist.HalfCauchy(0.5)))})

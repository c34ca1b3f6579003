"""The joint density is Pyro's."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from bayesdf.inference import MAP
from bayesdf.inference.joint import Joint
from bayesdf.inference.training.problem import prepare
from bayesdf.models import Detector, priors
from tests.inference.linear import Logistic, separate, simulate


def test_it_is_that_of_a_trace_of_the_model():
    """With a hyperprior, a batch that stands for more images, and classes that weigh differently."""

    def prior(name, parameter):
        scale = pyro.sample(f"{name}.scale", dist.HalfCauchy(0.5))
        return dist.Normal(torch.zeros_like(parameter), scale).to_event(parameter.dim())

    train = simulate(separate(30), torch.tensor([1.0, -0.5]), seed=0)
    detector = Detector(Logistic(2), {"linear": prior})
    problem = prepare(detector, MAP(class_balanced=True, device="cpu", progress=False), train, None)
    joint = Joint(detector, problem)
    z = {name: torch.full_like(value, -0.3) for name, value in joint.start.items()}
    images, labels = train.tensors[0][:7], train.tensors[1][:7]
    found = joint.log_density(z, problem.network, (images,), labels, jacobian=False)
    model = pyro.poutine.condition(detector.model, data=joint.values(z))
    settings = {"size": 30, "class_weights": problem.class_weights, "network": problem.network}
    expected = pyro.poutine.trace(model).get_trace(images, labels, **settings).log_prob_sum()
    torch.testing.assert_close(found, expected)
    assert abs(float(found)) > 1.0


def spike(name, parameter):
    scale = pyro.sample(f"{name}.scale", dist.HalfCauchy(0.1))
    return dist.Normal(torch.zeros_like(parameter), scale).to_event(parameter.dim())


HIERARCHIES = {
    "normal": spike,
    "laplace": lambda name, like: dist.Laplace(
        pyro.sample(f"{name}.loc", dist.Normal(0.0, 1.0)) + torch.zeros_like(like), 0.5
    ).to_event(like.dim()),
    "horseshoe": priors.horseshoe(0.1),
}


@pytest.mark.parametrize("prior", HIERARCHIES)
def test_standard_coordinates_are_the_same_density(prior):
    """``log p(ε, scale) = log p(w, scale) + Σ log dw/dε``, and they start where the weights are."""
    train = simulate(separate(20), torch.tensor([1.0, -0.5]), seed=0)
    network = Logistic(2)
    with torch.no_grad():  # on both sides of what the location of a Laplace prior may be
        network.linear.weight.copy_(
            torch.linspace(-9.0, 9.0, network.linear.weight.numel()).view_as(network.linear.weight)
        )
    detector = Detector(network, {"linear": HIERARCHIES[prior]})
    problem = prepare(detector, MAP(progress=False), train, None)
    centred, other = Joint(detector, problem), Joint(detector, problem, centred=False)
    assert other.standard == {"linear.weight"} and not centred.standard
    torch.testing.assert_close(other.values(other.start)["linear.weight"], network.linear.weight.detach())
    noise = torch.Generator().manual_seed(0)
    z = {name: torch.randn(value.shape, generator=noise) for name, value in other.start.items()}
    values = other.values(z)
    moved = {name: values[name] if name == "linear.weight" else value for name, value in z.items()}
    batch = (problem.network, (train.tensors[0],), train.tensors[1])
    found = other.log_density(z, *batch, jacobian=True)
    epsilon = z["linear.weight"].clone().requires_grad_()
    slope = torch.autograd.functional.jacobian(
        lambda value: other.values({**z, "linear.weight": value})["linear.weight"].flatten(), epsilon
    )
    expected = centred.log_density(moved, *batch, jacobian=True) + slope.reshape(2, 2).diagonal().log().sum()
    torch.testing.assert_close(found, expected)


def test_priors_without_a_hierarchy_keep_their_coordinates():
    train = simulate(separate(20), torch.tensor([1.0, -0.5]), seed=0)
    detector = Detector(Logistic(2), {"linear": priors.normal(1.0)})
    problem = prepare(detector, MAP(progress=False), train, None)
    assert not Joint(detector, problem, centred=False).standard


def test_a_prior_over_an_interval_needs_no_point_outside_it():
    """Its density is asked at points of its support alone, beside a prior that is random."""
    train = simulate(separate(20), torch.tensor([1.0, -0.5]), seed=0)

    class Gated(Logistic):
        def __init__(self) -> None:
            super().__init__(2)
            self.gate = torch.nn.Parameter(torch.full((2,), 0.5))

        def forward(self, images):
            return super().forward(images * self.gate[:, None, None])

    chosen = {"linear.weight": spike, "gate": lambda name, like: dist.Beta(2.0, 2.0).expand(like.shape).to_event(1)}
    detector = Detector(Gated(), chosen)
    joint = Joint(detector, prepare(detector, MAP(progress=False), train, None), centred=False)
    assert joint.standard == {"linear.weight"} == joint.random

"""The joint density is Pyro's."""

import pyro
import pyro.distributions as dist
import torch

from bayesdf.inference import MAP
from bayesdf.inference.joint import Joint
from bayesdf.inference.training import pose
from bayesdf.models import Detector
from tests.inference.linear import Logistic, separate, simulate


def test_it_is_that_of_a_trace_of_the_model():
    """With a hyperprior, a batch that stands for more images, and classes that weigh differently."""

    def prior(name, parameter):
        scale = pyro.sample(f"{name}.scale", dist.HalfCauchy(0.5))
        return dist.Normal(torch.zeros_like(parameter), scale).to_event(parameter.dim())

    train = simulate(separate(30), torch.tensor([1.0, -0.5]), seed=0)
    detector = Detector(Logistic(2), {"linear": prior})
    problem = pose(detector, MAP(class_balanced=True, device="cpu", progress=False), train, None)
    joint = Joint(detector, problem)
    z = {name: torch.full_like(value, -0.3) for name, value in joint.start.items()}
    images, labels = train.tensors[0][:7], train.tensors[1][:7]
    found = joint.log_density(z, problem.network, (images,), labels, jacobian=False)
    model = pyro.poutine.condition(detector.model, data=joint.values(z))
    settings = {"size": 30, "class_weights": problem.class_weights, "network": problem.network}
    expected = pyro.poutine.trace(model).get_trace(images, labels, **settings).log_prob_sum()
    torch.testing.assert_close(found, expected)
    assert abs(float(found)) > 1.0

"""What every method must show: it is less sure of what it has seen least.

A small network on two moons, whose points come as images of two channels and one pixel. Nothing was seen on a ring
around them; a detector that has learnt what it knows has more epistemic uncertainty there.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import make_moons
from torch import nn
from torch.utils.data import TensorDataset

from bayesdf.analysis import decompose
from bayesdf.inference import SVI, SWAG, DeepEnsemble, Laplace, MCDropout
from bayesdf.models import Detector, priors

RADIUS = 5.0
"""Of the ring, in standard deviations of the data, whose farthest point is at 2.4."""
COMMON: dict[str, Any] = {"batch_size": 50, "lr": 0.01, "progress": False}
EVERYWHERE = {"*": priors.normal(1.0)}
LAST_LAYER = {"5": priors.normal(1.0)}


@dataclass(frozen=True)
class Case:
    """A method, the priors it runs with, and how many times as large its epistemic uncertainty is on the ring."""

    method: Any
    factor: float
    priors: dict[str, Any] = field(default_factory=lambda: EVERYWHERE)


METHODS = {
    "svi": Case(SVI(epochs=120, **COMMON), 1.25, LAST_LAYER),
    "mc_dropout": Case(MCDropout(rate=0.2, layers=["2", "4"], epochs=60, **COMMON), 1.5),
    "ensemble": Case(DeepEnsemble(members=3, epochs=40, **COMMON), 5.0),
    "laplace": Case(Laplace(epochs=60, **COMMON), 1.25, LAST_LAYER),
    "swag": Case(SWAG(epochs=60, collect_epochs=30, **COMMON), 1.5),
}


def data(points, labels):
    return TensorDataset(torch.tensor(points, dtype=torch.float32)[:, :, None, None], torch.tensor(labels))


def moons():
    points, labels = make_moons(200, noise=0.1, random_state=0)
    return data((points - points.mean(0)) / points.std(0), labels)


def ring(radius):
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    return data(radius * np.stack([np.cos(angle), np.sin(angle)], 1), np.zeros(60, dtype=np.int64))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))


@pytest.mark.parametrize("name", METHODS)
def test_more_epistemic_uncertainty_far_from_the_data(name):
    case, train = METHODS[name], moons()
    assert train.tensors[0].flatten(1).norm(dim=1).max() < RADIUS / 2
    posterior = case.method.fit(Detector(network(), case.priors), train)
    near, far = (decompose(posterior.predict(where)) for where in (train, ring(RADIUS)))
    assert (near["prediction"].values == train.tensors[1].numpy()).mean() > 0.9
    assert float(far["epistemic"].mean()) > case.factor * float(near["epistemic"].mean())

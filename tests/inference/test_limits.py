"""Where uncertainty must vanish, and how its parts add up, whatever the method."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from bayesdf.analysis import decompose
from bayesdf.inference import MAP, SVI, SWAG, DeepEnsemble, Laplace, MCDropout
from bayesdf.models import Detector, priors

SHORT = {"epochs": 2, "batch_size": 8, "lr": 0.02, "progress": False}

METHODS = {
    "map": MAP(**SHORT),
    "svi": SVI(**SHORT),
    "mc_dropout": MCDropout(rate=0.3, **SHORT),
    "ensemble": DeepEnsemble(members=4, **SHORT),
    "laplace": Laplace(**SHORT),
    "laplace_kron": Laplace(structure="kron", **SHORT),
    "swag": SWAG(collect_epochs=2, snapshots=6, rank=4, **SHORT),
}
SURE = {
    "map": MAP(**SHORT),
    "one_member": DeepEnsemble(members=1, **SHORT),
    "no_dropout": MCDropout(rate=0.0, **SHORT),
}


def pictures(count=24):
    noise = torch.Generator().manual_seed(0)
    return TensorDataset(torch.rand(count, 3, 4, 4, generator=noise), torch.arange(count) % 3)


def fit(method):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)]
    return method.fit(Detector(nn.Sequential(*layers), {"4": priors.normal(1.0)}), pictures())


@pytest.mark.parametrize("name", SURE)
def test_one_function_has_no_epistemic_uncertainty(name):
    """Exactly none (of the variance: but for the rounding of a mean); and all that there is, is aleatoric."""
    posterior = fit(SURE[name])
    parts = decompose(posterior.predict(pictures(), draws=posterior.sampler.capacity or 5))
    assert (parts["epistemic"] == 0).all() and (parts["epistemic_variance"] < 1e-30).all()
    assert (parts["total"] == parts["aleatoric"]).all() and (parts["total"] > 0).all()


@pytest.mark.parametrize("name", METHODS)
def test_total_is_aleatoric_and_epistemic(name):
    """The entropy of the mean prediction, and the mean of the entropies, by their definitions in float64."""
    predictions = fit(METHODS[name]).predict(pictures())
    logits = predictions["posterior_predictive/logits"].values.astype(np.float64)[0]
    probability = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    mean = probability.mean(0)
    total = -(mean * np.log(mean)).sum(-1)
    aleatoric = -(probability * np.log(probability)).sum(-1).mean(0)
    parts = decompose(predictions)
    np.testing.assert_allclose(parts["total"], total, rtol=1e-9)
    np.testing.assert_allclose(parts["aleatoric"], aleatoric, rtol=1e-9)
    np.testing.assert_allclose(parts["aleatoric"] + parts["epistemic"], total, rtol=1e-9)
    assert (name == "map") == bool((parts["epistemic"] < 1e-9).all())

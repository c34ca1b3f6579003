"""Linear detectors whose posterior is known exactly, for the truth tests of every method."""

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import TensorDataset

from bayesdf.analysis.chain_diagnostics import ess
from bayesdf.models import Detector

PRIOR_SCALE = 1.5
NOISE = 1.2


class Logistic(nn.Module):
    """Logistic regression as a network: logits (0, w·x), images (B, D, 1, 1), no bias."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 1, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, images: Tensor) -> Tensor:
        score = self.linear(images.flatten(1))
        return torch.cat([torch.zeros_like(score), score], dim=1)


def simulate(features: Tensor, weights: Tensor, seed: int) -> TensorDataset:
    """Images (N, D, 1, 1) that are the features, and labels of the logistic model with those weights."""
    noise = torch.Generator().manual_seed(seed)
    probability = torch.sigmoid(features @ weights)
    labels = (torch.rand(len(features), generator=noise) < probability).long()
    return TensorDataset(features[:, :, None, None], labels)


def separate(count: int) -> Tensor:
    """Two features of which each image has one (N, 2): the likelihood, so the posterior, factorises over
    weights."""
    features = torch.zeros(count, 2)
    features[::2, 0] = 1.0
    features[1::2, 1] = torch.linspace(0.5, 1.5, count // 2)
    return features


def correlated(count: int) -> Tensor:
    """Two features that are nearly the same (N, 2): the data knows the sum of their weights, not the
    difference."""
    noise = torch.Generator().manual_seed(5)
    common = torch.randn(count, 1, generator=noise)
    return common + 0.2 * torch.randn(count, 2, generator=noise)


def exact(data: TensorDataset, scale: float = PRIOR_SCALE) -> tuple[np.ndarray, np.ndarray]:
    """Mean (2,) and covariance (2, 2) of the posterior of two weights under N(0, scale²), by a sum over a
    fine grid."""
    features = data.tensors[0].flatten(1).numpy().astype(float)
    signs = 2.0 * data.tensors[1].numpy() - 1
    axis = np.linspace(-6 * scale, 6 * scale, 481)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    log_density = -0.5 * (grid**2).sum(1) / scale**2
    for feature, sign in zip(features, signs, strict=True):
        log_density -= np.logaddexp(0.0, -sign * (grid @ feature))
    mass = np.exp(log_density - log_density.max())
    mass /= mass.sum()
    mean = mass @ grid
    centred = grid - mean
    return mean, (centred * mass[:, None]).T @ centred


def check_chains(draws: np.ndarray, mean: np.ndarray, covariance: np.ndarray, least: int = 400) -> None:
    """Means, variances and the first correlation of chains (chain, draw, D) are right within four standard errors.

    The errors are those of as many independent draws as the chains are worth, which must be `least` or more: another
    processor rounds differently, accepts other proposals, and so makes other draws of the same posterior.
    """
    squares = (draws - draws.mean((0, 1))) ** 2
    worth, worth_of_squares = (
        np.minimum([ess(values[..., number]) for number in range(len(mean))], draws[..., 0].size)
        for values in (draws, squares)
    )
    assert min(worth.min(), worth_of_squares.min()) > least
    found, variance = draws.reshape(-1, len(mean)), np.diag(covariance)
    assert (abs(found.mean(0) - mean) < 4 * np.sqrt(variance / worth)).all()
    error = squares.reshape(found.shape).std(0) / np.sqrt(worth_of_squares)
    assert (abs(found.var(0) - variance) < 4 * error).all()
    if len(mean) == 1:
        return
    correlation = covariance[0, 1] / np.sqrt(variance[:2].prod())
    assert abs(np.corrcoef(found.T)[0, 1] - correlation) < 4 * (1 - correlation**2) / np.sqrt(worth_of_squares.min())


class Gaussian(Detector):
    """A linear detector whose likelihood is normal, so that its posterior is normal and known in closed form.

    Label 0 stands for the target -1, label 1 for +1: ``target_i ~ N(w·x_i, NOISE²)``.
    """

    def model(self, images, labels=None, *, size=None, class_weights=None, network=None):
        inputs = images if isinstance(images, tuple) else (images,)
        logits = functional_call(self.network if network is None else network, self.sample(), inputs)
        with pyro.plate("images", size or len(logits), subsample=torch.arange(len(logits))):
            pyro.sample("label", dist.Normal(logits[:, 1] - logits[:, 0], NOISE), obs=2.0 * labels - 1.0)
        return logits


def conjugate(data: TensorDataset, scale: float = PRIOR_SCALE) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and covariance (D, D) of the posterior of a `Gaussian` detector under N(0, scale²): Bishop, "Pattern
    Recognition and Machine Learning", 2006, equations 3.50 and 3.51."""
    features = data.tensors[0].flatten(1).numpy().astype(float)
    targets = 2.0 * data.tensors[1].numpy() - 1.0
    covariance = np.linalg.inv(np.eye(features.shape[1]) / scale**2 + features.T @ features / NOISE**2)
    return covariance @ features.T @ targets / NOISE**2, covariance

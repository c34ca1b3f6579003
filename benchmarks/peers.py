"""What other libraries do for the same question, each as its own documentation shows it."""

import copy
import importlib
import warnings
from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import bayesdf._torchvision  # noqa: F401  (their import of torchvision goes through it)

Predict = Callable[[Tensor, int], object]
"""Images (B, 3, H, W) and a number of draws to whatever the library returns."""
DROPOUT = 0.2


def installed(name: str) -> ModuleType | None:
    """A library of the extra ``peers``; None where it is missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except ImportError:
            return None


def bayesian_torch(network: nn.Module, paths: list[str], kind: str) -> nn.Module | None:
    """A copy whose layers at these paths are variational: Reparameterization or Flipout, with a MOPED start."""
    library = installed("bayesian_torch.models.dnn_to_bnn")
    if library is None:
        return None
    settings = {
        "prior_mu": 0.0,
        "prior_sigma": 1.0,
        "posterior_mu_init": 0.0,
        "posterior_rho_init": -3.0,
        "type": kind,
        "moped_enable": True,
        "moped_delta": 0.1,
    }
    network = copy.deepcopy(network)
    for path in paths:
        owner, _, name = path.rpartition(".")
        holder = nn.Sequential()
        holder.add_module(name, network.get_submodule(path))
        library.dnn_to_bnn(holder, settings)
        setattr(network.get_submodule(owner), name, getattr(holder, name))
    return network


def bayesian_torch_predict(network: nn.Module, paths: list[str]) -> Predict | None:
    """As its examples do: as many forward passes as draws."""
    bayesian = bayesian_torch(network, paths, "Reparameterization")
    if bayesian is None:
        return None
    bayesian.eval()
    return lambda images, draws: torch.stack([bayesian(images) for _ in range(draws)])


def bayesian_torch_loss(network: nn.Module, kind: str, size: int) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    """The loss of its examples: cross-entropy and the KL over the number of images."""
    library = installed("bayesian_torch.models.dnn_to_bnn")
    assert library is not None

    def loss(module: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(module(images), labels) + library.get_kl_loss(module) / size

    return loss


def laplace_torch_predict(network: nn.Module, images: Tensor) -> Predict | None:
    """Last-layer Laplace with a full covariance; logits of weights drawn from it."""
    library = installed("laplace")
    if library is None:
        return None
    # It views parameters as vectors, which those of convolutions whose channels come last cannot be.
    network = copy.deepcopy(network).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    data = DataLoader(TensorDataset(images, torch.arange(len(images)) % 2), batch_size=32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        laplace = library.Laplace(network, "classification", subset_of_weights="last_layer", hessian_structure="full")
        laplace.fit(data)
    return lambda images, draws: laplace.predictive_samples(images, pred_type="nn", n_samples=draws)


def torch_uncertainty_predict(network: nn.Module, head: str, on_batch: bool) -> Predict | None:
    """MC dropout before the classifier: its wrapper makes the batch as many times as large, or loops."""
    library = installed("torch_uncertainty.methods.mc_dropout")
    if library is None:
        return None
    network = copy.deepcopy(network)
    owner, _, name = head.rpartition(".")
    setattr(network.get_submodule(owner), name, nn.Sequential(nn.Dropout(DROPOUT), network.get_submodule(head)))

    def predict(images: Tensor, draws: int) -> object:
        wrapped = library.mc_dropout(network, num_estimators=draws, last_layer=True, on_batch=on_batch)
        return wrapped.eval()(images)

    return predict

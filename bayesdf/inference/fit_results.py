"""The end of every fit: put the result into the network, record how it was fitted, and report the verdict."""

import json
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from bayesdf._version import versions
from bayesdf.inference.batches import batches
from bayesdf.inference.convergence import announce, guessing_caution
from bayesdf.inference.posterior import Posterior
from bayesdf.inference.prediction.predictor import state_names
from bayesdf.inference.training import Training
from bayesdf.inference.training.checks import pixel_range
from bayesdf.inference.training.problem import Problem
from bayesdf.models.detector import Detector
from bayesdf.models.priors import describe


@torch.no_grad()
def load_values(network: nn.Module, point: dict[str, Tensor]) -> None:
    """Copy values into a network's tensors of the same names. Values without such a tensor are skipped."""
    known, state = state_names(network), network.state_dict()
    for name, value in point.items():
        if name in known:
            state[name].copy_(value)


def report_verdict(method: Training, posterior: Posterior, problem: Problem) -> Posterior:
    """Compare the posterior with guessing, report its verdict on the screen, and return it."""
    guessing = guessing_caution(posterior.network.to(problem.device), problem)
    posterior.network.cpu()
    if guessing is not None:
        stats = posterior.sample_stats
        verdict = f"{stats.attrs['verdict']}; but {guessing}"
        posterior.sample_stats = stats.assign_attrs(verdict=verdict, guessing=1)
    announce(type(method).__name__, posterior.sample_stats, method.progress)
    return posterior


def root_attrs(method: Training, detector: Detector, train: Dataset[Any], seconds: float) -> dict[str, Any]:
    """The root attributes of a posterior: what was fitted, how, on which data, and with which versions."""
    recipe = getattr(detector.network, "recipe", None)
    image = next(batches(train, 1, torch.device("cpu"), torch.arange(1)))[0][0]
    common_path = getattr(getattr(train, "manifest", None), "attrs", {}).get("common_path")
    return {
        **versions(),
        "detector": recipe["name"] if recipe else type(detector.network).__name__,
        "priors": json.dumps({pattern: describe(prior) for pattern, prior in detector.priors.items()}),
        "method": type(method).__name__,
        "settings": json.dumps(method.settings()),
        "seed": method.seed,
        "classes": json.dumps([str(name) for name in getattr(train, "classes", [])]),
        "data_fingerprint": str(getattr(train, "fingerprint", "")),
        "images": len(train),  # type: ignore[arg-type]
        "image_shape": json.dumps(list(image.shape)),
        "pixel_range": json.dumps(pixel_range(train)),
        "common_path": json.dumps(common_path),
        "fit_seconds": round(seconds, 3),
    }

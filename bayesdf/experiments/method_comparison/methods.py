"""How is each method set, so that all work on the same part of the same detector?

The network up to its classifier stays as the start has it. Methods with priors have the same one, over the classifier;
those with masks have them right before it. None sees the validation images: what stops a fit is its number of epochs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bayesdf.experiments.quick import cut
from bayesdf.inference import MAP, NUTS, SGMCMC, SVI, SWAG, DeepEnsemble, Laplace, MCDropout
from bayesdf.inference.training import Training
from bayesdf.models import classifier, priors
from bayesdf.models.eval_mode import evaluating, hooked
from bayesdf.models.priors import Prior

PRIOR_SCALE = 0.3
"""Standard deviation of the classifier's weights and biases before any image is seen."""


@dataclass(frozen=True)
class Budget:
    """How much work the methods may do.

    Parameters
    ----------
    epochs
        Passes over the training images.
    draws
        Posterior draws that will be asked for.
    quick
        Whether the methods may stop so early that their figures mean little.
    """

    epochs: int
    draws: int
    quick: bool = False


@dataclass(frozen=True)
class Setting:
    """What the settings of a method depend on.

    Parameters
    ----------
    network
        The network whose classifier is inferred.
    image
        An image that the network takes, (1, 3, H, W).
    common
        The settings that all methods share.
    """

    network: nn.Module
    image: Tensor
    budget: Budget
    common: dict[str, Any]


@torch.no_grad()
def before_classifier(network: nn.Module, image: Tensor) -> str:
    """The path of the last module that is done before the classifier begins: what follows it sees the features."""
    done: list[str] = []
    seen: list[str] = []
    handles = [network.get_submodule(classifier(network)).register_forward_pre_hook(lambda *_: seen.extend(done[-1:]))]

    def note(path: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda module, inputs, output: done.append(path)

    handles += [module.register_forward_hook(note(path)) for path, module in network.named_modules() if path]
    with evaluating(network), hooked(handles):
        network(image)
    return seen[0]


def _gradient_chain(dynamics: Literal["sgld", "sghmc"], given: Setting) -> SGMCMC:
    stored = max(given.budget.draws, 200)
    return SGMCMC(dynamics=dynamics, chains=1, sampling_epochs=100, stored_draws=stored, **given.common)


def _dropout(given: Setting, concrete: bool = False) -> MCDropout:
    layers = before_classifier(given.network, given.image)
    return MCDropout(rate=0.2, concrete=concrete, layers=layers, prior_scale=PRIOR_SCALE, **given.common)


FACTORIES: dict[str, Callable[[Setting], Training]] = {
    "map": lambda given: MAP(**given.common),
    # Scales start wide and move fast, so that they arrive at the optimum of the ELBO within the epochs.
    "svi": lambda given: SVI(guide="normal", init_scale=1.0, scale_lr=0.05, **given.common),
    "svi_lowrank": lambda given: SVI(guide="lowrank", init_scale=1.0, scale_lr=0.05, **given.common),
    "mc_dropout": lambda given: _dropout(given),
    "concrete_dropout": lambda given: _dropout(given, concrete=True),
    "deep_ensemble": lambda given: DeepEnsemble(members=5, **given.common),
    "swag": lambda given: SWAG(collect_epochs=10, **given.common),
    "laplace_full": lambda given: Laplace(structure="full", **given.common),
    "laplace_kron": lambda given: Laplace(structure="kron", **given.common),
    "sgld": lambda given: _gradient_chain("sgld", given),
    "sghmc": lambda given: _gradient_chain("sghmc", given),
    "nuts": lambda given: NUTS(
        chains=4,
        warmup=100,
        # So many that R-hat comes near 1.01 for each of a thousand numbers; shorter steps cost more than they bring.
        samples=max(800, given.budget.draws // 2),
        target_accept=0.6,
        **given.common,
    ),
}
"""A method by its name on the command line."""

ABOUT = {
    "map": "The most probable weights: no uncertainty about them. Where the others are measured from.",
    "svi": "The closest normal with independent weights, by the ELBO.",
    "svi_lowrank": "The closest normal whose covariance is of rank 10 plus a diagonal, by the ELBO.",
    "mc_dropout": "Training with dropout before the classifier, which stays on when predicting.",
    "concrete_dropout": "The same, and the rate of dropout is learnt.",
    "deep_ensemble": "Several maxima from different starts, each a draw.",
    "swag": "A normal around the average of the steps of gradient descent near a maximum.",
    "laplace_full": "A normal as wide as the log density is curved at its maximum.",
    "laplace_kron": "The same, with a covariance of Kronecker factors.",
    "sgld": "A Markov chain: gradient steps on batches with noise (Langevin dynamics).",
    "sghmc": "The same with momentum and friction (Hamiltonian dynamics).",
    "nuts": "Hamiltonian Monte Carlo on all training images: exact but for the length of its chains.",
}
"""What each method does, in a sentence."""


def method(
    name: str,
    network: nn.Module,
    image: Tensor,
    budget: Budget,
    *,
    seed: int,
    device: str,
    checkpoint: Path | None = None,
) -> Training:
    """An inference method as this study uses it; `network`, `image` and `budget` as in `Setting`."""
    common = {
        "epochs": budget.epochs,
        "freeze": "prefix",
        "seed": seed,
        "device": device,
        "checkpoint": checkpoint,
    }
    fitting = FACTORIES[name](Setting(network, image, budget, common))
    return cut(name, fitting) if budget.quick else fitting


def shared_priors(network: nn.Module) -> dict[str, Prior]:
    """The priors of all methods."""
    return {classifier(network): priors.normal(scale=PRIOR_SCALE)}

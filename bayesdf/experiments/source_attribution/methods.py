"""How is each method set in this study, by its name on the command line?"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import bayesdf.data as data
from bayesdf.experiments.quick import cut
from bayesdf.inference import NUTS, SGMCMC, SVI, SWAG, DeepEnsemble, Laplace, MCDropout
from bayesdf.inference.training import Training

FACTORIES: dict[str, Callable[..., Training]] = {
    # Scales start wide and move fast, so that they arrive at the optimum of the ELBO within a few epochs.
    "svi": lambda **common: SVI(guide="normal", init_scale=1.0, scale_lr=0.05, **common),
    "svi_lowrank": lambda **common: SVI(guide="lowrank", init_scale=1.0, scale_lr=0.05, **common),
    "mc_dropout": lambda **common: MCDropout(rate=0.2, **common),
    "concrete_dropout": lambda **common: MCDropout(rate=0.2, concrete=True, **common),
    "deep_ensemble": DeepEnsemble,
    "swag": SWAG,
    "laplace_full": lambda **common: Laplace(structure="full", **common),
    "laplace_kron": lambda **common: Laplace(structure="kron", **common),
    "sgld": lambda **common: SGMCMC(dynamics="sgld", **common),
    "sghmc": SGMCMC,
    "nuts": NUTS,
}
"""A method by its name on the command line, as this study uses it. MAP is none: a single draw has no uncertainty."""
UNTIL_FLAT = "until the objective is flat"
"""What --epochs is by default, in words."""
DEFAULT = ("svi", "mc_dropout")
LAST_LAYER = ("laplace_full", "laplace_kron", "nuts")
"""Methods whose priors are over the classifier alone: Laplace takes no more, NUTS would take hours."""


def method(
    name: str,
    *,
    epochs: int | None = None,
    seed: int,
    device: str,
    checkpoint: Path | None = None,
    quick: bool = False,
) -> Training:
    """An inference method by its name on the command line.

    Parameters
    ----------
    epochs
        Passes over the training images. None: until the objective is flat.
    quick
        Cut as a quick look cuts it (`bayesdf.experiments.quick`).
    """
    common: dict[str, Any] = {
        "epochs": epochs,
        "freeze": "prefix",
        "augment": data.augment,
        "views": 2,
        "seed": seed,
        "device": device,
        "checkpoint": checkpoint,
    }
    fitting = FACTORIES[name](**common)
    return cut(name, fitting) if quick else fitting

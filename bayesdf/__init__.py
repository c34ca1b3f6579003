"""Probabilistic programming for deepfake forensics.

>>> import bayesdf as bdf
>>> detector = bdf.Detector(bdf.models.build("resnet18", num_classes=2), priors={"fc": bdf.models.priors.normal(0.1)})
>>> list(detector.sites)
['fc.weight', 'fc.bias']
"""

import importlib
from typing import TYPE_CHECKING, Any

from bayesdf._version import __version__
from bayesdf.errors import BayesdfError, BayesdfWarning, ConvergenceWarning

if TYPE_CHECKING:
    from bayesdf import analysis, data, generators, inference, inversion, ledger, models, report
    from bayesdf.inference import (
        MAP,
        NUTS,
        SGMCMC,
        SVI,
        SWAG,
        DeepEnsemble,
        Laplace,
        MCDropout,
        Posterior,
        load_posterior,
        prior_predictive,
    )
    from bayesdf.models import Detector
    from bayesdf.store import open_run

_ROOMS: tuple[str, ...] = ("analysis", "data", "experiments", "faces", "generators", "inference", "inversion")
_ROOMS += ("ledger", "models", "report", "store")
_METHODS = ("MAP", "NUTS", "SGMCMC", "SVI", "SWAG", "DeepEnsemble", "Laplace", "MCDropout")
_HOME = {
    **dict.fromkeys((*_METHODS, "Posterior", "load_posterior", "prior_predictive"), "inference"),
    "Detector": "models",
    "open_run": "store",
}
"""The subpackage in which each name is defined. It is imported when the name is first asked for."""

__all__ = [
    "MAP",
    "NUTS",
    "SGMCMC",
    "SVI",
    "SWAG",
    "BayesdfError",
    "BayesdfWarning",
    "ConvergenceWarning",
    "DeepEnsemble",
    "Detector",
    "Laplace",
    "MCDropout",
    "Posterior",
    "__version__",
    "analysis",
    "data",
    "generators",
    "inference",
    "inversion",
    "ledger",
    "load_posterior",
    "models",
    "open_run",
    "prior_predictive",
    "report",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for (PEP 562): networks, plots and classifiers take seconds to load."""
    if name in _ROOMS:
        return importlib.import_module(f"bayesdf.{name}")
    if name in _HOME:
        value = getattr(importlib.import_module(f"bayesdf.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'bayesdf' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_ROOMS, *(name for name in globals() if name.startswith("__"))})

"""Probabilistic programming for deepfake forensics.

>>> import bayesdf as bdf
>>> detector = bdf.Detector(bdf.models.build("resnet18", num_classes=2), priors={"fc": bdf.models.priors.normal(0.1)})
>>> list(detector.sites)
['fc.weight', 'fc.bias']
"""

__version__ = "0.1.0"

from bayesdf import analysis, data, generators, inference, models
from bayesdf.errors import BayesdfError, BayesdfWarning, ConvergenceWarning
from bayesdf.experiments.run import open_run
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
    "load_posterior",
    "models",
    "open_run",
    "prior_predictive",
]

"""Detectors as Pyro models: networks, priors over their weights, and patterns that assign priors to weights."""

from bayesdf.models import priors
from bayesdf.models.dense_head import dense_head, last_maps
from bayesdf.models.detector import Detector
from bayesdf.models.features import classifier, penultimate
from bayesdf.models.located import located
from bayesdf.models.networks import build

__all__ = ["Detector", "build", "classifier", "dense_head", "last_maps", "located", "penultimate", "priors"]

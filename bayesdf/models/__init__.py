"""Detectors as Pyro models: networks, priors over their weights, and the patterns that bring both together."""

from bayesdf.models import priors
from bayesdf.models.blind import build
from bayesdf.models.detector import Detector
from bayesdf.models.features import classifier, penultimate

__all__ = ["Detector", "build", "classifier", "penultimate", "priors"]

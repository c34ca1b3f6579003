"""Where in the picture is the detector unsure? One file for each method of maps, and tests of whether maps are true."""

from bayesdf.inference.maps.evidence import Evidence
from bayesdf.inference.maps.gradient import Gradient
from bayesdf.inference.maps.integrated_gradient import IntegratedGradient
from bayesdf.inference.maps.occlusion import Occlusion
from bayesdf.inference.maps.smooth_gradient import SmoothGradient
from bayesdf.inference.maps.superpixels import Superpixels

__all__ = [
    "Evidence",
    "Gradient",
    "IntegratedGradient",
    "Occlusion",
    "SmoothGradient",
    "Superpixels",
]

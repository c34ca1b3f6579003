"""Does the uncertainty fall when the marked pixels go, and faster than in a random or a centred order?

Pixels are blurred away in the order of each map (deletion), or come back into a blurred picture (insertion). A map that
marks what makes the detector unsure has a low deletion curve of the uncertainty.
"""

import numpy as np
import xarray as xr

import bayesdf.analysis as analysis
from bayesdf.experiments.posteriors import draws_per_chain
from bayesdf.experiments.uncertainty_maps.localisation import METHODS, RIVALS
from bayesdf.experiments.uncertainty_maps.setting import Setting, masks_of
from bayesdf.inference.maps.perturbation import deletion

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
"""Shares of the pixels that have gone or come."""

"""How well does a detector of changed pixels find them, and is its pixel uncertainty right?

The features of the start stay as they are. A random 1x1 convolution on them tells changed locations from others; it
learns from the masks of the training people. Beside it stands the mean mask of the training images: it knows where
masks usually lie, and does not look at the picture.
"""

import numpy as np
import xarray as xr

import bayesdf.analysis as analysis
import bayesdf.data as data
from bayesdf.experiments.posteriors import draws_per_chain, load_finished
from bayesdf.experiments.source_attribution.methods import FACTORIES
from bayesdf.experiments.quick import cut
from bayesdf.experiments.uncertainty_maps.setting import QUANTITIES, Setting, masks_of, with_names
from bayesdf.inference import Posterior
from bayesdf.models import Detector, dense_head, priors

PRIOR = "mean mask of the training images"
"""The rival: it knows where masks usually lie."""

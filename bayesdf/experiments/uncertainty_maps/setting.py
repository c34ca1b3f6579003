"""What do all questions share: the images, the posterior and its controls?"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import xarray as xr
from torch import nn

import bayesdf.data as data
from bayesdf.cli import console
from bayesdf.errors import BayesdfError
from bayesdf.experiments import warm_start
from bayesdf.experiments.posteriors import fit_or_find, load_finished
from bayesdf.inference import Posterior, matched_noise
from bayesdf.inference.maps import uncertainty_maps

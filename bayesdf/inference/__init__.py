"""Methods that turn a detector into a posterior, one file each and all of one shape, and what a posterior does."""

from bayesdf.inference.ensemble import DeepEnsemble
from bayesdf.inference.laplace import Laplace
from bayesdf.inference.map import MAP
from bayesdf.inference.maps.gradient import input_gradients
from bayesdf.inference.maps.uncertainty_maps import uncertainty_maps
from bayesdf.inference.mc_dropout import MCDropout
from bayesdf.inference.noise import matched_noise
from bayesdf.inference.nuts import NUTS
from bayesdf.inference.posterior import Posterior
from bayesdf.inference.posterior_loading import load_posterior
from bayesdf.inference.prediction.analytic import logit_moments
from bayesdf.inference.prior import prior_predictive
from bayesdf.inference.sgmcmc import SGMCMC
from bayesdf.inference.svi import SVI
from bayesdf.inference.swag import SWAG
from bayesdf.inference.training.divergence import Diverged

__all__ = [
    "MAP",
    "NUTS",
    "SGMCMC",
    "SVI",
    "SWAG",
    "DeepEnsemble",
    "Diverged",
    "Laplace",
    "MCDropout",
    "Posterior",
    "input_gradients",
    "load_posterior",
    "logit_moments",
    "matched_noise",
    "prior_predictive",
    "uncertainty_maps",
]

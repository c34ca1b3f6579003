"""Methods that turn a detector into a posterior, one file each and all of one shape, and what a posterior does."""

from bayesdf.inference.mc_dropout import MCDropout
from bayesdf.inference.posterior import Posterior, load_posterior
from bayesdf.inference.svi import SVI

__all__ = ["SVI", "MCDropout", "Posterior", "load_posterior"]

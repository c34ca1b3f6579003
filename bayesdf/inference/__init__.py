"""Methods that turn a detector into a posterior, one file each and all of one shape, and what a posterior does."""

from bayesdf.inference.map import MAP
from bayesdf.inference.mc_dropout import MCDropout
from bayesdf.inference.posterior import Posterior, load_posterior
from bayesdf.inference.svi import SVI
from bayesdf.inference.training import Diverged

__all__ = ["MAP", "SVI", "Diverged", "MCDropout", "Posterior", "load_posterior"]

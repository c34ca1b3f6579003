"""Who made this image? Ask each generator to make it again.

`invert` searches the latent from which a generator would have made an image. `fit_attribution` learns from images of
known source how well each generator explains each source. With what it learnt, `attribute` gives the probability of
each source. `forgiving` lets the search undo crops, tones and blur; `perturb` makes such images.
"""

from bayesdf.inversion.attribution import NONE, Attribution, attribute, evidence, load_attribution
from bayesdf.inversion.fitting import fit_attribution
from bayesdf.inversion.loss import Weights
from bayesdf.inversion.perturbations import PERTURBATIONS, perturb, perturb_at_random
from bayesdf.inversion.search import Inversion, invert
from bayesdf.inversion.transforms import forgiving

__all__ = [
    "NONE",
    "PERTURBATIONS",
    "Attribution",
    "Inversion",
    "Weights",
    "attribute",
    "evidence",
    "fit_attribution",
    "forgiving",
    "invert",
    "load_attribution",
    "perturb",
    "perturb_at_random",
]

"""Draws from a detector's priors, and their predictions: what the detector believes before it has seen data."""

import json
from typing import Any, ClassVar

import pyro
import torch
import xarray as xr
from torch import Tensor

from bayesdf.errors import BayesdfError
from bayesdf.inference.batches import batches
from bayesdf.inference.posterior import Posterior
from bayesdf.inference.prediction.inputs import as_dataset
from bayesdf.inference.samplers import Sampler
from bayesdf.inference.samplers.sampler import generator
from bayesdf.models.detector import Detector
from bayesdf.models.priors import describe


def prior_predictive(
    detector: Detector,
    data: Any,
    draws: int = 50,
    seed: int = 0,
    *,
    batch_size: int = 128,
    device: str = "auto",
) -> xr.DataTree:
    """Draw the sites from their priors, and predict images under each draw (the prior predictive check).

    Weights without a prior stay as they are in the network. A prior that says nothing about images gives probabilities
    near 0 and 1 for few draws, and around 1 / C on the whole; many priors that look vague are sure of every image.

    Parameters
    ----------
    detector : Detector
        Left as it is.
    data, batch_size, device
        As for `Posterior.predict`; labels decide nothing.
    draws : int
        At least 1. The first ten of fifty draws are the ten draws of the same seed.
    seed : int
        At least 0.

    Returns
    -------
    xr.DataTree
        ``prior``, a variable a site, hyperpriors too (chain, draw, <site>_dim_0, …), up to two million numbers;
        ``prior_predictive`` with ``logits`` and ``probability`` (chain, draw, image, class); ``constant_data``, and
        ``observed_data`` where there are labels.

    Raises
    ------
    BayesdfError
        The detector has no priors, no draws, the data is empty or does not fit the network.

    References
    ----------
    Gabry et al., "Visualization in Bayesian workflow", 2019, section 3.
    """
    if not detector.sites:
        raise BayesdfError("the detector has no priors, so there is nothing to draw: give it some")
    dataset = as_dataset(data, {})
    if not len(dataset):  # type: ignore[arg-type]
        raise BayesdfError("the data set to predict is empty")
    images, _ = next(batches(dataset, 1, torch.device("cpu"), torch.arange(1)))
    detector.check_output(getattr(dataset, "classes", None), images)
    recipe = getattr(detector.network, "recipe", None)
    attrs = {
        "detector": recipe["name"] if recipe else type(detector.network).__name__,
        "priors": json.dumps({pattern: describe(prior) for pattern, prior in detector.priors.items()}),
        "method": "prior",
    }
    posterior = Posterior(detector.copy(images), _PriorSampler(detector), xr.Dataset(), attrs)
    tree = posterior.predict(dataset, draws, seed, batch_size=batch_size, device=device)
    groups = {str(name): child.to_dataset(inherit=False) for name, child in tree.children.items()}
    from scipy.special import softmax

    predictive = groups["posterior_predictive"]
    predictive["probability"] = xr.apply_ufunc(softmax, predictive["logits"], kwargs={"axis": -1})
    left_out = tree.attrs.pop("posterior_left_out", None)
    known = tree.attrs if left_out is None else {**tree.attrs, "prior_left_out": left_out.partition(";")[0]}
    found = {"/": xr.Dataset(attrs=known), "/prior_predictive": predictive}
    if "posterior" in groups:
        found["/prior"] = groups["posterior"]
    for name in ("constant_data", "observed_data"):
        if name in groups:
            found[f"/{name}"] = groups[name]
    return xr.DataTree.from_dict(found)


class _PriorSampler(Sampler):
    """Draws of all sites from their priors."""

    kind: ClassVar[str] = "prior"

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self.shapes = {name: tuple(value.shape) for name, value in self.draw(0, 0).items()}

    def draw(self, index: int, seed: int) -> dict[str, Tensor]:
        cuda = range(torch.cuda.device_count())
        with torch.random.fork_rng(cuda), torch.no_grad(), pyro.poutine.block(), pyro.validation_enabled(False):
            torch.manual_seed(generator(index, seed).initial_seed())
            trace = pyro.poutine.trace(self.detector.sample).get_trace(torch.device("cpu"))
        return {name: site["value"].float() for name, site in trace.iter_stochastic_nodes()}

    def to_dataset(self) -> xr.Dataset:
        return xr.Dataset()  # nothing but the detector remakes these draws

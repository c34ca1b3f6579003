"""The posteriors of a study: how they are fitted, how many draws each chain gives, and what a stopped run left."""

import shutil
from pathlib import Path

from torch import nn

import bayesdf.data as data
from bayesdf.cli import console
from bayesdf.errors import BayesdfError
from bayesdf.experiments import warm_start
from bayesdf.experiments.source_attribution.methods import LAST_LAYER, method
from bayesdf.inference import MCDropout, Posterior, load_posterior
from bayesdf.inference.samplers import DeltaSampler
from bayesdf.models import Detector


def fit_or_find(
    name: str,
    network: nn.Module,
    detector: str,
    collection: data.Collection,
    path: Path,
    *,
    sites: warm_start.Sites = "normalisation",
    epochs: int | None = None,
    seed: int = 0,
    device: str = "auto",
    quick: bool = False,
) -> Posterior:
    """The posterior by one method, as the main job fits it; from `path` where a stopped run left it.

    Parameters
    ----------
    name
        Of the method, on the command line.
    network
        The start.
    path
        Where it is saved when it is fitted.
    """
    posterior = load_finished(path)
    if posterior is not None:
        return posterior
    checkpoint = path.with_suffix(".pt")
    fitting = method(name, epochs=epochs, seed=seed, device=device, checkpoint=checkpoint, quick=quick)
    # Dropout goes on training weights, so it stops at its best epoch. SVI does not: stopped before the ELBO is at its
    # height, a posterior is as wide as it happened to start.
    validation = collection.val if isinstance(fitting, MCDropout) else None
    priors = warm_start.default_priors(detector, network, "classifier" if name in LAST_LAYER else sites)
    posterior = fitting.fit(Detector(network, priors), collection.train, validation)  # type: ignore[attr-defined]
    posterior.save(path)
    fitting.forget()
    return posterior


def draws_per_chain(posterior: Posterior, draws: int) -> int:
    """Draws of each chain that are so many together; all there are where a posterior holds fewer, one of a point."""
    sampler = posterior.sampler
    each = 1 if isinstance(sampler, DeltaSampler) else -(-draws // sampler.chains)
    return each if sampler.capacity is None else min(each, sampler.capacity)


def load_finished(path: Path) -> Posterior | None:
    """The posterior that a stopped run left here; None where there is none, or a damaged one, which is deleted."""
    if not path.exists():
        return None
    try:
        posterior = load_posterior(path)
    except BayesdfError as error:
        console.print(f"    found in the stopped run, but damaged, so fitted again: {error}", markup=False)
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
        return None
    console.print("    found finished in the stopped run")
    return posterior

"""The posteriors of a study: how many draws each chain gives, and what a stopped run left."""

import shutil
from pathlib import Path

from bayesdf.cli import console
from bayesdf.errors import BayesdfError
from bayesdf.inference import Posterior, load_posterior
from bayesdf.inference.samplers import DeltaSampler


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

"""What does inversion cost?"""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bayesdf.cli import console
from bayesdf.experiments.inversion.pictures import Pictures, Pixels, first_rows
from bayesdf.experiments.inversion.plan import Plan
from bayesdf.generators import Generator, perceptual
from bayesdf.inversion import invert


def throughput(candidates: Mapping[str, Generator], pictures: Pictures, plan: Plan) -> dict[str, NDArray[Any]]:
    """What inversion costs, by candidate: counted, modelled and measured.

    Seconds a picture = (evaluations a picture + shared evaluations / pictures) * seconds of one evaluation, which is a
    run of the generator and the features of its errors, forward and backward, timed by itself. The evaluations a
    picture are at most steps * restarts. Two pictures of each source are timed, or one where a run judges few.
    """
    each = 2 if plan.images >= 4 else 1
    images = pictures.images[first_rows(pictures, sorted(set(pictures.source)), each)][:32]
    rows = []
    for name, generator in candidates.items():
        started = time.perf_counter()
        found = invert(images, generator, steps=plan.steps, seed=plan.seed)
        seconds = (time.perf_counter() - started) / len(images)
        evaluation = _evaluation(images, generator)
        rows.append(
            {
                "latent_dim": generator.latent_dim,
                "pictures": len(images),
                "evaluations": found.evaluations.mean(),
                "shared": found.shared,
                "milliseconds_evaluation": 1e3 * evaluation,
                "seconds_modelled": (found.evaluations.mean() + found.shared / len(images)) * evaluation,
                "seconds": seconds,
                "pictures_per_second": 1.0 / seconds,
            }
        )
        console.print(f"    {name}: {1.0 / seconds:.2f} pictures a second")
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


def _evaluation(images: Pixels, generator: Generator, times: int = 3) -> float:
    """Seconds a picture that a run of the generator and the features of its errors takes, forward and backward."""
    assert generator.decode is not None
    pictures = torch.from_numpy(images)[:, None]
    spent = []
    for seed in range(times + 1):
        latent = generator.sample_latent(len(images), seed).requires_grad_(True)
        started = time.perf_counter()
        difference = generator.decode(latent) - pictures
        edges = perceptual.features(pictures + difference) - perceptual.features(pictures)
        torch.autograd.grad(difference.pow(2).sum() + edges.pow(2).sum(), latent)
        spent.append((time.perf_counter() - started) / len(images))
    return float(np.median(spent[1:]))  # the first run warms up

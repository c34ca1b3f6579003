"""What is near enough to be a sample, and what is so well explained that inversion convicts?"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bayesdf.data import common_path_grey
from bayesdf.experiments.deniability.distances import FALSE_MADE, GROWTH, Tail, distances, fit_tail, paired_distances
from bayesdf.experiments.deniability.framing import Search, likely_reconstruction
from bayesdf.experiments.deniability.pictures import alter
from bayesdf.experiments.seeds import rng_of, seed_of
from bayesdf.faces import people, photographs

MILD = (("jpeg", 90.0), ("jpeg", 70.0), ("blur", 0.5), ("noise", 0.02), ("brightness", 0.95))
"""Ways of delivery that the threshold is calibrated to live with."""
LIKELY = 0.975
"""Inversion convicts if error and energy are each no higher than in this share of genuine samples."""


@dataclass(frozen=True)
class Calibration:
    """The thresholds that everyone is judged by, and what they were measured on.

    Attributes
    ----------
    threshold
        Largest distance at which the ledger says made.
    error, energy
        Largest that inversion convicts at.
    tails
        The tail of distances, for each kind of innocent image.
    genuine, innocents
        As in `bayesdf.experiments.deniability.results.Results`.
    """

    threshold: float
    error: float
    energy: float
    tails: Mapping[str, Tail]
    genuine: pd.DataFrame
    innocents: pd.DataFrame


def calibrate(search: Search, samples: int, images: int) -> Calibration:
    """Measure the thresholds on samples, photographs and people that are used for nothing else."""
    generator, seed = search.generator, search.seed
    count = 2 * images
    genuine = generator.pictures(generator.sample_latent(count, seed_of(seed, "calibration samples")))
    rows = [
        pd.DataFrame({"delivery": f"{kind} {strength:g}", "distance": paired_distances(changed, genuine, generator)})
        for kind, strength in MILD
        for changed in [alter(genuine, kind, strength, rng_of(seed, "mild", kind, strength))]
    ]
    faces = photographs().images[~np.isin(photographs().subject, people()["test"])]
    faces = faces[np.sort(rng_of(seed, "calibration faces").permutation(len(faces))[:count])]
    inverted = search("calibration", np.concatenate([common_path_grey(genuine), faces]))
    searched = likely_reconstruction(generator, inverted.take(slice(count, None)), faces)
    kinds = {
        "second copy": common_path_grey(genuine),
        "searched": common_path_grey(searched),
        "photograph": common_path_grey(faces),
    }
    others = generator.pictures(generator.sample_latent(samples, seed_of(seed, "calibration ledger")))
    found = {kind: distances(part, others, generator) for kind, part in kinds.items()}
    tails = {kind: fit_tail(part) for kind, part in found.items()}
    innocents = [pd.DataFrame({"kind": kind, "distance": part.min(1)}) for kind, part in found.items()]
    return Calibration(
        threshold=min(1.0, *(tail.threshold(FALSE_MADE, GROWTH * samples) for tail in tails.values())),
        error=float(np.quantile(inverted.pixel[:count], LIKELY, method="higher")),
        energy=float(np.quantile(inverted.energy[:count], LIKELY, method="higher")),
        tails=tails,
        genuine=pd.concat(rows, ignore_index=True),
        innocents=pd.concat(innocents, ignore_index=True),
    )

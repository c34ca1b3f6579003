"""What does an adversary publish, so that an innocent developer is accused?

The adversary has the weights and inverts the generator as an accuser does; it does not have the developer's secret.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayesdf.data import common_path_grey
from bayesdf.experiments.deniability.distances import paired_distances
from bayesdf.experiments.deniability.pictures import Images
from bayesdf.experiments.seeds import rng_of, seed_of
from bayesdf.faces import people, photographs
from bayesdf.generators import Generator
from bayesdf.inversion import Inversion, invert

BUDGETS = (4, 8, 16, 32, 64)
"""How far each pixel of a photograph may be changed, in grey values of 255."""


@dataclass(frozen=True)
class Search:
    """Inversion by the accused generator, each search kept in a file of the run until that is finished."""

    folder: Path
    generator: Generator
    steps: int
    seed: int

    def __call__(self, name: str, images: Images) -> Inversion:
        checkpoint = self.folder / f"{name}.pt"
        return invert(
            images, self.generator, steps=self.steps, seed=self.seed, checkpoint=checkpoint, progress=True, chunk=64
        )


def likely_reconstruction(generator: Generator, found: Inversion, targets: Images) -> Images:
    """What an adversary publishes: the picture made of the latent found, shrunk until it is a likely one.

    An unlikely latent would betray the search. Outside the region that the generator draws the target stays as it is.
    """
    latent = found.latent * np.minimum(1.0, np.maximum(found.energy, 1e-9) ** -0.5)[:, None].astype(np.float32)
    made = generator.pictures(latent)
    if generator.region is None:
        return made
    return (generator.region * made + (1.0 - generator.region) * targets).astype(np.float32)


def nearest_within(budget: float, images: Images, goal: Images) -> Images:
    """The pictures nearest to `goal` in which no pixel is further than `budget` from `images`."""
    return (images + (goal - images).clip(-budget, budget)).clip(0.0, 1.0)


def framing_attacks(search: Search, rival: Generator, images: int) -> tuple[pd.DataFrame, Images, Images]:
    """The attacks on an innocent developer: a row a picture, the pictures as delivered, and what they were to be.

    `cluster` is the person of a picture that began as a photograph; pictures of other latents stand alone.
    """
    generator, seed = search.generator, search.seed
    known = photographs().take(np.isin(photographs().subject, people()["test"]))
    known = known.take(np.sort(rng_of(seed, "targets").permutation(len(known))[:images]))
    faces = known.images
    strange = rival.sample(len(faces), seed_of(seed, "rival"))
    targets = np.concatenate([faces, strange])
    searched = likely_reconstruction(generator, search("targets", targets), targets)
    # Twice: nearer pictures are found once the search may start from a picture that was moved towards its reach.
    first = np.concatenate([nearest_within(budget / 255.0, faces, searched[: len(faces)]) for budget in BUDGETS])
    again = likely_reconstruction(generator, search("perturbed", first), first)
    moved = [
        nearest_within(budget / 255.0, faces, goal)
        for budget, goal in zip(BUDGETS, np.split(again, len(BUDGETS)), strict=True)
    ]
    second = generator.pictures(generator.sample_latent(len(faces), seed_of(seed, "second copy")))
    parts: list[tuple[str, str, float, Images, Images]] = [
        ("untouched", "photograph", np.nan, faces, faces),
        *(("perturbed", "photograph", float(b), m, faces) for b, m in zip(BUDGETS, moved, strict=True)),
        ("searched", "photograph", np.nan, searched[: len(faces)], faces),
        ("searched", rival.name, np.nan, searched[len(faces) :], strange),
        ("second copy", generator.name, np.nan, second, second),
    ]
    rows = []
    for attack, target, budget, made, wanted in parts:
        apart = np.abs(made - wanted).reshape(len(made), -1)
        changes = {"largest_change": apart.max(1), "rms_change": np.sqrt((apart**2).mean(1))}
        cluster = known.subject if target == "photograph" else ""
        rows.append(pd.DataFrame({"attack": attack, "target": target, "budget": budget, "cluster": cluster, **changes}))
    published = np.concatenate([common_path_grey(made) for _, _, _, made, _ in parts])
    return pd.concat(rows, ignore_index=True), published, np.concatenate([wanted for *_, wanted in parts])


def altered_copies(
    opened: Images, goals: Images, generator: Generator, threshold: float
) -> tuple[Images, NDArray[np.float64]]:
    """Opened samples moved towards other pictures until nine tenths of the threshold away, and the share of the way."""
    goals = goals[: len(opened)]
    share = np.minimum(1.0, 0.9 * threshold / np.maximum(paired_distances(goals, opened, generator), 1e-6))
    blended = opened + share[:, None, None].astype(np.float32) * (goals - opened)
    return common_path_grey(blended), share

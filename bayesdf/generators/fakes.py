"""What does a generator return? Fakes, the donor of each, and which pixels of the photograph are changed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayesdf.faces import Faces

NOBODY = -1
"""The donor of a new face, which is of nobody."""


@dataclass(frozen=True)
class Fakes:
    """Made faces, one for each target photograph.

    Attributes
    ----------
    images
        (N, 64, 64) float32 grey values in [0, 1].
    donor
        (N,) row of the photograph that gave the identity, the motion or the mouth; `NOBODY` for a new face.
    mask
        (N, 64, 64) float32 in [0, 1]: which pixels the generator changed. Where it is 0, the fake equals the
        photograph. It lies between 0 and 1 where the generator blends. A new face is changed everywhere.
    """

    images: NDArray[np.float32]
    donor: NDArray[np.int64]
    mask: NDArray[np.float32]


def pick_donors(faces: Faces, rng: np.random.Generator, closeness: int = 8) -> NDArray[np.int64]:
    """For every photograph a donor: another person's photograph, one of the `closeness` with the nearest landmarks.

    Face-swap tools pick donors with a similar pose. A different pose distorts the face.

    Returns
    -------
    (N,) rows of `faces`.
    """
    shapes = faces.landmarks.reshape(len(faces), -1)
    distance = np.linalg.norm(shapes[:, None] - shapes[None], axis=-1)
    distance[faces.subject[:, None] == faces.subject[None]] = np.inf
    nearest = np.argsort(distance, axis=1, kind="stable")[:, :closeness]
    eligible = np.isfinite(np.take_along_axis(distance, nearest, 1)).sum(1)
    return np.array([row[rng.integers(count)] for row, count in zip(nearest, eligible, strict=True)])

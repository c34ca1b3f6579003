"""What a generator returns."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayesdf.faces import Faces

NOBODY = -1
"""The donor of a fake that is of nobody: a new face."""


@dataclass(frozen=True)
class Fakes:
    """Made faces, one for each target photograph.

    Attributes
    ----------
    images
        (N, 64, 64) float32 grey values in [0, 1].
    donor
        (N,) row of the photograph that gave the identity, the motion or the mouth; `NOBODY` for new faces.
    """

    images: NDArray[np.float32]
    donor: NDArray[np.int64]


def pick_donors(faces: Faces, rng: np.random.Generator, closeness: int = 8) -> NDArray[np.int64]:
    """For every photograph another person's, one of the `closeness` whose landmarks lie nearest.

    Face-swap tools pick donors whose pose fits; a far pose tears the face.

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

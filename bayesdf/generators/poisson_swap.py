"""Another person's inner face, warped onto the target's landmarks and blended in the gradient domain.

Perez, Gangnet and Blake 2003, "Poisson image editing"; the blend that FaceSwap-like tools use (Roessler et al. 2019).
"""

import numpy as np

from bayesdf.faces import Faces
from bayesdf.generators.blend import face_mask, match_tone, motion_field, poisson_blend, resample, without_border
from bayesdf.generators.fakes import Fakes, pick_donors
from bayesdf.generators.generator import Generator

NAME = "poisson_swap"


def make(faces: Faces, rng: np.random.Generator) -> Fakes:
    """One swapped face for every photograph; the donor is another person in the same photographs.

    The mask is 1 where the Poisson equation was solved, and 0 elsewhere.
    """
    donors = pick_donors(faces, rng)
    images, solved = np.empty_like(faces.images), np.empty_like(faces.images)
    for row, donor in enumerate(donors):
        target, mask = faces.images[row], face_mask(faces.landmarks[row])
        field = motion_field(faces.landmarks[donor], faces.landmarks[row])
        moved = match_tone(resample(faces.images[donor], field), target, mask)
        images[row] = poisson_blend(moved, target, mask).clip(0.0, 1.0)
        solved[row] = without_border(mask)
    return Fakes(images, donors, solved)


generator = Generator(
    NAME,
    manipulate=make,
    family="face swap, gradient domain",
    paper="Perez, Gangnet and Blake 2003, Poisson image editing",
)

"""One photograph set in motion: a dense field carries the face to the driver's pose and expression.

The motion model of Siarohin et al. 2021, "Motion representations for articulated animation", and Zhao and Zhang 2022,
"Thin-plate spline motion model for image animation": key points of the driver, a thin-plate spline between them, and
a bilinear look-up in the one photograph. Here the key points are the five landmarks.
"""

import numpy as np

from bayesdf.faces import TEMPLATE, Faces
from bayesdf.generators.blend import displacement, motion_field, resample
from bayesdf.generators.fakes import Fakes
from bayesdf.generators.generator import Generator

NAME = "reenactment"

GAIN = 1.6
"""Factor of the driver's motion relative to the mean face, which is added to the target's own shape."""


def make(faces: Faces, rng: np.random.Generator) -> Fakes:
    """Every photograph driven by another person's: relative motion, as in first-order motion models.

    The mask is the distance in pixels by which the motion field displaces a pixel, at most 1.
    """
    motion = faces.landmarks - TEMPLATE
    size = np.linalg.norm(motion, axis=(1, 2))
    drivers = np.empty(len(faces), np.int64)
    images, displaced = np.empty_like(faces.images), np.empty_like(faces.images)
    for row in range(len(faces)):
        others = np.nonzero(faces.subject != faces.subject[row])[0]
        strong = others[np.argsort(-size[others], kind="stable")[: max(len(others) // 2, 1)]]
        drivers[row] = driver = rng.choice(strong)
        moved = faces.landmarks[row] + GAIN * motion[driver]
        field = motion_field(faces.landmarks[row], moved)
        images[row] = resample(faces.images[row], field)
        displaced[row] = displacement(field).clip(max=1.0)
    return Fakes(images, drivers, displaced)


generator = Generator(
    NAME,
    manipulate=make,
    family="re-enactment, motion field",
    paper="Zhao and Zhang 2022, Thin-plate spline motion model for image animation",
)

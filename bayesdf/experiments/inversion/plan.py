"""How much of everything does a run look at, and with which seeds?"""

from dataclasses import dataclass

from bayesdf.inversion import PERTURBATIONS
from bayesdf.inversion.attribution import FORGIVING, STEPS


@dataclass(frozen=True)
class Plan:
    """How much of everything.

    Attributes
    ----------
    images, calibration, train
        Pictures of each source to judge, to calibrate the attribution with, and to train the classifiers on. There are
        only 50, 50 and 240 photographs.
    disturbed
        Of those to judge, how many of each candidate and of the photographs are disturbed and attacked too.
    strengths
        Of each perturbation, how many: the strongest and some below.
    budgets
        Largest change of a pixel in an attack, of 255 grey values.
    rounds
        Of the attack on inversion; the pictures are inverted again before each but the first.
    steps
        Most evaluations of a generator for a picture.
    epochs
        Passes over the classifiers' training pictures.
    forgiving
        Whether inversion may also zoom, shift, tone and blur what a generator makes.
    seed
        Of everything random.
    """

    images: int = 16
    calibration: int = 19
    train: int = 128
    disturbed: int = 6
    strengths: int = 3
    budgets: tuple[float, ...] = (2.0, 4.0, 8.0)
    rounds: int = 3
    steps: int = STEPS
    epochs: int = 30
    forgiving: bool = FORGIVING
    seed: int = 0

    @property
    def conditions(self) -> list[tuple[str, float]]:
        """Perturbations and strengths to look at."""
        return [
            (name, strength)
            for name, way in PERTURBATIONS.items()
            for strength in way.strengths[len(way.strengths) - self.strengths :]
        ]

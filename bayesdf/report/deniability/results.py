"""What did the study find?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray


@dataclass(frozen=True)
class Results:
    """What the study found.

    Attributes
    ----------
    facts
        Names, sizes and thresholds.
    tails
        A row a kind of innocent image: the tail of distances, and the threshold that it allows.
    genuine, innocents
        Calibration: distances of mildly altered samples to their own sample (`delivery`), and of innocent images to the
        nearest sample of a ledger of the same size (`kind`).
    accused
        A row a picture: `attack`, `target`, `budget`, how it was judged, and `cluster`: whose photograph it began as,
        or '' where it stands alone.
    copied
        Copies of opened samples, altered up to nine tenths of the threshold, with the `cluster` of what they were moved
        towards.
    fresh
        Further samples of a second copy of the weights, judged by the ledger alone, each of which stands alone.
    guilty
        A row an altered image of the developer's own, with the sample that it is (`truth`).
    growth
        False `made` by ledger size and threshold.
    cheats
        A row a cheat.
    published, targets
        (N, 64, 64) pictures, in the order of `accused`: as they arrive, and what they were meant to be.
    """

    facts: Mapping[str, Any]
    tails: pd.DataFrame
    genuine: pd.DataFrame
    innocents: pd.DataFrame
    accused: pd.DataFrame
    copied: pd.DataFrame
    fresh: pd.DataFrame
    guilty: pd.DataFrame
    growth: pd.DataFrame
    cheats: pd.DataFrame
    published: NDArray[np.float32]
    targets: NDArray[np.float32]

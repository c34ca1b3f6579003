"""How many photographs are called fake, where the threshold is low enough to find nearly all fakes?"""

import numpy as np
from numpy.typing import NDArray

from bayesdf.errors import BayesdfError

Array = NDArray[np.float64]

RECALL = 0.95


def false_positive_rate(positive: NDArray[np.bool_], score: Array, *, recall: float = RECALL) -> float:
    """The false positive rate at the highest threshold that finds at least a share `recall` of the positives: 0 … 1.

    An image is called positive where its score is the threshold or more. So images of equal scores are called positive
    together, and where many scores are equal, more than the share `recall` may be found.

    Parameters
    ----------
    positive
        Which images are of the positive class, bool (image,). `evaluate` takes class 1 (fake).
    score
        (image,), higher is more positive.
    recall
        Above 0, at most 1.

    Returns
    -------
    float
        NaN where there are no positives, or nothing else.

    Raises
    ------
    BayesdfError
        A recall outside (0, 1].
    """
    if not 0.0 < recall <= 1.0:
        raise BayesdfError(f"recall={recall}: give a share above 0, at most 1")
    count = int(positive.sum())
    others = len(positive) - count
    if not count or not others:
        return float("nan")
    needed = int(np.ceil(recall * count - 1e-9))  # 0.95 * 20 is 19, whatever the rounding
    found = np.sort(score[positive])
    return float((score[~positive] >= found[count - needed]).sum() / others)

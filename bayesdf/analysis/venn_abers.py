"""Between which two probabilities lies that of an event, if nothing but the order of the scores is trusted?

An inductive Venn-Abers predictor fits isotonic regression to the held-out scores and labels twice: once with the new
score labelled 0, once with it labelled 1. The two values at the new score, p0 <= p1, are its answer. One of them is
perfectly calibrated, whatever the distribution, as long as images are exchangeable [1]. A single probability is

    p = p1 / (1 - p0 + p1)

which makes the largest regret of the log loss smallest [1, section 4].

p1 is the slope of the greatest convex minorant of the cumulative sums at the new score. Going from score to score, this
slope changes only where a point falls below the minorant, so all scores are done in one sweep [2]. A new score between
two held-out ones has the p1 of the upper one and the p0 of the lower one: a label 1 below a score is pooled with it.

References
----------
1. Vovk and Petej, "Venn-Abers predictors", UAI 2014.
2. Vovk, Petej and Fedorova, "Large-scale probabilistic predictors with and without guarantees of validity", NeurIPS
   2015, algorithms 1 to 4.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def venn_abers_bounds(score: Array, happened: NDArray[np.bool_]) -> tuple[Array, Array, Array]:
    """The two probabilities at each score that occurs among held-out images.

    Parameters
    ----------
    score
        (image,), finite, higher is more probable.
    happened
        bool (image,).

    Returns
    -------
    tuple
        `score` (knot,), each once and in order; `lower`, which is p0 from this score up to the next; `upper`, which is
        p1 from this score down to the one before. Below the first score p0 is 0, above the last p1 is 1.
    """
    knots, which = np.unique(score, return_inverse=True)
    count = np.bincount(which).astype(np.float64)
    events = np.bincount(which, happened).astype(np.float64)
    lower = 1.0 - _upper(count[::-1], (count - events)[::-1])[::-1]
    return knots, lower, _upper(count, events)


def venn_abers_probability(score: Array, knots: Array, lower: Array, upper: Array) -> Array:
    """The single probability p1 / (1 - p0 + p1) of new scores (image,), from what `venn_abers_bounds` returned."""
    p0 = np.concatenate([[0.0], lower])[np.searchsorted(knots, score, side="right")]
    p1 = np.concatenate([upper, [1.0]])[np.searchsorted(knots, score, side="left")]
    return np.asarray(p1 / (1.0 - p0 + p1))


def _upper(count: Array, events: Array) -> Array:
    """Isotonic regression at each score, fitted with one more event there: (knot,)."""
    # Cumulative sums from 0. A point left of the new score is moved by (-1, -1), which is the new event's own step.
    x, y = (np.concatenate([[0.0], np.cumsum(part)]) for part in (count, events))
    result = np.empty(len(count))
    start, slope = (0.0, 0.0), -np.inf
    for knot in range(len(count)):
        moved = (x[knot] - 1.0, y[knot] - 1.0)
        if knot == 0 or moved[1] < start[1] + slope * (moved[0] - start[0]):
            start = moved
            slope = float(((y[knot + 1 :] - moved[1]) / (x[knot + 1 :] - moved[0])).min())
        result[knot] = slope
    return result

"""Is a detector less sure of images of a kind it has never seen?

The uncertainty of an image is taken as evidence that its source is unknown. Its AUROC is

    P(u(unseen image) > u(seen image)) + 1/2 P(u(unseen image) = u(seen image)),

It is 1 where every image of the unknown source is more uncertain than every other image. It is 1/2 by chance, and
below 1/2 where the detector is surer of images that it does not know. It does not depend on the numbers of images.
Epistemic uncertainty should rise for a kind of image that the detector has never seen. A detector of one draw has none,
and gets exactly 1/2.

References
----------
1. Hendrycks and Gimpel, "A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural Networks",
   ICLR 2017 (the figure).
2. Malinin and Gales, "Predictive Uncertainty Estimation via Prior Networks", NeurIPS 2018 (mutual information as the
   score).
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bayesdf.analysis.intervals import Estimate, cluster_bootstrap
from bayesdf.analysis.people import Design, design
from bayesdf.analysis.predictions import image_logits
from bayesdf.analysis.roc import binary_auroc, levels
from bayesdf.analysis.tree import Predictions
from bayesdf.analysis.uncertainty import entropies
from bayesdf.errors import BayesdfError

Array = NDArray[np.float64]
Uncertainty = Literal["total", "aleatoric", "epistemic"]


def ood_auroc(
    seen: Predictions,
    unseen: Predictions,
    *,
    by: Uncertainty = "epistemic",
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """How often an image of an unknown source is more uncertain than one of a known source.

    Parameters
    ----------
    seen, unseen
        What `Posterior.predict` returns with the same draws: for images of sources that the detector was trained on,
        and for images of other sources. Labels are not needed.
    by
        Which uncertainty.
    resamples, seed
        For the interval over people, see `cluster_bootstrap`. A person in both sets counts as one person.

    Returns
    -------
    Estimate
        0 … 1, with a 95 % interval.

    Raises
    ------
    BayesdfError
        An unknown uncertainty, or the draws differ in number.
    """
    if by not in ("total", "aleatoric", "epistemic"):
        raise BayesdfError(f"unknown uncertainty {by!r}; use 'total', 'aleatoric' or 'epistemic'")
    logits = [image_logits(part).values for part in (seen, unseen)]
    if len(logits[0]) != len(logits[1]):
        raise BayesdfError(
            f"{len(logits[0])} draws of seen and {len(logits[1])} of unseen images: predict both with the same draws"
        )
    value = levels(np.concatenate([getattr(entropies(part), by) for part in logits]))
    unknown = np.repeat([False, True], [part.shape[1] for part in logits])
    parts = [design(part, values.shape[1]) for part, values in zip((seen, unseen), logits, strict=True)]
    return cluster_bootstrap(binary_auroc, [unknown, value], **_joined(*parts), resamples=resamples, seed=seed)


def _joined(seen: Design, unseen: Design) -> Design:
    """The design of both sets together. A person in both is one person. Donors that one set lacks are nobody."""
    length = [len(part["clusters"]) for part in (seen, unseen)]
    strata = [np.full(length[0], "seen"), np.full(length[1], "unseen")]
    donors = [
        np.full(count, "") if part["donors"] is None else part["donors"]
        for part, count in zip((seen, unseen), length, strict=True)
    ]
    return Design(
        clusters=np.concatenate([seen["clusters"], unseen["clusters"]]),
        donors=np.concatenate(donors),
        strata=np.concatenate(
            [
                own if part["strata"] is None else part["strata"]
                for part, own in zip((seen, unseen), strata, strict=True)
            ]
        ),
    )

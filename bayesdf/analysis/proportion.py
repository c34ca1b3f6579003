"""How large may a share of images be, where images come in clusters?

Images of one person, or altered copies of one photograph, need not be independent. In the worst case all images of a
cluster have the same outcome and carry the information of one image. The interval here allows for that case.

References
----------
1. Clopper and Pearson, "The use of confidence or fiducial limits", Biometrika 1934 (shares).
2. Kish, "Survey sampling", 1965, chapter 8 (effective number of clusters of unequal sizes).
3. Korn and Graubard, "Confidence intervals for proportions with small expected number of positive counts", Survey
   Methodology 1998 (Clopper and Pearson's interval with an effective number of trials).
"""

import numpy as np
from numpy.typing import ArrayLike

from bayesdf.analysis.intervals import LEVEL, Estimate
from bayesdf.analysis.people import cluster_numbers
from bayesdf.errors import BayesdfError


def clustered_share(values: ArrayLike, clusters: ArrayLike) -> Estimate:
    """A share of images with a 95 % interval that holds for any correlation within clusters.

    It is Clopper and Pearson's interval with as many trials as there are clusters. With n images in k clusters of
    unequal sizes m, the number of trials is the effective number n² / Σ m², at most k. Where images of a cluster
    differ, the interval is wider than necessary.

    Parameters
    ----------
    values
        (image,) 0 or 1, or rates in between.
    clusters
        (image,) which images belong together, usually the subject. An image without one ('', None, NaN) is a cluster of
        its own. All clusters must be of one kind, such as people; call this once for each kind of image.

    Raises
    ------
    BayesdfError
        No images, clusters of another number, or values outside [0, 1].

    Examples
    --------
    None of 35 images of ten people, and none of 35 images of 35:

    >>> print(clustered_share([0.0] * 35, [row % 10 for row in range(35)]))
    0.000 (0.000 to 0.314)
    >>> print(clustered_share([0.0] * 35, range(35)))
    0.000 (0.000 to 0.100)
    """
    from scipy.stats import beta

    rates = np.asarray(values, dtype=np.float64).ravel()
    if not len(rates) or not ((rates >= 0.0) & (rates <= 1.0)).all():
        raise BayesdfError("a share needs at least one image, and values from 0 to 1")
    size = np.bincount(cluster_numbers(np.asarray(clusters, dtype=object), len(rates)))
    trials = len(rates) ** 2 / float((size**2).sum())
    share = float(rates.mean())
    hits, misses = share * trials, (1.0 - share) * trials
    tail = (1.0 - LEVEL) / 2.0
    low = float(beta.ppf(tail, hits, misses + 1.0)) if share > 0.0 else 0.0
    high = float(beta.ppf(1.0 - tail, hits + 1.0, misses)) if share < 1.0 else 1.0
    return Estimate(share, low, high)

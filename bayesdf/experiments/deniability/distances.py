"""How far is an image from the samples, and how often will an innocent one be near?"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from bayesdf.analysis import clustered_share
from bayesdf.experiments.deniability.pictures import Images
from bayesdf.faces import SIZE
from bayesdf.generators import Generator

FALSE_MADE = 1e-3
GROWTH = 1000
"""By prediction at most this share of innocent images is called `made`, even by a ledger so many times as large."""
TAIL = 1e-3
"""Share of the distances, the smallest, that the tail is fitted to."""
MULTIPLES = (1.0, 1.5, 2.0, 2.5)
"""Of the threshold: false alarms are counted at each."""


def distances(images: Images, samples: Images, generator: Generator) -> NDArray[np.float32]:
    """(image, sample) root mean square errors over the pixels that the generator draws: as `ledger.verify` has them."""
    region = np.ones((SIZE, SIZE), np.float32) if generator.region is None else generator.region
    scale = torch.from_numpy(np.sqrt(region / region.sum()).astype(np.float32)).flatten()
    a, b = (torch.from_numpy(part).flatten(1) * scale for part in (images, samples))
    parts = [torch.cdist(a, part, compute_mode="donot_use_mm_for_euclid_dist") for part in b.split(64)]
    return torch.cat(parts, 1).numpy()


def paired_distances(a: Images, b: Images, generator: Generator) -> NDArray[np.float64]:
    """(N,) distances between pictures of the same row."""
    region = np.ones((SIZE, SIZE), np.float32) if generator.region is None else generator.region
    return np.sqrt(((a - b).astype(np.float64) ** 2 * region).sum((1, 2)) / region.sum())


@dataclass(frozen=True)
class Tail:
    """The share of distances up to t, below `edge`: share * (t / edge) ** exponent."""

    edge: float
    share: float
    exponent: float

    def rate(self, threshold: float, samples: int) -> float:
        """How often an image has one of so many samples within the threshold.

        All images are taken to be alike. Where some are nearer to everything than others, this says too much (Jensen).
        """
        return float(-np.expm1(-samples * self.share * (threshold / self.edge) ** self.exponent))

    def threshold(self, rate: float, samples: int) -> float:
        """The threshold at which that happens at this rate, at most the edge."""
        return float(self.edge * min(1.0, (-np.log1p(-rate) / (samples * self.share)) ** (1.0 / self.exponent)))


def fit_tail(found: NDArray[np.floating]) -> Tail:
    """The lower tail of distances (image, sample) between what has nothing to do with each other.

    Near 0 the share of distances below t grows as a power of t, the exponent being the number of dimensions in which
    images differ; it is estimated from the smallest `TAIL` of the distances, as Hill 1975 does for upper tails.
    """
    flat = np.sort(found, axis=None).astype(np.float64)
    count = min(max(20, round(TAIL * flat.size)), flat.size - 1)
    edge = flat[count]
    logs = np.log(edge / np.maximum(flat[:count], 1e-9))
    return Tail(edge=float(edge), share=count / flat.size, exponent=float(1.0 / max(logs.mean(), 1e-9)))


def tail_table(tails: Mapping[str, Tail], samples: int) -> pd.DataFrame:
    """A row a kind of innocent image: its tail, and the threshold that it allows."""
    rows = [
        {"kind": kind, **vars(tail), "threshold": tail.threshold(FALSE_MADE, GROWTH * samples)}
        for kind, tail in tails.items()
    ]
    return pd.DataFrame(rows).set_index("kind")


def false_rate(
    found: NDArray[np.floating], threshold: float, tail: Tail, kind: str, *, clusters: ArrayLike
) -> pd.DataFrame:
    """How often an innocent image is called made, by size of the ledger and threshold.

    Parameters
    ----------
    found
        (image, sample) distances. The rate for n samples is the mean over images and over all choices of n of them:
        1 - C(N - c, n) / C(N, n) for an image with c samples within the threshold.
    tail
        Fitted elsewhere; predicts the same rate, also for ledgers larger than this one.
    clusters
        (image,) whom an image is of; '' where it stands alone. The interval is over them, for this ledger.
    """
    total = found.shape[1]
    sizes = np.unique(np.geomspace(10, total, 10).round().astype(int)).tolist()
    rows = []
    for multiple in MULTIPLES:
        close = (found <= multiple * threshold).sum(1)
        for size in [*sizes, 10 * total, 100 * total, GROWTH * total]:
            row = {"kind": kind, "multiple": multiple, "ledger_size": size, "images": len(found)}
            row["predicted"] = tail.rate(multiple * threshold, size)
            if size <= total:
                rest = total - close
                room = np.maximum(rest - size, 0)
                ways = (gammaln(rest + 1.0) - gammaln(room + 1.0)) - (
                    gammaln(total + 1.0) - gammaln(total - size + 1.0)
                )
                missed = np.where(rest < size, 0.0, np.exp(ways))
                rate = clustered_share(1.0 - missed, clusters)
                row |= {"made": rate.value, "made.low": rate.low, "made.high": rate.high}
            rows.append(row)
    return pd.DataFrame(rows)

"""By how much does the uncertainty fall when a region of like pixels is hidden?

Superpixels are clusters of pixels that are near each other and alike in grey value. As in SLIC, k-means starts from a
regular grid of centres and its squared distance is

    ((y - y')² + (x - x')²) / step²  +  (grey - grey')² / compactness²

The map is that of `occlusion`, with superpixels in place of squares. Nothing in it is random.

References
----------
Achanta, Shaji, Smith, Lucchi, Fua, Süsstrunk, "SLIC Superpixels Compared to State-of-the-Art Superpixel Methods", 2012,
section 2. (There clusters are searched nearby and made connected. Here they are not.)
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayesdf.errors import BayesdfError
from bayesdf.inference.maps.hiding import check_fill, falls
from bayesdf.inference.maps.method import MapMethod
from bayesdf.inference.maps.predictive import Predictive, Values

_ITERATIONS = 10  # as in the paper


@dataclass(frozen=True)
class Superpixels(MapMethod):
    """With sign, in nats: a region above zero raises the quantity.

    Parameters
    ----------
    segments : int
        About how many superpixels an image has: the centres form a grid with as many rows as columns.
    compactness : float
        The difference in grey value that counts as much as one step of the grid.
    fill : str
        What stands in the place of the superpixel: ``blurred`` or ``grey`` (`hiding.FILLS`).
    """

    name: ClassVar[str] = "superpixels"
    signed: ClassVar[bool] = True
    segments: int = 49
    compactness: float = 0.2
    fill: str = "blurred"

    def __post_init__(self) -> None:
        if self.segments < 1:
            raise BayesdfError(f"segments is {self.segments}, but must be at least 1")
        if not self.compactness > 0:
            raise BayesdfError(f"compactness is {self.compactness}, but must be above 0")
        check_fill(self.fill)

    def maps(self, predictive: Predictive, images: Tensor, indices: range) -> Values:
        parts = []
        for grey in images.mean(1).double().cpu().numpy():
            labels = torch.from_numpy(superpixels(grey, self.segments, self.compactness)).to(images.device)
            parts.append(labels == torch.arange(_side(self.segments) ** 2, device=images.device)[:, None, None])
        return falls(predictive, images, torch.stack(parts), self.fill)


def superpixels(grey: NDArray[np.float64], segments: int, compactness: float) -> NDArray[np.int64]:
    """The number of the superpixel (H, W) of each pixel of a grey image (H, W), from 0. Some may have no pixel."""
    from sklearn.cluster import KMeans

    side = _side(segments)
    height, width = grey.shape
    step = np.sqrt(height * width) / side
    y, x = np.indices(grey.shape)
    points = np.stack([y / step, x / step, grey / compactness], -1).reshape(-1, 3)
    rows, columns = (((np.arange(side) + 0.5) * length / side).astype(int) for length in grey.shape)
    centres = points.reshape(height, width, 3)[np.ix_(rows, columns)].reshape(-1, 3)
    found = KMeans(len(centres), init=centres, n_init=1, max_iter=_ITERATIONS, random_state=0).fit(points)
    return found.labels_.reshape(grey.shape).astype(np.int64)


def _side(segments: int) -> int:
    return max(1, round(segments**0.5))

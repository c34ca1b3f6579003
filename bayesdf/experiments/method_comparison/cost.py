"""What does a draw cost, beside one run of the network?

A prediction by S draws runs the prefix once and the suffix S times (`bayesdf.inference.prediction.split`). Measured
here is the suffix, as `Posterior.predict` runs it, and the time that it takes to make the draws.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch.utils.data import Dataset, Subset

from bayesdf.data import ImageDataset
from bayesdf.inference import Posterior
from bayesdf.inference.batches import batches
from bayesdf.inference.prediction.predictor import Predictor, resolve_device

IMAGES = 128
"""As many as `Posterior.predict` takes at once."""
REPEATS = 5
"""The fastest counts: whatever else a machine does makes things slower only."""


class _Kept(Predictor):
    """A predictor that runs the prefix the first time only."""

    kept: list[tuple[list[tuple[Any, ...]], np.ndarray]] | None = None

    def features(
        self, dataset: Dataset[Any], batch_size: int, watch: Callable[[torch.Tensor], None] | None = None
    ) -> Iterator[tuple[list[tuple[Any, ...]], np.ndarray]]:
        if self.kept is None:
            self.kept = list(super().features(dataset, batch_size, watch))
        yield from self.kept


@torch.no_grad()
def cost(posterior: Posterior, part: ImageDataset, draws: int, *, seed: int, device: str) -> xr.Dataset:
    """Seconds that a posterior needs to predict.

    Parameters
    ----------
    part
        Its first `IMAGES` images are predicted.
    draws
        Of which the mean is taken, of all chains together.

    Returns
    -------
    xr.Dataset
        Numbers: `forward_seconds` (one run of the whole network), `prefix_seconds`, `draw_seconds` (one draw and its
        run of the suffix), `timed_images`.
    """
    predictor = _Kept(posterior.network, posterior.sampler, resolve_device(device))
    few = Subset(part, range(min(IMAGES, len(part))))
    images, _ = next(batches(few, IMAGES, predictor.device))
    prefix = predictor.parts(images).prefix

    def draw_all() -> None:
        for _ in predictor.pieces(few, draws, seed, batch_size=IMAGES):
            pass

    draw_all()
    seconds = {
        "forward_seconds": _fastest(lambda: predictor.network(images).cpu()),
        "prefix_seconds": _fastest(lambda: [feature.cpu() for feature in prefix(images)]),
        "draw_seconds": _fastest(draw_all) / draws,
    }
    posterior.network.cpu()
    return xr.Dataset({**seconds, "timed_images": len(images)})


def _fastest(work: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)

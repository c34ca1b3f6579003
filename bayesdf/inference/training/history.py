"""What the training loop saw: losses, validation, and how the search ended."""

from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from bayesdf.inference.training.flatness import Slope


@dataclass
class History:
    """Losses and validation of one search."""

    loss: list[float] = field(default_factory=list)
    nll: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    best_epoch: int | None = None
    slope: Slope | None = None
    """What the objective would still gain; None where nothing was searched."""
    kept_epoch: tuple[int, int] | None = None
    """The epoch whose state was kept and the number of epochs, where that was before the rate fell."""
    advice: str = "raise epochs"
    """What to do where the search did not arrive."""

    def to_dataset(self, name: str, sign: float = 1.0) -> xr.Dataset:
        """As ``sample_stats``, the loss under the name a method gives it."""
        stats = xr.Dataset({name: ("step", sign * np.array(self.loss, dtype=np.float64))})
        if self.nll:
            stats["validation_nll"] = ("epoch", np.array(self.nll))
            stats["validation_accuracy"] = ("epoch", np.array(self.accuracy))
            stats.attrs["best_epoch"] = -1 if self.best_epoch is None else self.best_epoch
        return stats

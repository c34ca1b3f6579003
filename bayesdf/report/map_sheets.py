"""Drawn: where in the picture? Maps over faces, with one scale for all that share a unit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bayesdf.errors import BayesdfError
from bayesdf.report.style import INK, MUTED, plain, styled

Array = NDArray[np.floating]

CELL, GAP = 1.15, 0.07
"""Side of a picture and the space between two, in inches."""
LEFT, TOP, BAR = 1.35, 0.9, 0.75
"""Room for the names of rows, the title with the heads of columns, and the colour bars, in inches."""
OPACITY = 0.65
"""Of a map over its picture."""


@dataclass(frozen=True)
class Scale:
    """What the colours of a map mean.

    Attributes
    ----------
    label
        With its unit, for the colour bar.
    columns
        Which columns share it.
    low, high
        Values of the ends; None: of the maps drawn.
    colours
        A colour map of matplotlib.
    """

    label: str
    columns: Sequence[str]
    low: float | None = None
    high: float | None = None
    colours: str = "magma"

    def norm(self, rows: Sequence["MapRow"]) -> Normalize:
        """From values to colours, the same for all maps that share the scale."""
        values = [row.maps[name] for row in rows for name in self.columns if name in row.maps]
        low = self.low if self.low is not None else min(float(np.min(one)) for one in values)
        high = self.high if self.high is not None else max(float(np.max(one)) for one in values)
        return Normalize(low, high if high > low else low + 1.0)


@dataclass(frozen=True)
class MapRow:
    """A row of a sheet.

    Attributes
    ----------
    label
        What the picture is, in a line or two.
    image
        (H, W) or (H, W, 3) in [0, 1]; None draws the maps alone.
    maps
        Column -> (h, w), on any grid that covers the picture.
    """

    label: str
    image: Array | None
    maps: Mapping[str, Array]


@styled
def map_sheet(rows: Sequence[MapRow], scales: Sequence[Scale], *, title: str, subtitle: str) -> Figure:
    """Rows of a picture and its maps. A colour bar for each scale stands below.

    Parameters
    ----------
    rows
        All with maps of the same names, which head the columns.
    scales
        Together they name each column once.
    title, subtitle
        What the figure shows.
    """
    if not rows:
        raise BayesdfError("a sheet of maps needs at least one row")
    pictured = any(row.image is not None for row in rows)
    columns = list(rows[0].maps)
    of = {name: scale for scale in scales for name in scale.columns}
    norms = {id(scale): scale.norm(rows) for scale in scales}
    heads = [*(["picture"] if pictured else []), *columns]
    wide = max(LEFT + (CELL + GAP) * len(heads) + 0.15, 6.0)
    height = TOP + (CELL + GAP) * len(rows) + BAR
    figure = Figure(figsize=(wide, height))
    figure.set_layout_engine("none")
    for r, row in enumerate(rows):
        bottom = height - TOP - (r + 1) * (CELL + GAP) + GAP
        label = "\n".join(plain(line, 18) for line in row.label.split("\n"))
        figure.text(0.12 / wide, (bottom + CELL / 2) / height, label, fontsize=9, va="center")
        for c, name in enumerate(heads):
            left = LEFT + c * (CELL + GAP)
            ax = figure.add_axes((left / wide, bottom / height, CELL / wide, CELL / height))
            ax.set(xticks=[], yticks=[])
            for spine in ax.spines.values():
                spine.set_visible(False)
            if r == 0:
                ax.set_title(name, fontsize=9, pad=3, fontweight="normal", color=INK)
            size = (1.0, 1.0) if row.image is None else row.image.shape[:2]
            extent = (0.0, float(size[1]), float(size[0]), 0.0)
            if row.image is not None:
                ax.imshow(np.clip(row.image, 0, 1), cmap="gray", vmin=0, vmax=1, extent=extent)
            if name in row.maps:
                scale = of[name]
                ax.imshow(
                    row.maps[name],
                    cmap=scale.colours,
                    norm=norms[id(scale)],
                    alpha=1.0 if row.image is None else OPACITY,
                    extent=extent,
                    interpolation="nearest",
                )
    span = (wide - LEFT - 0.2) / max(len(scales), 1)
    for k, scale in enumerate(scales):
        place = ((LEFT + k * span) / wide, 0.48 / height, (span - 0.35) / wide, 0.10 / height)
        bar = figure.colorbar(
            ScalarMappable(norms[id(scale)], mpl.colormaps[scale.colours]),
            cax=figure.add_axes(place),
            orientation="horizontal",
        )
        bar.set_label(scale.label, fontsize=8)
        bar.ax.tick_params(labelsize=8)
        bar.outline.set_visible(False)
    figure.text(0.12 / wide, 1 - 0.12 / height, title, va="top", fontsize=12, fontweight="bold")
    figure.text(0.12 / wide, 1 - 0.38 / height, subtitle, va="top", fontsize=9, color=MUTED)
    return figure

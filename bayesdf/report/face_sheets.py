"""Drawn: rows of faces, with headings and captions."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from bayesdf.errors import BayesdfError
from bayesdf.report.style import ALERT, INK, MUTED, plain, styled


@styled
def face_sheet(
    rows: Mapping[str, ArrayLike],
    *,
    title: str,
    subtitle: str,
    captions: Mapping[str, Sequence[str]] | None = None,
    colours: Mapping[str, str] | None = None,
    wrong: Mapping[str, Sequence[bool]] | None = None,
) -> Figure:
    """Rows of faces under a heading each.

    Parameters
    ----------
    rows
        Heading -> images, float (N, H, W, 3) or (N, H, W) in [0, 1].
    title, subtitle
        What the figure shows.
    captions
        Heading -> a text under each image.
    colours
        Heading -> colour of the heading.
    wrong
        Heading -> whether to frame each image in the colour of errors.
    """
    images = {heading: np.clip(np.asarray(row, dtype=np.float64), 0, 1) for heading, row in rows.items()}
    columns = max((len(row) for row in images.values()), default=0)
    if not columns:
        raise BayesdfError("a sheet of faces needs at least one image")
    caption_lines = 1 + max((text.count("\n") for texts in (captions or {}).values() for text in texts), default=-1)
    cell = 1.15
    row_height = cell + 0.32 + 0.13 * caption_lines
    height = row_height * len(images) + 0.85
    figure = Figure(figsize=(cell * columns + 0.3, height))
    figure.set_layout_engine("none")
    wide = figure.get_figwidth()
    for r, (heading, row) in enumerate(images.items()):
        top = height - 0.80 - r * row_height
        colour = (colours or {}).get(heading, INK)
        figure.text(
            0.15 / wide,
            (top - 0.05) / height,
            plain(heading, 120),
            fontsize=9.5,
            fontweight="bold",
            color=colour,
            va="top",
        )
        for c, image in enumerate(row):
            box = (0.15 + c * cell, top - 0.16 - cell, cell - 0.08, cell - 0.08)
            ax = figure.add_axes((box[0] / wide, box[1] / height, box[2] / wide, box[3] / height))
            ax.imshow(image, cmap="gray" if image.ndim == 2 else None, vmin=0, vmax=1, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            framed = bool(wrong and wrong[heading][c])
            for spine in ax.spines.values():
                spine.set(visible=framed, color=ALERT, linewidth=2.5)
            if captions:
                lines = captions[heading][c].count("\n") + 1
                ax.annotate(
                    captions[heading][c],
                    (0.5, 0.0),
                    (0, -72 * (0.03 + 0.123 * lines)),
                    xycoords="axes fraction",
                    textcoords="offset points",
                    fontsize=6.8,
                    ha="center",
                    va="baseline",
                )
    figure.text(0.15 / wide, 1 - 0.12 / height, title, va="top", fontsize=12, fontweight="bold")
    figure.text(0.15 / wide, 1 - 0.38 / height, subtitle, va="top", fontsize=9, color=MUTED)
    return figure

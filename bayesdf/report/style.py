"""How figures look: one palette, one style, names that cannot break a figure.

Figures are plain `matplotlib.figure.Figure` objects, made without pyplot: no global state, no window, nothing
to close.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from io import BytesIO
from pathlib import Path
from typing import ParamSpec

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from numpy.typing import NDArray

P = ParamSpec("P")

INK = "#222222"
MUTED = "#6b6b6b"
FAINT = "#d4d4d4"
ALERT = "#D55E00"

REAL = "#4d4d4d"
# Okabe and Ito, "Color Universal Design", 2008: told apart with the common colour deficiencies.
# Its yellow is left out: too light on white. The last three are from Tol's "muted" scheme.
GENERATORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#332288", "#999933")

FLOOR = 1e-6
"""Uncertainties below this, in nats, are drawn at it. Otherwise tiny values would fill the axis."""
RESOLUTION = 144
STYLE = {
    **sns.axes_style("ticks"),
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.labelsize": 10,
    "axes.labelcolor": INK,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.constrained_layout.use": True,
}


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw in this package's style and leave the caller's matplotlib settings as they were."""

    @wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(STYLE), _same_jitter():
            figure = draw(*args, **kwargs)
            # Constrained layout moves a little with each drawing; settled, it saves to the same bytes.
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
            return figure

    return wrapper


@contextmanager
def _same_jitter() -> Iterator[None]:
    """Seaborn jitters points by numpy's global state: it is the same for each figure, and the caller's is put back."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def palette(sources: Iterable[str]) -> dict[str, str]:
    """A colour for each source: grey for `real`, the others by their alphabetical place.

    A source has the same colour in every figure whose set of generators is the same, whether or not `real` is
    there.
    """
    generators = sorted({str(source) for source in sources} - {"real"})
    colours = list(GENERATORS) if len(generators) <= len(GENERATORS) else sns.husl_palette(len(generators), l=0.55)
    chosen = {name: mpl.colors.to_hex(colour) for name, colour in zip(generators, colours, strict=False)}
    return {"real": REAL, **chosen}


def in_order(sources: Iterable[str]) -> list[str]:
    """`real` first, then the generators by name."""
    return sorted({str(source) for source in sources}, key=lambda name: (name != "real", name))


def plain(text: object, length: int = 32) -> str:
    """A name as a figure can show it: one line, no formulas, cut past `length` characters."""
    printable = "".join(char if char.isprintable() else "·" for char in str(text))
    cut = printable if len(printable) <= length else printable[: length - 1] + "…"
    return cut.replace("$", r"\$")


def percent(share: float) -> str:
    """A share as a figure writes it: 0.41 -> 41 %, but 0.996 -> 99.6 %: 100 % is for all."""
    digits = 1 if 0.995 <= share < 1 or 0 < share < 0.005 else 0
    return f"{100 * share:.{digits}f} %"


def legible(colour: str) -> str:
    """The colour, darkened as far as text on white needs: a contrast of 4.5 to 1, as WCAG 2 asks."""
    rgb = np.array(mpl.colors.to_rgb(colour))
    while 1.05 / (_luminance(rgb) + 0.05) < 4.5:
        rgb = rgb * 0.95
    return mpl.colors.to_hex(tuple(rgb))


def _luminance(rgb: NDArray[np.float64]) -> float:
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def head(figure: Figure, title: str, subtitle: str) -> None:
    """Title in bold, and under it what the figure counts; both at the left, above all axes."""
    height = figure.get_figheight()
    lines = subtitle.count("\n") + 1
    below = 0.20 * title.count("\n")
    figure.text(0.012, 1 - 0.10 / height, title, ha="left", va="top", fontsize=12, fontweight="bold")
    figure.text(0.012, 1 - (0.36 + below) / height, subtitle, ha="left", va="top", fontsize=9, color=MUTED)
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(rect=(0.0, 0.0, 1.0, 1 - (0.45 + below + 0.16 * lines) / height))  # type: ignore[call-arg]


def tidy(axes: NDArray, used: int) -> None:
    """Hide the panels that are not used. The lowest used panel of each column labels its axis."""
    columns = axes.shape[1]
    for number, ax in enumerate(axes.flat):
        ax.set_visible(number < used)
        ax.tick_params(labelbottom=number < used <= number + columns)


def png(figure: Figure) -> bytes:
    """The figure as PNG, the same bytes for the same figure."""
    buffer = BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=RESOLUTION, metadata={"Software": None})
    return buffer.getvalue()


def save(figure: Figure, path: str | Path) -> Path:
    """Write the figure as PNG and return where."""
    path = Path(path)
    path.write_bytes(png(figure))
    return path

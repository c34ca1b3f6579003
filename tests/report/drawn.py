"""What a figure shows, for tests."""

import matplotlib as mpl
from matplotlib.figure import Figure

from bayesdf.report.style import png

ODD_NAMES = (("$\\frac{", "a$b$c"), ("x\ny\x00", "名" * 100), ("", "\\$"), ("_^{", "vae"))
"""Pairs of names of sources that matplotlib might take for formulas, or cannot show."""


def texts(figure: Figure) -> str:
    """All that is written on a figure."""
    return " ".join(text.get_text() for text in figure.findobj(mpl.text.Text))


def labelled(figure: Figure, *words: str) -> Figure:
    """Draws without error and shows the words."""
    assert png(figure).startswith(b"\x89PNG")
    for word in words:
        assert word in texts(figure)
    return figure

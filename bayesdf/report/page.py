"""One HTML file that says what was asked, what came out and how far to trust it.

The page holds everything it needs: images as data, styles inline, no scripts, nothing fetched; a content
security policy in its head makes browsers keep to that. All text is escaped, so names from a folder or a file
stay text.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bayesdf.analysis import Estimate
from bayesdf.errors import BayesdfError
from bayesdf.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GLOSSARY: dict[str, str] = {
    "source": "Who made an image: real (a camera), or the name of a generator.",
    "detector": ("A network that says how probable it is that an image is fake, with some of its weights random."),
    "posterior": ("What training leaves open about the random weights: a distribution rather than one value each."),
    "draw": ("One sample of all random weights from the posterior: one detector among those the training supports."),
    "total uncertainty": (
        "Entropy of the mean prediction over draws, in nats: 0 when sure, log 2 = 0.693 when undecided "
        "between two classes."
    ),
    "aleatoric uncertainty": (
        "Mean entropy of the draws' own predictions: what every draw finds ambiguous in the image. More "
        "training data would not remove it."
    ),
    "epistemic uncertainty": (
        "Total less aleatoric, the mutual information between prediction and weights: how much the draws "
        "disagree. More training data of this kind would reduce it."
    ),
    "epistemic profile": (
        "How far each draw's log-odds lie from the mean over draws: which draws dissent about an image, and"
        " which way. Its mean is zero for every image."
    ),
    "mean probability": (
        "The average over draws of the probability that an image is fake: all that a detector without "
        "uncertainty reports."
    ),
    "accuracy": "Share of images judged rightly.",
    "balanced accuracy": (
        "Share judged rightly in each class, averaged over classes, so that few photographs count as much "
        "as many fakes."
    ),
    "expected calibration error": (
        "Mean distance between claimed confidence and the share that is right, over bins of confidence: 0 is perfect. "
        "It grows when images are fewer, and resamples hold fewer different ones: its interval may lie above it."
    ),
    "chance": "What guessing would score: one over the number of sources.",
    "95 % interval": (
        "The people of the test set are drawn again and again with replacement (bootstrap), and the number of images "
        "of each source is kept. The interval is the range in which 95 % of the results lie. Where all images are "
        "right, or none is, the interval allows for what as many people could hide (Clopper and Pearson)."
    ),
    "nats": "Unit of entropy with the natural logarithm; one nat is 1.44 bits.",
}
"""The words a report uses, for readers who have not met them."""

QUICK = "This run was a quick look (--quick): its figures mean little."
"""The first caution of a page whose settings say `quick`."""

Drawing: TypeAlias = "Figure | bytes"
"""A figure, or the bytes of a PNG."""


@dataclass(frozen=True)
class Picture:
    """A figure on a page.

    Parameters
    ----------
    figure
        What is shown.
    caption
        How to read it, in a sentence or two.
    alt
        What it shows, for those who cannot see it; by default the caption.
    """

    figure: Drawing
    caption: str
    alt: str = ""


@dataclass(frozen=True)
class Table:
    """A table on a page: numbers at the right, floats with three decimals, intervals in brackets.

    Parameters
    ----------
    frame
        The cells. Columns `x`, `x.low` and `x.high` are shown as one, `x (low to high)`.
    caption
        What it shows, above it.
    index
        Whether the index is a column of its own.
    """

    frame: pd.DataFrame
    caption: str
    index: bool = True


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it, in order; a string is a paragraph."""

    title: str
    content: Sequence[str | Picture | Table]


@dataclass(frozen=True)
class Cell:
    """A table cell as it is printed."""

    text: str
    number: bool


def write_page(
    path: str | Path,
    title: str,
    sections: Sequence[Section],
    *,
    question: str = "",
    answer: str = "",
    cautions: Sequence[str] = (),
    highlights: Mapping[str, str | float | Estimate] | None = None,
    settings: Mapping[str, object] | None = None,
    credits: Sequence[str] = (),
    glossary: Mapping[str, str] | None = None,
) -> Path:
    """Write a self-contained HTML page, whole or not at all.

    Parameters
    ----------
    path
        Where; an existing file is replaced once the new one is complete.
    title
        Of the page.
    sections
        In order, each with its paragraphs, pictures and tables.
    question
        What was asked, in a sentence.
    answer
        The result, in two sentences, up front.
    cautions
        What a reader must know before believing the answer, a paragraph each, above it.
    highlights
        Label -> figure, shown large under the answer; an `Estimate` is shown with its interval.
    settings
        Name -> value: what it takes to run it again.
    credits
        Whose data and work this rests on, a paragraph each.
    glossary
        Term -> meaning, at the end; `GLOSSARY` unless given.

    Returns
    -------
    Path
        The page.
    """
    path = Path(path)
    page = (
        _environment()
        .get_template("page.html")
        .render(
            title=title,
            question=question,
            answer=answer,
            cautions=cautions,
            highlights=[_highlight(label, value) for label, value in (highlights or {}).items()],
            sections=_with_anchors(sections),
            settings={str(name): _text(value) for name, value in (settings or {}).items()},
            credits=credits,
            glossary=GLOSSARY if glossary is None else glossary,
        )
    )
    with atomic_write(path) as beside:
        beside.write_text(page, encoding="utf-8")
    return path


def of_quick(settings: Mapping[str, object]) -> list[str]:
    """The caution of a quick look, if these settings say that the run was one."""
    return [QUICK] if settings.get("quick") else []


def sentence(line: str) -> str:
    """A warning, as it is said on the screen, as a sentence on a page."""
    return f"{line[:1].upper()}{line[1:].rstrip('.')}."


def cells(table: Table) -> tuple[list[Cell], list[list[Cell]]]:
    """The header and the rows of a table as they are printed."""
    frame = table.frame
    merged = {str(column) for column in frame.columns if {f"{column}.low", f"{column}.high"} <= set(frame.columns)}
    hidden = {f"{name}.{end}" for name in merged for end in ("low", "high")}
    header: list[Cell] = []
    columns: list[list[Cell]] = []
    if table.index:
        header.append(Cell(str(frame.index.name or ""), False))
        columns.append([Cell(str(value), False) for value in frame.index])
    for name in (str(column) for column in frame.columns if str(column) not in hidden):
        values = frame[name].tolist()
        if name in merged:
            ends = zip(values, frame[f"{name}.low"], frame[f"{name}.high"], strict=True)
            texts = [_interval(Estimate(*map(float, triple))) for triple in ends]
        else:
            texts = [_text(value) for value in values]
        number = name in merged or all(_is_number(value) for value in values)
        header.append(Cell(name.replace("_", " "), number))
        columns.append([Cell(text, number) for text in texts])
    return header, [list(row) for row in zip(*columns, strict=True)]


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("bayesdf.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["image"] = _image
    environment.filters["cells"] = cells
    environment.tests["paragraph"] = lambda block: isinstance(block, str)
    environment.tests["picture"] = lambda block: isinstance(block, Picture)
    return environment


def _image(figure: Drawing) -> tuple[Markup, int]:
    """The picture as a data URI, and its width in CSS pixels, of which there are 96 to an inch."""
    from bayesdf.report.style import RESOLUTION, png

    data = figure if isinstance(figure, bytes) else png(figure)
    if not data.startswith(b"\x89PNG\r\n"):
        raise BayesdfError("a picture on a page is a matplotlib Figure or the bytes of a PNG file, this is neither")
    width = int.from_bytes(data[16:20], "big")  # a PNG's first chunk begins with its width in pixels
    return Markup("data:image/png;base64,") + base64.b64encode(data).decode("ascii"), round(width * 96 / RESOLUTION)


def _with_anchors(sections: Sequence[Section]) -> list[tuple[str, Section]]:
    stems = [re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-") for section in sections]
    return [
        (f"s{number}-{stem}", section) for number, (stem, section) in enumerate(zip(stems, sections, strict=True), 1)
    ]


def _highlight(label: str, value: str | float | Estimate) -> tuple[str, str, str]:
    if isinstance(value, Estimate):
        return (
            label,
            f"{value.value:.2f}",
            f"{value.low:.2f} to {value.high:.2f}" if np.isfinite(value.low) else "",
        )
    return label, _text(value), ""


def _is_number(value: object) -> bool:
    return value is pd.NA or (isinstance(value, int | float | np.number) and not isinstance(value, bool))


def _interval(estimate: Estimate) -> str:
    if not np.isfinite(estimate.value):
        return "n/a"
    if not np.isfinite(estimate.low):
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def _text(value: object) -> str:
    """A value as a reader would write it."""
    if value is pd.NA:
        return "n/a"
    if isinstance(value, float | np.floating):
        number = float(value)
        if not np.isfinite(number):
            return "n/a" if np.isnan(number) else "∞" if number > 0 else "-∞"
        if number and abs(number) < 0.0005:
            return f"{number:.1e}"
        return f"{number:,.3f}" if abs(number) < 1000 else f"{number:,.0f}"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{int(value):,}"
    if isinstance(value, list | tuple | set):
        return ", ".join(_text(item) for item in value)
    return str(value)

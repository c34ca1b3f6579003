"""What a run shows: figures readable alone, and one self-contained HTML page."""

import importlib
from typing import TYPE_CHECKING, Any

from bayesdf.report.page import GLOSSARY, Picture, Section, Table, write_page

if TYPE_CHECKING:
    from bayesdf.report.face_sheets import face_sheet
    from bayesdf.report.map_sheets import MapRow, Scale, map_sheet
    from bayesdf.report.reliability_and_confusion import confusion_matrix, reliability_diagram
    from bayesdf.report.style import palette, save

_HOME = {
    "confusion_matrix": "reliability_and_confusion",
    "reliability_diagram": "reliability_and_confusion",
    "face_sheet": "face_sheets",
    "MapRow": "map_sheets",
    "Scale": "map_sheets",
    "map_sheet": "map_sheets",
    "palette": "style",
    "save": "style",
}
"""The module of each function that draws. It is imported when the function is first asked for."""

__all__ = [
    "GLOSSARY",
    "MapRow",
    "Picture",
    "Scale",
    "Section",
    "Table",
    "confusion_matrix",
    "face_sheet",
    "map_sheet",
    "palette",
    "reliability_diagram",
    "save",
    "write_page",
]


def __getattr__(name: str) -> Any:
    """Import what draws when it is asked for (PEP 562): matplotlib and seaborn take a second to load."""
    if name in _HOME:
        value = getattr(importlib.import_module(f"bayesdf.report.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'bayesdf.report' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""What a run shows: figures readable alone, and one self-contained HTML page."""

from bayesdf.report.figures import (
    certainty_rows,
    certainty_sheet,
    confusion_matrix,
    face_sheet,
    reliability_diagram,
    sample_sheet,
    source_accuracy,
    uncertainty_by_source,
)
from bayesdf.report.page import GLOSSARY, Picture, Section, Table, write_page
from bayesdf.report.style import palette, save

__all__ = [
    "GLOSSARY",
    "Picture",
    "Section",
    "Table",
    "certainty_rows",
    "certainty_sheet",
    "confusion_matrix",
    "face_sheet",
    "palette",
    "reliability_diagram",
    "sample_sheet",
    "save",
    "source_accuracy",
    "uncertainty_by_source",
    "write_page",
]

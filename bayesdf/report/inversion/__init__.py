"""What a run of the inversion study shows: figures, tables, flat metrics, and the page.

`tree`, everywhere, is what `bayesdf.experiments.inversion.study.study` returns.
"""

from bayesdf.report.inversion.names import ATTACKS, FIGURES, INVERTING
from bayesdf.report.inversion.plots import figures
from bayesdf.report.inversion.sections import page
from bayesdf.report.inversion.tables import headline, metrics, open_set, tables

__all__ = ["ATTACKS", "FIGURES", "INVERTING", "figures", "headline", "metrics", "open_set", "page", "tables"]

"""What a run of the deniability study shows: figures, tables, flat metrics, and the page.

`Results` is what `bayesdf.experiments.deniability.study` returns.
"""

from bayesdf.report.deniability.plots import figures
from bayesdf.report.deniability.results import Results
from bayesdf.report.deniability.sections import page
from bayesdf.report.deniability.shares import answer, metrics, tables, verdicts

__all__ = ["Results", "answer", "figures", "metrics", "page", "tables", "verdicts"]

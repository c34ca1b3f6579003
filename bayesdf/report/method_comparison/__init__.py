"""What a run of the method comparison shows: figures, tables, flat metrics, and the page.

`tree`, everywhere, is that of the run: a group a method, in it one a seed, in each what
`bayesdf.experiments.method_comparison.study.judged` returns.
"""

from bayesdf.report.method_comparison.names import HEADLINE
from bayesdf.report.method_comparison.plots import figures
from bayesdf.report.method_comparison.sections import page
from bayesdf.report.method_comparison.tables import headline, metrics, over_seeds, tables
from bayesdf.report.methods import METHODS

__all__ = ["HEADLINE", "METHODS", "figures", "headline", "metrics", "over_seeds", "page", "tables"]

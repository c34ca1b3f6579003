"""What is measured of each fit, and how is it called in text?"""

from typing import NamedTuple


class Measure(NamedTuple):
    """What a figure is called, its unit, and whether more of it is better."""

    label: str
    unit: str
    higher_is_better: bool


QUALITY = {
    "balanced_accuracy": Measure("balanced accuracy", "share", True),
    "accuracy": Measure("accuracy", "share", True),
    "auroc": Measure("AUROC, real against fake", "share", True),
    "nll": Measure("negative log-likelihood", "nats", False),
    "brier": Measure("Brier score", "0 to 2", False),
    "ece": Measure("expected calibration error", "share", False),
    "aurc": Measure("area under risk-coverage", "share", False),
    "ood_auroc_epistemic": Measure("left-out AUROC, epistemic", "share", True),
    "ood_auroc_total": Measure("left-out AUROC, total", "share", True),
    "caught": Measure("left-out fakes called fake", "share", True),
}
"""Figures of quality, by their names in `metrics`."""

COST = {
    "fit_seconds": Measure("training", "seconds", False),
    "fit_ratio": Measure("training, of MAP's", "times", False),
    "draw_seconds": Measure("a draw", "seconds", False),
    "draw_ratio": Measure("a draw, of one run of the network", "times", False),
}
"""Figures of cost, by their names in tables."""

SECONDS = ("fit_seconds", "draw_seconds", "forward_seconds", "prefix_seconds")
"""Times, by their names in the group `cost`."""

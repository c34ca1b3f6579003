"""What are methods and figures called, and how is a part of a run taken?"""

from collections.abc import Iterator
from typing import NamedTuple

import xarray as xr

ABOUT = {
    "map": "The most probable weights: no uncertainty about them. Where the others are measured from.",
    "svi": "The closest normal with independent weights, by the ELBO.",
    "svi_lowrank": "The closest normal whose covariance is of rank 10 plus a diagonal, by the ELBO.",
    "mc_dropout": "Training with dropout before the classifier, which stays on when predicting.",
    "concrete_dropout": "The same, and the rate of dropout is learnt.",
    "deep_ensemble": "Several maxima from different starts, each a draw.",
    "swag": "A normal around the average of the steps of gradient descent near a maximum.",
    "laplace_full": "A normal as wide as the log density is curved at its maximum.",
    "laplace_kron": "The same, with a covariance of Kronecker factors.",
    "sgld": "A Markov chain: gradient steps on batches with noise (Langevin dynamics).",
    "sghmc": "The same with momentum and friction (Hamiltonian dynamics).",
    "nuts": "Hamiltonian Monte Carlo on all training images: exact but for the length of its chains.",
}
"""What each method does, in a sentence."""


class Number(NamedTuple):
    """What a number of the comparison is called, in which unit, and which way is better."""

    label: str
    unit: str
    higher: bool


QUALITY = {
    "balanced_accuracy": Number("balanced accuracy", "share", True),
    "accuracy": Number("accuracy", "share", True),
    "auroc": Number("AUROC, real against fake", "share", True),
    "nll": Number("negative log-likelihood", "nats", False),
    "brier": Number("Brier score", "0 to 2", False),
    "ece": Number("expected calibration error", "share", False),
    "aurc": Number("area under risk-coverage", "share", False),
    "ood_auroc_epistemic": Number("left-out AUROC, epistemic", "share", True),
    "ood_auroc_total": Number("left-out AUROC, total", "share", True),
    "caught": Number("left-out fakes called fake", "share", True),
}
"""Figures of quality, by their names in `metrics`."""

COST = {
    "fit_seconds": Number("training", "seconds", False),
    "fit_ratio": Number("training, of MAP's", "times", False),
    "draw_seconds": Number("a draw", "seconds", False),
    "draw_ratio": Number("a draw, of one run of the network", "times", False),
}
"""Figures of cost, by their names in tables."""

PRICED = ("fit_seconds", "draw_seconds", "forward_seconds", "prefix_seconds")
"""Times as they are in the group `cost`."""

HEADLINE = ("", "balanced accuracy", "NLL (nats)", "ECE", "AURC", "left-out AUROC", "training (s)")
"""Columns of the table that the command prints."""


def posteriors(tree: xr.DataTree) -> Iterator[tuple[str, int, xr.DataTree]]:
    """Method, seed and group of every posterior of a run."""
    for name, group in tree.children.items():
        for seed, one in group.children.items():
            yield str(name), int(str(seed)), one


def part_of(tree: xr.DataTree, path: str) -> xr.Dataset:
    """The variables of a group, without those of the groups above it."""
    node = tree[path]
    assert isinstance(node, xr.DataTree)
    return node.to_dataset(inherit=False)

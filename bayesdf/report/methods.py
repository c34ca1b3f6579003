"""What are methods called in text, and what do their fits say of themselves?"""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import xarray as xr

METHODS = {
    "map": "MAP",
    "svi": "SVI, mean field",
    "svi_lowrank": "SVI, low rank",
    "mc_dropout": "MC dropout",
    "concrete_dropout": "concrete dropout",
    "deep_ensemble": "deep ensemble",
    "swag": "SWAG",
    "laplace_full": "Laplace, full",
    "laplace_kron": "Laplace, Kronecker",
    "sgld": "SGLD",
    "sghmc": "SGHMC",
    "nuts": "NUTS",
}
"""Methods as they are called in text, by their names on the command line."""

EXPLAINED = (
    "Whether each fit ended where it should, as it says itself. A search is judged by what its objective would still "
    "gain, chains by R-hat and effective draws, a guide by its Pareto k-hat. What is measured on a fit that has not "
    "converged holds for that fit alone, and not for the posterior."
)


def verdict(tree: xr.DataTree) -> str:
    """What a fit said of itself, from a method's tree; a line."""
    return str(_said(tree).get("verdict", "no verdict"))


def converged(tree: xr.DataTree) -> bool:
    """Whether it said that it has converged."""
    return bool(_said(tree).get("converged", 0))


def _said(tree: xr.DataTree) -> dict[Any, Any]:
    stats = tree.children.get("sample_stats")
    return {} if stats is None else stats.attrs


def unconverged(verdicts: pd.DataFrame) -> list[str]:
    """What a reader must know of the fits that have not converged, a sentence each. More than two share one.

    Parameters
    ----------
    verdicts
        As the function `verdicts` returns.
    """
    bad = verdicts["verdict"][verdicts["verdict"].str.startswith("NOT converged")]
    if len(bad) > 2:
        names = ", ".join(map(str, bad.index))
        return [f"{len(bad)} of {len(verdicts)} fits have not converged: {names}. The table of verdicts says why."]
    return [
        f"The fit by {name} has not converged: {text.removeprefix('NOT converged: ').rstrip('.')}."
        for name, text in bad.items()
    ]


def verdicts(trees: Mapping[str, xr.DataTree]) -> pd.DataFrame:
    """A row a fit, by the names of the trees."""
    rows = {name: {"verdict": verdict(tree)} for name, tree in trees.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("fit")

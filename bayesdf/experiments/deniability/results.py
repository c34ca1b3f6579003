"""What did the study find, and how does it stand in the run's DataTree?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

_VERDICT = ("made", "index", "distance")
COLUMNS = {
    "accused": (
        *("attack", "target", "budget", "cluster", "largest_change", "rms_change", "truth"),
        *("error", "energy", "convicted", *_VERDICT, "latent_distance", "right"),
    ),
    "copied": ("share", "truth", "cluster", *_VERDICT, "right"),
    "fresh": ("kind", "cluster", *_VERDICT),
    "guilty": ("alteration", "strength", "truth", *_VERDICT, "right"),
    "growth": ("kind", "multiple", "ledger_size", "images", "predicted", "made", "made.low", "made.high"),
    "cheats": ("cheat", "outcome", "error", "message", "expected", "as_expected"),
    "genuine": ("delivery", "distance"),
    "innocents": ("kind", "distance"),
    "tails": ("edge", "share", "exponent", "threshold"),
}
"""The tables of `Results` and their columns in order. A store does not keep the order of its variables."""
_CALIBRATION = ("genuine", "innocents", "tails")
_PICTURES = {"published": "published", "targets": "wanted"}
"""The pictures of `Results` by the names of their variables."""
_INTEGERS = ("samples", "images", "steps", "seed")


@dataclass(frozen=True)
class Results:
    """What the study found.

    Attributes
    ----------
    facts
        Attributes of the run: settings, thresholds, what was published.
    tails
        A row a kind of innocent image: the tail of distances, and the threshold that it allows.
    genuine, innocents
        Calibration: distances of mildly altered samples to their own sample (`delivery`), and of innocent images to the
        nearest sample of a ledger of the same size (`kind`).
    accused
        A row a picture: `attack`, `target`, `budget`, how it was judged, and `cluster`: whose photograph it began as,
        or '' where it stands alone.
    copied
        Copies of opened samples, altered up to nine tenths of the threshold, with the `cluster` of what they were moved
        towards.
    fresh
        Further samples of a second copy of the weights, judged by the ledger alone, each of which stands alone.
    guilty
        A row an altered image of the developer's own, with the sample that it is (`truth`).
    growth
        False `made` by ledger size and threshold.
    cheats
        A row a cheat.
    published, targets
        (N, 64, 64) pictures, in the order of `accused`: as they arrive, and what they were meant to be.
    """

    facts: Mapping[str, Any]
    tails: pd.DataFrame
    genuine: pd.DataFrame
    innocents: pd.DataFrame
    accused: pd.DataFrame
    copied: pd.DataFrame
    fresh: pd.DataFrame
    guilty: pd.DataFrame
    growth: pd.DataFrame
    cheats: pd.DataFrame
    published: NDArray[np.float32]
    targets: NDArray[np.float32]

    def to_tree(self) -> xr.DataTree:
        """A group a table, its columns over `image`, its row; those of the calibration below `calibration`.

        The tails are over `kind`. `accused` holds the pictures too, as grey values of 0 to 255. Facts are attributes.
        """
        groups = {}
        for name in COLUMNS:
            frame = getattr(self, name)
            frame = frame if name == "tails" else frame.rename_axis("image")
            groups[_path(name)] = xr.Dataset.from_dataframe(frame)
        for name, variable in _PICTURES.items():
            pixels = (getattr(self, name) * 255.0).round().astype(np.uint8)
            groups["/accused"][variable] = (("image", "y", "x"), pixels)
        tree = xr.DataTree.from_dict(groups)
        tree.attrs = dict(self.facts)
        return tree

    @classmethod
    def from_tree(cls, tree: xr.DataTree) -> "Results":
        """From the DataTree of a run, in which settings are text."""
        facts = {str(name): value for name, value in tree.attrs.items()}
        facts |= {name: int(facts[name]) for name in _INTEGERS if name in facts}
        facts["quick"] = facts.get("quick") == "True"
        parts: dict[str, Any] = {name: _table(tree, name) for name in COLUMNS}
        accused = _group(tree, "accused")
        for name, variable in _PICTURES.items():
            parts[name] = accused[variable].values.astype(np.float32) / np.float32(255.0)
        return cls(facts=facts, **parts)


def _path(name: str) -> str:
    """Where a table stands in the DataTree."""
    return f"/calibration/{name}" if name in _CALIBRATION else f"/{name}"


def _group(tree: xr.DataTree, name: str) -> xr.Dataset:
    node = tree[_path(name)]
    assert isinstance(node, xr.DataTree)
    return node.to_dataset(inherit=False)


def _table(tree: xr.DataTree, name: str) -> pd.DataFrame:
    frame = _group(tree, name)[list(COLUMNS[name])].to_dataframe()[list(COLUMNS[name])]
    return frame if name == "tails" else frame.reset_index(drop=True)

"""What do the folds of a cross-fit say together?

Each fold has a detector of its own, which judges people whom it never saw, and whom no other fold judges. The folds are
joined into one tree for each method, images side by side. Figures and intervals are then computed once, over all judged
people.

Intervals of the joined tree resample people of all folds together and keep the number of images of each source. The
strata are the sources, not the sources of each fold. People were dealt to folds at random, and folds as strata would
leave each with few people to draw from. In 200 simulations of a mean over people (four folds of ten), the intervals
held the truth in 94 % with the sources as strata and in 93 % with those of each fold. With five folds of two people it
was 93 % and 4 %, since most had no interval. Neither knows much of the difference between the folds' detectors: where
its standard deviation was 0.3 of that between people, both held the truth in 80 %. Donors are of the same fold as their
targets. (`coverage` in `tests/experiments/test_source_attribution_folds.py` is the simulation.)
"""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

import bayesdf.analysis as analysis
from bayesdf.cli import console
from bayesdf.errors import BayesdfWarning
from bayesdf.experiments.seeds import seed_of
from bayesdf.experiments.source_attribution.feature_sets import MEAN, RIVALS
from bayesdf.experiments.source_attribution.gain import gains
from bayesdf.experiments.source_attribution.tables import CONTROLS, OF_CONTROLS, RAW
from bayesdf.report.methods import converged, verdict

FOLDS = "folds"
"""The group, below a method, of what cannot be joined: `folds/<k>` for each fold."""


def cell_name(method: str, fold: int, folds: int) -> str:
    """What the cell of a method on a fold is called."""
    return f"{method}/fold_{fold}" if folds > 1 else method


def fold_seed(seed: int, fold: int) -> int:
    """The seed of a fold. The first fold has that of the run, so it is the same with and without the others."""
    return seed_of(seed, "fold", fold) if fold else seed


def collect(results: Mapping[str, xr.DataTree], *, seed: int) -> xr.DataTree:
    """The tree of a run: a group for each method, its folds joined and summarised.

    Parameters
    ----------
    results
        What `judge` said, by the names of the cells, in the order of the folds.
    """
    console.print("[bold]figures and their intervals over people[/]", highlight=False)
    parts: dict[str, list[xr.DataTree]] = {}
    for name, tree in results.items():
        parts.setdefault(name.split("/")[0], []).append(tree)
    return xr.DataTree.from_dict({name: summarise(join(folds), seed=seed) for name, folds in parts.items()})


def summarise(tree: xr.DataTree, *, seed: int) -> xr.DataTree:
    """Add to what `judge` or `join` returns its figures with intervals over people.

    These are the groups `metrics`, `metrics/raw`, `attribution`, `gain` and `control/<name>/metrics`.
    """
    attributions = {name: part.to_dataset(inherit=False) for name, part in tree["attribution"].children.items()}
    summary = analysis.summarise(attributions, against=MEAN, seed=seed)
    groups = {node.path: node.to_dataset(inherit=False) for node in tree.subtree}
    for path in [path for path in groups if path.startswith("/attribution")]:
        del groups[path]
    groups |= {
        "/metrics": analysis.evaluate(tree, seed=seed),
        "/attribution": xr.Dataset.from_dataframe(summary),
        **{f"/attribution/{name}": part for name, part in attributions.items()},
        "/gain": xr.Dataset.from_dataframe(gains(attributions, RIVALS, seed)),
        "/metrics/raw": analysis.evaluate(_with_logits(tree, "raw"), only=RAW, seed=seed),
        **{
            f"/control/{name}/metrics": analysis.evaluate(
                _with_logits(tree, f"control/{name}"), only=OF_CONTROLS, seed=seed
            )
            for name in CONTROLS
        },
    }
    return xr.DataTree.from_dict(groups)


def _with_logits(tree: xr.DataTree, below: str) -> xr.DataTree:
    """The same images with the logits below another group: those before recalibration, or those of a control."""
    known = {path: tree[path].to_dataset() for path in ("observed_data", "constant_data")}
    return xr.DataTree.from_dict({**known, "posterior_predictive": tree[f"{below}/posterior_predictive"].to_dataset()})


def join(folds: Sequence[xr.DataTree]) -> xr.DataTree:
    """The folds of a method as one tree. A single fold stays as it is.

    Parameters
    ----------
    folds
        What `judge` said of each fold.

    Returns
    -------
    xr.DataTree
        Groups with a dimension `image` hold the images of all folds, with a coordinate `fold` (image). The numbers of
        images go on from fold to fold. In `attribution/<feature set>`, `inner_fold` says which of the fold's
        classifiers judged an image. All other groups, such as the posterior of the weights, are of one detector: they
        stand below `folds/<k>`. `sample_stats` has attributes alone: `converged` if all fits have, and their verdicts.

    Warns
    -----
    BayesdfWarning
        The folds have unequal numbers of draws. The joined logits are then the first draws of each.
    """
    if len(folds) == 1:
        return folds[0]
    folds = _of_equal_draws(folds)
    parts = [{node.path: node.to_dataset(inherit=False) for node in tree.subtree} for tree in folds]
    judged = [part["/observed_data"].sizes["image"] for part in parts]
    shared = {name: value for name, value in parts[0]["/"].attrs.items() if _same([part["/"] for part in parts], name)}
    groups = {"/": xr.Dataset(attrs={**shared, "folds": len(folds)})}
    for path, first in parts[0].items():
        if "image" in first.dims:
            groups[path] = _side_by_side([part[path] for part in parts], judged)
        elif path == "/" or first.variables or first.attrs:
            groups |= {f"/{FOLDS}/{fold}{path}".rstrip("/"): part[path] for fold, part in enumerate(parts)}
    groups["/sample_stats"] = xr.Dataset(attrs=_verdicts(folds))
    return xr.DataTree.from_dict(groups)


def _side_by_side(parts: Sequence[xr.Dataset], judged: Sequence[int]) -> xr.Dataset:
    """One group of all folds. Numbers of images and of clusters go on from fold to fold.

    Parameters
    ----------
    judged
        How many images each fold judged; a group may hold some of them.
    """
    numbered, images, clusters = [], 0, 0
    for fold, part in enumerate(parts):
        if "fold" in part:  # of `analysis.attribute`: the classifiers of one fold have folds of their own
            part = part.rename(fold="inner_fold").assign_attrs(inner_folds=part.attrs["folds"])
            del part.attrs["folds"]
        if "cluster" in part.coords:
            part = part.assign_coords(cluster=part["cluster"] + clusters)
            clusters = int(part["cluster"].max()) + 1
        part = part.assign_coords(image=part["image"] + images, fold=("image", np.full(part.sizes["image"], fold)))
        images += judged[fold]
        numbered.append(part)
    joined = xr.concat(
        numbered, "image", data_vars="minimal", coords="minimal", compat="equals", join="exact", combine_attrs="drop"
    )
    return joined.assign_attrs(
        {
            name: value if _same(numbered, name) else [part.attrs.get(name) for part in numbered]
            for name, value in numbered[0].attrs.items()
        }
    )


def _same(parts: Sequence[xr.Dataset], name: str) -> bool:
    """Whether all parts have the same attribute of this name."""
    return all(name in part.attrs and part.attrs[name] == parts[0].attrs[name] for part in parts)


def _of_equal_draws(folds: Sequence[xr.DataTree]) -> list[xr.DataTree]:
    """The folds with as many of their logits' chains and draws as the one that has fewest."""
    sizes = [tree["posterior_predictive"].to_dataset().sizes for tree in folds]
    fewest = {dim: slice(min(size[dim] for size in sizes)) for dim in ("chain", "draw")}
    if all(size[dim] == fewest[dim].stop for size in sizes for dim in fewest):
        return list(folds)
    draws = ", ".join(str(size["chain"] * size["draw"]) for size in sizes)
    warnings.warn(
        f"the folds have {draws} draws: the joined logits are the first {fewest['draw'].stop} of each chain",
        BayesdfWarning,
        stacklevel=3,
    )
    cut = []
    for tree in folds:
        groups = {node.path: node.to_dataset(inherit=False) for node in tree.subtree}
        groups |= {path: group.isel(fewest) for path, group in groups.items() if path.endswith("/posterior_predictive")}
        tree = xr.DataTree.from_dict(groups)
        tree["uncertainty"] = xr.DataTree(analysis.decompose(tree))
        cut.append(tree)
    return cut


def _verdicts(folds: Sequence[xr.DataTree]) -> dict[str, int | str]:
    """What the fits of all folds said of themselves, as one."""
    said: dict[str, list[str]] = {}
    for fold, tree in enumerate(folds):
        if not converged(tree):
            said.setdefault(verdict(tree).removeprefix("NOT converged: "), []).append(str(fold))
    if not said:
        return {"converged": 1, "verdict": f"converged: in all {len(folds)} folds"}
    return {
        "converged": 0,
        "verdict": "NOT converged: " + "; ".join(f"fold {', '.join(which)}: {text}" for text, which in said.items()),
    }

"""What could make the claim true: does any posterior's uncertainty name more generators than noise of its size does?

    python benchmarks/claim.py --out runs/claim

The main job asks this of one part of the network and two methods. Here more of the network is random, more methods are
asked, two detectors stand side by side, and the detector answers the multi-class task. A row of the table is a
posterior on the embedded data (fold 0), with the share of fakes whose generator is named from its scalars and from
scalars and profile, the same for noise of its size that nothing was fitted to, and the paired differences with 95 %
intervals over people. Each share is a mean over several sets of draws: other draws of one posterior name other fakes.
Rows that are in `claim.csv` are not run again.

- In the multi-class task the labels name the generators. The noise is around a maximum of the same posterior there
  (MAP), and the mean probability is that of all ten classes.
- Two detectors: half of the draws are of each. The noise is so too.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
import xarray as xr
from torch import nn

import bayesdf.analysis as analysis
import bayesdf.data as data
from bayesdf.cli import console, run_cli
from bayesdf.errors import BayesdfError
from bayesdf.experiments import warm_start
from bayesdf.experiments.posteriors import draws_per_chain
from bayesdf.experiments.source_attribution.feature_sets import MEAN, feature_sets
from bayesdf.experiments.source_attribution.methods import LAST_LAYER, method
from bayesdf.experiments.source_attribution.study import linked
from bayesdf.inference import MAP, MCDropout, Posterior, matched_noise
from bayesdf.models import Detector, classifier
from bayesdf.report.methods import METHODS

Trees = list[xr.DataTree]
"""What draws say of the validation and of the test people."""


@dataclass(frozen=True)
class Case:
    """A row: what is random, by which method, of which detectors, on which task."""

    sites: warm_start.Sites
    method: str
    detectors: tuple[str, ...] = ("resnet10t_half",)
    task: data.Task = "binary"

    @property
    def name(self) -> str:
        extra = [" and ".join(self.detectors)] if len(self.detectors) > 1 else []
        return ", ".join(
            [METHODS[self.method], self.sites, *extra, *(["multi-class"] if self.task != "binary" else [])]
        )


BOTH = ("resnet10t_half", "resnet10t")
CASES = (
    *(Case("classifier", name) for name in ("laplace_full", "svi", "nuts", "sghmc", "deep_ensemble", "swag")),
    *(Case("normalisation", name) for name in ("svi", "svi_lowrank", "sghmc", "deep_ensemble")),
    *(Case("block", name) for name in ("svi", "mc_dropout", "deep_ensemble")),
    Case("network", "svi"),
    *(Case("classifier", name, task="multiclass") for name in ("svi", "laplace_full")),
    *(Case("classifier", name, BOTH) for name in ("laplace_full", "svi")),
)
COMPARED = {"scalars": ("uncertainty_scalars", "noise_scalars"), "both": ("uncertainty", "noise")}
"""The sets of features of a posterior, and the noise's."""
SHOWN = (*COMPARED["scalars"], *COMPARED["both"], MEAN, "random_projection_scalars", "random_projection")


def fitted(case: Case, detector: str, collection: data.Collection, seed: int) -> tuple[Posterior, Posterior, Posterior]:
    """The posterior of a case, noise of its size around what it began with, and around an untrained network."""
    binary = data.relabel(collection, "binary")
    start = warm_start.start(detector, binary, seed=seed)
    untrained = warm_start.build_untrained(detector, collection, seed=seed)
    network = start if case.task == "binary" else _with_classes(start, untrained)
    priors = warm_start.default_priors(detector, network, "classifier" if case.method in LAST_LAYER else case.sites)
    given = Detector(network, priors)
    fitting = method(case.method, seed=seed, device="auto")
    validation = collection.val if isinstance(fitting, MCDropout) else None
    posterior = fitting.fit(given, collection.train, validation)  # type: ignore[attr-defined]
    centre = network
    if case.task != "binary":
        centre = MAP(freeze="prefix", augment=data.augment, views=2, seed=seed).fit(given, collection.train).network
    return posterior, matched_noise(posterior, centre), matched_noise(posterior, untrained)


def _with_classes(start: nn.Module, untrained: nn.Module) -> nn.Module:
    """The untrained multi-class network with all weights of a binary one but the classifier's."""
    head = classifier(untrained)
    state = {name: value for name, value in start.state_dict().items() if not name.startswith(f"{head}.")}
    untrained.load_state_dict(state, strict=False)
    return untrained


def predicted(posteriors: Sequence[Posterior], collection: data.Collection, draws: int, seed: int) -> Trees:
    """Predictions of validation and test people, recalibrated to the former; draws of all detectors together."""
    parts = []
    for part in (collection.val, collection.test):
        trees = [
            one.predict(part, draws_per_chain(one, draws // len(posteriors)), seed, penultimate=True)
            for one in posteriors
        ]
        parts.append(trees[0] if len(trees) == 1 else _together(trees))
    scaling = analysis.fit_scaling(parts[0])
    return [analysis.rescale(tree, scaling) for tree in parts]


def _together(trees: Trees) -> xr.DataTree:
    """One tree with the draws of all."""
    flat = [
        tree["posterior_predictive"].to_dataset().stack(all=("chain", "draw")).reset_index("all", drop=True)
        for tree in trees
    ]
    joined = xr.concat(flat, "all").rename(all="draw").expand_dims("chain", 0)
    joined = joined.transpose("chain", "draw", ...).assign_coords(chain=[0], draw=range(joined.sizes["draw"]))
    groups = {node.path: node.to_dataset(inherit=False) for node in trees[0].subtree}
    return xr.DataTree.from_dict({**groups, "/posterior_predictive": joined})


def row(case: Case, collection: data.Collection, draws: int, sets_of_draws: int, seed: int) -> dict[str, Any]:
    """What one case says."""
    began = time.monotonic()
    collection = data.relabel(collection, case.task)
    sets = [fitted(case, detector, collection, seed) for detector in case.detectors]
    seconds = time.monotonic() - began
    together = linked([part.manifest for part in (collection.val, collection.test)])
    right: dict[str, list[xr.DataArray]] = {}
    for which in range(sets_of_draws):
        own, noise, untrained = (predicted(given, collection, draws, seed + which) for given in zip(*sets, strict=True))
        for name, part in feature_sets(own, noise, untrained, seed + which).items():
            if name in SHOWN:
                named = analysis.attribute(
                    part, subject_groups=together, fit_only=part["split"].values != "test", seed=seed
                )
                right.setdefault(name, []).append((named["prediction"] == named["truth"]).astype(float))
    mean = {name: sum(parts) / len(parts) for name, parts in right.items()}
    converged = all(bool(posterior.sample_stats.attrs["converged"]) for posterior, *_ in sets)
    found: dict[str, Any] = {"case": case.name, "converged": converged}
    people = {**analysis.design(named, named.sizes["image"]), "strata": named["truth"].values}
    for short, (own_set, rival) in COMPARED.items():
        difference = analysis.cluster_bootstrap(np.mean, [(mean[own_set] - mean[rival]).values], **people, seed=seed)
        found |= {short: float(mean[own_set].mean()), f"{short}_noise": float(mean[rival].mean())}
        found |= {f"{short}_difference": difference.value}
        found |= {f"{short}_low": difference.low, f"{short}_high": difference.high}
        found[f"{short}_sd"] = float(np.std([part.mean() for part in right[own_set]], ddof=1))
    found |= {name: float(mean[name].mean()) for name in SHOWN[len(COMPARED) * 2 :]}
    if case.task == "binary":
        figures = analysis.evaluate(own[-1], only=("auroc", "balanced_accuracy", "ece"), seed=seed)
        found |= {name: float(figures[name].sel(estimate="value")) for name in ("auroc", "balanced_accuracy", "ece")}
    return {**found, "fit_seconds": seconds}


def main(
    out: Annotated[Path, typer.Option(help="Folder of claim.csv.")] = Path("runs/claim"),
    draws: Annotated[int, typer.Option(help="Posterior draws for each image.", min=4)] = 50,
    sets_of_draws: Annotated[
        int, typer.Option(help="Sets of so many draws, over which shares are averaged.", min=2)
    ] = 4,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    only: Annotated[str, typer.Option(help="Only cases whose name holds this.")] = "",
) -> None:
    """Run the cases that are not in the table yet, and print it."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "claim.csv"
    rows = pd.read_csv(path).to_dict("records") if path.is_file() else []
    collection = data.load("embedded", "binary")
    for case in CASES:
        if only not in case.name or case.name in {one["case"] for one in rows}:
            continue
        console.print(f"[bold]{case.name}[/]", highlight=False)
        try:
            rows.append(row(case, collection, draws, sets_of_draws, seed))
        except BayesdfError as error:  # one case may diverge: the others go on
            console.print(f"no row: {error}", markup=False)
            continue
        pd.DataFrame(rows).to_csv(path, index=False)
    with pd.option_context("display.width", 250, "display.max_columns", None, "display.float_format", "{:.3f}".format):
        print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    run_cli(main)

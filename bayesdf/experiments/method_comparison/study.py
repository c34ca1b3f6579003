"""From settings to DataTrees: one posterior by one method and seed is a cell."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr
from torch import nn

import bayesdf.analysis as analysis
import bayesdf.data as data
from bayesdf._version import __version__
from bayesdf.analysis.intervals import to_dataset
from bayesdf.cli import console
from bayesdf.experiments import warm_start
from bayesdf.experiments.experiment import Cell, Study
from bayesdf.experiments.method_comparison.cost import cost
from bayesdf.experiments.method_comparison.methods import FACTORIES, PRIOR_SCALE, Budget, method, shared_priors
from bayesdf.experiments.method_comparison.page import present
from bayesdf.experiments.posteriors import draws_per_chain, load_finished
from bayesdf.experiments.quick import thin
from bayesdf.inference import Posterior
from bayesdf.models import Detector
from bayesdf.report.methods import METHODS

LEFT_OUT = "left_out"
"""The group, below a method and a seed, of the results for the generator that was left out."""


def study(
    *,
    data_: str,
    detector: str,
    methods: Sequence[str],
    left_out: str,
    draws: int,
    epochs: int,
    seeds: int,
    warm_epochs: int,
    size: int,
    seed: int,
    device: str,
    skip_unreadable: float,
    split: str,
    fractions: tuple[float, float, float] | None,
    quick: bool,
) -> Study:
    """Declare the study: load the images, leave one generator out, and make a cell for each method and seed.

    Parameters
    ----------
    methods
        Names of `FACTORIES`, in their order there.
    fractions
        The shares of `split` as numbers.
    others
        As on the command line.

    Raises
    ------
    BayesdfError
        The images cannot be read, or there is no such generator to leave out.
    """
    console.print(f"images: {data_}, without {left_out}", markup=False, highlight=False)
    collection = data.load(data_, "binary", size=size, fractions=fractions, seed=seed, skip_unreadable=skip_unreadable)
    if quick:
        (collection,) = thin(collection)
    console.print(f"    {data.describe_people(collection.manifest)}", markup=False, highlight=False, soft_wrap=True)
    rest, unseen = data.leave_out(collection, left_out)
    budget = Budget(epochs, draws, quick)
    settings = {
        "bayesdf": __version__,
        "data": data_,
        "detector": detector,
        "left_out": left_out,
        **asdict(budget),
        "warm_epochs": warm_epochs,
        "size": size,
        "seed": seed,
        "skip_unreadable": skip_unreadable,
        "split": split,
    }
    # Not the methods asked for, nor how many seeds or the device: what is finished serves another choice of these.
    blank, image = warm_start.build_untrained(detector, rest), rest.train[0][0][None]
    recipes = {name: method(name, blank, image, budget, seed=seed, device="auto").settings() for name in FACTORIES}

    def work(name: str, own_seed: int, folder: Path) -> xr.DataTree:
        # The first cell of a run makes the start where none ships; the others read it.
        network = warm_start.start(
            detector,
            rest,
            "sources",
            keep=folder / "warm_start.safetensors",
            epochs=warm_epochs,
            seed=seed,
            device=device,
        )
        posterior = fit(name, own_seed, network, rest.train, budget, folder, device)
        return judge(posterior, rest.test, unseen, budget, own_seed, device)

    attrs = {"seeds": seeds, "method": ",".join(methods), "device": device}
    return Study(
        name="method_comparison",
        settings=settings,
        follows={
            "fingerprint": collection.fingerprint,
            "start": warm_start.digest(detector, rest, "sources"),
            "prior_scale": PRIOR_SCALE,
            "methods": recipes,
        },
        cells=[
            Cell(f"{name}/{own_seed}", f"{METHODS[name]}, seed {own_seed}", partial(work, name, own_seed))
            for own_seed in range(seed, seed + seeds)
            for name in methods
        ],
        present=partial(present, collection=rest, unseen=unseen.manifest, settings={**settings, **attrs}),
        collect=_in_order,
        attrs={
            **attrs,
            "data_fingerprint": rest.fingerprint,
            "cautions": data.people_cautions(rest.manifest),
        },
    )


def fit(
    name: str, seed: int, network: nn.Module, train: data.ImageDataset, budget: Budget, folder: Path, device: str
) -> Posterior:
    """The posterior by one method; from the folder where a stopped run left it.

    Its attribute `fit_resumed` is 1 where the fit was stopped and taken up again: then `fit_seconds` are not the time
    of the whole fit.
    """
    path = folder / "posteriors" / f"{name}-{seed}.zarr"
    posterior = load_finished(path)
    if posterior is not None:
        return posterior
    checkpoint = path.with_suffix(".pt")
    resumed = any(checkpoint.parent.glob(f"{checkpoint.name}*"))
    fitting = method(name, network, train[0][0][None], budget, seed=seed, device=device, checkpoint=checkpoint)
    posterior = fitting.fit(Detector(network, shared_priors(network)), train)  # type: ignore[attr-defined]
    posterior.attrs["fit_resumed"] = int(resumed)
    posterior.save(path)
    fitting.forget()
    return posterior


def judge(
    posterior: Posterior, seen: data.ImageDataset, unseen: data.ImageDataset, budget: Budget, seed: int, device: str
) -> xr.DataTree:
    """Predict, decompose, evaluate and time: everything the study says of one posterior.

    Parameters
    ----------
    seen, unseen
        Test images of the sources that the detector learnt, and of the generator that was left out.
    budget
        Its draws are of all chains together. A posterior that holds fewer gives all it has, and a point gives one.

    Returns
    -------
    xr.DataTree
        What `Posterior.predict` returns for the seen sources, and the groups `uncertainty`, `metrics` (over `estimate`)
        and `cost`. Below `left_out`, the predictions and uncertainties of the generator that was left out.
    """
    each = draws_per_chain(posterior, budget.draws)
    known, unknown = (posterior.predict(part, draws=each, seed=seed, device=device) for part in (seen, unseen))
    total = each * posterior.sampler.chains
    spent = cost(posterior, seen, total, seed=seed, device=device)
    whole = not posterior.attrs.get("fit_resumed", 0)
    spent["fit_seconds"] = float(posterior.attrs["fit_seconds"]) if whole else np.nan
    spent["draws"] = total
    groups = {
        **_groups(known, "/", ("posterior", "sample_stats", "posterior_predictive", "observed_data", "constant_data")),
        "/uncertainty": analysis.decompose(known),
        "/metrics": evaluate(known, unknown, seed, 100 if budget.quick else 1000),
        "/cost": spent,
        **_groups(unknown, f"/{LEFT_OUT}/", ("posterior_predictive", "observed_data", "constant_data")),
        f"/{LEFT_OUT}/uncertainty": analysis.decompose(unknown),
    }
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=known.attrs), **groups})


def evaluate(known: xr.DataTree, unknown: xr.DataTree, seed: int, resamples: int) -> xr.Dataset:
    """Every figure of one posterior with its 95 % interval over people.

    Returns
    -------
    xr.Dataset
        Over `estimate`: what `analysis.evaluate` gives for the seen sources, and `aurc`. `ood_auroc_epistemic` and
        `ood_auroc_total` say how well each uncertainty tells the left-out generator from all seen sources. `caught` is
        the share of its images that are called fake.
    """
    uncertainty = analysis.decompose(unknown)
    fake = (uncertainty["prediction"] == uncertainty["label"]).values.astype(float)
    own = {
        "aurc": analysis.aurc(known, resamples=resamples, seed=seed),
        "ood_auroc_epistemic": analysis.ood_auroc(known, unknown, by="epistemic", resamples=resamples, seed=seed),
        "ood_auroc_total": analysis.ood_auroc(known, unknown, by="total", resamples=resamples, seed=seed),
        "caught": analysis.cluster_bootstrap(
            np.mean,
            [fake],
            **analysis.design(uncertainty, len(fake)),
            share=np.ones(len(fake)),
            resamples=resamples,
            seed=seed,
        ),
    }
    evaluated = analysis.evaluate(known, resamples=resamples, seed=seed)
    return xr.merge([evaluated, to_dataset(own)], combine_attrs="override")


def _groups(tree: xr.DataTree, below: str, names: tuple[str, ...]) -> Mapping[str, xr.Dataset]:
    return {f"{below}{name}": tree.children[name].to_dataset(inherit=False) for name in names if name in tree.children}


def _in_order(results: Mapping[str, xr.DataTree]) -> xr.DataTree:
    """The run's DataTree: methods in the order of `FACTORIES`, seeds by number."""

    def place(path: str) -> tuple[int, int]:
        name, seed = path.split("/")
        return list(FACTORIES).index(name), int(seed)

    return xr.DataTree.from_dict({path: results[path] for path in sorted(results, key=place)})

"""One posterior: fit it, let it predict, and say how good it is. Everything but the presentation."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr
from torch import nn

import bayesdf.analysis as analysis
import bayesdf.data as data
from bayesdf.analysis.intervals import to_dataset
from bayesdf.experiments.method_comparison.cost import cost
from bayesdf.experiments.method_comparison.methods import Budget, method, shared_priors
from bayesdf.experiments.run import finished
from bayesdf.inference import Posterior
from bayesdf.inference.samplers import DeltaSampler
from bayesdf.models import Detector

LEFT_OUT = "left_out"
"""The group, below a method and a seed, of what is said of the generator that was left out."""


def fitted(
    name: str, seed: int, network: nn.Module, train: data.ImageDataset, budget: Budget, folder: Path, device: str
) -> Posterior:
    """The posterior by one method; from the folder where a stopped run left it.

    Its attribute `fit_resumed` is 1 where a stopped fit was taken up, so that `fit_seconds` are not of all of it.
    """
    path = folder / "posteriors" / f"{name}-{seed}.zarr"
    posterior = finished(path)
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


def judged(
    posterior: Posterior, seen: data.ImageDataset, unseen: data.ImageDataset, budget: Budget, seed: int, device: str
) -> xr.DataTree:
    """Predict and judge: everything the study says of one posterior.

    Parameters
    ----------
    seen, unseen
        Test images of the sources that the detector learnt, and of the generator that was left out.
    budget
        Its draws are of all chains together; a posterior that holds fewer gives all it has, and one of a single point
        that.

    Returns
    -------
    xr.DataTree
        What `Posterior.predict` returns for the seen sources, and the groups `uncertainty`, `metrics` (over `estimate`)
        and `cost`; below `left_out` the predictions and uncertainties of the generator that was left out.
    """
    sampler = posterior.sampler
    each = 1 if isinstance(sampler, DeltaSampler) else -(-budget.draws // sampler.chains)
    each = each if sampler.capacity is None else min(each, sampler.capacity)
    known, unknown = (posterior.predict(part, draws=each, seed=seed, device=device) for part in (seen, unseen))
    total = each * sampler.chains
    price = cost(posterior, seen, total, seed=seed, device=device)
    whole = not posterior.attrs.get("fit_resumed", 0)
    price["fit_seconds"] = float(posterior.attrs["fit_seconds"]) if whole else np.nan
    price["draws"] = total
    groups = {
        **_groups(known, "/", ("posterior", "sample_stats", "posterior_predictive", "observed_data", "constant_data")),
        "/uncertainty": analysis.decompose(known),
        "/metrics": metrics(known, unknown, seed, 100 if budget.quick else 1000),
        "/cost": price,
        **_groups(unknown, f"/{LEFT_OUT}/", ("posterior_predictive", "observed_data", "constant_data")),
        f"/{LEFT_OUT}/uncertainty": analysis.decompose(unknown),
    }
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=known.attrs), **groups})


def metrics(known: xr.DataTree, unknown: xr.DataTree, seed: int, resamples: int) -> xr.Dataset:
    """Every figure of one posterior with its 95 % interval over people.

    Returns
    -------
    xr.Dataset
        Over `estimate`, what `analysis.evaluate` gives for the seen sources, and `aurc`; `ood_auroc_epistemic` and
        `ood_auroc_total`, by which uncertainty tells the left-out generator from all seen sources; `caught`, the share
        of its images that are called fake.
    """
    told = analysis.decompose(unknown)
    fake = (told["prediction"] == told["label"]).values.astype(float)
    own = {
        "aurc": analysis.aurc(known, resamples=resamples, seed=seed),
        "ood_auroc_epistemic": analysis.ood_auroc(known, unknown, by="epistemic", resamples=resamples, seed=seed),
        "ood_auroc_total": analysis.ood_auroc(known, unknown, by="total", resamples=resamples, seed=seed),
        "caught": analysis.cluster_bootstrap(
            np.mean, [fake], **analysis.design(told, len(fake)), resamples=resamples, seed=seed
        ),
    }
    evaluated = analysis.evaluate(known, resamples=resamples, seed=seed)
    return xr.merge([evaluated, to_dataset(own)], combine_attrs="override")


def _groups(tree: xr.DataTree, below: str, names: tuple[str, ...]) -> Mapping[str, xr.Dataset]:
    return {f"{below}{name}": tree.children[name].to_dataset(inherit=False) for name in names if name in tree.children}

"""How good are a method's answers, and does attribution notice a generator that it does not know?"""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

import bayesdf.analysis as analysis
from bayesdf.analysis.detection import negative_log_likelihood
from bayesdf.experiments.inversion.names import SCORES
from bayesdf.experiments.inversion.pictures import Pictures
from bayesdf.inversion import NONE, fit_attribution


def by_smallest_error(found: xr.Dataset) -> xr.Dataset:
    """Attribution by the smallest loss alone: it names a candidate for every picture, and knows no probabilities."""
    names = found["candidate"].values
    prediction = names[found["loss"].values.argmin(1)]
    return xr.Dataset(
        {"prediction": ("image", prediction), "truth": ("image", found["source"].values)},
        coords={"cluster": ("image", found["subject"].values)},
    )


def correct_by_condition(
    answers: Sequence[Mapping[str, xr.Dataset]], pictures: Pictures, conditions: Sequence[tuple[str, float]]
) -> xr.Dataset:
    """Which picture each method judged rightly under each condition.

    Classifiers cannot refuse. Where a method can, the most probable of the sources that have a name counts, and
    `refused` says where `none of these` was more probable still.
    """
    methods = list(answers[0])
    named = [[_named(one[method]) for one in answers] for method in methods]
    truth = answers[0][methods[0]]["truth"].values
    refused = [[(one[method]["prediction"] == NONE).values for one in answers] for method in methods]
    kinds, strengths = zip(*conditions, strict=True)
    dims = ("method", "condition", "image")
    return xr.Dataset(
        {"right": (dims, np.array(named) == truth), "refused": (dims, np.array(refused))},
        coords={
            "method": methods,
            "kind": ("condition", list(kinds)),
            "strength": ("condition", np.array(strengths)),
            "source": ("image", pictures.source),
            "subject": ("image", pictures.subject),
        },
    )


def _named(answer: xr.Dataset) -> NDArray[np.str_]:
    """The most probable source that has a name."""
    if "probability" not in answer or NONE not in answer["source"].values:
        return answer["prediction"].values
    names = answer["source"].values
    return names[np.where(names == NONE, -1.0, answer["probability"].values).argmax(1)]


def summary(answers: Mapping[str, xr.Dataset], candidates: Sequence[str], seed: int) -> xr.Dataset:
    """Figures of each method over `estimate` = value, low, high.

    `accuracy_candidates` (of the candidates' own samples), and where the method knows all sources, `accuracy`,
    `log_loss` (nats) and `ece`. Intervals resample people, or pictures where they are of nobody.
    """
    rows = []
    for answer in answers.values():
        right = (answer["prediction"] == answer["truth"]).values.astype(np.float64)
        own = np.isin(answer["truth"].values, candidates)
        cluster = answer["cluster"].values
        figures = {
            "accuracy_candidates": analysis.cluster_bootstrap(
                np.mean, [right[own]], cluster[own], share=np.ones(own.sum()), seed=seed
            )
        }
        if "probability" in answer:
            probability = answer["probability"].values
            names = list(answer["source"].values)
            label = np.array([names.index(name) for name in answer["truth"].values])
            log_p = np.log(np.maximum(probability, 1e-12))
            figures |= {
                "accuracy": analysis.cluster_bootstrap(np.mean, [right], cluster, share=np.ones(len(right)), seed=seed),
                "log_loss": analysis.cluster_bootstrap(negative_log_likelihood, [log_p, label], cluster, seed=seed),
                "ece": analysis.cluster_bootstrap(
                    analysis.expected_calibration_error, [probability, label], cluster, seed=seed
                ),
            }
        rows.append(figures)
    nothing = analysis.Estimate(np.nan, np.nan, np.nan)
    return xr.Dataset(
        {key: (("method", "estimate"), np.array([row.get(key, nothing) for row in rows])) for key in SCORES},
        coords={"method": list(answers), "estimate": list(analysis.Estimate._fields)},
    )


def with_one_left_out(calibration: xr.DataArray, judged: xr.DataArray, seed: int) -> xr.Dataset:
    """Log-odds of `none of these` for every picture when one candidate is unknown: neither inverted nor calibrated."""
    names = [str(name) for name in judged["candidate"].values]
    odds = []
    for name in names:
        others = [other for other in names if other != name]
        known = calibration.sel(candidate=others).isel(image=np.flatnonzero(calibration["source"].values != name))
        model = fit_attribution(known, seed=seed)
        with np.errstate(divide="ignore"):
            joint = model.log_likelihood(judged.sel(candidate=others)).values + np.log(model.prior)
        place = model.sources.index(NONE)
        odds.append(joint[:, place] - np.logaddexp.reduce(np.delete(joint, place, 1), 1))
    return xr.Dataset(
        {"none": (("left_out", "image"), np.array(odds))},
        coords={
            "left_out": names,
            "source": ("image", judged["source"].values),
            "subject": ("image", judged["subject"].values),
        },
    )

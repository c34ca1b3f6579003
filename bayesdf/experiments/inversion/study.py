"""Does attribution by inversion work, and does it stand where a classifier falls? Everything but the presentation."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesdf.cli import console
from bayesdf.data import REAL, common_path_grey
from bayesdf.experiments.inversion.attacks import adaptive, deceiving
from bayesdf.experiments.inversion.classifier import classify, trained
from bayesdf.experiments.inversion.explanation import explanations, inverted
from bayesdf.experiments.inversion.pictures import ROLES, Pictures, drawn, first
from bayesdf.experiments.inversion.plan import Plan
from bayesdf.experiments.inversion.scores import hits, left_out, nearest, summary
from bayesdf.experiments.inversion.throughput import throughput
from bayesdf.experiments.inversion.work import WORK, kept
from bayesdf.experiments.seeds import seed_of
from bayesdf.generators import Generator
from bayesdf.inversion import Inversion, fit_attribution, forgiving, perturb, perturb_at_random
from bayesdf.inversion.perturbations import LEVELS
from bayesdf.report import inversion as presentation

_COUNTS = {"calibration": "calibration", "test": "images", "train": "train"}


def study(
    folder: Path, sources: Mapping[str, Generator], candidates: Mapping[str, Generator], plan: Plan
) -> xr.DataTree:
    """Everything but the presentation.

    Parameters
    ----------
    folder
        What is finished is kept in `folder/work`, and the same call goes on from it. The calibrated attribution is
        written to `folder/attribution.zarr`.
    sources
        Generators that make pictures, by name; photographs come on top.
    candidates
        Those of them that are inverted.

    Returns
    -------
    xr.DataTree
        `attribution`: a row a method, and below it a group for each with `probability` (image, source). `evidence`:
        what inversion tells of the judged pictures. `robustness`, `attack`: `right` and `refused` (method, condition,
        image). `open_set`: `none` (left_out, image), log-odds of `none of these`. `examples`: pictures and
        reconstructions. `throughput`: by candidate.
    """
    work = folder / WORK
    searched = {name: forgiving(one) if plan.forgiving else one for name, one in candidates.items()}
    names = sorted([REAL, *sources])
    console.print(f"[bold]1/5[/] pictures of {len(names)} sources")
    raw = {role: drawn(work, sources, role, getattr(plan, _COUNTS[role]), plan.seed) for role in ROLES}
    common = {role: part.showing(common_path_grey(part.images)) for role, part in raw.items()}
    eight_bits = {role: raw[role].showing(common_path_grey(raw[role].images, None)) for role in ("calibration", "test")}

    console.print("[bold]2/5[/] classifiers")
    networks = {
        name: trained(work, common["train"], names, plan, augment=name == "classifier_augmented")
        for name in ("classifier", "classifier_augmented")
    }

    console.print(f"[bold]3/5[/] inversion by {', '.join(candidates)}")
    speed = kept(work / "throughput.npz", lambda: throughput(searched, common["test"], plan))
    rows = first(common["test"], [REAL, *candidates], plan.disturbed)
    few = common["test"].take(rows)
    at_random = perturb_at_random(common["calibration"].images, seed_of(plan.seed, "calibration"))
    seed = seed_of(plan.seed, "perturbation")
    treated = [perturb(few.images, name, strength, seed) for name, strength in plan.conditions]
    sets = {
        "clean calibration": eight_bits["calibration"],
        "clean test": eight_bits["test"],
        "calibration": common["calibration"],
        "disturbed calibration": common["calibration"].showing(at_random),
        "test": common["test"],
        "disturbed": few.showing(np.concatenate(treated)),
        "deceiving": few.showing(np.concatenate(deceiving(work, few, names, networks, plan))),
    }
    whole = inverted(work, "pictures", np.concatenate([part.images for part in sets.values()]), searched, plan)
    bounds = np.cumsum([0, *(len(part) for part in sets.values())])
    parts = {name: slice(*bounds[i : i + 2]) for i, name in enumerate(sets)}
    found = {name: {key: one.take(part) for key, one in whole.items()} for name, part in parts.items()}
    told = {name: explanations(part, found[name]) for name, part in sets.items()}
    console.print("    the attack on inversion itself")
    known = {name: one.take(rows) for name, one in found["test"].items()}
    misleading = few.showing(adaptive(work, few, known, searched, plan))
    told["misleading"] = explanations(misleading, inverted(work, "attacked", misleading.images, searched, plan))

    console.print("[bold]4/5[/] calibration and answers")
    models = {
        "clean": fit_attribution(told["clean calibration"]["evidence"], seed=plan.seed),
        "inversion": fit_attribution(told["calibration"]["evidence"], seed=plan.seed),
        "inversion_augmented": fit_attribution(
            xr.concat([told["calibration"]["evidence"], told["disturbed calibration"]["evidence"]], "image"),
            seed=plan.seed,
        ),
    }
    models["inversion_augmented"].save(folder / "attribution.zarr", overwrite=True)

    def judge(pictures: Pictures, explained: xr.Dataset) -> dict[str, xr.Dataset]:
        answers = {name: models[name].probability(explained["evidence"]) for name in presentation.INVERTING}
        answers |= {name: classify(network, names, pictures) for name, network in networks.items()}
        return {**answers, "smallest_error": nearest(explained)}

    answers = judge(common["test"], told["test"])
    answers["clean"] = models["clean"].probability(told["clean test"]["evidence"])
    answers["clean_smallest_error"] = nearest(told["clean test"])

    untouched = judge(few, told["test"].isel(image=rows))
    size = len(few)
    conditions = [("none", 0.0), *plan.conditions]
    robustness = hits([untouched, *_parts(judge, sets["disturbed"], told["disturbed"], size)], few, conditions)
    attacked = [*_parts(judge, sets["deceiving"], told["deceiving"], size)]
    attacked += _parts(judge, misleading, told["misleading"], size)
    attacks = [("none", 0.0), *((name, budget) for name in presentation.ATTACKS for budget in plan.budgets)]
    attack = hits([untouched, *attacked], few, attacks)

    console.print("[bold]5/5[/] each candidate left out")
    groups = {
        "/attribution": summary(answers, list(candidates), plan.seed),
        **{f"/attribution/{name}": answers[name] for name in answers if "smallest_error" not in name},
        "/evidence": told["test"],
        "/robustness": robustness,
        "/attack": attack,
        "/open_set": left_out(told["calibration"]["evidence"], told["test"]["evidence"], plan.seed),
        "/examples": _examples(common["test"], found["test"]),
        "/throughput": xr.Dataset(
            {key: ("candidate", value) for key, value in speed.items()}, coords={"candidate": list(candidates)}
        ),
    }
    return xr.DataTree.from_dict(groups)


def _parts(
    judge: Callable[[Pictures, xr.Dataset], dict[str, xr.Dataset]], pictures: Pictures, explained: xr.Dataset, size: int
) -> list[dict[str, xr.Dataset]]:
    """What every method says of each `size` pictures."""
    parts = [np.arange(start, start + size) for start in range(0, len(pictures), size)]
    return [judge(pictures.take(rows), explained.isel(image=rows)) for rows in parts]


def _examples(pictures: Pictures, found: Mapping[str, Inversion], count: int = 4) -> xr.Dataset:
    """Pictures of every source and what each candidate makes of them."""
    rows = first(pictures, sorted(set(pictures.source)), count)
    made = np.stack([one.reconstruction[rows] for one in found.values()])
    return xr.Dataset(
        {
            "picture": (("image", "y", "x"), _bytes(pictures.images[rows])),
            "reconstruction": (("candidate", "image", "y", "x"), _bytes(made)),
            "pixel": (("candidate", "image"), np.stack([one.pixel[rows] for one in found.values()])),
            "loss": (("candidate", "image"), np.stack([one.loss[rows] for one in found.values()])),
        },
        coords={"candidate": list(found), "source": ("image", pictures.source[rows])},
    )


def _bytes(images: NDArray[np.floating]) -> NDArray[np.uint8]:
    return (images.clip(0.0, 1.0) * LEVELS).round().astype(np.uint8)

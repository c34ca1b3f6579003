"""From settings to a DataTree: pictures, classifiers, inversions and answers are one cell."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesdf._version import __version__
from bayesdf.cli import console
from bayesdf.data import REAL, common_path_grey
from bayesdf.experiments.experiment import Cell, Study
from bayesdf.experiments.inversion.attacks import adaptive_attack, attacks_on_classifiers
from bayesdf.experiments.inversion.classifier import classify, load_or_train
from bayesdf.experiments.inversion.evidence import evidence_of, invert_by_candidates
from bayesdf.experiments.inversion.names import ATTACKS, BY_INVERSION
from bayesdf.experiments.inversion.page import present
from bayesdf.experiments.inversion.pictures import ROLES, Pictures, first_rows, load_or_make_pictures
from bayesdf.experiments.inversion.plan import Plan
from bayesdf.experiments.inversion.resumable import SCRATCH, load_or_make
from bayesdf.experiments.inversion.scores import by_smallest_error, correct_by_condition, summary, with_one_left_out
from bayesdf.experiments.inversion.throughput import throughput
from bayesdf.experiments.seeds import seed_of
from bayesdf.generators import Generator
from bayesdf.generators.networks import weights_fingerprint
from bayesdf.inversion import Inversion, fit_attribution, forgiving, perturb, perturb_at_random
from bayesdf.inversion.perturbations import LEVELS

_COUNTS = {"calibration": "calibration", "test": "images", "train": "train"}
"""For each role the field of `Plan` that says how many pictures of a source it takes."""


def study(
    *, sources: Mapping[str, Generator], candidates: Mapping[str, Generator], plan: Plan, quick: bool = False
) -> Study:
    """Declare the study.

    Parameters
    ----------
    sources
        Generators that make pictures, by name; photographs come on top.
    candidates
        Those of them that are inverted.
    plan
        How much of everything.
    quick
        Whether this is a quick look, which the page says.
    """
    everything = {
        "bayesdf": __version__,
        "candidates": ",".join(candidates),
        **asdict(plan),
        "weights": weights_fingerprint(),
    }
    settings = {name: everything[name] for name in ("bayesdf", "candidates", "images", "steps", "forgiving", "seed")}
    follows = {name: value for name, value in everything.items() if name not in settings}
    title = f"{len(sources) + 1} sources, {plan.images} pictures of each, {len(candidates)} candidates"
    return Study(
        name="inversion",
        settings=settings,
        follows=follows,
        cells=[Cell("inversion", title, partial(work, sources, candidates, plan))],
        present=present,
        collect=lambda results: results["inversion"],
        attrs={**follows, "quick": quick},
        scratch=[SCRATCH],
    )


def work(
    sources: Mapping[str, Generator], candidates: Mapping[str, Generator], plan: Plan, folder: Path
) -> xr.DataTree:
    """Make the pictures, invert them by every candidate, attack them, and judge every method.

    Parameters
    ----------
    sources, candidates, plan
        As `study` takes them.
    folder
        What is finished is kept in `folder/work`, and the same call goes on from it. The calibrated attribution is
        written to `folder/attribution.zarr`.

    Returns
    -------
    xr.DataTree
        `attribution`: a row a method, and below it a group for each with `probability` (image, source). `evidence`:
        what inversion tells of the judged pictures. `robustness`, `attack`: `right` and `refused` (method, condition,
        image). `open_set`: `none` (left_out, image), log-odds of `none of these`. `examples`: pictures and
        reconstructions. `throughput`: by candidate.
    """
    scratch = folder / SCRATCH
    searched = {name: forgiving(one) if plan.forgiving else one for name, one in candidates.items()}
    names = sorted([REAL, *sources])
    console.print(f"    1/5 pictures of {len(names)} sources")
    raw = {
        role: load_or_make_pictures(scratch, sources, role, getattr(plan, _COUNTS[role]), plan.seed) for role in ROLES
    }
    common = {role: part.with_images(common_path_grey(part.images)) for role, part in raw.items()}
    eight_bits = {
        role: raw[role].with_images(common_path_grey(raw[role].images, None)) for role in ("calibration", "test")
    }

    console.print("    2/5 classifiers")
    networks = {
        name: load_or_train(scratch, common["train"], names, plan, augment=name == "classifier_augmented")
        for name in ("classifier", "classifier_augmented")
    }

    console.print(f"    3/5 inversion by {', '.join(candidates)}")
    speed = load_or_make(scratch / "cost.npz", lambda: throughput(searched, common["test"], plan))
    rows = first_rows(common["test"], [REAL, *candidates], plan.disturbed)
    few = common["test"].take(rows)
    at_random = perturb_at_random(common["calibration"].images, seed_of(plan.seed, "calibration"))
    seed = seed_of(plan.seed, "perturbation")
    treated = [perturb(few.images, name, strength, seed) for name, strength in plan.conditions]
    sets = {
        "clean calibration": eight_bits["calibration"],
        "clean test": eight_bits["test"],
        "calibration": common["calibration"],
        "disturbed calibration": common["calibration"].with_images(at_random),
        "test": common["test"],
        "disturbed": few.with_images(np.concatenate(treated)),
        "attacks on classifiers": few.with_images(
            np.concatenate(attacks_on_classifiers(scratch, few, names, networks, plan))
        ),
    }
    whole = invert_by_candidates(
        scratch, "pictures", np.concatenate([part.images for part in sets.values()]), searched, plan
    )
    bounds = np.cumsum([0, *(len(part) for part in sets.values())])
    parts = {name: slice(*bounds[i : i + 2]) for i, name in enumerate(sets)}
    found = {name: {key: one.take(part) for key, one in whole.items()} for name, part in parts.items()}
    evidence = {name: evidence_of(part, found[name]) for name, part in sets.items()}
    console.print("    the attack on inversion itself")
    known = {name: one.take(rows) for name, one in found["test"].items()}
    adaptive = few.with_images(adaptive_attack(scratch, few, known, searched, plan))
    attacked_again = invert_by_candidates(scratch, "attacked", adaptive.images, searched, plan)
    evidence["adaptive attack"] = evidence_of(adaptive, attacked_again)

    console.print("    4/5 calibration and answers")
    models = {
        "clean": fit_attribution(evidence["clean calibration"]["evidence"], seed=plan.seed),
        "inversion": fit_attribution(evidence["calibration"]["evidence"], seed=plan.seed),
        "inversion_augmented": fit_attribution(
            xr.concat([evidence["calibration"]["evidence"], evidence["disturbed calibration"]["evidence"]], "image"),
            seed=plan.seed,
        ),
    }
    models["inversion_augmented"].save(folder / "attribution.zarr", overwrite=True)

    def judge(pictures: Pictures, found: xr.Dataset) -> dict[str, xr.Dataset]:
        answers = {name: models[name].probability(found["evidence"]) for name in BY_INVERSION}
        answers |= {name: classify(network, names, pictures) for name, network in networks.items()}
        return {**answers, "smallest_error": by_smallest_error(found)}

    answers = judge(common["test"], evidence["test"])
    answers["clean"] = models["clean"].probability(evidence["clean test"]["evidence"])
    answers["clean_smallest_error"] = by_smallest_error(evidence["clean test"])

    untouched = judge(few, evidence["test"].isel(image=rows))
    size = len(few)
    conditions = [("none", 0.0), *plan.conditions]
    robustness = correct_by_condition(
        [untouched, *_parts(judge, sets["disturbed"], evidence["disturbed"], size)], few, conditions
    )
    attacked = [*_parts(judge, sets["attacks on classifiers"], evidence["attacks on classifiers"], size)]
    attacked += _parts(judge, adaptive, evidence["adaptive attack"], size)
    attacks = [("none", 0.0), *((name, budget) for name in ATTACKS for budget in plan.budgets)]
    attack = correct_by_condition([untouched, *attacked], few, attacks)

    console.print("    5/5 each candidate left out")
    groups = {
        "/attribution": summary(answers, list(candidates), plan.seed),
        **{f"/attribution/{name}": answers[name] for name in answers if "smallest_error" not in name},
        "/evidence": evidence["test"],
        "/robustness": robustness,
        "/attack": attack,
        "/open_set": with_one_left_out(evidence["calibration"]["evidence"], evidence["test"]["evidence"], plan.seed),
        "/examples": _examples(common["test"], found["test"]),
        "/throughput": xr.Dataset(
            {key: ("candidate", value) for key, value in speed.items()}, coords={"candidate": list(candidates)}
        ),
    }
    return xr.DataTree.from_dict(groups)


def _parts(
    judge: Callable[[Pictures, xr.Dataset], dict[str, xr.Dataset]], pictures: Pictures, found: xr.Dataset, size: int
) -> list[dict[str, xr.Dataset]]:
    """What every method says of each `size` pictures."""
    parts = [np.arange(start, start + size) for start in range(0, len(pictures), size)]
    return [judge(pictures.take(rows), found.isel(image=rows)) for rows in parts]


def _examples(pictures: Pictures, found: Mapping[str, Inversion], count: int = 4) -> xr.Dataset:
    """Pictures of every source and what each candidate makes of them."""
    rows = first_rows(pictures, sorted(set(pictures.source)), count)
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

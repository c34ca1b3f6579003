"""Folds side by side: the joined tree says what its parts say, and figures are those of all judged images together."""

import json
import os
import signal
import subprocess
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

import bayesdf as bdf
import bayesdf.analysis as analysis
from bayesdf.errors import BayesdfError, BayesdfWarning
from bayesdf.experiments import experiment
from bayesdf.experiments.source_attribution import figures, folds
from bayesdf.experiments.source_attribution.feature_sets import SETS
from bayesdf.experiments.source_attribution.tables import CONTROLS, OF_CONTROLS, by_fold
from tests.experiments.small import COMMAND, SMALL, run_here

SOURCES = ("real", "blur", "edges")
EACH = 5
PER_PERSON = 4


def part(fold: int, draws: int = 6, converged: bool = True) -> xr.DataTree:
    """What `judge` says of a fold, from random logits of five people of its own."""
    rng = np.random.default_rng(fold)
    source = np.repeat(SOURCES, EACH * PER_PERSON)
    subject = np.tile(np.repeat([f"p{fold}{n}" for n in range(EACH)], PER_PERSON), len(SOURCES))
    label = (source != "real").astype(int)
    logits = rng.normal(size=(1, draws, len(source), 2)) + np.eye(2)[label] * (1 + (source == "edges"))[:, None]
    image = {"image": np.arange(len(source))}
    known = {
        "source": ("image", source),
        "subject": ("image", subject),
        "path": ("image", [f"{fold}/{n}" for n in image["image"]]),
        "donor": ("image", [""] * len(source)),
    }
    verdict = "converged: flat" if converged else f"NOT converged: {fold} nats to gain"
    groups = {
        "/": xr.Dataset(attrs={"detector": "net", "fit_seconds": 1.5 + fold}),
        "/posterior": xr.Dataset({"weight": (("chain", "draw"), rng.normal(size=(1, draws)))}),
        "/sample_stats": xr.Dataset(
            {"elbo": ("step", rng.normal(size=3 + fold))}, attrs={"converged": int(converged), "verdict": verdict}
        ),
        "/posterior_predictive": xr.Dataset(
            {"logits": (("chain", "draw", "image", "class"), logits.astype(np.float32))},
            {**image, "class": ["real", "fake"]},
        ),
        "/observed_data": xr.Dataset({"label": ("image", label)}, image),
        "/constant_data": xr.Dataset(known, image),
        "/recalibration": xr.Dataset({"scale": 1.0 + fold}),
    }
    tree = xr.DataTree.from_dict(groups)
    scalars = analysis.scalars(tree)
    fakes = scalars[(scalars["source"] != "real").values]
    attribution = analysis.attribute(fakes, seed=fold)
    return xr.DataTree.from_dict(
        {
            **{node.path: node.to_dataset(inherit=False) for node in tree.subtree},
            "/uncertainty": analysis.decompose(tree),
            **{f"/attribution/{name}": attribution for name in SETS},
            **{
                f"/{name}/posterior_predictive": groups["/posterior_predictive"]
                for name in ("raw", *(f"control/{name}" for name in CONTROLS))
            },
        }
    )


@pytest.fixture(scope="module")
def parts() -> list[xr.DataTree]:
    return [part(fold) for fold in range(3)]


@pytest.fixture(scope="module")
def joined(parts: list[xr.DataTree]) -> xr.DataTree:
    results = {folds.cell_name("svi", fold, 3): tree for fold, tree in enumerate(parts)}
    return folds.collect(results, seed=0)["svi"]


def beside(parts: list[xr.DataTree], name: str) -> np.ndarray:
    return np.concatenate([tree[name].values for tree in parts], axis=-1)


def test_images_stand_side_by_side(joined: xr.DataTree, parts: list[xr.DataTree]) -> None:
    images = len(SOURCES) * EACH * PER_PERSON
    for group in ("posterior_predictive", "observed_data", "constant_data", "uncertainty"):
        dataset = joined[group].to_dataset()
        np.testing.assert_array_equal(dataset["image"], np.arange(3 * images))
        np.testing.assert_array_equal(dataset["fold"], np.repeat(range(3), images))
    for name in ("total", "aleatoric", "epistemic", "label", "subject"):
        np.testing.assert_array_equal(joined[f"uncertainty/{name}"], beside(parts, f"uncertainty/{name}"))
    for fold, tree in enumerate(parts):
        own = joined["posterior_predictive/logits"].isel(image=slice(fold * images, (fold + 1) * images))
        np.testing.assert_array_equal(own, tree["posterior_predictive/logits"])
    np.testing.assert_allclose(analysis.decompose(joined)["epistemic"], joined["uncertainty/epistemic"])


def test_figures_are_those_of_all_images_together(joined: xr.DataTree, parts: list[xr.DataTree]) -> None:
    """By hand: logits, labels, people and sources one after the other, and nothing of folds."""
    logits = np.concatenate([tree["posterior_predictive/logits"].values for tree in parts], axis=2)
    known = {name: ("image", beside(parts, f"constant_data/{name}")) for name in ("source", "subject", "donor")}
    alone = xr.DataTree.from_dict(
        {
            "/posterior_predictive": xr.Dataset({"logits": (("chain", "draw", "image", "class"), logits)}),
            "/observed_data": xr.Dataset({"label": ("image", beside(parts, "observed_data/label"))}),
            "/constant_data": xr.Dataset(known),
        }
    )
    expected = analysis.evaluate(alone, seed=0)
    xr.testing.assert_allclose(joined["metrics"].to_dataset(), expected)
    xr.testing.assert_allclose(joined["control/noise/metrics"].to_dataset(), expected[list(OF_CONTROLS)])
    np.testing.assert_allclose(joined["metrics/raw/ece"], expected["ece"])
    assert joined["metrics"].attrs["people"] == 3 * EACH
    probability = np.concatenate([tree["attribution/uncertainty/probability"].values for tree in parts])
    right = beside(parts, "attribution/uncertainty/prediction") == beside(parts, "attribution/uncertainty/truth")
    people = beside(parts, "attribution/uncertainty/subject")
    truth = beside(parts, "attribution/uncertainty/truth")
    by_hand = analysis.cluster_bootstrap(np.mean, [right], people, strata=truth)
    found = joined["attribution"].to_dataset().sel(features="uncertainty")
    assert [float(found[f"accuracy{end}"]) for end in ("", ".low", ".high")] == pytest.approx(list(by_hand))
    np.testing.assert_array_equal(joined["attribution/uncertainty/probability"], probability)
    per_fold = by_fold(joined)
    assert per_fold["people"].tolist() == [EACH] * 3
    assert per_fold["source_from_uncertainty"].mean() == pytest.approx(right.mean())


def test_no_two_folds_share_an_image_or_a_cluster(joined: xr.DataTree) -> None:
    attribution = joined["attribution/uncertainty"].to_dataset()
    for name in ("image", "cluster", "subject"):
        homes = {}
        for value, fold in zip(attribution[name].values, attribution["fold"].values, strict=True):
            assert homes.setdefault(value, fold) == fold
    assert len(np.unique(attribution["cluster"])) == 3 * EACH
    fakes = joined["uncertainty"].to_dataset().sel(image=attribution["image"].values)
    np.testing.assert_array_equal(fakes["path"], attribution["path"])
    assert set(attribution["inner_fold"].values) == set(range(EACH))


def test_what_is_of_one_detector_stays_with_its_fold(joined: xr.DataTree, parts: list[xr.DataTree]) -> None:
    assert joined.attrs == {"detector": "net", "folds": 3} and "posterior" not in joined.children
    for fold, tree in enumerate(parts):
        own = joined[f"folds/{fold}"]
        assert isinstance(own, xr.DataTree) and own.attrs["fit_seconds"] == 1.5 + fold
        for group in ("posterior", "sample_stats", "recalibration"):
            xr.testing.assert_identical(own[group].to_dataset(), tree[group].to_dataset())
    assert joined["sample_stats"].attrs == {"converged": 1, "verdict": "converged: in all 3 folds"}


def test_a_fit_that_has_not_converged_is_named_by_its_fold() -> None:
    stats = folds.join([part(0), part(1, converged=False)])["sample_stats"].attrs
    assert stats == {"converged": 0, "verdict": "NOT converged: fold 1: 1 nats to gain"}


def test_a_single_fold_stays_as_it_is() -> None:
    tree = part(0)
    xr.testing.assert_identical(folds.join([tree]), tree)
    assert folds.cell_name("svi", 0, 1) == "svi" and folds.fold_seed(7, 0) == 7
    assert len({folds.fold_seed(7, fold) for fold in range(10)}) == 10
    summary = folds.collect({"svi": tree}, seed=0)["svi"]
    assert summary["metrics"].attrs["people"] == EACH and "folds" not in summary.attrs


def test_unequal_draws_are_cut_and_said() -> None:
    with pytest.warns(
        BayesdfWarning, match="the folds have 6, 4 draws: the joined logits are the first 4 of each chain"
    ):
        tree = folds.join([part(0), part(1, draws=4)])
    assert tree["posterior_predictive/logits"].sizes["draw"] == 4 and tree["folds/0/posterior"].sizes["draw"] == 6
    np.testing.assert_allclose(tree["uncertainty/total"], analysis.decompose(tree)["total"])


def coverage(between: float, folds: int, people: int, sims: int = 200) -> dict[str, float]:
    """How often an interval of a mean holds the truth, with sources as strata and with the sources of each fold.

    Parameters
    ----------
    between
        The standard deviation between folds, in units of that between people and of that between images of a person.
    folds, people
        How many folds, and people in each. A person has three images of each of three sources.
    """
    held = {"source": 0, "source and fold": 0}
    fold = np.repeat(np.arange(folds), people * 9)
    person = np.repeat(np.arange(folds * people), 9)
    source = np.tile(np.repeat(["a", "b", "c"], 3), folds * people)
    for number in range(sims):
        rng = np.random.default_rng([number, int(100 * between)])
        value = rng.normal(size=folds * people)[person] + rng.normal(size=len(fold))
        value += between * rng.normal(size=folds)[fold]
        for name, strata in (("source", source), ("source and fold", np.char.add(source, fold.astype(str)))):
            _, low, high = analysis.cluster_bootstrap(
                np.mean, [value], person.astype(str), strata=strata, resamples=200, seed=number
            )
            held[name] += int(low <= 0 <= high)
    return {name: count / sims for name, count in held.items()}


@pytest.mark.slow
def test_people_are_drawn_from_all_folds_together() -> None:
    """With few people in each fold, strata by fold would leave most figures without an interval."""
    found = coverage(0.0, 5, 2, sims=60)
    assert found["source"] > 0.85 and found["source and fold"] < 0.3


@pytest.fixture(scope="module")
def crossed(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("crossed") / "first"
    said = run_here("--data", photos, "--out", out, "--method", "svi", "--folds", "2", *SMALL)
    assert "2 folds, which judge 6 and 6 people" in said and "over 12 people in 2 folds" in said
    return out


@pytest.mark.slow
def test_a_run_of_folds_judges_everyone_once(crossed: Path, photos: Path) -> None:
    tree = bdf.open_run(crossed)["svi"]
    judged = tree["constant_data"].to_dataset()
    assert set(judged["subject"].values) == {path.name for path in (photos / "real").iterdir()}
    assert len(set(judged["path"].values)) == judged.sizes["image"] == len(list(photos.rglob("*.png")))
    assert all(
        len(set(judged["fold"].values[judged["subject"].values == who])) == 1 for who in judged["subject"].values
    )
    assert {path.name for path in (crossed / "posteriors" / "svi").iterdir()} == {"fold_0.zarr", "fold_1.zarr"}
    metrics = json.loads((crossed / "metrics.json").read_text())
    assert metrics["svi.detection.people"] == 12 and metrics["svi.folds"] == 2
    page = (crossed / "report.html").read_text()
    assert "12 people in 2 folds" in page and "fold by fold" in page
    assert (crossed / "tables" / "svi_folds.csv").read_text().startswith("fold,images,people")


@pytest.mark.slow
def test_same_seed_same_run_and_it_resumes_after_a_kill(
    crossed: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in another process once the second fold has its posterior, then run again: the run that was not stopped.

    The first fold and the second posterior are what the killed process left. All else is made again.
    """
    out = crossed.parent / "second"
    partial = out.parent / "second.partial"
    arguments = ["--data", str(photos), "--out", str(out), "--method", "svi", "--folds", "2", *SMALL]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.DEVNULL, env=environment) as job:
        deadline = time.monotonic() + 500
        while not (partial / "posteriors" / "svi" / "fold_1.zarr").exists() and time.monotonic() < deadline:
            assert job.poll() is None
            time.sleep(0.02)
        job.send_signal(signal.SIGKILL)
    assert not out.exists() and {path.name for path in (partial / "cells" / "svi").iterdir()} == {"fold_0.zarr"}
    with pytest.raises(BayesdfError, match="started but not finished"):
        bdf.open_run(out)
    # Only numbers are compared: figures are not drawn again.
    monkeypatch.setattr(figures, "figures", lambda *_: {})
    monkeypatch.setattr(experiment, "write_figures", lambda *_: defaultdict(Figure))
    assert run_here(*arguments).count("found finished in the stopped run") == 2
    for file in ("metrics.json", "tables/svi_uncertainty.csv", "tables/svi_folds.csv"):
        assert (out / file).read_text() == (crossed / file).read_text(), file

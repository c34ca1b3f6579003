"""Framing a toy's developer works by inversion and fails by the ledger; cheats get their errors; runs repeat."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import bayesdf as bdf
from bayesdf import ledger
from bayesdf.errors import BayesdfError
from bayesdf.experiments.deniability.__main__ import main
from bayesdf.experiments.deniability.developer import toy_secret
from bayesdf.experiments.deniability.distances import distances, false_rate, fit_tail
from bayesdf.experiments.deniability.page import answer
from bayesdf.experiments.deniability.results import Results
from bayesdf.experiments.deniability.study import work
from bayesdf.experiments.deniability.tables import innocent_pictures, metrics, tables
from bayesdf.experiments.outputs import write_metrics
from bayesdf.generators import GENERATORS, Generator

DIM = 12


def waves(seed: int) -> Tensor:
    """(DIM, 64, 64): smooth patterns."""
    source = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(0, 1, 64), torch.linspace(0, 1, 64), indexing="ij")
    a, b, c = (torch.rand(DIM, 1, 1, generator=source) * reach for reach in (4.0, 4.0, 6.3))
    return torch.sin(2.0 * math.pi * (a * x + b * y) + c)


def toy(name: str, seed: int) -> Generator:
    patterns = waves(seed)
    return Generator(name, DIM, decode=lambda z: torch.sigmoid(torch.einsum("bd,dyx->byx", 0.6 * z, patterns))[:, None])


TOY, RIVAL = toy("toy", 0), toy("rival", 1)
SIZES = {"samples": 60, "images": 4, "steps": 40, "seed": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def results(folder: Path) -> Results:
    return Results.from_tree(work(TOY, RIVAL, folder, **SIZES))


def test_searched_latents_convict_by_inversion_and_are_cleared_by_the_ledger(results: Results) -> None:
    frame = results.accused.groupby("attack")
    convicted, made = frame["convicted"].mean(), frame["made"].mean()
    assert min(convicted[attack] for attack in ("searched", "second copy", "guilty")) >= 0.5
    assert convicted["untouched"] == 0.0
    assert made["guilty"] == 1.0
    assert made.drop("guilty").max() == 0.0 and not results.fresh["made"].any()
    apart = frame["latent_distance"]
    assert apart.max()["guilty"] < 0.2 < 0.4 < apart.min()["searched"]
    assert results.accused.loc[results.accused["attack"] == "guilty", "right"].all()


def test_budgets_are_kept_and_errors_fall_with_them(results: Results) -> None:
    moved = results.accused[results.accused["attack"] == "perturbed"]
    assert (moved["largest_change"] <= moved["budget"] / 255.0 + 1e-6).all()
    error = moved.groupby("budget")["error"].median()
    assert error.iloc[-1] < error.iloc[2] < error.iloc[0]


def test_bounds_count_people_and_not_alterations(results: Results) -> None:
    """Four photographs, each in seven versions: no bound is below that of as many people of whom none is made."""
    parts = innocent_pictures(results)
    photographs, generated = parts["photographs"], parts["generated"]
    people = photographs["cluster"].nunique()
    assert len(photographs) == 7 * 4 and 1 <= people <= 4 and (generated["cluster"] == "").all()
    flat = metrics(results)
    assert flat["innocent.photographs.clusters"] == people and flat["innocent.photographs.made"] == 0.0
    assert flat["innocent.photographs.made.high"] >= 1.0 - 0.025 ** (1.0 / people) - 1e-9
    assert flat["innocent.generated.made.high"] == pytest.approx(1.0 - 0.025 ** (1.0 / len(generated)))
    assert f"of {people} people" in answer(results)
    searched = tables(results)["framing"].loc["latents searched for photographs"]
    assert searched["made.high"] >= 1.0 - 0.025 ** (1.0 / people) - 1e-9
    own = results.growth[results.growth["kind"] != "second copy"].dropna(subset="made")
    assert (own["images"] == 4).all() and (own["made.high"] >= 1.0 - 0.025 ** (1.0 / people) - 1e-9).all()


def test_the_same_image_is_made_and_a_far_one_is_not(results: Results) -> None:
    altered = results.guilty.set_index(["alteration", "strength"])
    assert altered.loc[("as made", 0.0), "made"].all() and altered.loc[("as made", 0.0), "right"].all()
    assert altered.loc[("jpeg", 90.0), "made"].all()
    assert not altered.loc[("brightness", 0.5), "made"].any()
    assert (results.accused["distance"][results.accused["attack"] == "untouched"] > results.facts["threshold"]).all()
    assert results.copied["made"].all() and results.facts["copies_identical"] == 1.0


@pytest.mark.parametrize(
    ("cheat", "expected"),
    [
        ("none: an honest ledger", "made"),
        ("a latent from outside the ledger", "not made"),
        ("records after the image's cut off", "TruncatedError"),
        ("the image's record taken out", "TruncatedError"),
        ("taken out, the rest numbered and chained anew", "TruncatedError"),
        ("the record rewritten", "TamperedError"),
        ("rewritten, all digests made right", "ForkError"),
        ("two records exchanged", "ReorderedError"),
        ("another record repeated in its place", "ReplayedError"),
        ("evidence under a head from before the image", "ReplayedError"),
        ("an old head shown as the current one", "ReplayedError"),
        ("the key of the image's epoch withheld", "IncompleteError"),
        ("every record opened but the image's", "IncompleteError"),
        ("another key given for the epoch", "TamperedError"),
        ("keys of two records of the epoch in progress exchanged", "TamperedError"),
        ("a key of one's own, in the epoch in progress", "not made, flagged"),
        ("the same, once the epoch is full and opened", "TamperedError"),
        ("the same, full but opened record by record", "IncompleteError"),
        ("two histories of the same length", "ForkError"),
        ("a second ledger under the same key", "ForkError"),
        ("a head signed by another", "SignatureError"),
        ("the published head edited", "SignatureError"),
    ],
)
def test_every_cheat_gets_its_answer(results: Results, cheat: str, expected: str) -> None:
    row = results.cheats.set_index("cheat").loc[cheat]
    assert (row["error"] or row["outcome"]) == expected
    assert (row["outcome"] == "refused") == expected.endswith("Error")
    assert row["message"] if expected.endswith("Error") else True
    assert len(results.cheats) == 22 and results.cheats["as_expected"].all()


def test_a_second_try_goes_on_with_what_is_there(
    folder: Path, results: Results, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """From the ledger cut off within a line, and all inversions."""
    copy = tmp_path / "again"
    shutil.copytree(folder, copy)
    log, heads = copy / "ledger" / "developer.ledger", copy / "ledger" / "heads.jsonl"
    published = heads.read_text()
    heads.write_text("".join(published.splitlines(keepends=True)[:10]))
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:43]) + b'{"commit')
    begun = log.read_bytes()[:2000]
    monkeypatch.setattr("bayesdf.inversion.search.descend", lambda *_: pytest.fail("inverted again"))
    again = Results.from_tree(work(TOY, RIVAL, copy, **SIZES))
    assert log.read_bytes()[:2000] == begun and ledger.check(log).samples == 60
    assert len(heads.read_text().splitlines()) == 15
    assert metrics(again) == metrics(results)
    assert not [path for path in copy.rglob("*") if b"secret" in path.name.encode()]


def test_shares_and_rates_in_the_extremes() -> None:
    rng = np.random.default_rng(0)
    # Points on a plane: the share within t grows as t squared.
    found = np.sqrt(rng.uniform(size=(100, 500)))
    tail = fit_tail(found)
    assert tail.exponent == pytest.approx(2.0, rel=0.4)
    assert tail.rate(tail.threshold(0.01, 500), 500) == pytest.approx(0.01)
    near = np.zeros((3, 40))
    rate = false_rate(near, 0.1, tail, "searched", clusters=range(3)).query("multiple == 1.0")
    assert (rate.loc[rate["ledger_size"] <= 40, "made"] == 1.0).all()
    one = np.where(np.arange(40) == 7, 0.0, 1.0)[None].repeat(5, 0)
    rate = false_rate(one, 0.1, tail, "searched", clusters=range(5)).query("multiple == 1.0").set_index("ledger_size")
    assert rate.loc[10, "made"] == pytest.approx(0.25) and rate.loc[40, "made"] == 1.0
    assert rate["predicted"].is_monotonic_increasing and rate.loc[[400, 4000], "made"].isna().all()


def test_distances_are_the_ledgers(results: Results) -> None:
    images = results.published[:3]
    kept = TOY.pictures(TOY.sample_latent(5, 0))
    found = distances(images, kept, TOY)
    np.testing.assert_allclose(found, np.sqrt(((images[:, None] - kept[None]) ** 2).mean((2, 3))), rtol=1e-4)
    region = np.zeros((64, 64), np.float32)
    region[20:40, 20:40] = 0.5
    part = distances(images, kept, Generator("part", DIM, decode=TOY.decode, region=region))
    inner = (images[:, None, 20:40, 20:40] - kept[None, :, 20:40, 20:40]) ** 2
    np.testing.assert_allclose(part, np.sqrt(inner.mean((2, 3))), rtol=1e-4)


def test_a_run_folder_is_complete_and_repeats(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(GENERATORS, "toy", TOY)
    monkeypatch.setitem(GENERATORS, "vae", RIVAL)
    out = tmp_path / "one"
    main(generator="toy", **SIZES, out=out, quick=True)
    write_metrics(tmp_path, metrics(results))
    assert (out / "metrics.json").read_text() == (tmp_path / "metrics.json").read_text()
    flat = json.loads((out / "metrics.json").read_text())
    assert flat["cheats"] == 21 and flat["cheats.refused"] == 19 and flat["cheats.as_documented"] == 22
    assert flat["framing.searched.photograph.convicted.low"] <= flat["framing.searched.photograph.convicted"]
    tree = bdf.open_run(out)
    assert metrics(Results.from_tree(tree)) == metrics(results)
    assert tree["accused/published"].dtype == np.uint8 and tree.attrs["generator"] == "toy"
    assert set(tree["calibration"].children) == {"genuine", "innocents", "tails"}
    assert {path.stem for path in (out / "figures").iterdir()} == {
        *("framed", "verdicts", "latents", "distances", "false_made", "deniability")
    }
    assert set(pd.read_csv(out / "tables" / "cheats.csv")["outcome"]) == {
        *("made", "not made", "not made, flagged", "refused")
    }
    page = (out / "report.html").read_text()
    assert "second copy of the weights" in page and "It is a toy" in page and "<script" not in page
    assert {path.name for path in (out / "ledger").iterdir()} == {
        *("developer.ledger", "heads.jsonl", "public_key.txt", "evidence.json")
    }
    assert not (out / "inversions").exists() and not (out / "cheats").exists()
    secret = toy_secret("toy", 1).hex()
    assert not any(secret in path.read_text() for path in (out / "ledger").iterdir())
    with pytest.raises(BayesdfError, match=r"has finished: open .*report\.html"):
        main(generator="toy", **SIZES, out=out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"generator": "gan"}, "unknown generator 'gan': choose from"),
        ({"generator": "mouth"}, "mouth cannot be inverted"),
        ({"samples": 10}, "--samples 10: give 50 to 100000"),
        ({"images": 101}, "--images 101: give 4 to 100"),
        ({"steps": 0}, "--steps 0: give 1 to 10000"),
    ],
)
def test_mistakes_are_named(options: dict, message: str, tmp_path: Path) -> None:
    settings = {"generator": "dcgan", "samples": 50, "images": 4, "steps": 5, "out": tmp_path / "run", "seed": 0}
    with pytest.raises(BayesdfError, match=message):
        main(**(settings | options))
    assert not list(tmp_path.iterdir())


def test_a_mistake_is_one_line_and_exit_status_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bayesdf.experiments.deniability", "--generator", "gan", "--out", tmp_path / "x"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("bayesdf: unknown generator 'gan'")
    assert not list(tmp_path.iterdir())

"""The main job, small: what it writes, what it finds, and what it says to bad input."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import bayesdf as bdf
import bayesdf.analysis as analysis
from bayesdf.cli import run_cli
from bayesdf.errors import BayesdfError, BayesdfWarning
from bayesdf.experiments.quick import CUTS
from bayesdf.experiments.source_attribution.__main__ import main
from bayesdf.experiments.source_attribution.methods import FACTORIES, method
from bayesdf.experiments.source_attribution.study import linked
from bayesdf.inference import sgmcmc
from bayesdf.store import METRICS, TREE
from tests.experiments.small import SMALL, execute, thin

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.slow
def test_a_run_folder_is_complete(finished: Path) -> None:
    assert not list(finished.parent.glob("*.partial"))
    tree = bdf.open_run(finished)
    assert set(tree.children) == {"svi", "mc_dropout"}
    for name in ("svi", "mc_dropout"):
        result = tree[name]
        assert isinstance(result, type(tree))
        logits = result["posterior_predictive/logits"]
        assert logits.dims == ("chain", "draw", "image", "class") and logits.sizes["draw"] == 6
        uncertainty = result["uncertainty"].to_dataset()
        np.testing.assert_allclose(
            uncertainty["total"], uncertainty["aleatoric"] + uncertainty["epistemic"], atol=1e-10
        )
        probability = result["attribution/uncertainty/probability"]
        np.testing.assert_allclose(probability.sum("source"), 1.0)
        assert set(result["attribution/uncertainty/truth"].values) == {"blur", "edges"}
    metrics = json.loads((finished / "metrics.json").read_text())
    for name in ("svi", "mc_dropout"):
        for figure in ("detection.balanced_accuracy", "detection.ece", "source.uncertainty.accuracy"):
            key = f"{name}.{figure}"
            assert metrics[f"{key}.low"] <= metrics[key] <= metrics[f"{key}.high"]
    assert {path.suffix for path in (finished / "figures").iterdir()} == {".png"}
    assert len(list((finished / "figures").iterdir())) == 13
    assert (finished / "tables" / "svi_confusion.csv").stat().st_size > 20
    for named in re.findall(r"`((?:tables|figures)/[\w.]+)`", README.read_text()):
        assert (finished / named).is_file(), f"README.md names {named}"
    page = (finished / "report.html").read_text()
    assert 'src="http' not in page and "<script" not in page and "balanced accuracy" in page


@pytest.mark.slow
def test_arviz_opens_the_run(finished: Path) -> None:
    import arviz

    data = arviz.InferenceData.from_datatree(bdf.open_run(finished)["svi"])
    assert {"posterior", "posterior_predictive", "observed_data"} <= set(data.groups())
    summary = arviz.summary(data, var_names=["classifier.bias"], kind="stats")
    assert len(summary) == 2 and (summary["sd"] > 0).all()


@pytest.mark.slow
def test_scalars_name_more_than_the_mean_probability_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One method, few draws, a quarter of the embedded images: far over chance, and calibrated. Noise does as well."""
    thin(monkeypatch, 4)
    out = tmp_path / "run"
    status, said = call(monkeypatch, capsys, ["--method", "svi", "--epochs", "4", "--draws", "16", "--out", str(out)])
    assert status == 0, said
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["svi.detection.balanced_accuracy"] > 0.8
    assert metrics["svi.detection.ece_balanced"] < 0.1
    assert metrics["svi.source.uncertainty.accuracy"] > 0.4
    assert metrics["svi.source.uncertainty_scalars.accuracy_ratio.low"] > 1.0
    assert metrics["svi.gain.uncertainty_scalars.noise_scalars.difference.low"] < 0.05


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "no folder at nowhere"),
        (["--method", "magic"], "unknown method 'magic'"),
        (["--method", ","], "--method is empty"),
        (["--method", "svi,map"], "MAP has a single draw, so there is no uncertainty to read; choose from svi, "),
        (["--draws", "0"], "--draws 0"),
        (["--draws", "1"], "at least 2 draws"),
        (["--epochs", "-1"], "at least 0"),
        (["--detector", "resnet81"], "--detector resnet81: there is no network 'resnet81'.*resnet18"),
        (["--split", "0.5,0.5"], "--split '0.5,0.5': give three numbers"),
        (["--split", "0.5,0.2,0.3"], "the embedded data's split is fixed"),
        (["--split", "60,15,25"], "--split '60,15,25': .* add up to 1, such as 0.6,0.15,0.25"),
        (["--split", "1,0.5,-0.5"], "three positive numbers that add up to 1, such as 0.6,0.15,0.25"),
        (["--folds", "0"], "--folds 0: give 1 to 10"),
        (["--folds", "11"], "--folds 11: give 1 to 10"),
        (["--folds", "5"], "the embedded data has 4 folds, which are fixed: give 1 to 4"),
        (
            ["--data", "PHOTOS", "--folds", "7"],
            "one subject of blur.*ask for fewer folds .--folds; this is fold 5 of 7",
        ),
        (["--device", "gpu"], "--device gpu: there is no such device here; choose from auto, cpu"),
        (["--out", "taken"], "taken holds other files: choose another --out$"),
        (["--out", "file"], "file is a file: choose another --out"),
        (["--out", "done"], "done holds a run that has finished: open .*done/report.html"),
        (["--data", "PHOTOS", "--out", "file/below"], "cannot write to .*file/below"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str],
    message: str,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "x").write_text("mine")
    (tmp_path / "file").write_text("a file")
    (tmp_path / "done" / TREE).mkdir(parents=True)
    (tmp_path / "done" / METRICS).write_text("{}")
    status, said = call(monkeypatch, capsys, [str(photos) if item == "PHOTOS" else item for item in arguments])
    assert status == 2, said
    lines = [line for line in said.splitlines() if "bayesdf:" in line]
    assert len(lines) == 1 and re.search(message, lines[0]), said
    assert not list(tmp_path.glob("runs/*"))
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "runs") == ["done", "file", "taken"]


def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> tuple[object, str]:
    """The command line in this process: exit status, and what it printed on standard error."""
    monkeypatch.setattr("sys.argv", ["source_attribution", *arguments])
    monkeypatch.setattr("warnings.showwarning", None)
    with pytest.raises(SystemExit) as left:
        run_cli(main)
    return left.value.code, capsys.readouterr().err


def test_epochs_go_on_until_flat_unless_they_are_given() -> None:
    given = {name: method(name, seed=0, device="cpu").epochs for name in FACTORIES}
    assert "map" not in given and set(given.values()) == {None}
    assert method("mc_dropout", epochs=2, seed=0, device="cpu").epochs == 2


@pytest.mark.parametrize("name", CUTS)
def test_a_quick_look_is_short_by_every_method(name: str) -> None:
    whole = method(name, seed=0, device="cpu").settings()
    short = method(name, seed=0, device="cpu", quick=True).settings()
    assert {key: short[key] for key in short if short[key] != whole[key]}.items() <= CUTS[name].items()
    assert short != whole


@pytest.mark.parametrize("name", ["sgld", "sghmc"])
def test_a_quick_look_stores_its_draws_of_however_few_images(name: str) -> None:
    quick = method(name, seed=0, device="cpu", quick=True)
    assert isinstance(quick, bdf.SGMCMC)
    sizes = sgmcmc._step_sizes(quick, SimpleNamespace(size=8))  # type: ignore[arg-type]
    assert len(sgmcmc._stored_steps(quick, sizes)) == 5


def test_quick_says_what_it_overrides(tmp_path: Path) -> None:
    given = {"data_": str(tmp_path / "nowhere"), "out": tmp_path / "out", "quick": True}
    with (
        pytest.warns(BayesdfWarning, match="--quick overrides --epochs 7"),
        pytest.raises(BayesdfError, match="no folder at"),
    ):
        main(**given, epochs=7)
    with pytest.raises(BayesdfError, match="no folder at"):
        main(**given, epochs=1)


def test_a_mistake_ends_the_process_with_status_2(tmp_path: Path) -> None:
    done = execute("--data", tmp_path / "nowhere")
    assert done.returncode == 2 and "no folder at" in done.stderr and "Traceback" not in done.stderr


def test_one_generator_is_too_few(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(photos, tmp_path / "two", ignore=shutil.ignore_patterns("edges"))
    arguments = ["--data", str(tmp_path / "two"), "--out", str(tmp_path / "out"), *SMALL]
    status, said = call(monkeypatch, capsys, arguments)
    assert status == 2 and "at least two generators" in said


def test_images_of_validation_people_help_wherever_they_share_nobody() -> None:
    """New faces of two splits had the same names, and most of them were left out of a fold's fit."""
    parts = []
    for split, people in (("val", "ab"), ("test", "cdef")):
        rows = [("real", f"real/{one}", one) for one in people]
        rows += [(source, f"{source}/{split}/{n}", "") for source in ("vae", "flow") for n in range(6)]
        rows += [("swap", f"swap/{one}", one) for one in people]
        frame = pd.DataFrame(rows, columns=["source", "path", "subject"])
        donors = {source: "" for source in ("real", "vae", "flow")}
        parts.append(frame.assign(split=split, donor=frame["source"].map(donors).fillna(people[0]), video=""))
    fakes = pd.concat(parts).query("source != 'real'")
    helps = (fakes["split"] == "val").to_numpy()
    features = pd.DataFrame(np.random.default_rng(0).normal(size=(len(fakes), 3)))
    circles = linked(parts)
    found = analysis.attribute(
        features, fakes["source"], fakes["subject"], subject_groups=circles, fit_only=helps, folds=3, seed=0
    )
    assert circles[helps].nunique() == 13 and circles[~helps].nunique() == 13
    judged = np.bincount(found["fold"].values)
    assert found.attrs["fitted"] == [len(fakes) - count for count in judged]

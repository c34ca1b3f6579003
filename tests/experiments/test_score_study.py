"""The study of a table of scores: what it writes, that its sentence and its table agree, and what bad input gets."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bayesdf as bdf
from bayesdf.errors import BayesdfError, BayesdfWarning
from bayesdf.experiments.source_attribution import score_page, score_study
from bayesdf.experiments.source_attribution.score_file import read_scores
from bayesdf.experiments.source_attribution.score_tables import GIVEN, RECALIBRATED, SCALED, SETS, by_feature_set
from bayesdf.experiments.source_attribution.score_tables import calibration as calibration_of
from tests.experiments.test_source_attribution import call

DETECTORS = ["cnn", "vit", "spectrum"]


def made(seed: int = 0, images: int = 360, people: int = 20) -> pd.DataFrame:
    """P(fake) by three detectors, each too sure. One of them is blind to `swap`, another to `vae`."""
    rng = np.random.default_rng(seed)
    source = np.array(["real", "vae", "swap", "flow"])[np.arange(images) % 4]
    found = np.where(source == "real", -2.0, 2.0)[:, None] + rng.normal(size=(images, 3))
    found[source == "swap", 0] -= 3.0
    found[source == "vae", 1] -= 3.0
    table = pd.DataFrame(1 / (1 + np.exp(-2 * found)), columns=DETECTORS)
    table["label"] = (source != "real").astype(int)
    table["source"], table["subject"] = source, [f"p{number // 4 % people}" for number in range(images)]
    table["path"] = [f"{name}/{number}.png" for number, name in enumerate(source)]
    return table


def write(table: pd.DataFrame, path: Path) -> Path:
    table.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, as a user would make it."""
    folder = tmp_path_factory.mktemp("scores")
    patch = pytest.MonkeyPatch()
    with patch.context() as patched:
        from bayesdf.cli import run_cli
        from bayesdf.experiments.source_attribution.__main__ import main

        path = write(made(), folder / "scores.csv")
        arguments = ["--predictions", str(path), "--kind", "probability", "--out", str(folder / "run")]
        patched.setattr("sys.argv", ["source_attribution", *arguments])
        with pytest.raises(SystemExit) as left:
            run_cli(main)
    assert left.value.code == 0
    return folder / "run"


@pytest.mark.slow
def test_a_run_folder_is_complete(run: Path) -> None:
    tree = bdf.open_run(run)["scores"]
    uncertainty = tree["uncertainty"].to_dataset()
    np.testing.assert_allclose(uncertainty["total"], uncertainty["aleatoric"] + uncertainty["epistemic"], atol=1e-10)
    assert set(tree["attribution"].children) == set(SETS)
    assert {path.name for path in (run / "figures").iterdir()} == {
        "source.png",
        "confusion.png",
        "uncertainty.png",
        "reliability.png",
    }
    page = (run / "report.html").read_text()
    assert "<script" not in page and "best detector" in page and "Fewer" not in page
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["scores.coverage"] == 1.0
    for name in ("source.uncertainty.accuracy", "detection.raw.ece", "detection.recalibrated.nll_difference"):
        assert metrics[f"scores.{name}.low"] <= metrics[f"scores.{name}"] <= metrics[f"scores.{name}.high"]
    assert metrics["scores.detection.ece"] == metrics["scores.detection.recalibrated.ece"]


@pytest.mark.slow
def test_the_profile_names_what_the_mean_cannot_and_shuffled_scores_name_nothing(run: Path) -> None:
    sources = by_feature_set(bdf.open_run(run)["scores"])
    assert sources["accuracy"]["uncertainty"] > 0.8 > 0.7 > sources["accuracy"]["mean_probability"]
    assert sources["accuracy_difference.low"]["uncertainty"] > 0.2
    low, high = sources["accuracy.low"]["shuffled_scores"], sources["accuracy.high"]["shuffled_scores"]
    assert low < 1 / 3 < high + 0.05


@pytest.mark.slow
def test_the_first_sentence_says_what_the_table_says(run: Path) -> None:
    tree = bdf.open_run(run)["scores"]
    page = re.sub(r"\s+", " ", (run / "report.html").read_text()).replace("&#39;", "'")
    said = score_page.first_sentence(tree)
    assert said in page and "the disagreement names more" in said
    table = pd.read_csv(run / "tables" / "gain.csv", index_col=0)
    for features, own in table.groupby("features"):
        best = own[own["best"] == 1].iloc[0]
        assert best["difference"] == own["difference"].min()
        value, low, high = (100 * best[f"difference{end}"] for end in ("", ".low", ".high"))
        assert f"{value:+.1f} points (95 % interval {low:+.1f} to {high:+.1f})" in said, features


def test_a_column_that_is_no_detector_is_told(tmp_path: Path) -> None:
    with pytest.warns(BayesdfWarning, match="column 'quality' says the same of all images"):
        read_scores(write(made().assign(quality=0.9), tmp_path / "scores.csv"), "probability")


@pytest.mark.slow
def test_one_sharp_detector_is_not_taken_for_disagreement(tmp_path: Path) -> None:
    """Its score alone names the sources. The others only tell real from fake, so disagreement holds nothing more."""
    rng = np.random.default_rng(0)
    images, sources = 480, ("real", "one", "two", "three")
    number = np.arange(images) % 4
    sharp = np.array([-2.0, 1.0, 3.0, 5.0])[number] + rng.normal(0.0, 0.3, images)
    others = np.where(number > 0, 1.5, -1.5)[:, None] + rng.normal(0.0, 1.0, (images, 4))
    scores = pd.DataFrame(np.column_stack([sharp, others]), columns=[f"d{one}" for one in range(5)])
    known = {"label": (number > 0).astype(int), "source": np.array(sources)[number]}
    known["subject"] = [f"p{one}" for one in rng.integers(0, 40, images)]
    file = read_scores(write(scores.assign(**known), tmp_path / "scores.csv"), "log-odds")
    tree = score_study.judge_scores(file)
    assert "best detector's score alone" in score_page.first_sentence(tree)
    assert "the disagreement names more" not in score_page.first_sentence(tree)


@pytest.mark.slow
def test_recalibrating_the_mean_helps_these_scores(run: Path) -> None:
    table = calibration_of(bdf.open_run(run)["scores"])
    assert list(table.index) == [GIVEN, SCALED, RECALIBRATED]
    for name in (SCALED, RECALIBRATED):
        for figure in ("ece", "nll"):
            apart = table[figure][name] - table[figure][GIVEN]
            assert table[f"{figure}_difference"][name] == pytest.approx(apart)
    assert table["nll"][RECALIBRATED] < table["nll"][GIVEN]


def test_shuffling_keeps_each_detector_and_the_labels(tmp_path: Path) -> None:
    tree = read_scores(write(made(), tmp_path / "scores.csv"), "probability").predictions
    other = score_study.shuffled(tree, seed=0)
    label = tree["observed_data/label"].values
    before, after = (part["posterior_predictive/logits"].values[0] for part in (tree, other))
    assert not np.array_equal(before, after)
    for number in (0, 1):
        own = [np.sort(values[:, label == number], axis=1) for values in (before, after)]
        np.testing.assert_array_equal(own[0], own[1])


@pytest.mark.slow
def test_votes_and_missing_scores(tmp_path: Path) -> None:
    table = made()
    table[DETECTORS] = (table[DETECTORS] > 0.5).astype(float)
    table.loc[[3, 7, 8], "vit"] = np.nan
    path = write(table, tmp_path / "votes.csv")
    with pytest.raises(
        BayesdfError, match=r'3 of 360 images lack a score \(first: line 5, column .vit.\).*"leave out"'
    ):
        read_scores(path, "vote")
    with pytest.warns(bdf.errors.BayesdfWarning, match="coverage 0.992"):
        file = read_scores(path, "vote", missing="leave out")
    tree = score_study.judge_scores(file)
    assert tree.attrs["coverage"] == pytest.approx(357 / 360)
    assert list(calibration_of(tree).index) == [GIVEN, RECALIBRATED]
    said = " ".join(score_page.cautions(tree))
    assert "0.8% of the images lack a score" in said and "Votes have no aleatoric" in said
    assert score_page.tables(tree)["images"]["left_out"].sum() == 3


def test_rounded_probabilities_are_moved_and_counted(tmp_path: Path) -> None:
    table = made()
    table.loc[[1, 2], "cnn"] = [1.0, 0.0]
    tree = read_scores(write(table, tmp_path / "scores.csv"), "probability").predictions
    assert tree.attrs["moved"] == 2 and tree.attrs["certain"] == 0


def test_linked_people_are_one_group(tmp_path: Path) -> None:
    table = made()
    table["donor"] = np.where((table["source"] == "swap") & (table["subject"] == "p2"), "p7", "")
    table["group"] = np.where(table["subject"].isin(["p7", "p9"]), "studio", "")
    groups = read_scores(write(table, tmp_path / "scores.csv"), "probability").subject_groups
    assert groups[table["subject"].isin(["p2", "p7", "p9"])].nunique() == 1
    assert groups.nunique() == 18


def set_column(**columns: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda table: table.assign(**columns)


def put(column: str, row: int, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table[column] = table[column].astype(object)
        table.loc[row, column] = value
        return table

    return change


def drop(*columns: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda table: table.drop(columns=list(columns))


ONE_SUBJECT = lambda table: table[(table["source"] != "vae") | (table["subject"] == "p3")]  # noqa: E731
BAD_TABLES: list[tuple[Callable[[pd.DataFrame], pd.DataFrame], list[str], str]] = [
    (
        put("vit", 4, np.nan),
        [],
        r"1 of 360 images lack a score \(first: line 6, column 'vit'\).*--missing .leave out",
    ),
    (
        put("vit", 4, 1.2),
        [],
        r"1 of 1080 scores are not between 0 and 1.*1.2.*percentages by 100.*--kind log-odds",
    ),
    (lambda table: put("vit", 4, 1.2)(table).drop(columns="path"), [], "first: 1.2 of line 6, column 'vit'"),
    (put("vit", 4, "high"), [], r"column 'vit' holds 'high' on line 6, which is no number.*--detectors a,b"),
    (drop("label"), [], "there is no column 'label' .the columns are cnn, vit"),
    (drop("source"), [], "there is no column 'source'"),
    (drop("subject"), [], "there is no column 'subject'"),
    (lambda table: table[:0], [], "the table has no rows"),
    (put("label", 4, ""), [], "label must hold integers from 0 to 1"),
    (put("label", 4, 7), [], "label must hold integers from 0 to 1, one an image, and holds 7"),
    (put("label", 1, 0), [], "1 of 360 labels contradict the sources"),
    (put("source", 4, ""), [], "line 6 has no source"),
    (put("subject", 4, ""), [], "line 6 is a photograph without a subject"),
    (put("path", 8, "real/4.png"), [], r"real/4.png is on lines 6 and 10 \(1 such rows\): keep one"),
    (lambda table: table.assign(group=np.arange(360) % 7), [], "subject 'p0' is in the groups '0' and '[1-6]'"),
    (lambda table: table[table["source"].isin(["real", "vae"])], [], "all fakes are of source 'vae'"),
    (lambda table: table[table["label"] == 1], [], "no image is real .label 0."),
    (lambda table: table[table["label"] == 0], [], "no image is fake .label 1."),
    (ONE_SUBJECT, [], "source 'vae' shows a single subject or group"),
    (drop("vit", "spectrum"), [], "uncertainty is how detectors disagree, so give two or more"),
    (drop(*DETECTORS), [], r"0 column\(s\) of scores"),
    (set_column(), ["--detectors", "cnn,resnet"], "--detectors: there is no column 'resnet'; the columns are cnn, vit"),
    (set_column(), ["--detectors", "cnn,label"], "column 'label' describes the image"),
    (set_column(), ["--missing", "drop"], "--missing 'drop': choose from 'refuse', 'leave out'"),
    (set_column(), ["--kind", "logit"], "--kind 'logit': say what the scores are, one of probability, log-odds, vote"),
    (set_column(frame=range(360)), [], "column 'frame' of the table holds"),
]


@pytest.mark.parametrize(("change", "options", "message"), BAD_TABLES, ids=[text[2][:40] for text in BAD_TABLES])
def test_bad_tables_are_one_line_and_nothing_is_written(
    change: Callable[[pd.DataFrame], pd.DataFrame],
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(change(made()), tmp_path / "scores.csv")
    refused(["--predictions", "scores.csv", "--kind", "probability", *options], message, tmp_path, monkeypatch, capsys)


FILES = {
    "scores.csv": b"",
    "blank.csv": b"\n",
    "text.csv": b"dear all,\nhere are the scores, as agreed, of today\nand, more\n",
    "list.csv": b"one\ntwo\nthree\n",
    "index.csv": b",cnn,label,source,subject\n0,0.1,0,real,a\n",
    "image.csv": b"\x89PNG\r\n\x1a\n\xff\xfe\x00",
    "twice.csv": b"cnn,cnn,label,source,subject\n0.1,0.2,0,real,a\n",
    "ragged.csv": b"cnn,label,source,subject\n0.1,0,real,a,b,c,d\n",
}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--predictions", "scores.csv"], "scores.csv is empty: give a table with a header"),
        (["--predictions", "blank.csv"], "blank.csv is empty"),
        (["--predictions", "text.csv"], "text.csv: column 2 has no name"),
        (["--predictions", "list.csv"], "there is no column 'label' .the columns are one"),
        (["--predictions", "index.csv"], r"index.csv: column 1 has no name.*to_csv\(index=False\)"),
        (["--predictions", "image.csv"], "image.csv is no text"),
        (["--predictions", "twice.csv"], "two columns 'cnn'"),
        (["--predictions", "ragged.csv"], "ragged.csv: line 2 has 7 values and the first line names 4 columns"),
        (["--predictions", "nowhere.csv"], "there is no file nowhere.csv"),
        (["--predictions", "."], "is a folder"),
        (["--predictions", "scores.csv", "--draws", "9"], "--draws with --predictions: a table of scores needs no"),
        (["--predictions", "scores.csv", "--quick", "--data", "x"], "--data, --quick with --predictions"),
        (["--predictions", "scores.csv", "--detector", "resnet18"], "--detector with --predictions"),
    ],
)
def test_bad_files_and_options_are_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    refused([*arguments, "--kind", "probability"], message, tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--predictions", "scores.csv"], "--predictions needs --kind: say what the scores are, one of probability"),
        (["--kind", "vote"], "--kind is of a table of scores: give --predictions scores.csv too"),
        (["--missing", "leave out", "--data", "x"], "--missing is of a table of scores"),
    ],
)
def test_what_belongs_together_is_asked_for(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    refused(arguments, message, tmp_path, monkeypatch, capsys)


def refused(
    arguments: list[str],
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The command line ends with status 2 and one line that says so, and leaves the folder as it was."""
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    status, said = call(monkeypatch, capsys, arguments)
    assert status == 2, said
    lines = [line for line in said.splitlines() if "bayesdf:" in line]
    assert len(lines) == 1 and re.search(message, lines[0]), said
    assert sorted(folder.iterdir()) == before

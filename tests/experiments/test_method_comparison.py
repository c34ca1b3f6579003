"""The method comparison, small: what it writes, that it repeats, that it resumes, and what it says to bad input."""

import json
import re
from collections import defaultdict
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

import bayesdf as bdf
from bayesdf.cli import run_cli
from bayesdf.experiments import experiment, warm_start
from bayesdf.experiments.method_comparison import figures, methods, study
from bayesdf.experiments.method_comparison.__main__ import main
from bayesdf.experiments.quick import CUTS
from bayesdf.inference.training import Training
from bayesdf.report.methods import METHODS

TINY = [
    *("--detector", "test_efficientnet", "--size", "32", "--warm-epochs", "0", "--left-out", "blur", "--quick"),
    *("--draws", "4", "--device", "cpu"),
]


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[object, str]:
    """The command line in this process: exit status, and what it printed on standard error."""
    monkeypatch.setattr("sys.argv", ["method_comparison", *map(str, arguments)])
    monkeypatch.setattr("warnings.showwarning", None)
    with pytest.raises(SystemExit) as left:
        run_cli(main)
    return left.value.code, capsys.readouterr().err


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of SVI with two seeds."""
    out = tmp_path_factory.mktemp("runs") / "first"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as left:
        patch.setattr("sys.argv", ["x", "--data", str(photos), "--out", str(out), "--method", "svi", *TINY])
        run_cli(main)
    assert left.value.code == 0
    return out


@pytest.fixture(scope="module")
def resumed(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of SVI and MAP with one seed, stopped in the second fit and taken up again; and what it printed."""
    out = tmp_path_factory.mktemp("runs") / "second"
    arguments = ("--data", photos, "--out", out, "--method", "svi,map", "--seeds", 1, *TINY)
    make, made, said = study.fit, [], StringIO()

    def failing(name: str, seed: int, *rest: object) -> object:
        if made:
            raise KeyboardInterrupt
        made.append((name, seed))
        return make(name, seed, *rest)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["x", *map(str, arguments)])
        # Drawing takes much of a small run's time.
        patch.setattr(figures, "figures", lambda *_: {})
        patch.setattr(experiment, "write_figures", lambda *_: defaultdict(Figure))
        with patch.context() as stopping, pytest.raises(SystemExit) as left:
            stopping.setattr(study, "fit", failing)
            run_cli(main)
        assert left.value.code == 130 and made == [("map", 0)] and not out.exists()
        with redirect_stderr(said), pytest.raises(SystemExit) as left:
            run_cli(main)
    assert left.value.code == 0
    return out, said.getvalue()


@pytest.mark.slow
def test_a_run_folder_is_complete(finished: Path, resumed: tuple[Path, str]) -> None:
    trees = {"svi": bdf.open_run(finished), "map": bdf.open_run(resumed[0])}
    assert set(trees["svi"]["svi"].children) == {"0", "1"} and set(trees["map"].children) == {"map", "svi"}
    for name, draws in (("map", 1), ("svi", 4)):
        one = trees[name][f"{name}/0"]
        logits = one["posterior_predictive/logits"]
        assert logits.dims == ("chain", "draw", "image", "class") and logits.sizes["draw"] == draws
        assert set(one["constant_data/source"].values) == {"real", "edges"}
        assert set(one["left_out/constant_data/source"].values) == {"blur"}
        assert one["left_out/posterior_predictive/logits"].sizes["draw"] == draws
        assert (one["left_out/observed_data/label"] == 1).all()
        again = bdf.analysis.evaluate(one, resamples=1)
        assert float(one["metrics/nll"][0]) == float(again["nll"][0])
        assert (float(one["uncertainty/epistemic"].max()) == 0.0) == (name == "map")
    assert trees["svi"].attrs["experiment"] == "method_comparison" and trees["svi"].attrs["left_out"] == "blur"
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["svi.nll"] == pytest.approx((metrics["svi.0.nll"] + metrics["svi.1.nll"]) / 2)
    assert json.loads((resumed[0] / "metrics.json").read_text())["map.ood_auroc_epistemic"] == 0.5
    assert {path.name for path in (finished / "posteriors").iterdir()} == {"svi-0.zarr", "svi-1.zarr"}
    assert len(list((finished / "figures").glob("*.png"))) == 6 and (finished / "tables" / "seeds.csv").is_file()
    assert "Which way to a posterior?" in (finished / "report.html").read_text()


@pytest.mark.slow
def test_seeds_differ_and_methods_share_their_start(finished: Path, resumed: tuple[Path, str]) -> None:
    paths = [finished / "posteriors" / "svi-0.zarr", finished / "posteriors" / "svi-1.zarr"]
    posteriors = [bdf.load_posterior(path) for path in (*paths, resumed[0] / "posteriors" / "map-0.zarr")]
    states = [posterior.network.state_dict() for posterior in posteriors]
    for key, value in states[0].items():
        same = not key.startswith(f"{bdf.models.classifier(posteriors[0].network)}.")
        assert torch.equal(value, states[1][key]) == same == torch.equal(value, states[2][key]), key


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_end(finished: Path, resumed: tuple[Path, str]) -> None:
    """A fit has the same figures, but for times, in a run that was stopped and in one that was not."""
    out, said = resumed
    assert said.count("found finished in the stopped run") == 1
    first, second = (json.loads((run / "metrics.json").read_text()) for run in (finished, out))
    of_fit = {key for key in second if key.startswith("svi.0.") and "seconds" not in key}
    assert len(of_fit) > 30 and {key: first[key] for key in of_fit} == {key: second[key] for key in of_fit}


@pytest.mark.slow
def test_one_seed_says_that_there_is_no_interval(finished: Path, resumed: tuple[Path, str]) -> None:
    out, said = resumed
    assert "no intervals over seeds" in said and "no interval over seeds" in (out / "report.html").read_text()
    first, second = (json.loads((run / "metrics.json").read_text()) for run in (finished, out))
    assert first["svi.nll.low"] is not None and second["svi.nll.low"] is None


@pytest.mark.slow
def test_a_fit_that_was_taken_up_has_no_time(
    finished: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = bdf.data.load(photos, size=32)
    rest, unseen = bdf.data.leave_out(collection, "blur")
    network = warm_start.build_untrained("mobilenet", rest)
    budget = methods.Budget(2, 4, quick=True)
    save, stop = bdf.Posterior.save, True

    def stopped(self: bdf.Posterior, path: Path, overwrite: bool = False) -> Path:
        if stop:
            raise KeyboardInterrupt
        return save(self, path, overwrite)

    monkeypatch.setattr(bdf.Posterior, "save", stopped)
    with pytest.raises(KeyboardInterrupt):
        study.fit("map", 0, network, rest.train, budget, tmp_path, "cpu")
    stop = False
    posterior = study.fit("map", 0, network, rest.train, budget, tmp_path, "cpu")
    assert posterior.attrs["fit_resumed"] == 1 and [path.name for path in (tmp_path / "posteriors").iterdir()] == [
        "map-0.zarr"
    ]
    assert np.isnan(study.judge(posterior, rest.test, unseen, budget, 0, "cpu")["cost/fit_seconds"])
    whole = bdf.load_posterior(finished / "posteriors" / "svi-0.zarr")
    assert study.judge(whole, rest.test, unseen, budget, 0, "cpu")["cost/fit_seconds"] > 0


@pytest.mark.parametrize("name", ["resnet18", "mobilenet", "efficientnet"])
def test_dropout_sees_the_features(name: str) -> None:
    """A mask of as many channels as the classifier has inputs, and nothing between the two that could change it."""
    network = bdf.models.build(name, num_classes=2, small_stem=True).eval()
    image = torch.rand(2, 3, 32, 32)
    path = methods.before_classifier(network, image)
    seen: list[torch.Tensor] = []
    network.get_submodule(path).register_forward_hook(lambda module, inputs, output: seen.append(output.flatten(1)))
    with torch.no_grad():
        network(image)
    assert torch.equal(seen[0], bdf.models.penultimate(network, image))
    assert network.training is False


def test_every_method_is_set_alike(photos: Path) -> None:
    """All of them learn for as long, from the same seed, and leave the network up to its classifier as it is."""
    network, image = bdf.models.build("mobilenet", num_classes=2, small_stem=True), torch.rand(1, 3, 32, 32)
    for name in methods.FACTORIES:
        made = methods.method(name, network, image, methods.Budget(7, 50), seed=3, device="cpu")
        assert isinstance(made, Training) and name in METHODS
        assert (made.epochs, made.seed, made.freeze, made.augment, made.class_balanced) == (7, 3, "prefix", None, True)
        short = methods.method(name, network, image, methods.Budget(7, 50, quick=True), seed=3, device="cpu").settings()
        assert CUTS.get(name, {}).items() <= short.items()
    head = [key for key, value in network.named_modules() if isinstance(value, nn.Linear)][-1]
    assert list(bdf.Detector(network, methods.shared_priors(network)).sites) == [f"{head}.weight", f"{head}.bias"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "magic"], "unknown method 'magic': choose from map, svi"),
        (["--method", ","], "--method is empty"),
        (["--left-out", "magic"], "no generator 'magic' to leave out: choose one of blur, edges"),
        (["--left-out", "real"], "no generator 'real' to leave out"),
        (["--seeds", "0"], "--seeds 0: give at least 1"),
        (["--draws", "1"], "at least 2 draws"),
        (["--epochs", "0"], "--epochs must be at least 1"),
        (["--data", "nowhere"], "no folder at nowhere"),
        (["--out", "taken"], "taken holds other files"),
        (["--detector", "resnet81"], "there is no network 'resnet81'"),
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
    status, said = call(monkeypatch, capsys, "--data", photos, "--left-out", "blur", "--size", "32", *arguments)
    lines = [line for line in said.splitlines() if "bayesdf:" in line]
    assert status == 2 and len(lines) == 1 and re.search(message, lines[0]), said
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]

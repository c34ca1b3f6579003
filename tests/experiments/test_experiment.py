"""What every experiment gets, and the shape that all of them have."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayesdf
from bayesdf.cli import run_cli
from bayesdf.errors import BayesdfError, BayesdfWarning
from bayesdf.experiments.experiment import CELLS, Cell, Presentation, Study, Summary, conduct
from bayesdf.experiments.listing import questions
from bayesdf.store import open_run

PACKAGE = Path(bayesdf.__file__).parent / "experiments"
EXPERIMENTS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


class Stop(Exception):
    """Stands for whatever stops a run."""


def present(tree: xr.DataTree) -> Presentation:
    table = pd.DataFrame({"sum": {name: float(child["x"].sum()) for name, child in tree.children.items()}})
    return Presentation(
        metrics={"total": float(table["sum"].sum())},
        tables={"sums": table},
        figures={},
        page=lambda path, pictures: path.write_text("page"),
        summary=Summary("Sums", ("", "sum"), [("all", "1")], answer="An answer.", warnings=["mind this"]),
    )


def study(log: list[str], *, scale: float = 1.0, fail_at: str = "", names: str = "abc") -> Study:
    """Cells that add up numbers from a seed of their own, and note that they have worked."""

    def work(name: str) -> Callable[[Path], xr.DataTree]:
        def draw(folder: Path) -> xr.DataTree:
            assert folder.is_dir()
            if name == fail_at:
                raise Stop
            log.append(name)
            x = scale * np.random.default_rng(ord(name)).normal(size=5)
            return xr.DataTree.from_dict({"/": xr.Dataset({"x": ("i", x)}, attrs={"of": name}), "/below": xr.Dataset()})

        return draw

    cells = [Cell(name, f"cell {name}", work(name), {"scale": scale}) for name in names]
    return Study("sums", {"seed": 0}, cells, present, attrs={"scale": scale})


def run(out: Path, log: list[str], **settings: object) -> None:
    with pytest.warns(BayesdfWarning, match="mind this"):
        conduct(lambda: study(log, **settings), out)  # type: ignore[arg-type]


def test_a_run_holds_the_cells_and_says_how_it_was_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "run", [])
    said = capsys.readouterr().err
    assert "2/3 cell b" in said and "An answer." in said and "Sums" in said
    tree = open_run(tmp_path / "run")
    assert set(tree.children) == set("abc") and tree["b"].attrs == {"of": "b"} and "below" in tree["b"].children
    assert tree.attrs["experiment"] == "sums" and tree.attrs["bayesdf"] == bayesdf.__version__
    assert tree.attrs["seed"] == "0" and tree.attrs["scale"] == "1.0" and tree.attrs["seconds"] >= 0
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert written == {"run.zarr", "metrics.json", "settings.json", "tables", "figures", "report.html"}
    assert json.loads((tmp_path / "run" / "settings.json").read_text()) == {"seed": 0, "scale": 1.0}


def test_a_stopped_run_does_no_cell_again_and_ends_the_same(tmp_path: Path) -> None:
    log: list[str] = []
    with pytest.raises(Stop):
        conduct(lambda: study(log, fail_at="c"), tmp_path / "run")
    with pytest.raises(BayesdfError, match="started but not finished"):
        open_run(tmp_path / "run")
    run(tmp_path / "run", log)
    assert log == ["a", "b", "c"]
    run(tmp_path / "whole", log)
    first, second = open_run(tmp_path / "run"), open_run(tmp_path / "whole")
    for tree in (first, second):
        del tree.attrs["seconds"]
    assert first.identical(second)
    assert (tmp_path / "run" / "metrics.json").read_text() == (tmp_path / "whole" / "metrics.json").read_text()


def test_groups_and_variables_keep_their_order(tmp_path: Path) -> None:
    """A store gives them back in the order of the folder, which differs from run to run."""
    names = [f"v{number}" for number in np.random.default_rng(0).permutation(8)]
    made = xr.Dataset({name: ("i", np.arange(2.0)) for name in names}, {"k": ("i", ["a", "b"]), "c": 1}, {"of": "x"})
    whole = xr.DataTree.from_dict({"/": made, **{f"/g{name}": made for name in names}})
    found: list[xr.DataTree] = []

    def show(tree: xr.DataTree) -> Presentation:
        found.append(tree)
        return present(xr.DataTree.from_dict({"a": xr.Dataset({"x": 1.0})}))

    cell = Cell("one", "", lambda folder: whole)
    with pytest.warns(BayesdfWarning):
        conduct(lambda: Study("s", {}, [cell], show, collect=lambda results: results["one"]), tmp_path / "run")
    for path in ("/", f"/g{names[0]}"):
        assert list(found[0][path].to_dataset(inherit=False).variables) == list(made.variables)
        assert found[0][path].to_dataset(inherit=False).drop_attrs().identical(made.drop_attrs())
    assert list(found[0].children) == [f"g{name}" for name in names]


def test_cells_do_not_depend_on_each_other(tmp_path: Path) -> None:
    run(tmp_path / "all", [])
    run(tmp_path / "one", [], names="b")
    assert open_run(tmp_path / "all")["b"].identical(open_run(tmp_path / "one")["b"])


def test_a_finished_cell_with_other_settings_or_damage_is_done_again(tmp_path: Path) -> None:
    log: list[str] = []
    with pytest.raises(Stop):
        conduct(lambda: study(log, fail_at="c"), tmp_path / "run")
    damaged = tmp_path / "run.partial" / CELLS / "b.zarr" / "x" / "0"
    damaged.write_bytes(damaged.read_bytes()[:7])
    with pytest.raises(Stop):
        conduct(lambda: study(log, fail_at="c"), tmp_path / "run")
    assert log == ["a", "b", "b"]
    run(tmp_path / "run", log, scale=2.0)
    assert log == ["a", "b", "b", "a", "b", "c"]


def test_a_taken_folder_is_refused_before_the_study_is_declared(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").touch()
    with pytest.raises(BayesdfError, match="holds other files"):
        conduct(lambda: pytest.fail("declared"), tmp_path / "run")


def test_a_second_process_is_refused_before_the_study_is_declared(tmp_path: Path) -> None:
    """Declaring may take minutes, as images are read."""

    def declare() -> Study:
        with pytest.raises(BayesdfError, match="another process is working on"):
            conduct(lambda: pytest.fail("declared"), tmp_path / "run")
        return study([])

    with pytest.warns(BayesdfWarning, match="mind this"):
        conduct(declare, tmp_path / "run")


@pytest.mark.parametrize("name", ["", "../up", "a//b", "/a", "a/.", "a" * 201, "a\0b"])
def test_cells_stay_below_the_run(name: str) -> None:
    with pytest.raises(BayesdfError, match="a cell is named"):
        Cell(name, "", lambda folder: xr.DataTree())


def test_two_cells_of_one_name_and_settings_that_no_file_can_hold_are_refused() -> None:
    with pytest.raises(BayesdfError, match="two cells are named 'a'"):
        study([], names="aba")
    with pytest.raises(BayesdfError, match="cell a: its settings are not what JSON knows"):
        _ = Cell("a", "", lambda folder: xr.DataTree(), {"weights": np.zeros(3)}).key


def test_a_result_may_be_a_node_of_a_tree_and_have_any_attributes(tmp_path: Path) -> None:
    whole = xr.DataTree.from_dict({"/": xr.Dataset(coords={"k": [1, 2]}), "/b/c": xr.Dataset({"x": ("k", [1.0, 2.0])})})
    whole["b"].attrs = {"cell": 3, "order": "any"}
    cell = Cell("one", "", lambda folder: whole["b"])
    with pytest.warns(BayesdfWarning):
        conduct(lambda: Study("s", {}, [cell], lambda tree: present(xr.DataTree())), tmp_path / "run")
    found = open_run(tmp_path / "run")["one"]
    assert found.attrs == {"cell": 3, "order": "any"} and found["c/x"].values.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("left", ["b.zarr/.zgroup", "b.zarr/x", "b.zarr/below"])
def test_a_store_that_was_being_removed_is_done_again(left: str, tmp_path: Path) -> None:
    """A process may be killed at any moment; what lacks a part is not taken for a result."""
    log: list[str] = []
    with pytest.raises(Stop):
        conduct(lambda: study(log, fail_at="c"), tmp_path / "run")
    gone = tmp_path / "run.partial" / CELLS / left
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    run(tmp_path / "run", log)
    assert log == ["a", "b", "b", "c"]


def test_a_finished_run_holds_nothing_of_a_try_with_other_cells(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        conduct(lambda: study([], fail_at="c"), tmp_path / "run")
    stale = tmp_path / "run.partial" / "tables" / "stale.csv"
    stale.parent.mkdir()
    stale.touch()
    run(tmp_path / "run", [], names="ab")
    assert [path.name for path in (tmp_path / "run" / "tables").iterdir()] == ["sums.csv"]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_has_the_same_modules(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {path.stem for path in (PACKAGE / name).glob("*.py")}
    assert {"__init__", "__main__", "study", "tables", "figures", "page"} <= modules
    home = f"bayesdf.experiments.{name}"
    assert callable(import_module(f"{home}.study").study)
    assert callable(import_module(f"{home}.tables").tables)
    assert callable(import_module(f"{home}.tables").metrics)
    assert callable(import_module(f"{home}.figures").figures)
    assert callable(import_module(f"{home}.page").present)
    assert questions()[name].endswith("?")
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit) as left:
        run_cli(import_module(f"{home}.__main__").main)
    assert left.value.code == 0


def test_the_questions_are_listed_without_loading_anything() -> None:
    for module in ("bayesdf", "bayesdf.experiments"):
        code = (
            f"import runpy, sys; sys.argv = ['x']; runpy.run_module({module!r}, run_name='__main__'); "
            "assert not {'torch', 'xarray', 'matplotlib'} & set(sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        for name, question in questions().items():
            assert f"python -m bayesdf.experiments.{name}" in done.stdout and question in done.stdout
    assert list(questions()) == EXPERIMENTS


@pytest.mark.parametrize("module", ["bayesdf", "bayesdf.experiments"])
def test_the_list_ends_quietly_where_nobody_reads_on(module: str) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    done = subprocess.run([sys.executable, "-m", module], stdout=writes, stderr=subprocess.PIPE, text=True)
    os.close(writes)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("given", "known"), [("inversion", "inversion"), ("nonsense", "<experiment>")])
def test_the_list_runs_nothing(given: str, known: str) -> None:
    done = subprocess.run([sys.executable, "-m", "bayesdf", given, "--quick"], capture_output=True, text=True)
    assert done.returncode == 2 and f"python -m bayesdf.experiments.{known}" in done.stderr
    assert "Traceback" not in done.stderr and not done.stdout

"""A run's folder is complete or not there, and no work is lost without a word."""

import errno
import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bayesdf.errors import BayesdfError, BayesdfWarning
from bayesdf.experiments.workspace import take_up
from bayesdf.experiments.workspace import workspace as taken


@contextmanager
def workspace(out: Path, settings: dict[str, object], follows: dict[str, object] | None = None) -> Iterator[Path]:
    """A folder to work in, as a run has it."""
    with taken(out) as folder:
        take_up(folder, settings, follows)
        yield folder


def test_a_workspace_is_there_or_not(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(RuntimeError), workspace(out, {"seed": 0}):
        raise RuntimeError("stopped before anything was done")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeError), workspace(out, {"seed": 0}) as folder:
        (folder / "half").write_text("done so far")
        raise RuntimeError("stopped in the middle")
    with workspace(out, {"seed": 0}) as folder:
        assert (folder / "half").read_text() == "done so far"
    assert (out / "half").is_file() and not (out / "lock").exists()
    with pytest.raises(BayesdfError, match="holds other files"), workspace(out, {"seed": 0}):
        pass


def test_folders_made_for_a_run_that_did_nothing_are_gone(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), workspace(tmp_path / "a" / "b" / "run", {}):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_run_with_other_settings_is_kept_and_the_difference_said(tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = {"seed": 0, "epochs": None, "data": "embedded"}
    follows = {"fingerprint": "a", "methods": {"svi": {"epochs": None, "seed": 0}}}
    with pytest.raises(RuntimeError), workspace(out, settings, follows) as folder:
        (folder / "half").write_text("done so far")
        raise RuntimeError

    def refused(change: dict[str, object], follows: dict[str, object]) -> str:
        with pytest.raises(BayesdfError) as said, workspace(out, settings | change, follows):
            pass
        return str(said.value)

    # An option comes alone: what follows from it differs too, and says nothing new.
    other = {"fingerprint": "b", "methods": {"svi": {"epochs": 8, "seed": 3}}}
    message = refused({"seed": 3}, other)
    assert "(seed: 0 then, 3 now)" in message and "\n" not in message
    assert str(tmp_path / "run.partial") in message and "another --out" in message
    assert "(epochs: null then, 8 now; size: none then, 64 now)" in refused({"epochs": 8, "size": 64}, other)
    assert '(fingerprint: "a" then, "b" now)' in refused({}, follows | {"fingerprint": "b"})
    assert "; and 2 more)" in refused({name: 1 for name in "vwxyz"}, follows)
    with workspace(out, settings, follows) as folder:
        assert (folder / "half").read_text() == "done so far"
        with pytest.raises(BayesdfError, match="another process"), workspace(out, settings, follows):
            pass


def test_a_folder_that_no_run_left_is_not_emptied(tmp_path: Path) -> None:
    precious = tmp_path / "run.partial" / "precious"
    precious.parent.mkdir()
    precious.write_text("kept")
    with pytest.raises(BayesdfError, match=r"no readable settings\.json") as said:
        workspace(tmp_path / "run", {"seed": 0}).__enter__()
    assert "delete" not in str(said.value)
    assert precious.read_text() == "kept"


def test_a_run_that_had_done_nothing_starts_over_with_other_settings(tmp_path: Path) -> None:
    partial = tmp_path / "run.partial"
    for noted in ('{"seed": 0}', '{"seed'):
        partial.mkdir()
        (partial / "settings.json").write_text(noted)
        with pytest.raises(RuntimeError), workspace(tmp_path / "run", {"seed": 1}) as folder:
            assert json.loads((folder / "settings.json").read_text()) == {"seed": 1}
            raise RuntimeError


def test_a_disk_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unknown)
    with pytest.warns(BayesdfWarning, match="cannot be locked"), workspace(tmp_path / "run", {}):
        pass
    assert (tmp_path / "run").is_dir()


def test_what_killed_writers_left_is_not_in_a_finished_run(tmp_path: Path) -> None:
    with workspace(tmp_path / "run", {}) as folder:
        left = folder / "tables" / ".a.csv.0123abcd.unfinished"
        left.mkdir(parents=True)
        (left / "new.csv").touch()
    assert sorted(path.name for path in (tmp_path / "run").rglob("*")) == ["settings.json", "tables"]

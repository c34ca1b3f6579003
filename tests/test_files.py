"""Files are written whole or not at all."""

import errno
from pathlib import Path

import pytest

from bayesdf import files
from bayesdf.files import atomic_write


def test_a_file_is_replaced_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "new" / "note.txt"
    for text in ("one", "two"):
        with atomic_write(path) as beside:
            beside.write_text(text)
            assert not path.exists() or path.read_text() == "one"
        assert path.read_text() == text
    assert [item.name for item in path.parent.iterdir()] == ["note.txt"]


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as beside:
        beside.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("missing", [(), ("_renameat2",), ("_renameat2", "link")])
def test_a_new_file_replaces_nothing_that_appears_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...]
) -> None:
    """Where the system can rename without replacing, where it has links, and where it has neither."""

    def unknown(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    for name in missing:
        monkeypatch.setattr(files.os if name == "link" else files, name, unknown)
    path = tmp_path / "note.txt"
    with atomic_write(path, new=True) as beside:
        beside.write_text("first")
    with pytest.raises(FileExistsError), atomic_write(path, new=True) as beside:
        beside.write_text("second")
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]


def test_what_killed_writers_left_is_cleared_and_what_others_work_in_is_not(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    for number, left in enumerate(("lock", "new.txt", None)):
        folder = tmp_path / f".note.txt.0000000{number}.unfinished"
        folder.mkdir()
        if left:
            (folder / "lock").touch()
            (folder / left).write_text("half")
    strangers = [
        tmp_path / name for name in (".note.txt.unfinished", ".note.txt.0000000g.unfinished", ".b.0.unfinished")
    ]
    for stranger in strangers:
        stranger.mkdir()
    with files.staging_folder(path) as other:
        with atomic_write(path) as beside:
            beside.write_text("whole")
        assert (other / "lock").exists()
        assert sorted(tmp_path.iterdir()) == sorted([path, other, *strangers])
    assert sorted(tmp_path.iterdir()) == sorted([path, *strangers])

"""A ledger tells what was made from it, whoever edits, cuts, shuffles or repeats it."""

import errno
import fcntl
import io
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bayesdf import ledger
from bayesdf.errors import BayesdfError
from bayesdf.generators.generator import Generator
from bayesdf.ledger import log, records
from bayesdf.ledger.errors import LedgerError
from tests.ledger.toy import DIM, SECRET, TOY, lines, rebuilt, write


def test_a_draw_is_recorded_goes_on_and_is_recalled(path: Path) -> None:
    indexes, codes = ledger.draw(path, SECRET, TOY, 3)
    assert indexes == range(12, 15) and codes.shape == (3, DIM) and codes.dtype == torch.float32
    assert torch.equal(ledger.recall(path, SECRET, TOY, indexes), codes)
    found = ledger.check(path)
    assert found.samples == 14 and found.generator == "toy" and found.latent_dim == DIM
    with pytest.raises(LedgerError, match="samples 1 to 14"):
        ledger.recall(path, SECRET, TOY, [15])


def test_every_edited_byte_is_detected(path: Path) -> None:
    whole = b"".join(line + b"\n" for line in lines(path)[:4])

    def check(content: bytes) -> int:
        return records.read(records.lines_of(io.BytesIO(content), "the log"), "the log").samples

    assert check(whole) == 3
    for place, byte in enumerate(whole):
        before, after = whole[:place], whole[place + 1 :]
        edited = [before + bytes([other]) + after for other in {byte ^ 1, byte ^ 0x20, 0x0A, 0x61} - {byte}]
        for content in (*edited, before + after, before + b" " + whole[place:]):
            with pytest.raises(LedgerError):
                check(content)


def test_an_edited_record_is_named(path: Path) -> None:
    text = lines(path)
    text[5] = text[5].replace(b'"record":5', b'"record":6')
    write(path, text)
    with pytest.raises(ledger.TamperedError, match="record 5 "):
        ledger.check(path)


def test_a_record_replaced_by_one_of_another_key_does_not_fit_the_chain(path: Path, tmp_path: Path) -> None:
    text = lines(path)
    forged = rebuilt(text, lambda record: record.update(commitment="0" * 64), 5)
    write(path, [*forged[:6], *text[6:]])
    with pytest.raises(ledger.TamperedError, match="record 6 does not follow record 5"):
        ledger.check(path)


def test_records_cut_off_are_missed_under_a_head(path: Path) -> None:
    head = ledger.publish(path, SECRET)
    write(path, lines(path)[:9])
    assert ledger.check(path).samples == 8  # sound in itself: only the head tells
    with pytest.raises(ledger.TruncatedError, match="before record 9"):
        ledger.check(path, head)


def test_a_record_taken_out_is_missed(path: Path) -> None:
    text = lines(path)
    write(path, text[:5] + text[6:])
    with pytest.raises(ledger.TruncatedError, match="record 5 is missing"):
        ledger.check(path)


@pytest.mark.parametrize("i,j", [(1, 2), (3, 9), (10, 11)])
def test_records_in_another_order_are_told(path: Path, i: int, j: int) -> None:
    text = lines(path)
    text[i], text[j] = text[j], text[i]
    write(path, text)
    with pytest.raises(ledger.ReorderedError, match=f"record {j} stands in the place of record {i}"):
        ledger.check(path)


@pytest.mark.parametrize("copied,place", [(0, 1), (0, 12), (3, 4), (3, 12), (11, 12)])
def test_a_record_that_stands_twice_is_told(path: Path, copied: int, place: int) -> None:
    text = lines(path)
    write(path, [*text[:place], text[copied], *text[place:]])
    with pytest.raises(ledger.ReplayedError, match=f"record {copied} stands again"):
        ledger.check(path)


def test_a_ledger_written_anew_contradicts_its_head(path: Path) -> None:
    head = ledger.publish(path, SECRET)
    write(path, rebuilt(lines(path), lambda record: record.update(commitment="0" * 64), 5))
    ledger.check(path)
    with pytest.raises(ledger.ForkError, match="written anew"):
        ledger.check(path, head)


def test_two_different_records_of_one_number_are_a_fork(path: Path) -> None:
    text = lines(path)
    other = rebuilt(text, lambda record: record.update(commitment="0" * 64), 11)
    write(path, [*text, other[11]])
    with pytest.raises(ledger.ForkError, match="two different records 11"):
        ledger.check(path)


def test_a_torn_last_line_is_told_and_mended_by_repair_alone(path: Path) -> None:
    whole = path.read_bytes()
    last = len(lines(path)[-1]) + 1
    for cut in (1, 2, 50, last - 1):
        path.write_bytes(whole[:-cut])
        for use in (lambda: ledger.check(path), lambda: ledger.draw(path, SECRET, TOY, 1)):
            with pytest.raises(ledger.TornError, match="repair"):
                use()
        assert path.read_bytes() == whole[:-cut]
        taken = ledger.repair(path)
        assert taken == (b"" if cut == 1 else whole[-last:-cut])
        assert ledger.check(path).samples == (11 if cut == 1 else 10)
    indexes, _ = ledger.draw(path, SECRET, TOY, 1)
    assert indexes == range(11, 12)
    with pytest.raises(LedgerError, match="nothing to mend"):
        ledger.repair(path)


def test_a_failed_write_leaves_nothing_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(log.os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            ledger.draw(path, SECRET, TOY, 3)
        with pytest.raises(LedgerError, match="No space"):
            ledger.create(path.with_name("new"), SECRET, TOY)
        with pytest.raises(LedgerError, match="No space"):
            ledger.new_secret(path.with_name("secret"))
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_a_second_writer_waits_in_vain(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "LOCK_WAIT", 0.05)
    head = ledger.publish(path, SECRET)
    uses: list[Callable[[Path], object]] = [
        lambda path: ledger.draw(path, SECRET, TOY, 1),
        lambda path: ledger.check(path),
        lambda path: ledger.recall(path, SECRET, TOY, [1]),
        lambda path: ledger.gather(path, SECRET, head),
        lambda path: ledger.publish(path, SECRET),
        lambda path: ledger.prove_inclusion(path, 1, head),
    ]
    links = [path.with_name("soft"), path.with_name("hard")]
    links[0].symlink_to(path)
    links[1].hardlink_to(path)
    with records.locked(path):
        for use in uses:
            for name in (path, *links):
                with pytest.raises(ledger.LockedError, match="another writer"):
                    use(name)
    for use in uses:
        use(links[1])


def test_a_reader_does_not_see_a_line_being_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits until the line is whole; and a long reading keeps no writer waiting."""
    whole, write = path.read_bytes(), os.write
    begun, end = threading.Event(), threading.Event()

    def slow(file: int, data: memoryview) -> int:
        begun.set()
        end.wait(5)
        return write(file, data[: (len(data) + 1) // 2])

    monkeypatch.setattr(log.os, "write", slow)
    with ThreadPoolExecutor(2) as others:
        drawn = others.submit(ledger.draw, path, SECRET, TOY, 3)
        begun.wait(5)
        read = others.submit(ledger.check, path)
        end.set()
        assert read.result().samples == 14 and list(drawn.result()[0]) == [12, 13, 14]
    monkeypatch.undo()
    monkeypatch.setattr(records, "LOCK_WAIT", 0.0)
    with records.snapshot(path) as lines:
        first = next(lines)
        ledger.draw(path, SECRET, TOY, 1)
        assert len([first, *lines]) == 15
    assert path.read_bytes().startswith(whole)


def test_a_disk_without_locks_is_for_reading_only(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unknown)
    with pytest.raises(LedgerError, match="cannot lock files"):
        ledger.draw(path, SECRET, TOY, 1)
    assert ledger.check(path).samples == 11


def test_a_file_put_in_the_ledgers_place_is_locked_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, restored = records._lock, path.with_name("restored")
    restored.write_bytes(path.read_bytes())

    def replaced(*arguments: object) -> None:
        if restored.exists():
            restored.replace(path)
        lock(*arguments)

    monkeypatch.setattr(records, "_lock", replaced)
    with records.locked(path) as stream:
        assert os.path.samestat(os.fstat(stream.fileno()), path.stat())


def test_writers_at_the_same_time_share_nothing(path: Path) -> None:
    names = [path, path.with_name("soft"), path.with_name("hard")]
    names[1].symlink_to(path)
    names[2].hardlink_to(path)
    with ThreadPoolExecutor(4) as writers:
        drawn = list(writers.map(lambda turn: list(ledger.draw(names[turn % 3], SECRET, TOY, 2)[0]), range(10)))
    assert sorted(index for part in drawn for index in part) == list(range(12, 32))
    assert ledger.check(path).samples == 31


def test_what_cannot_be_begun_or_drawn_is_refused(path: Path) -> None:
    cases: list[tuple[str, Callable[[], object]]] = [
        ("exists already", lambda: ledger.create(path, SECRET, TOY)),
        ("cannot be begun", lambda: ledger.create(path.with_name("no") / "x", SECRET, TOY)),
        ("cannot be written", lambda: ledger.new_secret(path.with_name("no") / "x")),
        ("needs one with `decode`", lambda: ledger.create(path.with_name("x"), SECRET, Generator("toy", DIM))),
        ("lower one", lambda: ledger.create(path.with_name("x"), SECRET, TOY, epoch_size=1 << 16, epochs=1 << 16)),
        ("epoch_size", lambda: ledger.create(path.with_name("x"), SECRET, TOY, epoch_size=1)),
        ("weights", lambda: ledger.create(path.with_name("x"), SECRET, TOY, weights="w" * 201)),
        ("n=0", lambda: ledger.draw(path, SECRET, TOY, 0)),
        ("room for 20", lambda: ledger.draw(path, SECRET, TOY, 21)),
        ("another secret", lambda: ledger.draw(path, bytes(32), TOY, 1)),
        ("31 bytes", lambda: ledger.draw(path, bytes(31), TOY, 1)),
        ("another secret", lambda: ledger.publish(path, bytes(32))),
        ("ledger of generator 'toy'", lambda: ledger.draw(path, SECRET, replace(TOY, name="other"), 1)),
        ("does not exist", lambda: ledger.draw(path.with_name("x"), SECRET, TOY, 1)),
        ("cannot be opened", lambda: ledger.check(path.with_name("x"))),
        ("another public key", lambda: ledger.check(path, key="0" * 64)),
    ]
    for message, use in cases:
        with pytest.raises(LedgerError, match=message) as caught:
            use()
        assert "\n" not in str(caught.value) and isinstance(caught.value, BayesdfError)
    assert not path.with_name("x").exists()

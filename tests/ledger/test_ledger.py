"""A ledger tells what was made from it, whoever edits, cuts, shuffles or repeats it; and the parts match their RFCs."""

import errno
import fcntl
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from bayesdf import ledger
from bayesdf.errors import BayesdfError
from bayesdf.generators.generator import Generator
from bayesdf.ledger import Head, keys, log, merkle, records
from bayesdf.ledger.errors import LedgerError

SECRET = bytes(range(32))
DIM = 8
THRESHOLD = 0.02


def decode(codes: Tensor) -> Tensor:
    """(B, 8) → (B, 1, 6, 6): a smooth map whose images lie far apart."""
    mixing = torch.randn(DIM, 36, generator=torch.Generator().manual_seed(0))
    return torch.sigmoid(codes @ mixing).view(-1, 1, 6, 6)


TOY = Generator("toy", DIM, decode=decode)
KEY = keys.public_key(SECRET, "toy")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger of 11 samples in epochs of 4: records 1-3, 4-7 and 8-11 fill three epochs."""
    path = tmp_path / "toy.ledger"
    ledger.create(path, SECRET, TOY, epoch_size=4, epochs=8)
    for n in (1, 4, 6):
        ledger.draw(path, SECRET, TOY, n)
    return path


def image(path: Path, index: int) -> Tensor:
    return decode(ledger.recall(path, SECRET, TOY, [index]))[0]


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def write(path: Path, text: list[bytes]) -> None:
    path.write_bytes(b"".join(line + b"\n" for line in text))


def rebuilt(text: list[bytes], change: Callable[[dict], None], at: int) -> list[bytes]:
    """What a forger who knows the format writes: one record changed, all digests after it made right again."""
    out = text[:at]
    for line in text[at:]:
        record = json.loads(line)
        if record["record"] == at:
            change(record)
        elif record["record"]:
            record["previous"] = json.loads(out[-1])["digest"]
        del record["digest"]
        out.append(records.encode_record(record))
    return out


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(ledger.__file__).parents[2])}


# The parts, against what others published


def test_hkdf_gives_the_vectors_of_rfc_5869() -> None:
    key = keys.derive(bytes([0x0B] * 22), bytes(range(13)), bytes(range(0xF0, 0xFA)), 42)
    assert key.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    key = keys.derive(bytes([0x0B] * 22), b"", b"", 42)
    assert key.hex() == "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"


CT_LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
CT_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def test_roots_are_those_of_the_certificate_transparency_reference() -> None:
    leaves = [merkle.leaf_hash(bytes.fromhex(leaf)) for leaf in CT_LEAVES]
    assert [merkle.root(leaves[:size]).hex() for size in range(9)] == CT_ROOTS
    assert [node.hex() for node in merkle.inclusion_path(leaves, 0)][:2] == [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    ]


def test_every_inclusion_proof_holds_and_no_other() -> None:
    leaves = [merkle.leaf_hash(bytes([number])) for number in range(20)]
    for size in range(1, 21):
        root = merkle.root(leaves[:size])
        for index in range(size):
            path = merkle.inclusion_path(leaves[:size], index)
            assert merkle.included(leaves[index], index, size, path, root)
            wrong = [(leaves[index - 1], index, size, path), (leaves[index], (index + 1) % size, size, path)]
            wrong += [(leaves[index], index, size, [*path, root]), (leaves[index], size, size, path)]
            wrong += [(leaves[index], index, size, path[:-1])] if path else []
            wrong += [(leaves[index], index, size, [root, *path[1:]])] if path else []
            if size > 1:
                assert not any(merkle.included(*arguments, root) for arguments in wrong)
            assert not merkle.included(leaves[index], index, size, path, leaves[index - 1]) or size == 1


def test_every_consistency_proof_holds_and_no_other() -> None:
    leaves = [merkle.leaf_hash(bytes([number])) for number in range(20)]
    other = [merkle.leaf_hash(b"another"), *leaves[1:]]
    for second in range(1, 21):
        new = merkle.root(leaves[:second])
        for first in range(1, second + 1):
            old = merkle.root(leaves[:first])
            path = merkle.consistency_path(leaves[:second], first)
            assert merkle.consistent(first, second, path, old, new)
            assert not merkle.consistent(first, second, path, merkle.root(other[:first]), new)
            assert not merkle.consistent(first, second, path, old, merkle.root(other[:second]))
            assert not merkle.consistent(first, second, [*path, old], old, new)
            if path:
                assert not merkle.consistent(first, second, path[:-1], old, new)
                assert not merkle.consistent(first, second, [new, *path[1:]], old, new)


# Latents


def test_latents_are_standard_normal_and_every_sample_has_its_own() -> None:
    epoch = keys.epoch_key(SECRET, "toy", 0)
    values = keys.expand_to_latents([keys.record_key(epoch, record) for record in range(400)], 100).double().numpy()
    assert stats.kstest(values.ravel(), "norm").pvalue > 0.01
    assert abs(values.mean()) < 0.02 and abs(values.std() - 1.0) < 0.02
    between = np.corrcoef(values)[np.triu_indices(400, 1)]
    assert abs(between.mean()) < 0.005 and between.std() == pytest.approx(0.1, rel=0.05)  # 1 / sqrt(100)
    along = np.corrcoef(values.T)[np.triu_indices(100, 1)]
    assert along.std() == pytest.approx(0.05, rel=0.05)
    assert len(np.unique(values)) > 0.99 * values.size


def test_latents_stay_what_they_were() -> None:
    """A ledger must open years later: these values are part of the format."""
    key = keys.record_key(keys.epoch_key(SECRET, "toy", 0), 1)
    np.testing.assert_allclose(
        keys.expand_to_latents([key], 4)[0].numpy(), [0.53648335, 1.69736826, -0.04757425, 1.14476180], rtol=1e-6
    )


def test_latents_differ_by_secret_generator_epoch_and_record() -> None:
    derived = {
        keys.record_key(keys.epoch_key(secret, name, epoch), record)
        for secret in (SECRET, bytes(32))
        for name in ("toy", "toy2")
        for epoch in (0, 1)
        for record in (1, 11)
    }
    assert len(derived) == 16
    assert keys.expand_to_latents(sorted(derived), 2000).abs().max() < 6.0


def test_a_draw_is_recorded_goes_on_and_is_recalled(path: Path) -> None:
    indexes, codes = ledger.draw(path, SECRET, TOY, 3)
    assert indexes == range(12, 15) and codes.shape == (3, DIM) and codes.dtype == torch.float32
    assert torch.equal(ledger.recall(path, SECRET, TOY, indexes), codes)
    found = ledger.check(path)
    assert found.samples == 14 and found.generator == "toy" and found.latent_dim == DIM
    with pytest.raises(LedgerError, match="samples 1 to 14"):
        ledger.recall(path, SECRET, TOY, [15])


# The file


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


def test_a_secret_is_kept_from_others(tmp_path: Path) -> None:
    secret = ledger.new_secret(tmp_path / "secret")
    assert ledger.load_secret(tmp_path / "secret") == secret and len(secret) == 32
    assert (tmp_path / "secret").stat().st_mode & 0o077 == 0
    with pytest.raises(LedgerError, match="exists"):
        ledger.new_secret(tmp_path / "secret")
    (tmp_path / "wrong").write_text("no secret")
    for name in ("wrong", "missing"):
        with pytest.raises(LedgerError, match="new_secret wrote"):
            ledger.load_secret(tmp_path / name)


# Heads


def test_heads_are_signed_and_grow(path: Path) -> None:
    old = ledger.publish(path, SECRET)
    ledger.draw(path, SECRET, TOY, 5)
    new = ledger.publish(path, SECRET)
    assert Head.from_json(new.to_json()) == new and new.size == 17
    ledger.check(path, old, KEY)
    ledger.check_consistency(old, new, ledger.prove_consistency(path, old, new), KEY)
    line, proof = ledger.prove_inclusion(path, 7, new)
    ledger.check_inclusion(line, 7, proof, new, KEY)
    with pytest.raises(ledger.TamperedError):
        ledger.check_inclusion(line, 8, proof, new, KEY)
    with pytest.raises(ledger.TamperedError):
        ledger.check_inclusion(line.replace('"record":7', '"record":8'), 7, proof, new, KEY)
    with pytest.raises(ledger.TamperedError, match="no list of digests"):
        ledger.check_inclusion(line, 7, ["x"], new, KEY)


def test_every_edited_byte_of_a_head_is_detected(path: Path) -> None:
    text = ledger.publish(path, SECRET).to_json().encode()
    for place, byte in enumerate(text):
        for other in {byte ^ 1, 0x31, 0x62, 0x20} - {byte}:
            with pytest.raises((ledger.TamperedError, ledger.SignatureError)):
                ledger.check_head(Head.from_json(text[:place] + bytes([other]) + text[place + 1 :]), KEY)


def test_a_head_signed_by_another_key_is_refused(path: Path) -> None:
    head = ledger.publish(path, SECRET)
    with pytest.raises(ledger.SignatureError):
        ledger.check_head(head, keys.public_key(bytes(32), "toy"))
    with pytest.raises(LedgerError, match="no public key"):
        ledger.check_head(head, "key")


def test_an_old_head_shown_as_current_is_a_replay_and_another_history_a_fork(path: Path, tmp_path: Path) -> None:
    before = path.read_bytes()
    old = ledger.publish(path, SECRET)
    ledger.draw(path, SECRET, TOY, 2)
    new = ledger.publish(path, SECRET)
    with pytest.raises(ledger.ReplayedError, match="record 11, one already known with record 13"):
        ledger.check_consistency(new, old, [], KEY)
    path.write_bytes(before)
    write(path, rebuilt(lines(path), lambda record: record.update(commitment="0" * 64), 5))
    forked = ledger.publish(path, SECRET)
    assert forked.size == old.size
    with pytest.raises(ledger.ForkError):
        ledger.check_consistency(old, forked, [], KEY)
    proof = [node.hex() for node in merkle.consistency_path(ledger.check(path).leaves, 5)]
    with pytest.raises(ledger.ForkError, match="does not continue"):
        ledger.check_consistency(forked, new, proof, KEY)
    ledger.create(tmp_path / "second", SECRET, TOY, epoch_size=8)
    with pytest.raises(ledger.ForkError, match="two ledgers under one public key"):
        ledger.check_consistency(old, ledger.publish(tmp_path / "second", SECRET), [], KEY)


# Evidence


def test_a_sample_is_found_and_anything_else_is_not(path: Path) -> None:
    ledger.draw(path, SECRET, TOY, 2)  # two samples in an epoch not yet full
    head = ledger.publish(path, SECRET)
    evidence = ledger.gather(path, SECRET, head)
    assert sorted(evidence.epochs) == [0, 1, 2] and sorted(evidence.keys) == [12, 13]
    for index in (1, 3, 4, 11, 12, 13):
        verdict = ledger.verify(evidence, image(path, index), head, TOY, KEY, threshold=THRESHOLD)
        assert verdict.made and verdict.index == index and verdict.distance < 1e-5
        assert (verdict.compared, verdict.unbound, verdict.samples) == (13, 2, 13)
        assert verdict.record is not None and verdict.proof is not None
        ledger.check_inclusion(verdict.record, index, verdict.proof, head, KEY)
        assert str(verdict).startswith(f"made: sample {index}")
    ledger.draw(path, SECRET, TOY, 1)
    for stranger in (decode(TOY.sample_latent(1, 3))[0], image(path, 14)):  # another latent; a sample after the head
        verdict = ledger.verify(evidence, stranger, head, TOY, KEY, threshold=THRESHOLD)
        assert not verdict.made and verdict.distance > THRESHOLD and verdict.record is None
        assert str(verdict).startswith("not made by any of the 13")


def test_the_distance_is_that_of_the_nearest_sample_clipped(path: Path) -> None:
    head = ledger.publish(path, SECRET)
    evidence = ledger.gather(path, SECRET, head)

    def contrasted(codes: Tensor) -> Tensor:
        return 3.0 * decode(codes) - 1.0

    wide = replace(TOY, decode=contrasted)
    everything = contrasted(ledger.recall(path, SECRET, TOY, range(1, 12))).clamp(0, 1)
    accused = torch.stack([everything[3], torch.zeros(1, 6, 6)])
    noisy = (accused + 0.01).clamp(max=1.0)
    codes = ledger.recall(path, SECRET, TOY, [2, 3]) + 0.25
    found = ledger.verify_all(evidence, noisy, head, wide, KEY, threshold=THRESHOLD, latents=codes)
    for row, verdict in enumerate(found):
        distances = (everything - noisy[row]).square().mean((1, 2, 3)).sqrt()
        assert verdict.index == int(distances.argmin()) + 1
        assert verdict.distance == pytest.approx(float(distances.min()), rel=1e-5)
        assert verdict.latent_index == row + 2 and verdict.latent_distance == pytest.approx(0.25, rel=1e-4)
    assert found[0].made and found[0].index == 4 and not found[1].made


def test_pixels_outside_the_region_do_not_count(path: Path) -> None:
    head = ledger.publish(path, SECRET)
    evidence = ledger.gather(path, SECRET, head)
    region = np.zeros((6, 6), dtype=np.float32)
    region[2:] = 1.0
    changed = image(path, 6)
    changed[:, :2] = 1.0 - changed[:, :2]
    assert not ledger.verify(evidence, changed, head, TOY, KEY, threshold=THRESHOLD).made
    assert ledger.verify(evidence, changed, head, replace(TOY, region=region), KEY, threshold=THRESHOLD).index == 6


def test_one_record_is_opened_without_the_others(path: Path) -> None:
    head = ledger.publish(path, SECRET)
    evidence = ledger.gather(path, SECRET, head, only=[6])
    assert list(evidence.keys) == [6] and not evidence.epochs
    assert ledger.verify(evidence, image(path, 6), head, TOY, KEY, threshold=THRESHOLD).index == 6
    with pytest.raises(ledger.IncompleteError, match="1 of 11 samples"):
        ledger.verify(evidence, image(path, 5), head, TOY, KEY, threshold=THRESHOLD)
    with pytest.raises(LedgerError, match="samples 1 to 11"):
        ledger.gather(path, SECRET, head, only=[12])


def test_an_old_head_is_answered_from_a_log_that_went_on(path: Path) -> None:
    head = ledger.publish(path, SECRET)
    ledger.draw(path, SECRET, TOY, 6)
    evidence = ledger.gather(path, SECRET, head)
    assert ledger.verify(evidence, image(path, 2), head, TOY, KEY, threshold=THRESHOLD).samples == 11
    assert not ledger.verify(evidence, image(path, 12), head, TOY, KEY, threshold=THRESHOLD).made


def test_evidence_that_is_not_right_is_refused_each_with_its_own_error(path: Path) -> None:
    old = ledger.publish(path, SECRET)
    early = ledger.gather(path, SECRET, old)
    ledger.draw(path, SECRET, TOY, 2)
    head = ledger.publish(path, SECRET)
    good = ledger.gather(path, SECRET, head)
    accused = image(path, 5)
    forged = rebuilt([line.encode() for line in good.records], lambda record: record.update(commitment="0" * 64), 5)
    resigned = ledger.publish(write_beside(path, forged), SECRET)
    key, proof = good.epochs[1]
    commitments = [keys.commit(keys.epoch_key(SECRET, "toy", epoch)) for epoch in range(8)]
    to_genesis = merkle.inclusion_path([merkle.leaf_hash(commitment) for commitment in commitments], 3)
    early_key = (keys.epoch_key(SECRET, "toy", 3).hex(), tuple(node.hex() for node in to_genesis))
    short = {epoch: opened for epoch, opened in good.epochs.items() if epoch != 1}
    text = good.records
    cases: list[tuple[type[LedgerError], str, ledger.Evidence]] = [
        (ledger.ReplayedError, "old head", early),
        (ledger.ForkError, "different roots", replace(good, head=resigned)),
        (ledger.SignatureError, "not signed", replace(good, head=replace(head, root="0" * 64))),
        (ledger.ForkError, "written anew", replace(good, records=tuple(line.decode() for line in forged))),
        (ledger.TruncatedError, "before record 13", replace(good, records=text[:-1])),
        (ledger.ReorderedError, "record 6 stands", replace(good, records=(*text[:5], text[6], text[5], *text[7:]))),
        (ledger.ReplayedError, "record 4 stands again", replace(good, records=(*text[:5], text[4], *text[5:]))),
        (ledger.TamperedError, "record 3", replace(good, records=(*text[:3], text[3].replace("a", "b", 1), *text[4:]))),
        (ledger.TamperedError, "key of epoch 1", replace(good, epochs={**good.epochs, 1: (good.epochs[0][0], proof)})),
        (ledger.TamperedError, "key of epoch 1", replace(good, epochs={**good.epochs, 1: (key, proof[:-1])})),
        (ledger.TamperedError, "key of epoch 1", replace(good, epochs={**good.epochs, 1: ("xyz", proof)})),
        (ledger.TamperedError, "key of record 12", replace(good, keys={**good.keys, 12: good.keys[13]})),
        (ledger.TruncatedError, "record 14", replace(good, keys={**good.keys, 14: good.keys[13]})),
        (ledger.TamperedError, "record 14 is still to be drawn", replace(good, epochs={**good.epochs, 3: early_key})),
        (ledger.IncompleteError, "9 of 13", replace(good, epochs=short)),
    ]
    for kind, message, evidence in cases:
        with pytest.raises(kind, match=message) as caught:
            ledger.verify(evidence, accused, head, TOY, KEY, threshold=THRESHOLD)
        assert type(caught.value) is kind and "\n" not in str(caught.value)
    with pytest.raises(LedgerError, match="later head"):
        ledger.verify(good, accused, old, TOY, KEY, threshold=THRESHOLD)


def write_beside(path: Path, records: list[bytes]) -> Path:
    beside = path.with_name("forged.ledger")
    write(beside, records)
    return beside


def test_a_developer_cannot_choose_keys_to_fit(path: Path) -> None:
    """Every record of an epoch by a key of the developer's choice: the key that record 0 committed to gives others."""
    chosen = keys.commit(bytes(32)).hex()
    write(path, rebuilt(lines(path), lambda record: record.update(commitment=chosen), 5))
    with pytest.raises(ledger.TamperedError, match="record 5 does not commit"):
        ledger.gather(path, SECRET, ledger.publish(path, SECRET))
    head = ledger.publish(path, SECRET)
    epochs = [keys.epoch_key(SECRET, "toy", epoch) for epoch in range(8)]
    own = {record: keys.record_key(epochs[record // 4], record).hex() for record in range(1, 12)}
    text = tuple(line.decode() for line in lines(path))
    # Opened alone, the chosen key passes, and the verdict says that it is not bound to the genesis ...
    alone = ledger.Evidence(head, text, {}, {**own, 5: bytes(32).hex()})
    accused = decode(keys.expand_to_latents([bytes(32)], DIM))[0]
    verdict = ledger.verify(alone, accused, head, TOY, KEY, threshold=THRESHOLD)
    assert verdict.made and verdict.unbound == 11
    # ... it does not clear anybody, since the full epochs are not opened by their keys ...
    with pytest.raises(ledger.IncompleteError, match="epoch 0 is full"):
        ledger.verify(alone, image_of_nothing(), head, TOY, KEY, threshold=THRESHOLD)
    # ... and by the key of its epoch it does not come out.
    leaves = [merkle.leaf_hash(keys.commit(epoch)) for epoch in epochs]
    path_up = tuple(node.hex() for node in merkle.inclusion_path(leaves, 1))
    whole = ledger.Evidence(head, text, {1: (epochs[1].hex(), path_up)}, own)
    with pytest.raises(ledger.TamperedError, match="key of record 5"):
        ledger.verify(whole, image_of_nothing(), head, TOY, KEY, threshold=THRESHOLD)


def image_of_nothing() -> Tensor:
    return torch.full((1, 6, 6), 0.5)


def test_what_the_third_party_brings_is_checked(path: Path) -> None:
    head = ledger.publish(path, SECRET)
    evidence = ledger.gather(path, SECRET, head)
    blank = image_of_nothing()
    other = keys.public_key(bytes(32), "toy")
    broken, stranger = replace(TOY, decode=lambda codes: decode(codes) * float("nan")), replace(TOY, name="x")
    cases: list[tuple[str, Callable[[], object]]] = [
        ("not signed", lambda: ledger.verify(evidence, blank, head, TOY, other, threshold=0.1)),
        (
            "of generator 'toy'",
            lambda: ledger.verify(evidence, blank, head, stranger, KEY, threshold=0.1),
        ),
        ("same channels", lambda: ledger.verify(evidence, blank[:, 1:], head, TOY, KEY, threshold=0.1)),
        ("same channels", lambda: ledger.verify(evidence, blank.expand(3, 6, 6), head, TOY, KEY, threshold=0.1)),
        ("outside", lambda: ledger.verify(evidence, blank * 255, head, TOY, KEY, threshold=0.1)),
        ("outside", lambda: ledger.verify(evidence, blank * float("nan"), head, TOY, KEY, threshold=0.1)),
        ("shape", lambda: ledger.verify(evidence, blank[0, 0], head, TOY, KEY, threshold=0.1)),
        ("threshold", lambda: ledger.verify(evidence, blank, head, TOY, KEY, threshold=2.0)),
        ("latents", lambda: ledger.verify(evidence, blank, head, TOY, KEY, threshold=0.1, latent=[1.0])),
        ("weights", lambda: ledger.verify(evidence, blank, head, TOY, KEY, threshold=0.1, weights="sha256")),
        ("no finite image", lambda: ledger.verify(evidence, blank, head, broken, KEY, threshold=0.1)),
        ("no `decode`", lambda: ledger.verify(evidence, blank, head, Generator("toy", DIM), KEY, threshold=0.1)),
    ]
    for message, use in cases:
        with pytest.raises(LedgerError, match=message) as caught:
            use()
        assert "\n" not in str(caught.value)


def test_evidence_is_kept_as_json_and_read_with_suspicion(path: Path, tmp_path: Path) -> None:
    head = ledger.publish(path, SECRET)
    evidence = ledger.gather(path, SECRET, head)
    file = evidence.save(tmp_path / "evidence.json")
    assert ledger.load_evidence(file) == evidence
    assert SECRET.hex() not in file.read_text()
    with pytest.raises(LedgerError, match="exists"):
        evidence.save(file)
    content = json.loads(file.read_text())
    for text in (
        "",
        "[" * 100000,
        "[]",
        '{"format":"x"}',
        json.dumps({**content, "records": [1]}),
        json.dumps({**content, "keys": {"x": "0"}}),
        json.dumps({**content, "epochs": {"1": "0"}}),
        json.dumps({**content, "head": "{}"}),
        json.dumps({**content, "records": "a" * 5000}),
    ):
        file.write_text(text)
        with pytest.raises(ledger.LedgerError):
            ledger.verify(ledger.load_evidence(file), image_of_nothing(), head, TOY, KEY, threshold=0.1)
    with pytest.raises(LedgerError, match="cannot be opened"):
        ledger.load_evidence(tmp_path / "missing.json")


def test_a_third_party_needs_public_material_only(path: Path, tmp_path: Path) -> None:
    head = ledger.publish(path, SECRET)
    ledger.gather(path, SECRET, head).save(tmp_path / "evidence.json")
    (tmp_path / "head.json").write_text(head.to_json())
    np.save(tmp_path / "accused.npy", torch.stack([image(path, 9), image_of_nothing()]).numpy())
    path.unlink()
    code = f"""
import numpy as np, torch
from pathlib import Path
from bayesdf import ledger
from bayesdf.generators.generator import Generator

def decode(codes):
    mixing = torch.randn(8, 36, generator=torch.Generator().manual_seed(0))
    return torch.sigmoid(codes @ mixing).view(-1, 1, 6, 6)

head = ledger.Head.from_json(Path("head.json").read_text())
evidence = ledger.load_evidence("evidence.json")
for image in np.load("accused.npy"):
    print(ledger.verify(evidence, image, head, Generator("toy", 8, decode=decode), "{KEY}", threshold=0.02))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    made, not_made = done.stdout.splitlines()
    assert made.startswith("made: sample 9") and not_made.startswith("not made by any of the 11")


def test_each_error_is_a_class_of_its_own_below_one() -> None:
    kinds = [getattr(ledger, name) for name in ledger.__all__ if name.endswith("Error") and name != "LedgerError"]
    assert len(kinds) == 9 and all(kind.__base__ is LedgerError for kind in kinds)
    assert all(kind.__doc__ for kind in kinds) and all(a is not b for a, b in pairwise(kinds))

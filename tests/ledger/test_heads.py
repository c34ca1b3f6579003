"""Heads are signed, grow, and convict whoever signed two histories."""

from pathlib import Path

import pytest

from bayesdf import ledger
from bayesdf.ledger import Head, keys, merkle
from bayesdf.ledger.errors import LedgerError
from tests.ledger.toy import KEY, SECRET, TOY, lines, rebuilt, write


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

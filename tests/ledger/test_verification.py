"""A third party finds what was made, and refuses evidence that is not right."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bayesdf import ledger
from bayesdf.generators.generator import Generator
from bayesdf.ledger import keys, merkle
from bayesdf.ledger.errors import LedgerError
from tests.ledger.toy import DIM, KEY, SECRET, THRESHOLD, TOY, decode, image, image_of_nothing, lines, rebuilt, write


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(ledger.__file__).parents[2])}


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

"""What does a developer keep, publish and hand over?"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bayesdf import ledger
from bayesdf.experiments.deniability.pictures import Images, weights_digest
from bayesdf.files import atomic_write
from bayesdf.generators import Generator
from bayesdf.ledger import Head

HEADS = 15
"""How many heads are published while the samples are drawn."""


@dataclass(frozen=True)
class Developer:
    """What the developer has: a log, the secret, and the heads published so far."""

    path: Path
    secret: bytes
    heads: list[Head]


def toy_secret(name: str, seed: int) -> bytes:
    """A secret that anyone can make again: for an experiment only. `ledger.new_secret` makes a real one."""
    return hashlib.sha256(f"bayesdf toy secret of {name} {seed}".encode()).digest()


def keep_ledger(folder: Path, generator: Generator, samples: int, seed: int) -> Developer:
    """Draw all samples, publishing a head after each of `HEADS` batches; goes on from what a stopped run left."""
    folder.mkdir(parents=True, exist_ok=True)
    path, secret = folder / "developer.ledger", toy_secret(generator.name, seed)
    if path.exists():
        try:
            ledger.check(path)
        except ledger.TornError:
            ledger.repair(path)
    else:
        # So many samples share a key that the last epoch is about half full, as in life.
        size = max(4, round(samples / (HEADS / 2)))
        ledger.create(path, secret, generator, weights=weights_digest(generator), epoch_size=size, epochs=16)
    (folder / "public_key.txt").write_text(ledger.check(path).public_key + "\n")
    note = folder / "heads.jsonl"
    heads = [Head.from_json(line) for line in note.read_text().splitlines()] if note.exists() else []
    for target in np.linspace(0, samples, HEADS + 1).round().astype(int)[1 + len(heads) :].tolist():
        missing = target - ledger.check(path).samples
        if missing:
            ledger.draw(path, secret, generator, missing)
        heads.append(ledger.publish(path, secret))
        with atomic_write(note) as beside:
            beside.write_text("".join(f"{head.to_json()}\n" for head in heads))
    evidence = folder / "evidence.json"
    evidence.unlink(missing_ok=True)
    ledger.gather(path, secret, heads[-1]).save(evidence)
    return Developer(path, secret, heads)


def recall_pictures(developer: Developer, generator: Generator, records: Iterable[int]) -> Images:
    """The developer's own pictures, made again."""
    return generator.pictures(ledger.recall(developer.path, developer.secret, generator, records))

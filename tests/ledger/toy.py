"""A small generator, its keys, and what tests do to ledgers."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from bayesdf import ledger
from bayesdf.generators.generator import Generator
from bayesdf.ledger import keys, records

SECRET = bytes(range(32))
DIM = 8
THRESHOLD = 0.02


def decode(codes: Tensor) -> Tensor:
    """(B, 8) → (B, 1, 6, 6): a smooth map whose images lie far apart."""
    mixing = torch.randn(DIM, 36, generator=torch.Generator().manual_seed(0))
    return torch.sigmoid(codes @ mixing).view(-1, 1, 6, 6)


TOY = Generator("toy", DIM, decode=decode)
KEY = keys.public_key(SECRET, "toy")


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


def image_of_nothing() -> Tensor:
    return torch.full((1, 6, 6), 0.5)

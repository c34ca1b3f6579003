"""How is a log read, and what is wrong with one that was changed? One record a line.

Record 0 (the genesis) names the owner and the generator, and commits to the keys of all epochs. Record r commits to the
key of sample r. Samples are numbered from 1. Record r belongs to epoch r // epoch_size. A record holds the digest of
the record before it, and its own.
"""

import fcntl
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

from bayesdf.files import clear_leftovers, same_file
from bayesdf.ledger import merkle
from bayesdf.ledger.errors import (
    ForkError,
    LedgerError,
    LockedError,
    ReorderedError,
    ReplayedError,
    TamperedError,
    TornError,
    TruncatedError,
)
from bayesdf.ledger.keys import VERSION, canonical

LINE_LIMIT = 4096
"""Most bytes of one record; the longest that is written has about a thousand."""
RECORD_LIMIT = 1 << 22
LOCK_WAIT = 10.0
"""Seconds that a writer or a reader waits for another writer."""

HASH = re.compile(r"[0-9a-f]{64}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
Schema = dict[str, Callable[[Any], bool]]


def text_matching(pattern: re.Pattern[str]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def integer_between(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def is_short_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 200


RECORD: Schema = {
    "commitment": text_matching(HASH),
    "digest": text_matching(HASH),
    "previous": text_matching(HASH),
    "record": integer_between(1, RECORD_LIMIT),
    "time": text_matching(TIME),
}
GENESIS: Schema = {
    "digest": text_matching(HASH),
    "epoch_size": integer_between(2, 1 << 16),
    "epochs": integer_between(1, 1 << 16),
    "format": lambda value: value == VERSION,
    "generator": is_short_text,
    "keys": text_matching(HASH),
    "latent_dim": integer_between(1, 1 << 20),
    "public_key": text_matching(HASH),
    "record": integer_between(0, 0),
    "time": text_matching(TIME),
    "weights": is_short_text,
}


@dataclass(frozen=True)
class Log:
    """A log that was read and found sound.

    Attributes
    ----------
    generator, latent_dim, weights, public_key, epoch_size, epochs
        What the genesis says.
    keys
        Root of the Merkle tree over the commitments to the keys of all epochs.
    digest
        Of the genesis: the ledger's name in heads.
    leaves
        The hash of each record as a leaf of the Merkle tree.
    commitments
        `commitments[r]` is that of record r; that of the genesis is empty.
    """

    generator: str
    latent_dim: int
    weights: str
    public_key: str
    epoch_size: int
    epochs: int
    keys: str
    digest: str
    leaves: list[bytes]
    commitments: list[bytes]

    @property
    def samples(self) -> int:
        return len(self.leaves) - 1


def read(lines: Iterable[bytes], where: str) -> Log:
    """Check the records in order: each record, its number, and that it follows the one before."""
    remaining = iter(lines)
    first = next(remaining, None)
    if first is None:
        raise TruncatedError(f"{where} is empty, not even record 0 is there: restore the file")
    genesis = parse(first, GENESIS, f"{where}, record 0")
    leaves, commitments, digests = [merkle.leaf_hash(first)], [b""], [genesis["digest"]]
    limit = genesis["epoch_size"] * genesis["epochs"]
    for number, line in enumerate(remaining, start=1):
        if line == first:
            raise ReplayedError(f"{where}: record 0 stands again as line {number}: restore the file")
        record = parse(line, RECORD, f"{where}, record {number}")
        if record["record"] != number:
            raise _misplaced(record, number, digests, remaining, where)
        if record["previous"] != digests[-1]:
            raise TamperedError(
                f"{where}: record {number} does not follow record {number - 1}, one of them was replaced: "
                "restore the file from a copy"
            )
        if number >= limit:
            raise LedgerError(f"{where}: record {number} is beyond the {limit} that record 0 allows: restore the file")
        leaves.append(merkle.leaf_hash(line))
        commitments.append(bytes.fromhex(record["commitment"]))
        digests.append(record["digest"])
    facts = {name: genesis[name] for name in GENESIS if name not in ("format", "record", "time")}
    return Log(**facts, leaves=leaves, commitments=commitments)


def _misplaced(
    record: dict[str, Any], number: int, digests: list[str], rest: Iterator[bytes], where: str
) -> LedgerError:
    """The error for another record in the place of record `number`."""
    found = record["record"]
    if found < number:
        if digests[found] == record["digest"]:
            return ReplayedError(
                f"{where}: record {found} stands again in the place of record {number}: restore the file"
            )
        return ForkError(f"{where}: there are two different records {found}: ask for the ledger that was published")
    for line in rest:
        if parse(line, RECORD, f"{where}, after record {number}")["record"] == number:
            return ReorderedError(f"{where}: record {found} stands in the place of record {number}: restore the file")
    return TruncatedError(f"{where}: record {number} is missing, record {found} stands in its place: restore the file")


def parse(line: bytes, schema: Schema, what: str) -> dict[str, Any]:
    """Read one line of canonical JSON with exactly the fields of `schema`; a digest among them must be right."""
    try:
        if len(line) > LINE_LIMIT:
            raise ValueError
        record = json.loads(line)
        if not isinstance(record, dict) or set(record) != set(schema) or canonical(record) != line:
            raise ValueError
    except (ValueError, RecursionError):
        raise TamperedError(f"{what} is not as it was written: restore it from a copy") from None
    for name, right in schema.items():
        if not right(record[name]):
            raise TamperedError(f"{what}: field {name} cannot be right: restore it from a copy")
    if "digest" in schema and line != encode_record(
        {name: value for name, value in record.items() if name != "digest"}
    ):
        raise TamperedError(f"{what} does not fit its digest, it was changed: restore it from a copy")
    return record


def encode_record(record: dict[str, Any]) -> bytes:
    """The line of a record: its fields and their digest."""
    return canonical({**record, "digest": merkle.sha256(canonical(record)).hex()})


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextmanager
def open_file(path: str | os.PathLike[str], mode: str) -> Iterator[BinaryIO]:
    try:
        stream = cast(BinaryIO, Path(path).open(mode))  # noqa: SIM115, only what opening raises is caught
    except OSError as error:
        raise LedgerError(f"{path} cannot be opened ({error.strerror}): give the file that `create` wrote") from None
    with stream:
        yield stream


@contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """The file, open for reading and appending, while no other writer has it.

    The lock belongs to the file (flock), so links to the file share it. It ends with the process.
    """
    if not Path(path).is_file():
        raise LedgerError(f"{path} does not exist: begin a ledger with `create`")
    clear_leftovers(Path(path).resolve())  # left by a `create` that was killed
    while True:
        with open_file(path, "r+b") as stream:
            try:
                _lock(stream, fcntl.LOCK_EX, path)
            except OSError as error:
                raise LedgerError(
                    f"{path} lies on a disk that cannot lock files ({error.strerror}), so two writers could draw the "
                    "same sample: keep the ledger on another disk"
                ) from None
            if same_file(stream, Path(path)):  # otherwise the file was replaced during the wait
                yield stream
                return


@contextmanager
def snapshot(path: str | os.PathLike[str]) -> Iterator[Iterator[bytes]]:
    """The lines that the file had at an instant when nobody wrote. The file only grows, so writers need not wait."""
    with open_file(path, "rb") as stream:
        # On a disk without locks there are no writers either, since they refuse it.
        with suppress(OSError):
            _lock(stream, fcntl.LOCK_SH, path)
        end = os.fstat(stream.fileno()).st_size
        with suppress(OSError):
            fcntl.flock(stream, fcntl.LOCK_UN)
        yield lines_of(stream, str(path), end)


def _lock(stream: BinaryIO, kind: int, path: str | os.PathLike[str]) -> None:
    patience = time.monotonic() + LOCK_WAIT
    while True:
        try:
            fcntl.flock(stream, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > patience:
                raise LockedError(f"{path} is held by another writer: wait until it ends, and try again") from None
        time.sleep(0.01)


def lines_of(stream: BinaryIO, where: str, end: int | None = None) -> Iterator[bytes]:
    """The lines of a ledger, up to byte `end`."""
    place = 0
    for number in range(RECORD_LIMIT + 1):
        line = stream.readline(LINE_LIMIT if end is None else min(LINE_LIMIT, end - place))
        place += len(line)
        if not line:
            return
        if not line.endswith(b"\n"):
            if len(line) == LINE_LIMIT:
                raise TamperedError(f"{where}: record {number} is longer than any record: restore the file from a copy")
            raise TornError(
                f"{where}: record {number} is unfinished, its writer was stopped: `repair` takes the half line off"
            )
        yield line[:-1]
    raise LedgerError(f"{where} has more than {RECORD_LIMIT} records: this is no ledger of this format")

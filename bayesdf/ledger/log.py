"""How does a developer keep a log? In a text file that only grows; a record is on the disk before it is used."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from bayesdf.generators.generator import Generator
from bayesdf.ledger import merkle
from bayesdf.ledger.errors import LedgerError, TamperedError, TornError
from bayesdf.ledger.keys import (
    VERSION,
    canonical,
    commit,
    epoch_key,
    expand_to_latents,
    public_key,
    record_key,
    write_new,
)
from bayesdf.ledger.records import (
    GENESIS,
    LINE_LIMIT,
    RECORD,
    RECORD_LIMIT,
    encode_record,
    lines_of,
    locked,
    now,
    parse,
    read,
    snapshot,
)

EPOCH_SIZE = 1024
EPOCHS = 1024


def create(
    path: str | os.PathLike[str],
    secret: bytes,
    generator: Generator,
    *,
    weights: str = "",
    epoch_size: int = EPOCH_SIZE,
    epochs: int = EPOCHS,
) -> str:
    """Begin a ledger: commit to the keys of all epochs before the first sample is drawn.

    Parameters
    ----------
    path
        File of the log, which must not exist yet.
    secret
        From `new_secret`, for this ledger alone.
    generator
        Needs `decode`.
    weights
        Identifies the generator's weights, such as the SHA-256 of their file; at most 200 characters.
    epoch_size, epochs
        Samples that share an epoch's key, and the number of epochs. The ledger holds their product less one.

    Returns
    -------
    str
        The public key, 64 hexadecimal digits. Publish it together with the first head.

    Raises
    ------
    LedgerError
        The file exists, the generator cannot be decoded, or it holds too many or too few samples.
    """
    path = Path(path)
    if generator.decode is None or generator.latent_dim < 1:
        raise LedgerError(f"generator {generator.name}: a ledger needs one with `decode` and a latent_dim of 1 or more")
    if epoch_size * epochs > RECORD_LIMIT:
        raise LedgerError(f"{epoch_size} x {epochs} records; a ledger holds {RECORD_LIMIT} at most: lower one of them")
    commitments = [commit(epoch_key(secret, generator.name, epoch)) for epoch in range(epochs)]
    public = public_key(secret, generator.name)
    genesis = {
        "epoch_size": epoch_size,
        "epochs": epochs,
        "format": VERSION,
        "generator": generator.name,
        "keys": merkle.root([merkle.leaf_hash(commitment) for commitment in commitments]).hex(),
        "latent_dim": generator.latent_dim,
        "public_key": public,
        "record": 0,
        "time": now(),
        "weights": weights,
    }
    line = encode_record(genesis)
    wrong = [name for name, right in GENESIS.items() if not right(json.loads(line)[name])]
    if wrong:
        raise LedgerError(f"a ledger cannot begin with {wrong[0]} = {genesis[wrong[0]]!r}: see `create` for the limits")
    try:
        write_new(path, line + b"\n", 0o666)
    except FileExistsError:
        raise LedgerError(f"{path} exists already: choose another path, or go on with it by `draw`") from None
    except OSError as error:
        raise LedgerError(f"{path} cannot be begun ({error.strerror}): choose another path") from None
    return public


def draw(path: str | os.PathLike[str], secret: bytes, generator: Generator, n: int) -> tuple[range, Tensor]:
    """Take the latents of the next n samples. They are returned after their records are on the disk.

    Returns
    -------
    indexes : range
        Numbers of the samples and of their records.
    latent : Tensor
        (n, latent_dim) float32, standard normal.

    Raises
    ------
    LockedError
        Another writer held the file for ten seconds.
    TornError
        An earlier writer was stopped within a line.
    LedgerError
        The secret or the generator is not that of the ledger, the ledger is full, its last record is damaged, or its
        disk cannot lock files.

    Notes
    -----
    A log that was restored from an older copy gives out the same latents again, and then contradicts the published
    heads. `check` it against the newest head before drawing.
    """
    if n < 1:
        raise LedgerError(f"n={n}: draw one sample or more")
    with locked(path) as stream:
        genesis = _first(stream, str(path))
        _check_owner(genesis, secret, generator, str(path))
        line = _last(stream, str(path))
        if line == encode_record({key: value for key, value in genesis.items() if key != "digest"}):
            last, previous = 0, genesis["digest"]
        else:
            record = parse(line, RECORD, f"{path}, last record")
            last, previous = record["record"], record["digest"]
            if record["commitment"] != commit(_keys(secret, genesis, [last])[0]).hex():
                raise TamperedError(f"{path}: record {last} does not commit to what the secret gives: restore the file")
        room = genesis["epoch_size"] * genesis["epochs"] - 1 - last
        if n > room:
            raise LedgerError(f"{path} has room for {room} more samples, not {n}: begin another ledger")
        indexes = range(last + 1, last + 1 + n)
        keys, lines, time = _keys(secret, genesis, indexes), [], now()
        for index, key in zip(indexes, keys, strict=True):
            record = {"commitment": commit(key).hex(), "previous": previous, "record": index, "time": time}
            lines.append(encode_record(record) + b"\n")
            previous = merkle.sha256(canonical(record)).hex()
        _append(stream, b"".join(lines))
    return indexes, expand_to_latents(keys, genesis["latent_dim"])


def recall(path: str | os.PathLike[str], secret: bytes, generator: Generator, indexes: Iterable[int]) -> Tensor:
    """The latents (len(indexes), latent_dim) that `draw` returned for samples with these numbers."""
    with snapshot(path) as lines:
        log = read(lines, str(path))
    wanted = list(indexes)
    strange = [index for index in wanted if not 1 <= index <= log.samples]
    if strange:
        raise LedgerError(f"{path} has samples 1 to {log.samples}, not {strange[0]}: draw it first")
    facts = {"generator": log.generator, "epoch_size": log.epoch_size}
    _check_owner({**facts, "public_key": log.public_key, "latent_dim": log.latent_dim}, secret, generator, str(path))
    return expand_to_latents(_keys(secret, facts, wanted), log.latent_dim)


def repair(path: str | os.PathLike[str]) -> bytes:
    """Mend a last line that a stopped writer left unfinished, after a `TornError`.

    If only the end of the line is missing, it is added. Otherwise the line is removed: its latent was never used.

    Returns
    -------
    bytes
        What was removed.

    Raises
    ------
    LedgerError
        Nothing is torn, or the genesis is (then delete the file and `create` it again).
    """
    with locked(path) as stream:
        genesis = stream.readline(LINE_LIMIT)
        if not genesis.endswith(b"\n"):
            raise LedgerError(
                f"{path}: record 0 is unfinished, nothing was drawn yet: delete the file and create it anew"
            )
        size = stream.seek(0, os.SEEK_END)
        start = stream.seek(max(size - LINE_LIMIT, 0))
        tail = stream.read()
        if tail.endswith(b"\n"):
            raise LedgerError(f"{path}: the last line is whole, there is nothing to mend")
        if b"\n" not in tail:
            raise TamperedError(f"{path}: the last line is longer than any record: restore the file from a copy")
        torn = tail[tail.rindex(b"\n") + 1 :]
        try:
            parse(torn, RECORD, "the last line")
        except TamperedError:
            os.ftruncate(stream.fileno(), start + len(tail) - len(torn))
            os.fsync(stream.fileno())
            return torn
        _append(stream, b"\n")
        return b""


def _keys(secret: bytes, genesis: dict[str, Any], indexes: Iterable[int]) -> list[bytes]:
    epochs: dict[int, bytes] = {}
    keys = []
    for index in indexes:
        epoch = index // genesis["epoch_size"]
        if epoch not in epochs:
            epochs[epoch] = epoch_key(secret, genesis["generator"], epoch)
        keys.append(record_key(epochs[epoch], index))
    return keys


def _check_owner(genesis: dict[str, Any], secret: bytes, generator: Generator, where: str) -> None:
    if (genesis["generator"], genesis["latent_dim"]) != (generator.name, generator.latent_dim):
        raise LedgerError(
            f"{where} is the ledger of generator {genesis['generator']!r} with {genesis['latent_dim']} latent values, "
            f"not of {generator.name!r} with {generator.latent_dim}: give each generator its own"
        )
    if public_key(secret, generator.name) != genesis["public_key"]:
        raise LedgerError(f"{where} was begun with another secret: give that one")


def _append(stream: BinaryIO, data: bytes) -> None:
    """Write at the end and wait for the disk. What a failed write left is removed."""
    file = stream.fileno()
    size = os.lseek(file, 0, os.SEEK_END)
    try:
        rest = memoryview(data)
        while rest:  # not through a buffer, which would repeat what failed here
            rest = rest[os.write(file, rest) :]
        os.fsync(file)
    except BaseException:
        os.ftruncate(file, size)
        raise


def _first(stream: BinaryIO, where: str) -> dict[str, Any]:
    stream.seek(0)
    line = next(lines_of(stream, where), b"")
    return parse(line, GENESIS, f"{where}, record 0")


def _last(stream: BinaryIO, where: str) -> bytes:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(size - LINE_LIMIT, 0))
    tail = stream.read()
    if not tail.endswith(b"\n"):
        raise TornError(
            f"{where}: the last record is unfinished, its writer was stopped: `repair` takes the half line off"
        )
    return tail[:-1].rpartition(b"\n")[2]

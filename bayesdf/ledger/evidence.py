"""What does a developer open of the ledger for an accusation? Evidence: public records, and keys of their samples."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bayesdf.files import atomic_write
from bayesdf.ledger import merkle
from bayesdf.ledger.errors import LedgerError, TamperedError
from bayesdf.ledger.heads import Head, check_continues, check_head
from bayesdf.ledger.keys import VERSION, canonical, commit, epoch_key, public_key, record_key
from bayesdf.ledger.records import LINE_LIMIT, open_file, read, snapshot

SIZE_LIMIT = 1 << 30
"""Most bytes of a file of evidence. A million samples take less than half of it."""


@dataclass(frozen=True)
class Evidence:
    """What a developer hands over: the public records under a head, and keys that open their samples.

    Evidence does not depend on an image. Opened once for a head, it answers every accusation that the head precedes.
    Opened keys stay open: whoever has them can make those samples again, and learns nothing about the others.

    Attributes
    ----------
    head
        The published head that the records belong to.
    records
        Lines of the log, from the genesis on.
    epochs
        Epoch → its key, and the Merkle path from the commitment to it up to what the genesis says, in hexadecimal.
    keys
        Record → its key, in hexadecimal, for samples of epochs that are not opened whole.
    """

    head: Head
    records: tuple[str, ...]
    epochs: Mapping[int, tuple[str, tuple[str, ...]]]
    keys: Mapping[int, str]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one JSON file, whole or not at all. The file must not exist yet."""
        path = Path(path)
        content = {
            "epochs": {str(epoch): [key, list(proof)] for epoch, (key, proof) in self.epochs.items()},
            "format": f"{VERSION} evidence",
            "head": self.head.to_json(),
            "keys": {str(record): key for record, key in self.keys.items()},
            "records": list(self.records),
        }
        try:
            with atomic_write(path, new=True) as beside:
                beside.write_bytes(canonical(content) + b"\n")
        except FileExistsError:
            raise LedgerError(f"{path} exists already: choose another path") from None
        except OSError as error:
            raise LedgerError(f"{path} cannot be written ({error.strerror}): choose another path") from None
        return path


def gather(
    path: str | os.PathLike[str],
    secret: bytes,
    head: Head,
    *,
    only: Iterable[int] | None = None,
) -> Evidence:
    """Open what was recorded under a published head. This is the developer's part.

    Full epochs are opened by their keys, the samples of the last epoch by a key each.

    Parameters
    ----------
    head
        A head published before the accusation. Later records are left out.
    only
        Numbers of the samples to open. They can show that an image was made, never that it was not.

    Raises
    ------
    LedgerError
        The log is not sound, does not continue the head, or was not drawn from this secret.
    """
    with snapshot(path) as found:
        lines = list(found)
    log = read(lines, str(path))
    check_head(head, log.public_key)
    check_continues(log, head, str(path))
    if public_key(secret, log.generator) != log.public_key:
        raise LedgerError(f"{path} was begun with another secret: give that one")
    secrets = [epoch_key(secret, log.generator, epoch) for epoch in range(log.epochs)]
    for record in range(1, head.size):
        if commit(record_key(secrets[record // log.epoch_size], record)) != log.commitments[record]:
            raise TamperedError(f"{path}: record {record} does not commit to what the secret gives: restore the file")
    full = head.size // log.epoch_size
    epochs: dict[int, tuple[str, tuple[str, ...]]] = {}
    if only is None:
        leaves = [merkle.leaf_hash(commit(key)) for key in secrets]
        for epoch in range(full):
            proof = tuple(node.hex() for node in merkle.inclusion_path(leaves, epoch))
            epochs[epoch] = (secrets[epoch].hex(), proof)
        alone: Iterable[int] = range(max(full * log.epoch_size, 1), head.size)
    else:
        alone = sorted(set(only))
    keys = {}
    for record in alone:
        if not 1 <= record < head.size:
            raise LedgerError(f"the head covers samples 1 to {head.size - 1}, not {record}: open one of these")
        keys[record] = record_key(secrets[record // log.epoch_size], record).hex()
    return Evidence(head, tuple(line.decode() for line in lines[: head.size]), epochs, keys)


def load_evidence(path: str | os.PathLike[str]) -> Evidence:
    """Read a file that `Evidence.save` wrote. It may come from anyone.

    Raises
    ------
    LedgerError
        The file is missing, too large, or not evidence.
    """
    with open_file(path, "rb") as stream:
        text = stream.read(SIZE_LIMIT + 1)
    if len(text) > SIZE_LIMIT:
        raise LedgerError(f"{path} is larger than {SIZE_LIMIT / 2**30:.0f} GiB: ask for evidence under an earlier head")
    try:
        content = json.loads(text)
        if content["format"] != f"{VERSION} evidence":
            raise ValueError
        evidence = Evidence(
            Head.from_json(content["head"]),
            tuple(_string(line, LINE_LIMIT) for line in content["records"]),
            {
                int(epoch): (_string(key, 64), tuple(_string(node, 64) for node in proof))
                for epoch, (key, proof) in content["epochs"].items()
            },
            {int(record): _string(key, 64) for record, key in content["keys"].items()},
        )
    except LedgerError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise TamperedError(f"{path} is not evidence as `Evidence.save` writes it: ask for it again") from None
    return evidence


def _string(value: Any, limit: int) -> str:
    if not isinstance(value, str) or len(value) > limit:
        raise ValueError
    return value

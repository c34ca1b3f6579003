"""What does a developer publish so that the log's past cannot change? Signed heads, and proofs under them."""

import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from bayesdf.ledger import merkle
from bayesdf.ledger.errors import (
    ForkError,
    LedgerError,
    ReplayedError,
    SignatureError,
    TamperedError,
    TruncatedError,
)
from bayesdf.ledger.keys import VERSION, canonical, public_key, signing_key
from bayesdf.ledger.records import (
    HASH,
    RECORD_LIMIT,
    TIME,
    Log,
    Schema,
    integer_between,
    now,
    parse,
    read,
    snapshot,
    text_matching,
)

HEAD: Schema = {
    "ledger": text_matching(HASH),
    "root": text_matching(HASH),
    "signature": text_matching(re.compile(r"[0-9a-f]{128}")),
    "size": integer_between(1, RECORD_LIMIT + 1),
    "time": text_matching(TIME),
}


@dataclass(frozen=True)
class Head:
    """The length of the ledger and the Merkle root over its records, signed by the developer for publication.

    Attributes
    ----------
    ledger
        Digest of the genesis.
    size
        Records, the genesis among them: samples 1 to size - 1.
    root
        Of the Merkle tree over the records.
    time
        When it was signed, by the developer's clock. This proves nothing: the place of publication must date the head.
    signature
        Ed25519, of all other fields.
    """

    ledger: str
    size: int
    root: str
    time: str
    signature: str

    def to_json(self) -> str:
        return canonical(asdict(self)).decode()

    @classmethod
    def from_json(cls, line: str | bytes) -> "Head":
        """Read what `to_json` returned. `check_head` says whether the developer signed it."""
        return cls(**parse(line.encode() if isinstance(line, str) else line, HEAD, "the head"))


def publish(path: str | os.PathLike[str], secret: bytes) -> Head:
    """Check the log and sign its present head. Publish it where it can be neither changed nor withdrawn."""
    with snapshot(path) as lines:
        log = read(lines, str(path))
    if public_key(secret, log.generator) != log.public_key:
        raise LedgerError(f"{path} was begun with another secret: give that one")
    root = merkle.root(log.leaves).hex()
    facts: dict[str, Any] = {"ledger": log.digest, "root": root, "size": len(log.leaves), "time": now()}
    return Head(**facts, signature=signing_key(secret, log.generator).sign(_signed(facts)).hex())


def check(path: str | os.PathLike[str], head: Head | None = None, key: str | None = None) -> Log:
    """Read a log and check that it is sound in itself, and that it continues a published head.

    The chain alone does not show that the end of the file was cut off, or that its owner wrote it anew. A head shows
    it, if it is kept where the owner cannot change it.

    Parameters
    ----------
    head
        Published earlier.
    key
        The developer's public key; by default the one in the log.

    Raises
    ------
    TamperedError, ReorderedError, ReplayedError, TruncatedError, ForkError, TornError, SignatureError
        The message says what is wrong, and at which record.
    LedgerError
        The file is missing, or is not a ledger.
    """
    with snapshot(path) as lines:
        log = read(lines, str(path))
    if key is not None and key != log.public_key:
        raise ForkError(f"{path} names another public key than the one given: ask for the developer's own ledger")
    if head is not None:
        check_head(head, log.public_key)
        check_continues(log, head, str(path))
    return log


def check_head(head: Head, key: str) -> None:
    """Check that the owner of the public key signed the head.

    Raises
    ------
    SignatureError
        Somebody else signed it, or the head was changed afterwards.
    """
    facts = {name: value for name, value in asdict(head).items() if name != "signature"}
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
    except ValueError:
        raise LedgerError(f"{key[:80]!r} is no public key: give the 64 hexadecimal digits that `create` gave") from None
    try:
        public.verify(bytes.fromhex(head.signature), _signed(facts))
    except (InvalidSignature, ValueError):
        raise SignatureError(
            f"the head of {head.size} records is not signed by the public key: fetch it again from where it is "
            "published"
        ) from None


def check_continues(log: Log, head: Head, where: str) -> None:
    """Check that the log begins with the records under the head."""
    if log.digest != head.ledger:
        raise ForkError(
            f"{where} is another ledger than the head's, from record 0 on: ask for the one that was published"
        )
    if len(log.leaves) < head.size:
        raise TruncatedError(
            f"{where} ends before record {len(log.leaves)}, but the head was signed over {head.size}: ask for the rest"
        )
    if merkle.root(log.leaves[: head.size]).hex() != head.root:
        raise ForkError(
            f"{where} is sound in itself, but its first {head.size} records (0 to {head.size - 1}) are not those that "
            "the head was signed over: it was written anew; ask for the one that was published"
        )


def prove_inclusion(path: str | os.PathLike[str], index: int, head: Head) -> tuple[str, list[str]]:
    """The line of record `index`, and the Merkle path from it to the head's root (RFC 6962, section 2.1.1)."""
    leaves = check(path, head).leaves[: head.size]
    if not 0 <= index < head.size:
        raise LedgerError(f"the head covers records 0 to {head.size - 1}, not {index}: take a later head")
    with snapshot(path) as lines:
        line = next(itertools.islice(lines, index, None))
    return line.decode(), [node.hex() for node in merkle.inclusion_path(leaves, index)]


def check_inclusion(line: str, index: int, proof: Sequence[str], head: Head, key: str) -> None:
    """Check that a signed head covers a record, without the rest of the log.

    Raises
    ------
    SignatureError, TamperedError
        The head is false, or the proof does not lead from the record to it.
    """
    check_head(head, key)
    if not merkle.included(merkle.leaf_hash(line.encode()), index, head.size, nodes(proof), bytes.fromhex(head.root)):
        raise TamperedError(f"the proof does not lead from record {index} to the head: ask for the proof again")


def prove_consistency(path: str | os.PathLike[str], old: Head, new: Head) -> list[str]:
    """The proof that the log only grew between two of its heads (RFC 6962, section 2.1.2)."""
    leaves = check(path, new).leaves
    check(path, old)
    if old.size > new.size:
        raise ReplayedError(
            f"the head of {new.size} records is older than that of {old.size}: give the older one first"
        )
    return [node.hex() for node in merkle.consistency_path(leaves[: new.size], old.size)]


def check_consistency(old: Head, new: Head, proof: Sequence[str], key: str) -> None:
    """Check that the ledger only grew from a head known before to one that is shown as current.

    Raises
    ------
    SignatureError
        The developer did not sign one of them.
    ReplayedError
        The head shown as current is the older one.
    ForkError
        They belong to different histories.
    """
    check_head(old, key)
    check_head(new, key)
    if old.ledger != new.ledger:
        raise ForkError(
            "the heads are of two ledgers under one public key, different from record 0 on: ask which counts"
        )
    if new.size < old.size:
        raise ReplayedError(
            f"the head shown as current ends with record {new.size - 1}, one already known with record {old.size - 1}: "
            "ask for the current one"
        )
    if not merkle.consistent(old.size, new.size, nodes(proof), bytes.fromhex(old.root), bytes.fromhex(new.root)):
        raise ForkError(
            f"the head of {new.size} records does not continue that of {old.size}: one of records 0 to {old.size - 1} "
            "was replaced, or the proof is not for these two heads; keep both heads, they convict whoever signed them"
        )


def _signed(facts: dict[str, Any]) -> bytes:
    return f"{VERSION} head\n".encode() + canonical(facts)


def nodes(proof: Sequence[str]) -> list[bytes]:
    """The nodes of a proof, which lists them in hexadecimal."""
    if len(proof) > 64 or not all(text_matching(HASH)(node) for node in proof):
        raise TamperedError("the proof is no list of digests: ask for the proof again")
    return [bytes.fromhex(node) for node in proof]

"""Evidence about accused images: what a developer opens of the ledger, and how a third party judges by it."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from rich.progress import track
from torch import Tensor

from bayesdf.cli import console
from bayesdf.files import replacing
from bayesdf.generators.generator import Generator
from bayesdf.ledger import merkle
from bayesdf.ledger.entropy import VERSION, canonical, commit, epoch_key, expand, public_key, record_key
from bayesdf.ledger.faults import (
    ForkError,
    IncompleteError,
    LedgerError,
    ReplayedError,
    TamperedError,
    TruncatedError,
)
from bayesdf.ledger.heads import Head, check_head, continues, nodes
from bayesdf.ledger.records import LINE_LIMIT, RECORD_LIMIT, Log, opened, read, settled

SIZE_LIMIT = 1 << 30
"""Bytes of a file of evidence that are read; a million samples take less than half of it."""
CHUNK = 64
"""Images decoded at once."""


@dataclass(frozen=True)
class Evidence:
    """What a developer hands over: the public records under a head, and keys that open their samples.

    It does not depend on an image: opened once for a head, it answers every accusation that the head precedes. Keys
    that are opened stay open: whoever has them can make those samples again, and learns nothing of the others.

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
        """Write it as one JSON file, whole or not at all; the file must not exist yet."""
        path = Path(path)
        content = {
            "epochs": {str(epoch): [key, list(proof)] for epoch, (key, proof) in self.epochs.items()},
            "format": f"{VERSION} evidence",
            "head": self.head.to_json(),
            "keys": {str(record): key for record, key in self.keys.items()},
            "records": list(self.records),
        }
        try:
            with replacing(path, new=True) as beside:
                beside.write_bytes(canonical(content) + b"\n")
        except FileExistsError:
            raise LedgerError(f"{path} exists already: choose another path") from None
        except OSError as error:
            raise LedgerError(f"{path} cannot be written ({error.strerror}): choose another path") from None
        return path


@dataclass(frozen=True)
class Verdict:
    """What evidence says about one image.

    Attributes
    ----------
    made
        Whether a sample under the head is the image, up to the threshold. If not, every one of them was compared.
    index, distance
        The nearest sample, and the root mean square error over pixels between it and the image.
    threshold
        Up to which distance a sample counts as the image.
    samples, compared
        Samples under the head, and how many were opened and compared.
    unbound
        How many of these, in an epoch not yet full, were opened by keys of their own. These fit their commitments; that
        they come from the epoch's key can be checked once it is opened.
    record, proof
        If made: the sample's line in the log, and the Merkle path to the head, for `check_inclusion`.
    latent_index, latent_distance
        For an accused latent: the sample with the nearest entropy, and the root mean square difference of its values.
        Between independent entropies it is near the square root of 2.
    head
        Which the verdict rests on.
    """

    made: bool
    index: int
    distance: float
    threshold: float
    samples: int
    compared: int
    unbound: int
    head: Head
    record: str | None = None
    proof: tuple[str, ...] | None = None
    latent_index: int | None = None
    latent_distance: float | None = None

    def __str__(self) -> str:
        ground = f"head of {self.head.size} records signed {self.head.time}, root {self.head.root[:16]}"
        near = f"sample {self.index} at distance {self.distance:.5f}, threshold {self.threshold:.5f}"
        if self.made:
            return f"made: {near}; its record is under the {ground}"
        return f"not made by any of the {self.samples} recorded samples: the nearest is {near}; {ground}"


def gather(
    path: str | os.PathLike[str],
    secret: bytes,
    head: Head,
    *,
    only: Iterable[int] | None = None,
) -> Evidence:
    """Open what was recorded under a published head: the developer's part.

    Full epochs are opened by their keys, the samples of the last one each by its own.

    Parameters
    ----------
    head
        One published before the accusation; records after it stay out.
    only
        Samples to open, by their numbers. These alone can show that an image was made, never that it was not.

    Raises
    ------
    LedgerError
        The log is not sound, does not continue the head, or was not drawn from this secret.
    """
    with settled(path) as found:
        lines = list(found)
    log = read(lines, str(path))
    check_head(head, log.public_key)
    continues(log, head, str(path))
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
    """Read a file that `Evidence.save` wrote, which may come from anyone.

    Raises
    ------
    LedgerError
        It is missing, too large, or something else.
    """
    with opened(path, "rb") as stream:
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


def verify(
    evidence: Evidence,
    image: ArrayLike | Tensor,
    head: Head,
    generator: Generator,
    key: str,
    *,
    threshold: float,
    latent: ArrayLike | Tensor | None = None,
    weights: str | None = None,
    progress: bool = True,
) -> Verdict:
    """Judge one accused image: the third party's part, which trusts nothing in the evidence.

    Parameters
    ----------
    evidence
        From the developer.
    image
        (C, H, W) or, of one channel, (H, W), in [0, 1].
    head
        As fetched from where it was published, at a time before the accusation; not as the developer brings it.
    generator
        The accused one, with weights that the third party holds itself.
    key
        The developer's public key, from where it is published.
    threshold
        Distance (root mean square error over pixels in [0, 1]) up to which a sample counts as the image.
    latent
        (latent_dim,) entropy that the accuser says the image was made from.
    weights
        What tells the generator's weights; if given, the genesis must say the same.
    progress
        Whether to show a bar.

    Returns
    -------
    Verdict

    Raises
    ------
    SignatureError
        The head is not the developer's.
    TamperedError, TruncatedError, ReorderedError, ReplayedError, ForkError
        The evidence does not fit the head, or a key not its commitment.
    IncompleteError
        None of the opened samples is the image, and some are left unopened, or a full epoch is not opened by its key.
    LedgerError
        The ledger is of another generator, or image, latent or threshold cannot be right.
    """
    latents = None if latent is None else _tensor(latent).reshape(1, -1)
    images = _tensor(image)[None]
    return verify_all(
        evidence, images, head, generator, key, threshold=threshold, latents=latents, weights=weights, progress=progress
    )[0]


@torch.no_grad()
def verify_all(
    evidence: Evidence,
    images: ArrayLike | Tensor,
    head: Head,
    generator: Generator,
    key: str,
    *,
    threshold: float,
    latents: ArrayLike | Tensor | None = None,
    weights: str | None = None,
    progress: bool = True,
) -> list[Verdict]:
    """Judge many images, (N, C, H, W) or (N, H, W), by the same evidence, making every sample once; see `verify`.

    Parameters
    ----------
    latents
        (N, latent_dim), one an image.
    """
    if not 0.0 <= threshold <= 1.0:
        raise LedgerError(f"threshold={threshold}: give a distance between 0 and 1")
    if generator.decode is None:
        raise LedgerError(f"generator {generator.name} has no `decode`: its samples cannot be made again")
    log = _sound(evidence, head, generator, key, weights)
    accused = _images(images)
    codes = None if latents is None else _latents(latents, len(accused), log.latent_dim)
    samples, compared, unbound = log.samples, 0, 0
    nearest = _Nearest(len(accused))
    nearest_code = _Nearest(len(accused))
    scale = _weights(generator, accused)
    # A first pass proves every key, so that nothing is decoded from evidence that is not right.
    for _, own in _opened_keys(evidence, log):
        compared, unbound = compared + 1, unbound + own
    chunks = (compared + CHUNK - 1) // CHUNK
    parts = _chunks(_opened_keys(evidence, log))
    shown = track(parts, "making the samples again", chunks, console=console, transient=True, disable=not progress)
    for numbers, keys in shown:
        entropy = expand(keys, log.latent_dim)
        made = generator.decode(entropy).float().cpu()
        if made.shape != (len(keys), *accused.shape[1:]):
            raise LedgerError(
                f"images are {tuple(accused.shape[1:])}, generator {generator.name} makes "
                f"{tuple(made.shape[1:])}: bring them to the same channels and size"
            )
        bad = ~torch.isfinite(made).flatten(1).all(1)
        if bad.any():
            raise LedgerError(
                f"generator {generator.name} gives no finite image for sample {numbers[int(bad.int().argmax())]}"
            )
        nearest.see(numbers, _distance(accused * scale, made.clamp(0.0, 1.0) * scale))
        if codes is not None:
            nearest_code.see(numbers, _distance(codes, entropy) / log.latent_dim**0.5)
    loose = [epoch for epoch in range(head.size // log.epoch_size) if epoch not in evidence.epochs]
    verdicts = []
    for row in range(len(accused)):
        index, distance = nearest.index[row], nearest.distance[row]
        made_it = distance <= threshold
        if not made_it and compared < samples:
            raise IncompleteError(
                f"image {row}: {compared} of {samples} samples are opened and none is within {threshold:.4g} (nearest: "
                f"{index}, {distance:.5f}); ask for evidence that opens all of them"
            )
        if not made_it and loose:
            raise IncompleteError(
                f"image {row}: epoch {loose[0]} is full, but opened record by record, so nothing ties its keys to "
                "record 0; ask for evidence that opens full epochs by their keys"
            )
        verdicts.append(
            Verdict(
                made=made_it,
                index=index,
                distance=distance,
                threshold=threshold,
                samples=samples,
                compared=compared,
                unbound=unbound,
                head=head,
                record=evidence.records[index] if made_it else None,
                proof=tuple(node.hex() for node in merkle.inclusion_path(log.leaves, index)) if made_it else None,
                latent_index=None if codes is None else nearest_code.index[row],
                latent_distance=None if codes is None else nearest_code.distance[row],
            )
        )
    return verdicts


def _sound(evidence: Evidence, head: Head, generator: Generator, key: str, weights: str | None) -> Log:
    """The log in the evidence, once it is shown to be the one under the head, and of this generator."""
    check_head(head, key)
    given = evidence.head
    if given != head:
        check_head(given, key)
        if given.ledger != head.ledger:
            raise ForkError(
                "the evidence is of another ledger than the head's, from record 0 on: ask for that of the head"
            )
        if given.size < head.size:
            raise ReplayedError(
                f"the evidence is for an old head that ends with record {given.size - 1}, the one to answer ends with "
                f"record {head.size - 1}: ask for evidence under that"
            )
        if given.size > head.size:
            raise LedgerError(
                f"the evidence is for a later head that ends with record {given.size - 1}, the one to answer ends with "
                f"record {head.size - 1}: ask for evidence under that"
            )
        if given.root != head.root:
            raise ForkError(
                f"two heads of {head.size} records, signed by the same key, have different roots: keep both, they "
                "convict whoever signed them"
            )
    log = read(_encoded(evidence.records), "the evidence")
    continues(log, head, "the evidence")
    if len(log.leaves) > head.size:
        raise TamperedError(f"the evidence goes on after the head, with record {head.size}: ask for that of the head")
    if log.public_key != key:
        raise ForkError("record 0 names another public key than the one given: ask for the developer's own ledger")
    if (log.generator, log.latent_dim) != (generator.name, generator.latent_dim):
        raise LedgerError(
            f"the evidence is of generator {log.generator!r} with {log.latent_dim} latent values, not of "
            f"{generator.name!r} with {generator.latent_dim}: ask for that of the accused generator"
        )
    if weights is not None and weights != log.weights:
        raise LedgerError(
            f"the ledger is for weights {log.weights!r}, not {weights[:200]!r}: judge by the weights that it names"
        )
    if log.samples < 1:
        raise LedgerError("no sample is recorded under the head: there is nothing to compare the image with")
    return log


def _opened_keys(evidence: Evidence, log: Log) -> Iterator[tuple[tuple[int, bytes], bool]]:
    """Each opened record with its key, proved to be the committed one, and whether it was opened alone."""
    for epoch, (text, proof) in sorted(evidence.epochs.items()):
        key = _key(text, f"epoch {epoch}")
        leaf = merkle.leaf_hash(commit(key))
        if not merkle.included(leaf, epoch, log.epochs, nodes(proof), bytes.fromhex(log.keys)):
            raise TamperedError(f"the key of epoch {epoch} is not the one that record 0 commits to: ask for it again")
        for record in range(max(epoch * log.epoch_size, 1), (epoch + 1) * log.epoch_size):
            if record > log.samples:
                raise TamperedError(
                    f"epoch {epoch} is opened though record {record} is still to be drawn: its owner should begin anew"
                )
            yield (record, _committed(record_key(key, record), record, log)), False
    for record, text in sorted(evidence.keys.items()):
        if not 1 <= record <= log.samples:
            raise TruncatedError(f"a key is given for record {record}, which is not under the head: ask for it again")
        if record // log.epoch_size not in evidence.epochs:
            yield (record, _committed(_key(text, f"record {record}"), record, log)), True


def _committed(key: bytes, record: int, log: Log) -> bytes:
    if commit(key) != log.commitments[record]:
        raise TamperedError(f"the key of record {record} is not the one that it commits to: ask for it again")
    return key


def _chunks(opened: Iterator[tuple[tuple[int, bytes], bool]]) -> Iterator[tuple[list[int], list[bytes]]]:
    numbers: list[int] = []
    keys: list[bytes] = []
    for (number, key), _ in opened:
        numbers.append(number)
        keys.append(key)
        if len(keys) == CHUNK:
            yield numbers, keys
            numbers, keys = [], []
    if keys:
        yield numbers, keys


class _Nearest:
    """For each of n images, the nearest sample seen so far."""

    def __init__(self, n: int) -> None:
        self.index = [0] * n
        self.distance = [float("inf")] * n

    def see(self, numbers: list[int], distance: Tensor) -> None:
        """distance: (n, len(numbers))."""
        values, places = distance.min(1)
        for row, (value, place) in enumerate(zip(values.tolist(), places.tolist(), strict=True)):
            if value < self.distance[row]:
                self.index[row], self.distance[row] = numbers[place], value


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances (len(a), len(b)), by differences: the faster way by products is blind to small ones."""
    return torch.cdist(a.flatten(1), b.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")


def _weights(generator: Generator, accused: Tensor) -> Tensor:
    """Factors (H, W) under which a Euclidean distance is the root mean square error over the pixels that count."""
    size = accused.shape[2:]
    region = torch.ones(size) if generator.region is None else torch.as_tensor(np.array(generator.region)).float()
    if region.shape != size:
        raise LedgerError(f"images are {tuple(size)} pixels, the generator's region {tuple(region.shape)}: resize them")
    return (region / (region.sum() * accused.shape[1])).sqrt()


def _tensor(values: ArrayLike | Tensor) -> Tensor:
    return values.detach().float().cpu() if isinstance(values, Tensor) else torch.tensor(np.array(values, np.float32))


def _images(images: ArrayLike | Tensor) -> Tensor:
    array = _tensor(images)
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim != 4 or not array.numel():
        raise LedgerError(f"images have shape {tuple(array.shape)}; give (N, C, H, W), or (N, H, W) with one channel")
    if not torch.isfinite(array).all() or array.min() < 0.0 or array.max() > 1.0:
        raise LedgerError("images have pixels outside [0, 1]: divide 8-bit values by 255, and clip")
    return array


def _latents(latents: ArrayLike | Tensor, images: int, latent_dim: int) -> Tensor:
    array = _tensor(latents)
    if array.shape != (images, latent_dim) or not torch.isfinite(array).all():
        raise LedgerError(f"latents have shape {tuple(array.shape)}; give finite values ({images}, {latent_dim})")
    return array


def _encoded(records: Iterable[str]) -> Iterator[bytes]:
    for number, record in enumerate(records):
        if number > RECORD_LIMIT or not record.isascii():
            raise TamperedError(f"the evidence: record {number} is not as it was written: ask for it again")
        yield record.encode()


def _key(text: str, what: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise TamperedError(f"the key of {what} is no key of 64 hexadecimal digits: ask for it again")
    return key


def _string(value: Any, limit: int) -> str:
    if not isinstance(value, str) or len(value) > limit:
        raise ValueError
    return value

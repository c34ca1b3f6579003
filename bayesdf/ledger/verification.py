"""How does a third party judge an image by evidence? It makes every opened sample again and compares.

Nothing in the evidence is trusted: the records must belong to the published head, and each key must fit its commitment.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from rich.progress import track
from torch import Tensor

from bayesdf.cli import console
from bayesdf.generators.generator import Generator
from bayesdf.ledger import merkle
from bayesdf.ledger.errors import (
    ForkError,
    IncompleteError,
    LedgerError,
    ReplayedError,
    TamperedError,
    TruncatedError,
)
from bayesdf.ledger.evidence import Evidence
from bayesdf.ledger.heads import Head, check_continues, check_head, nodes
from bayesdf.ledger.keys import commit, expand_to_latents, record_key
from bayesdf.ledger.records import RECORD_LIMIT, Log, read

CHUNK = 64
"""Images decoded at once."""


@dataclass(frozen=True)
class Verdict:
    """What evidence says about one image.

    Attributes
    ----------
    made
        Whether a sample under the head is the image, up to the threshold. If not, every sample was compared.
    index, distance
        The nearest sample, and the root mean square error over pixels between it and the image.
    threshold
        Largest distance at which a sample counts as the image.
    samples, compared
        Samples under the head, and how many were opened and compared.
    unbound
        How many of these, in an epoch not yet full, were opened by keys of their own. Such a key fits its commitment.
        Whether it comes from the epoch's key can be checked only when that is opened.
    record, proof
        If made: the sample's line in the log, and the Merkle path to the head, for `check_inclusion`.
    latent_index, latent_distance
        For an accused latent: the sample with the nearest latent, and the root mean square difference of their values.
        Between independent latents it is near the square root of 2.
    head
        The head that the verdict rests on.
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
    """Judge one accused image. This is the third party's part; it trusts nothing in the evidence.

    Parameters
    ----------
    evidence
        From the developer.
    image
        (C, H, W) or, of one channel, (H, W), in [0, 1].
    head
        Published before the accusation, and fetched from that place, not from the developer.
    generator
        The accused one, with weights that the third party holds itself.
    key
        The developer's public key, from where it is published.
    threshold
        Largest distance (root mean square error over pixels in [0, 1]) at which a sample counts as the image.
    latent
        (latent_dim,) the latent from which the image was made, according to the accuser.
    weights
        Identifies the generator's weights. If given, it must equal that of the genesis.
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
        None of the opened samples is the image, and some samples are not opened, or a full epoch is not opened by its
        key.
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
    """Judge many images, (N, C, H, W) or (N, H, W), by the same evidence; every sample is made once. See `verify`.

    Parameters
    ----------
    latents
        (N, latent_dim), one an image.
    """
    if not 0.0 <= threshold <= 1.0:
        raise LedgerError(f"threshold={threshold}: give a distance between 0 and 1")
    if generator.decode is None:
        raise LedgerError(f"generator {generator.name} has no `decode`: its samples cannot be made again")
    log = _checked_log(evidence, head, generator, key, weights)
    accused = _checked_images(images)
    codes = None if latents is None else _checked_latents(latents, len(accused), log.latent_dim)
    samples, compared, unbound = log.samples, 0, 0
    nearest = _Nearest(len(accused))
    nearest_code = _Nearest(len(accused))
    scale = _pixel_weights(generator, accused)
    # A first pass checks every key, so that nothing is decoded from false evidence.
    for _, own in _opened_keys(evidence, log):
        compared, unbound = compared + 1, unbound + own
    chunks = (compared + CHUNK - 1) // CHUNK
    parts = _chunks(_opened_keys(evidence, log))
    shown = track(parts, "making the samples again", chunks, console=console, transient=True, disable=not progress)
    for numbers, keys in shown:
        latent = expand_to_latents(keys, log.latent_dim)
        made = generator.decode(latent).float().cpu()
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
        nearest.update(numbers, _distance(accused * scale, made.clamp(0.0, 1.0) * scale))
        if codes is not None:
            nearest_code.update(numbers, _distance(codes, latent) / log.latent_dim**0.5)
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


def _checked_log(evidence: Evidence, head: Head, generator: Generator, key: str, weights: str | None) -> Log:
    """The log in the evidence, after checks that it is the one under the head and of this generator."""
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
    check_continues(log, head, "the evidence")
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
    """Each opened record with its checked key, and whether it was opened by a key of its own."""
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
            yield (record, _checked_key(record_key(key, record), record, log)), False
    for record, text in sorted(evidence.keys.items()):
        if not 1 <= record <= log.samples:
            raise TruncatedError(f"a key is given for record {record}, which is not under the head: ask for it again")
        if record // log.epoch_size not in evidence.epochs:
            yield (record, _checked_key(_key(text, f"record {record}"), record, log)), True


def _checked_key(key: bytes, record: int, log: Log) -> bytes:
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
    """For each of n images, the nearest sample so far."""

    def __init__(self, n: int) -> None:
        self.index = [0] * n
        self.distance = [float("inf")] * n

    def update(self, numbers: list[int], distance: Tensor) -> None:
        """distance: (n, len(numbers))."""
        values, places = distance.min(1)
        for row, (value, place) in enumerate(zip(values.tolist(), places.tolist(), strict=True)):
            if value < self.distance[row]:
                self.index[row], self.distance[row] = numbers[place], value


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances (len(a), len(b)), by differences; the faster way by products rounds small ones to 0."""
    return torch.cdist(a.flatten(1), b.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")


def _pixel_weights(generator: Generator, accused: Tensor) -> Tensor:
    """Factors (H, W) that turn a Euclidean distance into the root mean square error over the generator's region."""
    size = accused.shape[2:]
    region = torch.ones(size) if generator.region is None else torch.as_tensor(np.array(generator.region)).float()
    if region.shape != size:
        raise LedgerError(f"images are {tuple(size)} pixels, the generator's region {tuple(region.shape)}: resize them")
    return (region / (region.sum() * accused.shape[1])).sqrt()


def _tensor(values: ArrayLike | Tensor) -> Tensor:
    return values.detach().float().cpu() if isinstance(values, Tensor) else torch.tensor(np.array(values, np.float32))


def _checked_images(images: ArrayLike | Tensor) -> Tensor:
    array = _tensor(images)
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim != 4 or not array.numel():
        raise LedgerError(f"images have shape {tuple(array.shape)}; give (N, C, H, W), or (N, H, W) with one channel")
    if not torch.isfinite(array).all() or array.min() < 0.0 or array.max() > 1.0:
        raise LedgerError("images have pixels outside [0, 1]: divide 8-bit values by 255, and clip")
    return array


def _checked_latents(latents: ArrayLike | Tensor, images: int, latent_dim: int) -> Tensor:
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

"""The Merkle tree of RFC 6962, "Certificate Transparency", section 2.1, over the hashes of its leaves.

A leaf is hashed after a zero byte and an inner node after a one byte, so that neither can pass for the other. The two
verifications are those of RFC 9162, sections 2.1.3.2 and 2.1.4.2.
"""

from collections.abc import Sequence

from cryptography.hazmat.primitives import hashes


def sha256(*parts: bytes) -> bytes:
    """SHA-256 of the concatenated parts; 32 bytes."""
    digest = hashes.Hash(hashes.SHA256())
    for part in parts:
        digest.update(part)
    return digest.finalize()


def leaf_hash(data: bytes) -> bytes:
    return sha256(b"\x00", data)


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01", left, right)


def root(leaves: Sequence[bytes]) -> bytes:
    """The root over hashes of leaves; without leaves it is the hash of nothing."""
    level = list(leaves)
    while len(level) > 1:  # an odd last node moves up unchanged; this is the RFC's split by powers of two
        pairs = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = pairs + level[len(level) - len(level) % 2 :]
    return level[0] if level else sha256()


def inclusion_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The nodes that lead from leaf `index` to the root, from the leaf upwards (PATH of section 2.1.1)."""
    if len(leaves) == 1:
        return []
    split = _split(len(leaves))
    if index < split:
        return [*inclusion_path(leaves[:split], index), root(leaves[split:])]
    return [*inclusion_path(leaves[split:], index - split), root(leaves[:split])]


def consistency_path(leaves: Sequence[bytes], first: int) -> list[bytes]:
    """The nodes that prove that the tree of the first `first` leaves begins this one (PROOF, 2.1.2)."""
    return _subproof(leaves, first, whole=True) if first else []


def _subproof(leaves: Sequence[bytes], first: int, whole: bool) -> list[bytes]:
    if first == len(leaves):
        return [] if whole else [root(leaves)]
    split = _split(len(leaves))
    if first <= split:
        return [*_subproof(leaves[:split], first, whole), root(leaves[split:])]
    return [*_subproof(leaves[split:], first - split, whole=False), root(leaves[:split])]


def _split(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << ((size - 1).bit_length() - 1)


def included(leaf: bytes, index: int, size: int, path: Sequence[bytes], tree: bytes) -> bool:
    """Whether the path leads from the hash of leaf `index` to the root `tree` of `size` leaves."""
    if not 0 <= index < size:
        return False
    position, last, node = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return False
        if position % 2 or position == last:
            node = node_hash(sibling, node)
            while position % 2 == 0 and position:
                position, last = position >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and node == tree


def consistent(first: int, second: int, path: Sequence[bytes], old: bytes, new: bytes) -> bool:
    """Whether the path proves that root `old` of `first` leaves begins the tree of `second` leaves with root `new`."""
    if not 0 < first <= second:
        return False
    if first == second:
        return not path and old == new
    nodes = [old, *path] if first & (first - 1) == 0 else list(path)
    if not nodes:
        return False
    position, last = first - 1, second - 1
    while position % 2:
        position, last = position >> 1, last >> 1
    before = after = nodes[0]
    for node in nodes[1:]:
        if last == 0:
            return False
        if position % 2 or position == last:
            before, after = node_hash(node, before), node_hash(node, after)
            while position % 2 == 0 and position:
                position, last = position >> 1, last >> 1
        else:
            after = node_hash(after, node)
        position, last = position >> 1, last >> 1
    return last == 0 and before == old and after == new

"""How does a secret determine the latent of every sample? By a chain of keys, and commitments that reveal none of them.

    secret ── HKDF (RFC 5869) ──> key of an epoch ── HKDF ──> key of a record ── HKDF, AES-256-CTR ──> latent

Each arrow goes one way. The key of a record opens one sample. The key of an epoch opens its samples and no others.
Neither reveals anything about the secret. A commitment is the SHA-256 of a key. Keys are 256 bits that nobody can
guess, so a commitment hides its key without a salt, and nobody can find a second key for it.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from scipy.special import ndtri
from torch import Tensor

from bayesdf.files import atomic_write
from bayesdf.ledger.errors import LedgerError
from bayesdf.ledger.merkle import sha256

VERSION = "bayesdf ledger 1"


def canonical(value: Any) -> bytes:
    """The canonical form of a JSON value: sorted keys, no blanks, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def derive(secret: bytes, salt: bytes, info: bytes, length: int = 32) -> bytes:
    """HKDF with SHA-256 (RFC 5869)."""
    return HKDF(hashes.SHA256(), length, salt, info).derive(secret)


def _expand(key: bytes, *info: str | int) -> bytes:
    return HKDFExpand(hashes.SHA256(), 32, canonical(info)).derive(key)


def new_secret(path: str | os.PathLike[str]) -> bytes:
    """Make a developer's secret, 32 random bytes, and write it to a new file that only its owner may read.

    Whoever has the secret can make every latent of the ledger and sign its heads. Without it no evidence can be given.
    One secret serves one ledger.

    Raises
    ------
    LedgerError
        The file exists already.
    """
    secret = os.urandom(32)
    try:
        write_new(Path(path), f"{secret.hex()}\n".encode())
    except FileExistsError:
        raise LedgerError(f"{path} exists already and may hold a secret: choose another path") from None
    except OSError as error:
        raise LedgerError(f"{path} cannot be written ({error.strerror}): choose another path") from None
    return secret


def write_new(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file that must not exist yet, whole or not at all, and wait until it is safe from a power cut."""
    folder = os.open(path.parent, os.O_RDONLY)  # atomic_write() would make it
    try:
        with atomic_write(path, new=True) as beside:
            file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(file, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        os.fsync(folder)
    finally:
        os.close(folder)


def load_secret(path: str | os.PathLike[str]) -> bytes:
    """The secret that `new_secret` wrote.

    Raises
    ------
    LedgerError
        The file is missing or holds something else.
    """
    try:
        with Path(path).open("rb") as stream:
            text = stream.read(66)
        secret = bytes.fromhex(text.decode("ascii").strip())
    except OSError as error:
        raise LedgerError(f"{path} cannot be read ({error.strerror}): give the file that new_secret wrote") from None
    except ValueError:
        secret = b""
    if len(secret) != 32:
        raise LedgerError(f"{path} holds no secret (64 hexadecimal digits): give the file that new_secret wrote")
    return secret


def signing_key(secret: bytes, name: str) -> Ed25519PrivateKey:
    """The Ed25519 key that signs the heads of the ledger of generator `name`."""
    return Ed25519PrivateKey.from_private_bytes(_derive(secret, "sign", name))


def public_key(secret: bytes, name: str) -> str:
    """The public key that checks the signatures of heads: 64 hexadecimal digits. The developer publishes it."""
    return signing_key(secret, name).public_key().public_bytes_raw().hex()


def epoch_key(secret: bytes, name: str, epoch: int) -> bytes:
    return _derive(secret, "epoch", name, epoch)


def record_key(epoch: bytes, record: int) -> bytes:
    """The key of one record, from that of its epoch."""
    return _expand(epoch, "record", record)


def commit(key: bytes) -> bytes:
    return sha256(f"{VERSION} commitment".encode(), key)


def _derive(secret: bytes, *info: str | int) -> bytes:
    if len(secret) != 32:
        raise LedgerError(f"a secret of {len(secret)} bytes; new_secret makes one of 32")
    return derive(secret, VERSION.encode(), canonical(info))


def expand_to_latents(keys: Sequence[bytes], latent_dim: int) -> Tensor:
    """The latents that the keys of records determine.

    Returns
    -------
    Tensor
        (len(keys), latent_dim) float32, standard normal.

    Notes
    -----
    A key gives an AES-256-CTR keystream. 64 bits of it, little-endian, give one value. The upper 52 bits,
    plus a half, over 2^52 are a uniform value strictly between 0 and 1, exact in float64. The inverse of the normal
    distribution function maps it to at most 8.2 in absolute value. All steps before that function are exact, the same
    on every machine and with every version of torch. `scipy.special.ndtri` may differ in the last bits of float64
    between builds. After rounding to float32 such a difference remains about once in 10^8 values, of one unit in the
    last place (6e-8, relative). It moves no image by anything near a threshold. Nothing else depends on it: commitments
    are to keys, never to values.
    """
    bits = np.empty((len(keys), latent_dim), dtype="<u8")
    for row, key in zip(bits, keys, strict=True):
        stream = Cipher(algorithms.AES(_expand(key, "entropy")), modes.CTR(bytes(16))).encryptor()
        row[:] = np.frombuffer(stream.update(bytes(8 * latent_dim)), dtype="<u8")
    uniform = ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return torch.from_numpy(np.asarray(ndtri(uniform), dtype=np.float32))

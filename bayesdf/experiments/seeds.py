"""How does every step get randomness of its own from one seed?"""

import hashlib

import numpy as np


def seed_of(seed: int, *what: object) -> int:
    """A seed for one purpose, unlike that for any other."""
    return int.from_bytes(hashlib.sha256(repr((int(seed), *what)).encode()).digest()[:4], "little") >> 1


def rng_of(seed: int, *what: object) -> np.random.Generator:
    return np.random.default_rng(seed_of(seed, *what))

"""Random numbers that belong to one fit: the caller's generators are left alone."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyro
import torch


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers from `seed` and a parameter store of its own; the caller's are as before afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), pyro.get_param_store().scope():
        torch.manual_seed(seed)
        yield


def chain_seed(seed: int, chain: int) -> int:
    """The seed of one Markov chain of a fit."""
    return int(np.random.SeedSequence((seed, chain)).generate_state(1, np.uint64)[0]) & 0x7FFF_FFFF_FFFF_FFFF

"""Samplers: what a posterior keeps of a method, and makes its draws from.

A sampler turns ``(index, seed)`` into the values of all sites. Draw 7 of seed 0 is always the same, wherever it is made
and whatever else is drawn. A store keeps a sampler as an `xr.Dataset` of plain arrays (group ``variational``).
"""

from bayesdf.inference.samplers.delta import DeltaSampler
from bayesdf.inference.samplers.full import FullSampler
from bayesdf.inference.samplers.lowrank import LowRankSampler
from bayesdf.inference.samplers.mask import MaskSampler
from bayesdf.inference.samplers.matrix import Matrix, MatrixSampler
from bayesdf.inference.samplers.normal import NormalSampler
from bayesdf.inference.samplers.sampler import Sampler
from bayesdf.inference.samplers.stored import StoredSampler

__all__ = [
    "SAMPLERS",
    "DeltaSampler",
    "FullSampler",
    "LowRankSampler",
    "MaskSampler",
    "Matrix",
    "MatrixSampler",
    "NormalSampler",
    "Sampler",
    "StoredSampler",
]

SAMPLERS: dict[str, type[Sampler]] = {
    sampler.kind: sampler
    for sampler in (
        NormalSampler,
        LowRankSampler,
        FullSampler,
        MatrixSampler,
        DeltaSampler,
        StoredSampler,
        MaskSampler,
    )
}
"""The samplers, by their names in stores."""

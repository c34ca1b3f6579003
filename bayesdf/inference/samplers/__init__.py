"""What a posterior keeps of a method: the numbers from which its draws are made again.

A sampler turns ``(index, seed)`` into the values of all sites; draw 7 of seed 0 is the same wherever and whenever it
is made, and whatever else is drawn. To disk and back goes an `xr.Dataset` of plain arrays (group ``variational``).
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
"""How stores name the samplers."""

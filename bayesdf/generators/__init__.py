"""What makes fakes: one module a generator, each of the same shape.

Every module has ``NAME``, ``FAMILY`` and ``make(faces, rng) -> Fakes``; those with a network also ``build(faces)``,
``loss(network, faces, rows, generator)``, ``STEPS`` and ``trained()``, which `bayesdf.generators.train` uses.
"""

from types import ModuleType

from bayesdf.generators import autoencoder_swap, mouth, poisson_swap, reenactment, vae
from bayesdf.generators.fakes import Fakes

GENERATORS: dict[str, ModuleType] = {
    module.NAME: module for module in (vae, autoencoder_swap, poisson_swap, reenactment, mouth)
}

__all__ = ["GENERATORS", "Fakes"]

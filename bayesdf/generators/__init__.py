"""What makes fakes? Nine generators, one module each, all of the same shape.

Every module has a `generator`, the `Generator` that users find in `GENERATORS`. Modules with a network also have
`build(faces)`, `STAGES` and `trained()`, which `bayesdf.generators.train` uses.
"""

from typing import Any

from bayesdf.generators import (
    autoencoder_swap,
    dcgan,
    diffusion,
    flow,
    mouth,
    poisson_swap,
    reenactment,
    stylegan,
    vae,
)
from bayesdf.generators.fakes import Fakes
from bayesdf.generators.generator import Generator

MODULES: tuple[Any, ...] = (vae, dcgan, stylegan, diffusion, flow, autoencoder_swap, poisson_swap, reenactment, mouth)
"""In the order in which their fakes are made. A new one stands at the end: the fakes of the others stay as they are."""
GENERATORS: dict[str, Generator] = {module.NAME: module.generator for module in MODULES}

__all__ = ["GENERATORS", "Fakes", "Generator"]

"""Which latent would have made this picture, and how nearly?

`invert` searches the latent z of a generator G that minimises the loss of `bayesdf.inversion.loss`. Zhang et al. 2020,
"On attribution of deepfakes" (arXiv 2008.09194), attribute by the distance that remains.

The first start is what the generator's encoder gives (Zhu et al. 2016, "Generative visual manipulation on the natural
image manifold"). Other starts are random (Abdal et al. 2019, "Image2StyleGAN"; Karras et al. 2020 for the projection).
All starts are searched from in batches (`bayesdf.inversion.lbfgs`).
"""

import os
import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor

from bayesdf._version import __version__
from bayesdf.cli import console
from bayesdf.errors import BayesdfError
from bayesdf.files import atomic_write
from bayesdf.generators import GENERATORS
from bayesdf.generators.generator import Generator
from bayesdf.inversion import preconditioner
from bayesdf.inversion.lbfgs import STOPPED, descend
from bayesdf.inversion.loss import FLOOR, SIDE, Loss, Weights

_UNNAMED_VERSION = "0.1.0"
"""The version whose checkpoints do not name it."""


@dataclass(frozen=True)
class Inversion:
    """The latents by which one generator comes nearest to N images. All arrays have a row an image.

    Attributes
    ----------
    generator
        Its name.
    latent
        (N, latent_dim).
    reconstruction
        (N, 64, 64), what the generator makes of the latent, not clipped.
    pixel, gradient, perceptual
        (N,) root mean square errors in grey values: of pixels, of differences between neighbours, and of edge
        strengths. A generator with a region is judged within it.
    energy
        (N,) mean square of the latent, which the prior term of the loss weighs; about 1 for a likely latent.
    loss
        (N,) what was minimised.
    evaluations
        (N,) how often the generator was run forward and backward for the image, over all starts.
    start
        (N,) which start won; 0 is the encoder's, if the generator has one.
    stopped
        (N,) why the winning start ended: `floor` (as exact as 8 bits allow), `plateau` (nothing more to gain),
        `steps` (out of steps).
    shared
        Evaluations made once for all images, to measure the preconditioner. The next call with the same generator and
        seed uses the cached one, but counts these evaluations again. So the number does not depend on earlier calls.
    """

    generator: str
    latent: NDArray[np.float32]
    reconstruction: NDArray[np.float32]
    pixel: NDArray[np.float64]
    gradient: NDArray[np.float64]
    perceptual: NDArray[np.float64]
    energy: NDArray[np.float64]
    loss: NDArray[np.float64]
    evaluations: NDArray[np.int64]
    start: NDArray[np.int64]
    stopped: NDArray[np.str_]
    shared: int

    def __len__(self) -> int:
        return len(self.latent)

    def take(self, rows: slice | NDArray[np.integer]) -> "Inversion":
        """The inversion of some of the images."""
        parts: dict[str, Any] = {
            name: value[rows] for name, value in vars(self).items() if isinstance(value, np.ndarray)
        }
        return replace(self, **parts)


def invert(
    images: NDArray | Tensor,
    generator: Generator | str,
    *,
    restarts: int = 1,
    steps: int = 200,
    weights: Weights | None = None,
    amortised: bool = True,
    tolerance: float = 1e-3,
    floor: float = FLOOR,
    seed: int = 0,
    chunk: int = 64,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Inversion:
    """Find the latent from which a generator would have made each image.

    Parameters
    ----------
    images
        (N, 64, 64) or (N, 1, 64, 64) grey values in [0, 1].
    generator
        It needs `decode`. `encode` gives a good start. `region` marks the part of the picture that the generator draws.
        The name of one of `bayesdf.generators.GENERATORS` is accepted too.
    restarts
        Starts an image. The first is the encoder's, if there is one; the others are standard normal. The start that
        ends with the lowest loss wins. An `exact` generator gets the encoder's start only.
    steps
        Most evaluations of the generator a start. One evaluation is one run forward and backward for one image.
    weights
        Weights of the terms of the loss; `Weights()` by default.
    amortised
        Whether to use the encoder. Without it all starts are random.
    tolerance
        A start ends when its last six evaluations lowered the loss by less than this share of it. With 0 it ends at the
        minimum: when half the Newton decrement gᵀH⁻¹g (slope g, L-BFGS' inverse curvature H⁻¹) is at most ε² of the
        loss (ε = 1.2e-7, float32's rounding), or when rounding keeps six evaluations from lowering the loss and the
        decrement. Half the decrement estimates how far the loss is above its minimum.
    floor
        A start ends when its root mean square error is at most this; by default the error of rounding to 8 bits.
    seed
        Of the random starts. The same seed gives the same result. Other chunks change it by rounding errors only.
    chunk
        Starts in one batch; it bounds the memory.
    checkpoint
        File to which every finished chunk is written. If a call is stopped, the same call continues from the file and
        gives the same result. When all chunks are done, the same call returns the result at once.
    progress
        Show a bar on standard error.

    Returns
    -------
    Inversion

    Raises
    ------
    BayesdfError
        Images of another shape, not finite or outside [0, 1]; a generator that cannot be inverted: no `decode`, one
        that makes other shapes or NaN, or that cannot be differentiated; an `encode` that gives another shape or NaN;
        settings out of range; a checkpoint that is damaged, of another call or of another version.

    Notes
    -----
    L-BFGS starts from the inverse of the mean curvature of the loss, measured once with `PROBES` random probes of the
    generator. This makes the search nearly as fast as Gauss-Newton, which needs all columns of the Jacobian.
    """
    pictures, generator = _checked_images(images), _checked_generator(generator)
    for name, value, least in (("restarts", restarts, 1), ("steps", steps, 1), ("chunk", chunk, 1)):
        if value < least:
            raise BayesdfError(f"{name}={value}: give {least} or more")
    if not (tolerance >= 0.0 and floor >= 0.0):
        raise BayesdfError(f"tolerance={tolerance}, floor={floor}: give numbers of 0 or more")
    weights = weights or Weights()
    loss = Loss(generator, weights)
    encode = generator.guess if amortised and generator.encode is not None else None
    if generator.exact and encode is not None:
        restarts = 1
    guess = [] if encode is None else [encode(loss.example)]
    key = loss.fingerprint((restarts, steps, tolerance, floor, seed), pictures, *guess)
    target = None if checkpoint is None else Path(checkpoint)
    parts = [] if target is None else _read_checkpoint(target, key)
    done = sum(len(part["loss"]) for part in parts)
    if done < len(pictures):
        metric = preconditioner.inverse_curvature(loss, seed) if steps > 1 else torch.eye(loss.latent_dim)
        source = torch.Generator().manual_seed(seed)
        starts = torch.randn(len(pictures), restarts, loss.latent_dim, generator=source)
        with Progress(console=console, disable=not progress) as bar:
            task = bar.add_task(f"inverting {generator.name}", total=len(pictures), completed=done)
            while done < len(pictures):
                batch = slice(done, done + max(1, chunk // restarts))
                start = starts[batch].clone()
                if encode is not None:
                    start[:, 0] = encode(pictures[batch])
                rows = pictures[batch].repeat_interleave(restarts, 0)
                found = descend(loss, metric, rows, start.flatten(0, 1), steps, tolerance, floor)
                parts.append(_best(found, restarts))
                done += len(start)
                if target is not None:
                    _write_checkpoint(target, {"version": __version__, "key": key, "parts": parts})
                bar.update(task, completed=done)
    whole = {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}
    pixel, gradient, perceptual_, energy = whole["terms"].astype(np.float64).T
    return Inversion(
        generator=generator.name,
        latent=whole["latent"],
        reconstruction=whole["made"],
        pixel=np.sqrt(pixel),
        gradient=np.sqrt(gradient),
        perceptual=np.sqrt(perceptual_),
        energy=energy,
        loss=whole["loss"].astype(np.float64),
        evaluations=whole["evaluations"],
        start=whole["start"],
        stopped=np.array(STOPPED)[whole["stopped"]],
        shared=preconditioner.PROBES if steps > 1 else 0,
    )


def _checked_images(images: NDArray | Tensor) -> Tensor:
    """Images as (N, 1, 64, 64) float32."""
    values = torch.as_tensor(images) if isinstance(images, Tensor) else torch.from_numpy(np.array(images))
    values = values.detach().cpu()
    if values.dim() == 3:
        values = values[:, None]
    if values.dim() != 4 or tuple(values.shape[1:]) != (1, SIDE, SIDE) or not len(values):
        raise BayesdfError(
            f"images have shape {tuple(values.shape)}; "
            f"inversion takes grey pictures (N, {SIDE}, {SIDE}) or (N, 1, {SIDE}, {SIDE})"
        )
    if not values.is_floating_point():
        raise BayesdfError(f"images are of type {values.dtype}; give grey values as floats in [0, 1]")
    for row, image in enumerate(values):
        if not image.isfinite().all():
            raise BayesdfError(f"image {row} has NaN or infinite pixels")
        if image.min() < 0.0 or image.max() > 1.0:
            low, high = image.min().item(), image.max().item()
            raise BayesdfError(f"image {row} has grey values from {low:.3g} to {high:.3g}; they must lie in [0, 1]")
    return values.float()


def _checked_generator(generator: object) -> Generator:
    """The generator, looked up if its name is given."""
    found = GENERATORS.get(generator) if isinstance(generator, str) else generator
    if not isinstance(found, Generator):
        what = repr(generator) if isinstance(generator, str) else f"a {type(generator).__name__}"
        names = ", ".join(name for name, known in GENERATORS.items() if known.invertible)
        raise BayesdfError(f"the generator is {what}, but must be a Generator, or one of {names}")
    return found


def _best(found: dict[str, Tensor], restarts: int) -> dict[str, Tensor]:
    """The start of each image that ended with the lowest loss; evaluations are those of all its starts."""
    winner = found["loss"].view(-1, restarts).argmin(1)
    row = torch.arange(len(winner)) * restarts + winner
    best = {name: value[row] for name, value in found.items()}
    return best | {"start": winner, "evaluations": found["evaluations"].view(-1, restarts).sum(1)}


def _read_checkpoint(path: Path, key: str) -> list[dict[str, Tensor]]:
    """The finished chunks of the call with this key."""
    if not path.exists():
        return []
    try:
        state = torch.load(path, weights_only=True)
        known, parts = state["key"], [_renamed(part) for part in state["parts"]]
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, AttributeError, OSError) as error:
        raise BayesdfError(f"{path} is not a checkpoint of an inversion ({type(error).__name__}): delete it") from None
    if known != key:
        version = state.get("version", _UNNAMED_VERSION)
        if version != __version__:
            raise BayesdfError(
                f"{path} was written by bayesdf {version}, but this is {__version__}: finish with that version, or "
                "delete the file to start over"
            )
        raise BayesdfError(f"{path} is of other images, settings or weights: delete it, or give another path")
    return parts


def _renamed(part: dict[str, Tensor]) -> dict[str, Tensor]:
    """A finished chunk; checkpoints that do not name their version call the latent `entropy`."""
    return {"latent" if name == "entropy" else name: value for name, value in part.items()}


def _write_checkpoint(path: Path, state: dict[str, object]) -> None:
    with atomic_write(path) as beside:
        torch.save(state, beside)

"""Which entropy would have made this picture, and how nearly?

For an image x and a generator G the entropy z is sought that minimises

    L(z) = w_p |x - G(z)|² + w_g |∇x - ∇G(z)|² + w_s |φ(x) - φ(G(z))|² + σ² |z|² / n

(mean squares over pixels, over differences of neighbours and over the edge strengths φ of
`bayesdf.generators.perceptual`; n pixels). With noise of standard deviation σ on the pixels, and w_p = 1 alone, L is
the negative logarithm of the posterior of z under its standard normal prior, times 2σ²/n. The prior keeps a generator
with more entropy than a picture has pixels to spare, such as noise inputs, from explaining everything.

Zhang et al. 2020, "On attribution of deepfakes" (arXiv 2008.09194), attribute by the distance that is left. The search
begins where an encoder points (Zhu et al. 2016, "Generative visual manipulation on the natural image manifold"), other
starts are random (Abdal et al. 2019, "Image2StyleGAN"; Karras et al. 2020 for the projection). It goes downhill by
L-BFGS (Nocedal and Wright 2006, algorithm 7.4), every image with a memory and a step length of its own, all in one
batch: images that are done leave it. A step is taken where the loss falls enough (Armijo). Where rounding hides that,
the slope along the step must fall instead: the approximate Wolfe condition of Hager and Zhang 2005, "A new conjugate
gradient method with guaranteed descent and an efficient line search". Without it a search ends where the loss, in
float32, is level: L - min L up to ε L. With it the search ends at about ε² L.
"""

import hashlib
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
from bayesdf.files import replacing
from bayesdf.generators import GENERATORS, perceptual
from bayesdf.generators.generator import Generator

SIDE = 64
FLOOR = 1.0 / 255.0 / 12.0**0.5
"""Root mean square error that rounding to 8 bits makes: no picture that was stored can be told more exactly."""
TERMS = ("pixel", "gradient", "perceptual", "energy")
STOPPED = ("floor", "plateau", "steps")
MEMORY = 10
PROBES = 256
PATIENCE = 6
ROUNDING = float(torch.finfo(torch.float32).eps)
"""ε, the relative spacing of float32: losses that differ by less than about this share are not told apart."""
KEEP = 2**25
"""At most so many numbers of preconditioners are kept in memory."""

_KEPT: dict[str, Tensor] = {}


@dataclass(frozen=True)
class Weights:
    """What counts how much in the loss.

    Attributes
    ----------
    pixel, gradient, perceptual
        Weights of the three mean squares; 0 leaves a term out of the search (it is measured all the same).
    noise
        Standard deviation σ of the noise that the pixels are taken to have, in grey values of [0, 1]; 0 leaves the
        prior out.
    """

    pixel: float = 1.0
    gradient: float = 0.5
    perceptual: float = 0.5
    noise: float = 0.01

    def __post_init__(self) -> None:
        values = (self.pixel, self.gradient, self.perceptual, self.noise)
        if not all(np.isfinite(values)) or min(values) < 0.0 or not any(values[:3]):
            raise BayesdfError(f"weights {values}: give finite numbers, none below 0, and not 0 for all three errors")


@dataclass(frozen=True)
class Inversion:
    """What explains N images best, by one generator. All arrays have a row an image.

    Attributes
    ----------
    generator
        Its name.
    entropy
        (N, latent_dim).
    reconstruction
        (N, 64, 64), what the generator makes of it, as it came (not clipped).
    pixel, gradient, perceptual
        (N,) root mean square errors in grey values: of pixels, of differences between neighbours, and of edge
        strengths; within the generator's region, where it has one.
    energy
        (N,) mean square of the entropy; about 1 for a likely one.
    loss
        (N,) what was minimised.
    evaluations
        (N,) how often the generator was run forward and backward for the image, over all starts.
    start
        (N,) which start won: 0 is the encoder's where it has one.
    stopped
        (N,) why the winning start ended: `floor` (as exact as 8 bits tell), `plateau` (nothing more to gain),
        `steps` (out of steps).
    shared
        Evaluations made once for all images, to learn how the generator's pictures hang on its entropy. What they
        taught is kept, and the next call with the generator and the seed makes them no more, but counts them all the
        same: a figure does not hang on what was called before.
    """

    generator: str
    entropy: NDArray[np.float32]
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
        return len(self.entropy)

    def take(self, rows: slice | NDArray[np.integer]) -> "Inversion":
        """That of some of the images."""
        parts: dict[str, Any] = {
            name: value[rows] for name, value in vars(self).items() if isinstance(value, np.ndarray)
        }
        return replace(self, **parts)


class _Problem:
    """The loss of one generator: what is asked of it again and again."""

    def __init__(self, generator: Generator, weights: Weights) -> None:
        if generator.decode is None:
            raise BayesdfError(
                f"generator {generator.name}: cannot be inverted, since it has no `decode` from entropy to images"
            )
        if generator.latent_dim < 1:
            raise BayesdfError(f"generator {generator.name}: latent_dim is {generator.latent_dim}; give 1 or more")
        self.name, self.decode, self.latent = generator.name, generator.decode, generator.latent_dim
        region = np.ones((SIDE, SIDE)) if generator.region is None else np.asarray(generator.region)
        if region.shape != (SIDE, SIDE) or not np.isfinite(region).all() or not region.any():
            raise BayesdfError(f"generator {self.name}: region must be ({SIDE}, {SIDE}) weights, not all of them 0")
        self.region = torch.from_numpy(region).float()
        self.area = float((self.region**2).sum())
        self.weights = torch.tensor(
            [weights.pixel, weights.gradient, weights.perceptual, weights.noise**2 * self.latent / self.area]
        )
        self.example = self.made_of_one()

    @torch.no_grad()
    def made_of_one(self) -> Tensor:
        """What becomes of one entropy, always the same: (1, 1, 64, 64). Other weights would make another picture."""
        entropy = torch.randn(1, self.latent, generator=torch.Generator().manual_seed(1))
        try:
            made = self.make(entropy)
            self.parts(entropy, made, torch.zeros(1, 1, SIDE, SIDE))
        except (RuntimeError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise BayesdfError(
                f"generator {self.name}: decode must make float32 images (B, 1, {SIDE}, {SIDE}) of entropy "
                f"(B, {self.latent}), but fails ({reason})"
            ) from None
        if not made.isfinite().all():
            raise BayesdfError(f"generator {self.name}: decode makes NaN or infinite values")
        return made

    def fingerprint(self, settings: tuple[object, ...], *more: Tensor) -> str:
        """Of the generator, the weights of the loss, settings as they are written, and more arrays."""
        arrays = (self.region, self.weights, self.example, *more)
        shapes = [tuple(array.shape) for array in arrays]
        digest = hashlib.sha256(repr((__version__, self.name, self.latent, settings, shapes)).encode())
        for array in arrays:
            digest.update(array.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def make(self, entropy: Tensor) -> Tensor:
        """What the generator makes: (B, 1, 64, 64)."""
        made = self.decode(entropy)
        shape = (len(entropy), 1, SIDE, SIDE)
        if tuple(made.shape) != shape:
            raise BayesdfError(
                f"generator {self.name}: decode makes {tuple(made.shape)} of entropy {tuple(entropy.shape)}; "
                f"it must make {shape}"
            )
        return made

    def parts(self, entropy: Tensor, made: Tensor, images: Tensor) -> list[Tensor]:
        """Vectors (B, ·) whose sums of squares are the terms of the loss of `made`, which was made of `entropy`."""
        # Outside its region the generator is given what is there, so that no error can arise.
        difference = self.region * (made - images)
        across, down = difference.diff(dim=-1).flatten(1), difference.diff(dim=-2).flatten(1)
        edges = perceptual.features(images + difference) - perceptual.features(images)
        scale = self.area**-0.5
        return [
            difference.flatten(1) * scale,
            torch.cat([across, down], 1) * (scale * 0.5**0.5),
            edges * (scale * SIDE / edges.shape[1] ** 0.5),
            entropy / self.latent**0.5,
        ]

    def __call__(self, entropy: Tensor, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Terms (B, 4), loss (B,), its slope (B, latent), reconstruction (B, 64, 64)."""
        entropy = entropy.detach().requires_grad_(True)
        with torch.enable_grad():
            made = self.make(entropy)
            parts = self.parts(entropy, made, images)
            terms = torch.stack([part.pow(2).sum(1) for part in parts], 1)
            loss = terms @ self.weights
            slope = self.slope(loss.sum(), made, entropy)
        loss = torch.where(loss.isfinite() & slope.isfinite().all(1), loss.detach(), torch.inf)
        return terms.detach(), loss, slope, made.detach()[:, 0]

    def slope(self, total: Tensor, made: Tensor, entropy: Tensor) -> Tensor:
        try:
            if not made.requires_grad:
                raise RuntimeError("images do not record the entropy they are made of")
            return torch.autograd.grad(total, entropy)[0]
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:150]
            raise BayesdfError(f"generator {self.name}: decode is not differentiable ({reason})") from None

    def preconditioner(self, seed: int) -> Tensor:
        """Inverse of the mean Gauss-Newton curvature of the loss (latent, latent), from random probes.

        With signs v drawn at random, E[Jᵀv vᵀJ] = JᵀJ. The sample covariance is shrunk towards its diagonal as far as
        its own scatter asks for (Schäfer and Strimmer 2005, equation 8), which matters where there is more entropy
        than probes.
        """
        source = torch.Generator().manual_seed(seed)
        slopes = []
        for _ in range(PROBES // 32):
            entropy = torch.randn(32, self.latent, generator=source).requires_grad_(True)
            with torch.enable_grad():
                made = self.make(entropy)
                parts = self.parts(entropy, made, made.detach())
                signs = [torch.randint(2, part.shape, generator=source) * 2.0 - 1.0 for part in parts[:3]]
                total = sum(
                    (part * sign).sum() * weight.sqrt()
                    for part, sign, weight in zip(parts, signs, self.weights, strict=False)
                )
                slope = self.slope(total, made, entropy)
            slopes.append(slope)
        g = torch.cat(slopes).double()
        covariance = g.T @ g / len(g)
        scatter = ((g**2).T @ (g**2) / len(g) - covariance**2) / (len(g) - 1)
        diagonal = covariance.diagonal().diag()
        off = (covariance - diagonal).pow(2).sum()
        shrinkage = ((scatter.sum() - scatter.diagonal().sum()) / off.clamp_min(1e-300)).clamp(0.0, 1.0)
        shrunk = covariance + shrinkage * (diagonal - covariance)
        floor = self.weights[3] / self.latent + 1e-6 * shrunk.diagonal().max()
        curvature = 2.0 * (shrunk + floor * torch.eye(self.latent))
        return torch.cholesky_inverse(torch.linalg.cholesky(curvature)).float()


@dataclass
class _Search:
    """Rows of starts on their way downhill; `keep` parts from those that are done."""

    row: Tensor
    images: Tensor
    entropy: Tensor
    terms: Tensor
    loss: Tensor
    slope: Tensor
    made: Tensor
    direction: Tensor
    step: Tensor
    evaluations: Tensor
    progress: Tensor
    decrements: Tensor
    steps_back: Tensor
    pairs: list[tuple[Tensor, Tensor, Tensor]]

    def keep(self, which: Tensor) -> "_Search":
        pairs = [(moved[which], turned[which], product[which]) for moved, turned, product in self.pairs]
        fields = {name: value[which] for name, value in vars(self).items() if isinstance(value, Tensor)}
        return _Search(**fields, pairs=pairs)


def _direction(slope: Tensor, pairs: list[tuple[Tensor, Tensor, Tensor]], metric: Tensor) -> Tensor:
    """Minus the slope times the inverse curvature that the last steps tell of (Nocedal and Wright 2006, algorithm 7.4).

    `pairs` holds moves, changes of slope, and the reciprocal of their product: 0 for a row whose pair tells nothing.
    """
    way, factors = slope.clone(), []
    for moved, turned, reciprocal in reversed(pairs):
        factor = reciprocal * (moved * way).sum(1)
        way -= factor[:, None] * turned
        factors.append(factor)
    way = way @ metric
    for (moved, turned, reciprocal), factor in zip(pairs, reversed(factors), strict=True):
        way += (factor - reciprocal * (turned * way).sum(1))[:, None] * moved
    return -way


def _descend(
    problem: _Problem, metric: Tensor, images: Tensor, entropy: Tensor, steps: int, tolerance: float, floor: float
) -> dict[str, Tensor]:
    """Descend from every row of `entropy` (B, latent) towards its row of `images` until it ends; rows never meet."""
    terms, loss, slope, made = problem(entropy, images)
    if not loss.isfinite().all():
        raise BayesdfError(f"generator {problem.name}: decode makes NaN or infinite values of a start of the search")
    count = len(entropy)
    ones = torch.ones(count)
    now = _Search(
        row=torch.arange(count),
        images=images,
        entropy=entropy,
        terms=terms,
        loss=loss,
        slope=slope,
        made=made,
        direction=-slope @ metric,
        step=ones,
        evaluations=torch.ones(count, dtype=torch.long),
        progress=torch.full((count, PATIENCE), torch.inf),
        decrements=torch.full((count, PATIENCE), torch.inf),
        steps_back=torch.zeros(count, dtype=torch.long),
        pairs=[],
    )
    final = {
        "entropy": entropy.clone(),
        "terms": terms.clone(),
        "loss": loss.clone(),
        "made": made.clone(),
        "evaluations": torch.ones(count, dtype=torch.long),
        "stopped": torch.zeros(count, dtype=torch.long),
    }
    while True:
        low = now.terms[:, 0].sqrt() <= floor
        decrement = -(now.slope * now.direction).sum(1)
        idle = now.progress[:, 0] - now.loss <= tolerance * now.loss
        if tolerance < ROUNDING:  # So small a share is lost in the rounding of the loss; the decrement still tells.
            idle &= now.decrements[:, 0] <= decrement
        flat = idle | (now.steps_back > 8) | (0.5 * decrement <= ROUNDING**2 * now.loss)
        spent = now.evaluations >= steps
        done = low | flat | spent
        if done.any():
            rows = now.row[done]
            for name in ("entropy", "terms", "loss", "made", "evaluations"):
                final[name][rows] = getattr(now, name)[done]
            final["stopped"][rows] = torch.where(low, 0, torch.where(flat, 1, 2))[done]
            now = now.keep(~done)
            if not len(now.row):
                return final
            decrement = decrement[~done]
        trial = now.entropy + now.step[:, None] * now.direction
        terms, loss, slope, made = problem(trial, now.images)
        expected = -now.step * decrement
        # Near the minimum rounding hides how the loss falls: there the slope along the way must fall instead.
        level = loss <= (1.0 + 8.0 * ROUNDING) * now.loss
        flatter = (slope * now.direction).sum(1).abs() <= 0.9 * decrement
        taken = (loss <= now.loss + 1e-4 * expected) | (level & flatter)
        now.evaluations += 1
        moved = torch.where(taken[:, None], trial - now.entropy, 0.0)
        turned = torch.where(taken[:, None], slope - now.slope, 0.0)
        product = (moved * turned).sum(1)
        telling = taken & (product > 1e-10 * (moved.norm(dim=1) * turned.norm(dim=1)))
        reciprocal = torch.where(telling, 1.0 / torch.where(telling, product, 1.0), 0.0)
        turned = torch.where(telling[:, None], turned, 0.0)
        now.pairs = [*now.pairs, (moved, turned, reciprocal)][-MEMORY:]
        # The parabola through the loss here, its slope and the loss there is lowest at this share of the step.
        share = -expected / (2.0 * (loss - now.loss - expected))
        share = torch.where(share.isfinite(), share, 0.1).clamp(0.1, 0.5)
        now.progress = torch.cat([now.progress[:, 1:], now.loss[:, None]], 1)
        now.decrements = torch.cat([now.decrements[:, 1:], decrement[:, None]], 1)
        for name, value in {"entropy": trial, "terms": terms, "loss": loss, "slope": slope, "made": made}.items():
            old = getattr(now, name)
            setattr(now, name, torch.where(taken.view(-1, *[1] * (old.dim() - 1)), value, old))
        now.steps_back = torch.where(taken, 0, now.steps_back + 1)
        now.step = torch.where(taken, 1.0, now.step * share)
        fresh = _direction(now.slope, now.pairs, metric)
        now.direction = torch.where(taken[:, None], fresh, now.direction)


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
    """Find the entropy from which a generator would have made each image.

    Parameters
    ----------
    images
        (N, 64, 64) or (N, 1, 64, 64) grey values in [0, 1].
    generator
        With `decode`; with `encode` for a good start; with `region` where it draws a part of the picture only. Or the
        name of one of `bayesdf.generators.GENERATORS`.
    restarts
        Starts an image. The first is the encoder's where there is one, the others are standard normal; the one that
        ends with the lowest loss wins. A generator that is `exact` needs no others and gets none.
    steps
        Most evaluations of the generator a start; one is a run forward and backward for one image.
    weights
        What counts how much in the loss; `Weights()` by default.
    amortised
        Whether to use the encoder: without it all starts are random.
    tolerance
        A start ends where its last six evaluations lowered the loss by less than this share of it. With 0 it ends at
        the minimum: where half the Newton decrement gᵀH⁻¹g (slope g, L-BFGS' inverse curvature H⁻¹), which estimates
        how far the loss is above its minimum, is at most ε² of the loss (ε = 1.2e-7, float32's rounding), or where
        rounding keeps six evaluations from lowering the loss and the decrement.
    floor
        A start ends where its root mean square error is not above this; by default what rounding to 8 bits leaves.
    seed
        Of the random starts. The same seed gives the same result, whatever the chunks up to rounding.
    chunk
        Starts searched from at once: what bounds the memory.
    checkpoint
        File in which every finished chunk is noted. The same call goes on from it, to the same result as if it had
        never been stopped; when all is done, it holds the result, and the same call returns it at once.
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
        settings out of range; a checkpoint that is damaged or of another call.

    Notes
    -----
    The inverse of the mean curvature of the loss, learnt once from `PROBES` random probes of the generator, is where
    L-BFGS starts from. That makes the search nearly as quick as Gauss-Newton without its columns of the Jacobian.
    """
    pictures, generator = _checked(images), _named(generator)
    for name, value, least in (("restarts", restarts, 1), ("steps", steps, 1), ("chunk", chunk, 1)):
        if value < least:
            raise BayesdfError(f"{name}={value}: give {least} or more")
    if not (tolerance >= 0.0 and floor >= 0.0):
        raise BayesdfError(f"tolerance={tolerance}, floor={floor}: give numbers of 0 or more")
    weights = weights or Weights()
    problem = _Problem(generator, weights)
    encode = generator.guess if amortised and generator.encode is not None else None
    if generator.exact and encode is not None:
        restarts = 1
    guess = [] if encode is None else [encode(problem.example)]
    key = problem.fingerprint((restarts, steps, tolerance, floor, seed), pictures, *guess)
    target = None if checkpoint is None else Path(checkpoint)
    parts = [] if target is None else _resume(target, key)
    done = sum(len(part["loss"]) for part in parts)
    if done < len(pictures):
        metric = _learnt(problem, seed) if steps > 1 else torch.eye(problem.latent)
        source = torch.Generator().manual_seed(seed)
        starts = torch.randn(len(pictures), restarts, problem.latent, generator=source)
        with Progress(console=console, disable=not progress) as bar:
            task = bar.add_task(f"inverting {generator.name}", total=len(pictures), completed=done)
            while done < len(pictures):
                batch = slice(done, done + max(1, chunk // restarts))
                start = starts[batch].clone()
                if encode is not None:
                    start[:, 0] = encode(pictures[batch])
                rows = pictures[batch].repeat_interleave(restarts, 0)
                found = _descend(problem, metric, rows, start.flatten(0, 1), steps, tolerance, floor)
                parts.append(_best(found, restarts))
                done += len(start)
                if target is not None:
                    _write(target, {"key": key, "parts": parts})
                bar.update(task, completed=done)
    whole = {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}
    pixel, gradient, perceptual_, energy = whole["terms"].astype(np.float64).T
    return Inversion(
        generator=generator.name,
        entropy=whole["entropy"],
        reconstruction=whole["made"],
        pixel=np.sqrt(pixel),
        gradient=np.sqrt(gradient),
        perceptual=np.sqrt(perceptual_),
        energy=energy,
        loss=whole["loss"].astype(np.float64),
        evaluations=whole["evaluations"],
        start=whole["start"],
        stopped=np.array(STOPPED)[whole["stopped"]],
        shared=PROBES if steps > 1 else 0,
    )


def _learnt(problem: _Problem, seed: int) -> Tensor:
    """The preconditioner, kept for the next call with the same generator: it costs as much as many searches."""
    key = problem.fingerprint((seed, PROBES))
    found = _KEPT.pop(key, None)
    if found is None:
        found = problem.preconditioner(seed)
    _KEPT[key] = found
    while sum(kept.numel() for kept in list(_KEPT.values())) > KEEP:
        _KEPT.pop(next(iter(_KEPT), key), None)  # what was used longest ago
    return found


def _checked(images: NDArray | Tensor) -> Tensor:
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


def _named(generator: object) -> Generator:
    """The generator, also where its name is given."""
    found = GENERATORS.get(generator) if isinstance(generator, str) else generator
    if not isinstance(found, Generator):
        what = repr(generator) if isinstance(generator, str) else f"a {type(generator).__name__}"
        names = ", ".join(name for name, known in GENERATORS.items() if known.invertible)
        raise BayesdfError(f"the generator is {what}, but must be a Generator, or one of {names}")
    return found


def _best(found: dict[str, Tensor], restarts: int) -> dict[str, Tensor]:
    """The start of each image that ended lowest; evaluations are those of all its starts."""
    winner = found["loss"].view(-1, restarts).argmin(1)
    row = torch.arange(len(winner)) * restarts + winner
    best = {name: value[row] for name, value in found.items()}
    return best | {"start": winner, "evaluations": found["evaluations"].view(-1, restarts).sum(1)}


def _resume(path: Path, key: str) -> list[dict[str, Tensor]]:
    if not path.exists():
        return []
    try:
        state = torch.load(path, weights_only=True)
        known, parts = state["key"], state["parts"]
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, OSError) as error:
        raise BayesdfError(f"{path} is not a checkpoint of an inversion ({type(error).__name__}): delete it") from None
    if known != key:
        raise BayesdfError(f"{path} is of other images, settings or weights: delete it, or give another path")
    return parts


def _write(path: Path, state: dict[str, object]) -> None:
    with replacing(path) as beside:
        torch.save(state, beside)

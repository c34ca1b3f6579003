"""What do all draws say about a batch of images, and how does that change with the pixels?

The mean over draws of the class probabilities is ``p̄ = Σ_s p_s / S``. Four quantities follow from it and the draws:

    total = H[p̄],    aleatoric = Σ_s H[p_s] / S,    epistemic = Σ_s KL(p_s || p̄) / S,    p_fake = 1 - p̄_0

The first is the sum of the next two (`bayesdf.analysis.decompose`). Class 0 is that of real images. A dense network has
them at every location. The quantity of its whole image is their mean over locations.

With ``p̄`` held fixed, each quantity is a mean over draws whose gradient in the logits ``z_s`` of a draw is known:

    ∂/∂z_s = -p_s (a_s - Σ_c p_s,c a_s,c) / S,    a = log p̄ (total), log p_s (aleatoric), log p̄ - log p_s (epistemic)

(``Σ_c ∂p̄_c = 0``, so that ``p̄`` may be held fixed.) The suffix takes these to the features, draw by draw. Their sum
passes through the prefix once for each quantity. The total is the sum of the other two and needs no pass of its own.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from bayesdf.errors import BayesdfError
from bayesdf.inference.maps.pixel_gradients import PixelGradients
from bayesdf.inference.posterior import Posterior
from bayesdf.inference.prediction.predictor import DRAW_BYTES, FEATURE_BYTES, Sized, linear_at_locations
from bayesdf.inference.prediction.split import Split

QUANTITIES = ("total", "aleatoric", "epistemic", "p_fake")
"""What a map may show."""

Values = dict[str, Tensor]
"""A tensor for each quantity."""

_NO_GRADIENT = (
    "the network's output has no gradient in the pixels: choose a method of maps without gradients (occlusion or "
    "superpixels)"
)
_TINY = 1e-300  # in place of a probability that underflows, so that its logarithm is finite


class Predictive:
    """The predictive distribution of a posterior, for batches of images on its device.

    Parameters
    ----------
    posterior : Posterior
    draws, seed, device
        As for `Posterior.predict`.
    quantities : sequence of str
        Some of `QUANTITIES`.
    batch_size : int
        Images at once, for methods that make several of one.

    Raises
    ------
    BayesdfError
        A quantity is unknown, none is asked for, or there are not so many draws.
    """

    def __init__(
        self,
        posterior: Posterior,
        draws: int | None = None,
        seed: int = 0,
        quantities: Sequence[str] = QUANTITIES,
        device: str = "auto",
        batch_size: int = 32,
    ) -> None:
        unknown = [name for name in quantities if name not in QUANTITIES]
        if unknown or not quantities:
            asked = f"there is no quantity {unknown[0]!r}" if unknown else "no quantity is asked for"
            raise BayesdfError(f"{asked}: choose from {', '.join(QUANTITIES)}")
        self.draws = posterior.check_draws(draws, seed)
        self.seed, self.quantities = seed, tuple(dict.fromkeys(quantities))
        self.predictor = posterior.predictor(device)
        self.device, self.batch_size = self.predictor.device, batch_size
        # Without random tensors all draws are one.
        self.number = self.draws * posterior.sampler.chains if self.predictor.names else 1
        self._numbers = sum(math.prod(posterior.sampler.shapes[name]) for name in self.predictor.names)
        self._drawn: dict[int, dict[str, Tensor]] = {}

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Values:
        """Each quantity of images (B, 3, H, W): float64 (B,), of a dense network (B, h, w)."""
        parts = self.predictor.parts(images)
        mean, entropy = self._moments(parts, parts.prefix(images))
        total = -(mean * _log(mean)).sum(-1)
        # Both are accurate to 1e-15 nats. Less than that is rounding.
        found = {"total": total, "aleatoric": entropy, "epistemic": (total - entropy).clamp_min(0.0)}
        found["p_fake"] = mean[..., 1:].sum(-1)
        return {name: found[name] for name in self.quantities}

    def of_images(self, images: Tensor) -> Values:
        """Each quantity of whole images: float64 (B,)."""
        return {name: value.flatten(1).mean(1) if value.dim() > 1 else value for name, value in self(images).items()}

    def gradients(self, images: Tensor) -> Values:
        """The gradient of each quantity of whole images in their pixels: float32 (B, 3, H, W).

        Raises
        ------
        BayesdfError
            The network's output has no gradient in the pixels.
        """
        parts = self.predictor.parts(images)
        pixels = images.detach().requires_grad_()
        with torch.enable_grad(), PixelGradients():
            features = parts.prefix(pixels)
        roots = [part for part in features if isinstance(part, Tensor) and part.requires_grad]
        if not roots:
            raise BayesdfError(_NO_GRADIENT)
        # Cut between prefix and suffix: gradients of the draws gather here before they go on to the pixels.
        cut = tuple(
            part.detach().requires_grad_() if isinstance(part, Tensor) and part.requires_grad else part
            for part in features
        )
        leaves = [part for part in cut if isinstance(part, Tensor) and part.requires_grad]
        gathered = self._in_features(parts, cut, leaves)
        found = {}
        for name in list(gathered):
            last = len(gathered) == 1
            found[name] = _through(roots, gathered.pop(name), pixels, retain=not last)
        if "total" in self.quantities and "total" not in found:
            found["total"] = found["aleatoric"] + found["epistemic"]
        return {name: found[name] for name in self.quantities}

    def _in_features(self, parts: Split, features: tuple[Any, ...], leaves: list[Tensor]) -> dict[str, list[Tensor]]:
        """The gradients in the features of those quantities that must pass through the prefix."""
        with torch.no_grad():
            mean, _ = self._moments(parts, features)
        log_mean = _log(mean)
        fake = torch.ones_like(mean)
        fake[..., 0] = 0.0
        share = 1.0 / (self.number * math.prod(mean.shape[1:-1]))
        a_sum = {"aleatoric", "epistemic"} <= set(self.quantities)
        names = [name for name in self.quantities if not (name == "total" and a_sum)]
        sums = {name: [torch.zeros_like(leaf) for leaf in leaves] for name in names}
        for chunk in self._chunks(parts, features):
            with torch.enable_grad():
                logits = self._logits(parts, features, chunk)
            log_p = logits.detach().double().log_softmax(-1)
            p = log_p.exp()
            within = {"total": log_mean, "aleatoric": log_p, "epistemic": log_mean - log_p, "p_fake": -fake}
            for name in names:
                a = within[name]
                cotangent = -share * p * (a - (p * a).sum(-1, keepdim=True))
                retain = name != names[-1]
                found = torch.autograd.grad(
                    logits, leaves, cotangent.to(logits.dtype), retain_graph=retain, materialize_grads=True
                )
                for total, gradient in zip(sums[name], found, strict=True):
                    total += gradient
        return sums

    def _moments(self, parts: Split, features: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
        """Means over draws: of the probabilities (B, …, C), and of their entropy (B, …). Both are float64."""
        mean = entropy = torch.zeros((), dtype=torch.float64, device=self.device)
        for chunk in self._chunks(parts, features):
            log_p = self._logits(parts, features, chunk).double().log_softmax(-1)
            p = log_p.exp()
            mean = mean + p.sum(0)
            entropy = entropy - (p * log_p).sum((0, -1))
        return mean / self.number, entropy / self.number

    def _logits(self, parts: Split, features: tuple[Any, ...], chunk: range) -> Tensor:
        """(draws of the chunk, B, …, C)"""
        if len(chunk) == 1:
            return _call(parts.suffix, features, self._values(chunk[0]))[None]
        drawn = [self._values(index) for index in chunk]
        together = {name: torch.stack([values[name] for values in drawn]) for name in self.predictor.names}
        return vmap(partial(_call, parts.suffix, features))(together)

    def _values(self, index: int) -> dict[str, Tensor]:
        """A draw. Draws are kept where all of them are small, as there are many batches."""
        if index in self._drawn:
            return self._drawn[index]
        values = self.predictor.values(index, self.seed)
        if 4 * self.number * self._numbers <= FEATURE_BYTES:
            self._drawn[index] = values
        return values

    def _chunks(self, parts: Split, features: tuple[Any, ...]) -> Iterator[range]:
        """The draws that run at once: one, or as many as fit where the suffix is linear at each location."""
        size = 1
        if self.number > 1 and parts.traced and linear_at_locations(parts.suffix, features):
            sized = Sized(parts.suffix)
            with torch.no_grad():
                logits = sized.run(*features)
            size = max(1, DRAW_BYTES // (4 * (self._numbers + 2 * sized.largest + 8 * logits.numel())))
        for begin in range(0, self.number, size):
            yield range(begin, min(begin + size, self.number))


def _through(roots: list[Tensor], gradients: list[Tensor], pixels: Tensor, retain: bool) -> Tensor:
    """The gradient in the pixels of what has these gradients in the features."""
    (found,) = torch.autograd.grad(roots, pixels, gradients, retain_graph=retain, allow_unused=True)
    if found is None:
        raise BayesdfError(_NO_GRADIENT)
    return found


def _log(p: Tensor) -> Tensor:
    return p.clamp_min(_TINY).log()


def _call(suffix: nn.Module, features: tuple[Any, ...], values: dict[str, Tensor]) -> Tensor:
    return functional_call(suffix, values, features)

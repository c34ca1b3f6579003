"""How the uncertainty of an image changes with its pixels: gradients through the predictive.

The prefix runs forward and backward once an image, the suffix once a draw, as in prediction. Entropies of the mean over
draws are not means over draws, so the mean probability comes first, from a pass over the draws without gradients. Then

    ∂H[p̄] = Σ_s ∂ (-Σ_c p_s,c log p̄_c) / S      (p̄ held fixed: Σ_c ∂p̄_c = 0)

gives each draw's own part, and no more than one draw is in memory at a time.
"""

import torch
import xarray as xr
from torch import Tensor
from torch.func import functional_call

from bayesdf.errors import BayesdfError
from bayesdf.inference.posterior import Posterior

QUANTITIES = ("total", "aleatoric", "epistemic")


def input_gradients(
    posterior: Posterior, images: Tensor, draws: int | None = None, seed: int = 0, *, device: str = "auto"
) -> xr.Dataset:
    """Gradients of each image's total, aleatoric and epistemic uncertainty in its pixels.

    Parameters
    ----------
    posterior : Posterior
    images : Tensor (B, 3, H, W)
        Values in [0, 1]; a batch that fits into memory.
    draws, seed, device
        As for `Posterior.predict`.

    Returns
    -------
    xr.Dataset
        ``total``, ``aleatoric``, ``epistemic`` (image, channel, y, x): nats per unit of brightness; the first is the
        sum of the others.

    Raises
    ------
    BayesdfError
        No images, or more draws than a posterior of stored draws holds.
    """
    if images.dim() != 4 or not len(images):
        raise BayesdfError(f"images have shape {tuple(images.shape)}, but must be (B, 3, H, W) with at least one")
    predictor = posterior.predictor(device)
    number = posterior.check_draws(draws, seed) * posterior.sampler.chains
    pixels = images.to(predictor.device, memory_format=torch.channels_last).requires_grad_()
    parts = predictor.parts(pixels.detach())
    with torch.enable_grad():
        features = parts.prefix(pixels)
    # Cut between prefix and suffix: gradients of the draws gather here before they go on to the pixels.
    cut = tuple(
        part.detach().requires_grad_() if isinstance(part, Tensor) and part.is_floating_point() else part
        for part in features
    )
    leaves = [part for part in cut if isinstance(part, Tensor) and part.requires_grad]
    with torch.no_grad():
        log_p = torch.stack(
            [functional_call(parts.suffix, predictor.values(s, seed), cut).log_softmax(-1) for s in range(number)]
        )
        log_mean = log_p.logsumexp(0) - torch.log(torch.tensor(float(number)))
    gathered = {name: [torch.zeros_like(leaf) for leaf in leaves] for name in QUANTITIES[:2]}
    for s in range(number):
        with torch.enable_grad():
            log_q = functional_call(parts.suffix, predictor.values(s, seed), cut).log_softmax(-1)
            q = log_q.exp()
            own = {"total": -(q * log_mean).sum() / number, "aleatoric": -(q * log_q).sum() / number}
        for name, value in own.items():
            found = torch.autograd.grad(value, leaves, retain_graph=name == "total")
            for total, gradient in zip(gathered[name], found, strict=True):
                total += gradient
    roots = [part for part in features if isinstance(part, Tensor) and part.is_floating_point()]
    result: dict[str, Tensor] = {}
    for name in QUANTITIES[:2]:
        result[name] = _through_prefix(roots, gathered[name], pixels)
    result["epistemic"] = result["total"] - result["aleatoric"]
    dims = ("image", "channel", "y", "x")
    return xr.Dataset({name: (dims, result[name].cpu().numpy(), {"units": "nats"}) for name in QUANTITIES})


def _through_prefix(roots: list[Tensor], gradients: list[Tensor], pixels: Tensor) -> Tensor:
    """The gradient in the pixels of what has these gradients in the features."""
    reached = [(root, gradient) for root, gradient in zip(roots, gradients, strict=True) if root.requires_grad]
    (found,) = torch.autograd.grad(
        [root for root, _ in reached], pixels, [gradient for _, gradient in reached], retain_graph=True
    )
    return found

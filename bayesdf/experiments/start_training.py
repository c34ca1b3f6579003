"""How does a blind start learn real against fake, and not who is in the picture?

Photographs of a few people are learnt by heart: a network that knows their faces calls every stranger fake. So half of
each batch are photographs, the other half are fakes of the same people, one for one. Each is seen in part, with coarse
shading taken away (`hide_identity`). From step to step the network judges strangers now better, now worse. So the
weights are averaged, and the average that tells the validation people's images best is kept. Nothing here reads which
generator made a fake.
"""

import hashlib
import math
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import bayesdf.data as data
from bayesdf._version import __version__
from bayesdf.analysis.roc import binary_auroc
from bayesdf.cli import console
from bayesdf.errors import BayesdfError
from bayesdf.inference.prediction.predictor import resolve_device
from bayesdf.inference.training.checkpoint import read_checkpoint, write_checkpoint
from bayesdf.inference.training.progress import progress_bar

HALF = 16
"""Photographs in a batch, and fakes."""
LR, WEIGHT_DECAY = 2e-3, 0.01
AVERAGED = 1 / 16
"""The share of all steps over which weights are averaged: the time constant of an exponential moving average."""
SAVED_EVERY = 250
"""Steps from checkpoint to checkpoint."""
VALIDATED = 24
"""How often the averaged network is asked about the validation images."""
LEAST = 32
"""Pixels: the smallest side of a part that a network with five halvings can be asked about."""


def train_blind(
    network: nn.Module,
    images: data.ImageDataset,
    validation: data.ImageDataset | None = None,
    *,
    steps: int,
    seed: int = 0,
    device: str = "auto",
    mixed_precision: bool = False,
    checkpoint: Path | None = None,
) -> nn.Module:
    """Train all weights of a network on real against fake, in place.

    AdamW along one cycle (Smith and Topin, "Super-convergence", 2019), on batches of `HALF` photographs and as many
    fakes. The weights are averaged over steps (Polyak and Juditsky 1992; here with exponential weights, and with the
    running statistics of normalisation). Of `VALIDATED` averages on the way the one with the largest AUROC on the
    validation images is kept.

    Parameters
    ----------
    network
        Two logits, of real and of fake.
    images
        Of the binary task. Its manifest says who is in an image; fakes of nobody may stand beside any photograph.
    validation
        Images of other people. None, or images of one class alone: the last average is kept.
    steps
        Batches. With 0 the network stays as it is.
    mixed_precision
        Run what tolerates it in bfloat16. On processors that know it this takes about half the time.
    checkpoint
        File that a stopped training goes on from, to the same weights.

    Raises
    ------
    BayesdfError
        The loss is not finite, or the checkpoint is of another training.
    """
    where = resolve_device(device)
    network = network.to(where, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    matrices = [value for value in network.parameters() if value.dim() > 1]
    others = [value for value in network.parameters() if value.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    if not steps:
        return network.cpu().eval()
    optimiser = torch.optim.AdamW(groups, lr=LR, fused=True)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, LR, total_steps=steps)
    noise = torch.Generator().manual_seed(seed)
    pairs = Pairs(images)
    key = _key(images, validation, network, steps, seed, mixed_precision)
    judges = validation is not None and len(validation.labels.unique()) == 2
    best: dict[str, Any] = {"auroc": -1.0, "step": 0, "weights": {}}
    label = torch.arange(2 * HALF, device=where) // HALF
    half: AbstractContextManager[Any] = nullcontext()
    if mixed_precision:
        half = torch.autocast(where.type, torch.bfloat16)
    decay = max(1.0 - 1.0 / max(AVERAGED * steps, 1.0), 0.0)
    averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    kept = {"network": network, "averaged": averaged, "optimiser": optimiser, "rates": rates}
    first = 0
    saved = None if checkpoint is None else read_checkpoint(checkpoint, key, torch.device("cpu"), "start")
    if saved is not None:
        first, best = saved["step"], saved["best"]
        for name, part in kept.items():
            part.load_state_dict(saved[name])  # type: ignore[attr-defined]
        noise.set_state(saved["noise"])
    with progress_bar("PointEstimate", steps) as report:
        report("", first)
        for step in range(first, steps):
            batch = hide_identity(pairs.batch(noise), noise).to(where, memory_format=torch.channels_last)
            with half:
                logits = network(batch)
            loss = F.cross_entropy(logits.float(), label)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise BayesdfError(f"training the start: the loss of step {step} is {value}: check the images")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            rates.step()
            averaged.update_parameters(network)
            report(f"loss {value:.3f}", 1)
            if judges and (step + 1) % max(steps // VALIDATED, 1) == 0:
                with half:
                    found = _auroc(averaged.module, validation, where)  # type: ignore[arg-type]
                if found > best["auroc"]:
                    weights = {name: value.detach().clone() for name, value in averaged.module.state_dict().items()}
                    best = {"auroc": found, "step": step + 1, "weights": weights}
            if checkpoint is not None and (step + 1) % SAVED_EVERY == 0:
                state = {name: part.state_dict() for name, part in kept.items()}  # type: ignore[attr-defined]
                write_checkpoint(checkpoint, key, {**state, "step": step + 1, "best": best, "noise": noise.get_state()})
    if judges:
        console.print(
            f"    kept the weights of step {best['step']} of {steps}: validation AUROC {best['auroc']:.3f}",
            highlight=False,
        )
    network.load_state_dict(best["weights"] or averaged.module.state_dict())
    return network.cpu().eval()


class Pairs:
    """Batches of photographs, and of a fake of the same person, or of nobody, for each. The sources are not read."""

    def __init__(self, images: data.ImageDataset) -> None:
        self.images, self.person = images, images.manifest["subject"].to_numpy(str)
        label = images.labels.numpy()
        self.photographs, fakes = np.flatnonzero(label == 0), np.flatnonzero(label == 1)
        nobody = fakes[self.person[fakes] == ""]
        beside = {who: fakes[self.person[fakes] == who] for who in np.unique(self.person[self.photographs])}
        self.fakes = {who: np.concatenate([own, nobody]) for who, own in beside.items()}
        self.fakes = {who: rows if len(rows) else fakes for who, rows in self.fakes.items()}

    def batch(self, noise: torch.Generator) -> Tensor:
        """Images (2 `HALF`, 3, H, W): photographs, then a fake for each."""
        real = [_one(self.photographs, noise) for _ in range(HALF)]
        fake = [_one(self.fakes[self.person[row]], noise) for row in real]
        return torch.stack([image for image, _ in self.images.__getitems__([*real, *fake])])


def hide_identity(images: Tensor, generator: torch.Generator) -> Tensor:
    """Beside `data.augment`: hide who it is, by a part of the picture only and with coarse shading taken away.

    All photographs are of a few people, and generators draw many others: a network that knows the few by their faces
    calls every stranger fake. Fine structure, by which fakes are told, stays as it is.

    Parameters
    ----------
    images
        (B, 3, H, W) in [0, 1].

    Returns
    -------
    (B, 3, H/2, W/2) in [0, 1]; at least `LEAST` pixels each way, where the images have as many.
    """
    images = data.augment(images, generator)
    batch, _, height, width = images.shape
    pool = max(height // 8, 1)
    down = F.avg_pool2d(images, (pool, 1), 1, (pool // 2, 0), count_include_pad=False)
    shading = F.avg_pool2d(down, (1, pool), 1, (0, pool // 2), count_include_pad=False)[..., :height, :width]
    share = torch.rand(batch, 1, 1, 1, generator=generator).to(images.device)
    images = (images - share * (shading - shading.mean((1, 2, 3), keepdim=True))).clamp(0.0, 1.0)
    tall, wide = (max(side // 2, min(side, LEAST)) for side in (height, width))
    tops = torch.randint(height - tall + 1, (batch,), generator=generator).tolist()
    lefts = torch.randint(width - wide + 1, (batch,), generator=generator).tolist()
    parts = [image[:, y : y + tall, x : x + wide] for image, y, x in zip(images, tops, lefts, strict=True)]
    return torch.stack(parts)


def _one(rows: np.ndarray, noise: torch.Generator) -> int:
    return int(rows[int(torch.randint(len(rows), (1,), generator=noise))])


@torch.no_grad()
def _auroc(network: nn.Module, images: data.ImageDataset, where: torch.device) -> float:
    """How well the logits tell fakes from photographs, 0 to 1; the network is in evaluation mode meanwhile."""
    network.eval()
    scores = []
    for rows in torch.arange(len(images)).split(100):
        pictures = torch.stack([image for image, _ in images.__getitems__(rows.tolist())]).to(where)
        logits = network(pictures).float()
        scores.append(logits[:, 1] - logits[:, 0])
    network.train()
    return binary_auroc(images.labels.numpy() == 1, torch.cat(scores).double().cpu().numpy())


def _key(
    images: data.ImageDataset,
    validation: data.ImageDataset | None,
    network: nn.Module,
    steps: int,
    seed: int,
    mixed_precision: bool,
) -> str:
    """A digest of what the weights depend on: a checkpoint of another training, or version, is told by it."""
    judged = None if validation is None else validation.fingerprint
    text = f"{__version__} {images.fingerprint} {judged} {steps} {seed} {mixed_precision}"
    text += f" {HALF} {LR} {WEIGHT_DECAY} {AVERAGED} {VALIDATED}"
    digest = hashlib.sha256(text.encode())
    for name, value in network.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()

"""How networks are trained: a loss made smaller, a critic deceived, an encoder fitted to what a generator makes.

Each function begins a stage and returns the `Work` to be done: `bayesdf.generators.train` takes its steps, writes
its state down in between, and ends it.
"""

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bayesdf.faces import Faces, people, photographs
from bayesdf.generators.networks import Encoder, pyramid_loss

BATCH = 16
ALIGNMENTS = 8
"""How many alignments of each photograph the whole-image generators learn from."""


@dataclass
class Work:
    """A stage of training: what a step does, everything that a checkpoint must hold, and what is left to do at the end.

    Attributes
    ----------
    step
        Takes the source of randomness, changes the network, returns the loss to be shown.
    state
        Objects with `state_dict` and `load_state_dict`.
    finish
        Called once after the last step.
    """

    step: Callable[[torch.Generator], float]
    state: dict[str, Any]
    finish: Callable[[], None] = field(default=lambda: None)


Stage = tuple[int, Callable[[Any, Faces, int], Work]]
"""Number of steps, and what begins the work: (network, faces, steps) → Work."""


def train_on_loss(
    network: nn.Module,
    loss: Callable[[torch.Generator], Tensor],
    steps: int,
    parameters: Iterable[nn.Parameter] | None = None,
    rate: float = 2e-3,
) -> Work:
    """Make a loss smaller by AdamW with a one-cycle schedule."""
    chosen = list(network.parameters() if parameters is None else parameters)
    optimizer = torch.optim.AdamW(chosen, lr=rate, betas=(0.9, 0.99), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)

    def step(generator: torch.Generator) -> float:
        value = loss(generator)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(chosen, 1.0)
        optimizer.step()
        schedule.step()
        return value.item()

    return Work(step, {"network": network, "optimizer": optimizer, "schedule": schedule})


def training_faces() -> Tensor:
    """The pictures for whole-image generators: all but the test people, in several alignments, mirrored too.

    Returns
    -------
    (N, 1, 64, 64) float32 in [0, 1].
    """
    chosen = np.isin(photographs().subject, people()["test"], invert=True)
    pictures = np.concatenate([photographs(variant).images[chosen] for variant in range(ALIGNMENTS)])
    return torch.from_numpy(np.concatenate([pictures, pictures[..., ::-1]]))[:, None]


class Critic(nn.Module):
    """(B, 1, 64, 64) → (B,) how real each image seems; sees the spread within the batch (Karras et al. 2018)."""

    def __init__(self, widths: tuple[int, ...] = (24, 48, 96, 128)) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        for inputs, outputs in zip((1, *widths), widths, strict=False):
            steps += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.LeakyReLU(0.2, inplace=True), nn.AvgPool2d(2)]
        self.body = nn.Sequential(*steps)
        self.mix = nn.Sequential(nn.Conv2d(widths[-1] + 1, 128, 3, padding=1), nn.LeakyReLU(0.2, inplace=True))
        self.head = nn.Sequential(nn.Linear(128 * 16, 96), nn.LeakyReLU(0.2, inplace=True), nn.Linear(96, 1))

    def forward(self, images: Tensor) -> Tensor:
        x = self.body(images * 4.0 - 2.0)
        spread = (x.var(0, unbiased=False) + 1e-6).sqrt().mean().expand(len(x), 1, *x.shape[2:])
        return self.head(self.mix(torch.cat([x, spread], 1)).flatten(1))[:, 0]


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Differentiable augmentation of what a critic sees, real and made alike (Zhao et al. 2020, DiffAugment).

    Brightness, contrast, a shift of up to six pixels, and a square of 20 pixels cut out.
    """
    batch = len(images)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(batch, 1, 1, 1, generator=generator)

    images = (images - 0.5) * uniform(0.7, 1.3) + 0.5 + uniform(-0.2, 0.2)
    reach, size = 6, images.shape[-1]
    padded = F.pad(images, (reach,) * 4, mode="reflect")
    corner = torch.randint(2 * reach + 1, (batch, 2), generator=generator).tolist()
    images = torch.stack([p[:, y : y + size, x : x + size] for p, (y, x) in zip(padded, corner, strict=True)])
    keep = torch.ones_like(images)
    for row, (y, x) in enumerate(torch.randint(-10, size - 10, (batch, 2), generator=generator).tolist()):
        keep[row, :, max(y, 0) : y + 20, max(x, 0) : x + 20] = 0.0
    return images * keep + 0.5 * (1.0 - keep)


def train_adversarially(
    network: nn.Module,
    draw: Callable[[int, torch.Generator], Tensor],
    redraw: Callable[[Tensor, torch.Generator], Tensor],
    steps: int,
    parameters: Iterable[nn.Parameter] | None = None,
    rate: float = 1e-3,
    anchor: float = 3.0,
    penalty: float = 0.03,
) -> Work:
    """Train a generator against a critic, held to redraw the photographs.

    Non-saturating loss with a gradient penalty on real images (R1; Mescheder et al. 2018), the critic's images
    augmented. Half of each batch are new faces, half photographs redrawn, for which the pyramid loss counts too: with
    few photographs it keeps the generator from forgetting some of them. The weights kept are a running mean.

    Parameters
    ----------
    draw
        (number, randomness) → new faces (number, 1, 64, 64).
    redraw
        Photographs (B, 1, 64, 64) and randomness → the generator's picture of each.
    anchor
        Weight of the redrawing.
    penalty
        Weight of the gradient penalty.
    """
    chosen = list(network.parameters() if parameters is None else parameters)
    pictures, critic = training_faces(), Critic()
    critic.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    made_by = torch.optim.Adam(chosen, lr=rate, betas=(0.0, 0.99))
    judged_by = torch.optim.Adam(critic.parameters(), lr=rate, betas=(0.0, 0.99))
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, 4.0 * (1.0 - step / steps) + 0.02))
        for optimizer in (made_by, judged_by)
    ]
    average = deepcopy(network).requires_grad_(False)
    turn = torch.zeros((), dtype=torch.long)
    turns = nn.Module()
    turns.register_buffer("turn", turn)

    def photos(number: int, generator: torch.Generator) -> Tensor:
        return pictures[torch.randint(len(pictures), (number,), generator=generator)]

    def step(generator: torch.Generator) -> float:
        truth = photos(BATCH // 2, generator)
        redrawn = redraw(truth, generator)
        made = torch.cat([draw(BATCH // 2, generator), redrawn])
        critic.requires_grad_(False)
        value = F.softplus(-critic(augment(made, generator))).mean() + anchor * pyramid_loss(redrawn, truth)
        made_by.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(chosen, 5.0)
        made_by.step()

        critic.requires_grad_(True)
        real = augment(photos(BATCH, generator), generator)
        penalised = int(turn) % 8 == 0
        real.requires_grad_(penalised)
        score = critic(real)
        judgement = F.softplus(critic(augment(made.detach(), generator))).mean() + F.softplus(-score).mean()
        if penalised:
            (slope,) = torch.autograd.grad(score.sum(), real, create_graph=True)
            judgement = judgement + 8.0 * 0.5 * penalty * slope.pow(2).sum((1, 2, 3)).mean()
        judged_by.zero_grad()
        judgement.backward()
        judged_by.step()
        for schedule in schedules:
            schedule.step()
        with torch.no_grad():
            turn.add_(1)
            for kept, now in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
                if kept.is_floating_point():
                    kept.lerp_(now, 0.005)
                else:
                    kept.copy_(now)
        return value.item()

    state: dict[str, Any] = {"network": network, "critic": critic, "average": average, "turns": turns}
    state |= {"made_by": made_by, "judged_by": judged_by, "schedule": schedules[0], "schedule_critic": schedules[1]}

    def keep_mean() -> None:
        network.load_state_dict(average.state_dict())

    return Work(step, state, keep_mean)


def train_encoder(
    network: nn.Module, encoder: Encoder, decode: Callable[[Tensor], Tensor], latent_dim: int, values: int, steps: int
) -> Work:
    """Fit an encoder that tells the first `values` values of the entropy from the picture made of it.

    The pictures are disturbed by a little noise, as compression does, so that the start it gives holds for them too.
    """

    def loss(generator: torch.Generator) -> Tensor:
        code = torch.randn(BATCH, latent_dim, generator=generator)
        with torch.no_grad():
            images = decode(code)
            strength = 0.03 * torch.rand(BATCH, 1, 1, 1, generator=generator)
            images = images + strength * torch.randn(images.shape, generator=generator)
        return F.mse_loss(encoder(images), code[:, :values])

    return train_on_loss(network, loss, steps, encoder.parameters())

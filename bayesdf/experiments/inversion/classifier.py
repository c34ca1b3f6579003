"""Who made the pictures, says a network that learnt the sources from pictures directly?"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
import xarray as xr
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor, nn

import bayesdf.analysis as analysis
from bayesdf.cli import console
from bayesdf.experiments.inversion.pictures import Pictures
from bayesdf.experiments.inversion.plan import Plan
from bayesdf.experiments.inversion.resumable import load_or_make
from bayesdf.experiments.seeds import seed_of
from bayesdf.inversion import perturb_at_random
from bayesdf.models.networks import residual


class Baseline(nn.Module):
    """Grey images (B, 1, 64, 64) in [0, 1] → logits of the sources. It sees the picture and its high frequencies."""

    def __init__(self, classes: int, widths: Sequence[int] = (16, 32, 64, 96)) -> None:
        super().__init__()
        layers: list[nn.Module] = [_convolution(2, widths[0])]
        for a, b in itertools.pairwise(widths):
            layers += [_convolution(a, b, stride=2), _convolution(b, b)]
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(widths[-1], classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(torch.cat([(images - 0.5) / 0.25, residual(images)], 1)).mean((2, 3)))


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def train(pictures: Pictures, names: Sequence[str], *, augment: bool, epochs: int, seed: int) -> Baseline:
    """A classifier of the sources, fitted to pictures.

    Parameters
    ----------
    names
        The sources, in the order of the logits. All weigh the same, whatever their number of pictures.
    augment
        Whether half of the pictures of every epoch are disturbed, each in one way and strength drawn at random from
        those of the study.
    """
    label = torch.from_numpy(np.array([list(names).index(source) for source in pictures.source]))
    count = torch.bincount(label, minlength=len(names)).clamp_min(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Baseline(len(names))
        batch = min(32, len(label))
        rounds = -(-len(label) // batch)
        optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=max(epochs * rounds, 1))
        title = "training the classifier" + (" with perturbations" if augment else "")
        for epoch in track(range(epochs), title, console=console, transient=True):
            images = torch.from_numpy(pictures.images)
            if augment:
                changed = torch.from_numpy(perturb_at_random(pictures.images, seed_of(seed, "augment", str(epoch))))
                images = torch.where(torch.rand(len(images), 1, 1) < 0.5, images, changed)
            order = torch.randperm(len(label))
            for rows in order.chunk(rounds):
                if len(rows) < 2:
                    continue
                loss = F.cross_entropy(
                    network(images[rows, None]), label[rows], weight=count.sum() / count / len(names)
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    return network.eval().requires_grad_(False)


def load_or_train(folder: Path, pictures: Pictures, names: list[str], plan: Plan, *, augment: bool) -> Baseline:
    """`train`, from the folder where a stopped run left it."""

    def make() -> dict[str, NDArray[Any]]:
        seed = seed_of(plan.seed, "classifier")
        state = train(pictures, names, augment=augment, epochs=plan.epochs, seed=seed).state_dict()
        return {key: value.numpy() for key, value in state.items()}

    state = load_or_make(folder / f"classifier{'_augmented' if augment else ''}.npz", make)
    network = Baseline(len(names))
    network.load_state_dict({key: torch.from_numpy(np.asarray(value)) for key, value in state.items()})
    return network.eval().requires_grad_(False)


@torch.no_grad()
def classify(network: nn.Module, names: Sequence[str], pictures: Pictures) -> xr.Dataset:
    """The classifier's own probabilities, as `bayesdf.analysis.attribute` returns them."""
    logits = torch.cat([network(part) for part in torch.from_numpy(pictures.images)[:, None].split(128)])
    probability = logits.double().softmax(1).numpy()
    return analysis.from_probability(pd.DataFrame(probability, columns=list(names)), pictures.source, pictures.subject)

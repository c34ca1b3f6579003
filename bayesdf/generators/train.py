"""Train a generator's network and write the weights that ship.

    python -m bayesdf.generators.train vae

Training survives being stopped: every few hundred steps its state is written beside the cache of data sets, and the
same command goes on from there. Next to the weights comes nothing else; the sample sheet goes to `--sheet`.
"""

from pathlib import Path
from types import ModuleType
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image
from rich.progress import Progress

from bayesdf.cache import cache_folder
from bayesdf.cli import run_cli
from bayesdf.errors import BayesdfError
from bayesdf.faces import Faces, photographs
from bayesdf.generators import GENERATORS
from bayesdf.generators.networks import pack

WEIGHTS = Path(__file__).parent / "weights"
BATCH = 16
SAVE_EVERY = 500


def fit(module: ModuleType, faces: Faces, steps: int, seed: int, checkpoint: Path) -> torch.nn.Module:
    """Train a generator's network; resumes from `checkpoint` where it holds the same run."""
    torch.manual_seed(seed)
    network = module.build(faces).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    done, key = 0, f"{module.NAME} {steps} {seed}"
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True)
        if state["key"] == key:
            network.load_state_dict(state["network"])
            optimizer.load_state_dict(state["optimizer"])
            schedule.load_state_dict(state["schedule"])
            generator.set_state(state["generator"])
            done = state["done"]
    network.train()
    with Progress() as progress:
        task = progress.add_task(module.NAME, total=steps, completed=done)
        while done < steps:
            rows = torch.randint(len(faces), (BATCH,), generator=generator)
            loss = module.loss(network, faces, rows, generator)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            done += 1
            progress.update(task, completed=done, description=f"{module.NAME} loss {loss.item():.4f}")
            if done % SAVE_EVERY == 0:
                state = {
                    "key": key,
                    "network": network.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "schedule": schedule.state_dict(),
                    "generator": generator.get_state(),
                    "done": done,
                }
                torch.save(state, checkpoint.with_suffix(".new"))
                checkpoint.with_suffix(".new").replace(checkpoint)
    return network


def sheet(module: ModuleType, faces: Faces, seed: int) -> Image.Image:
    """Targets, fakes and donors, one above the other, of every fifth photograph."""
    fakes = module.make(faces, np.random.default_rng(seed))
    rows = np.arange(0, len(faces), 5)[:16]
    strip = np.stack([faces.images[rows], fakes.images[rows], faces.images[fakes.donor[rows]]])
    grid = strip.transpose(0, 2, 1, 3).reshape(3 * strip.shape[2], -1)
    return Image.fromarray((grid * 255).round().astype(np.uint8))


def main(
    name: Annotated[str, typer.Argument(help="Which generator: one that has a network.")],
    steps: Annotated[int, typer.Option(help="Training steps of 16 faces; 0 means the generator's own number.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the start and of every draw.")] = 0,
    sheet_to: Annotated[Path | None, typer.Option("--sheet", help="Write a sheet of samples to this PNG.")] = None,
) -> None:
    """Train a generator on the embedded photographs and write its weights into the package."""
    trainable = {key: module for key, module in GENERATORS.items() if hasattr(module, "STEPS")}
    if name not in trainable:
        raise BayesdfError(f"generator {name!r} has no network to train; choose one of {', '.join(trainable)}")
    module, faces = trainable[name], photographs()
    checkpoint = cache_folder("training") / f"{name}.pt"
    network = fit(module, faces, steps or module.STEPS, seed, checkpoint)
    WEIGHTS.mkdir(exist_ok=True)
    target = WEIGHTS / f"{name}.safetensors"
    beside = target.with_suffix(".new")
    beside.write_bytes(pack(network))
    beside.replace(target)
    checkpoint.unlink(missing_ok=True)
    typer.echo(f"wrote {target} ({target.stat().st_size / 1e6:.1f} MB)")
    if sheet_to is not None:
        sheet(module, faces, seed).save(sheet_to)


if __name__ == "__main__":
    run_cli(main)

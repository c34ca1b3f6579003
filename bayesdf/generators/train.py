"""Train a generator's network and write the weights that ship.

    python -m bayesdf.generators.train vae

A stopped training can continue: every few hundred steps its state is written beside the cache of data sets, and the
same command continues from there. `--sheet faces.png` draws a sheet of samples at the same times, to show the progress.
"""

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.progress import Progress

from bayesdf._version import __version__
from bayesdf.cache_folder import cache_folder
from bayesdf.cli import run_cli
from bayesdf.errors import BayesdfError
from bayesdf.faces import Faces, photographs
from bayesdf.files import atomic_write, clear_leftovers
from bayesdf.generators import MODULES
from bayesdf.generators.networks import DIGESTS, digests, pack

WEIGHTS = Path(__file__).parent / "weights"
SAVE_EVERY = 500
TRAINABLE: dict[str, ModuleType] = {module.NAME: module for module in MODULES if hasattr(module, "build")}
"""The generators that have a network."""


def fit(
    module: ModuleType,
    faces: Faces,
    seed: int,
    checkpoint: Path,
    scale: float = 1.0,
    show: Callable[[torch.nn.Module], None] = lambda network: None,
) -> torch.nn.Module:
    """Train a generator's network stage by stage; continues from `checkpoint` if it is of the same run.

    Parameters
    ----------
    scale
        Factor of every stage's number of steps.
    show
        Called with the network, or its running mean, after each writing of the state.

    Raises
    ------
    BayesdfError
        The checkpoint is of other settings, or the file is not a checkpoint.
    """
    torch.manual_seed(seed)
    network = module.build(faces).to(memory_format=torch.channels_last)
    stages = {name: (max(round(steps * scale), 1), begin) for name, (steps, begin) in module.STAGES.items()}
    key = f"{__version__} {module.NAME} {seed} {[(name, steps) for name, (steps, _) in stages.items()]}"
    state = _read_checkpoint(checkpoint)
    if state and state.get("key") != key:
        raise BayesdfError(
            f"{checkpoint} is of a stopped training with other settings ({state.get('key')!r} then, {key!r} now): give "
            "the same command to continue it, or delete it to start over"
        )
    reached = list(stages).index(state["stage"]) if state else 0
    for number, (stage, (steps, begin)) in enumerate(stages.items()):
        if number < reached:
            continue
        generator = torch.Generator().manual_seed(seed + number)
        network.train()
        if state:
            network.load_state_dict(state["network"])
        work, done = begin(network, faces, steps), 0
        if state:
            for name, part in work.state.items():
                part.load_state_dict(state["work"][name])
            generator.set_state(state["generator"])
            torch.set_rng_state(state["global"])
            done, state = state["done"], {}
        with Progress() as progress:
            task = progress.add_task(f"{module.NAME}: {stage}", total=steps, completed=done)
            while done < steps:
                shown = work.step(generator)
                done += 1
                progress.update(task, completed=done, description=f"{module.NAME}: {stage}, loss {shown:.4f}")
                if done % SAVE_EVERY == 0:
                    now = {
                        "key": key,
                        "stage": stage,
                        "done": done,
                        "network": network.state_dict(),
                        "work": {name: part.state_dict() for name, part in work.state.items()},
                        "generator": generator.get_state(),
                        "global": torch.get_rng_state(),
                    }
                    with atomic_write(checkpoint) as beside:
                        torch.save(now, beside)
                    show(work.state.get("average", network))
        work.finish()
    return network


def _read_checkpoint(checkpoint: Path) -> dict[str, Any]:
    """The state of a stopped run; empty if there is none."""
    clear_leftovers(checkpoint)
    if not checkpoint.is_file():
        return {}
    try:
        return torch.load(checkpoint, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise BayesdfError(
            f"{checkpoint} is not a checkpoint of training ({type(error).__name__}): delete it"
        ) from None


def tile(images: NDArray[np.float32], columns: int = 12) -> Image.Image:
    """Images (N, 64, 64) in [0, 1], N a multiple of `columns`, as one picture."""
    rows = images.reshape(-1, columns, *images.shape[1:]).transpose(0, 2, 1, 3)
    return Image.fromarray((rows.reshape(rows.shape[0] * rows.shape[1], -1) * 255).round().astype(np.uint8))


@torch.no_grad()
def draw_sheet(module: ModuleType, network: torch.nn.Module, path: Path) -> None:
    """Write 48 pictures that the network makes of seeded latents at this point of the training."""
    training = network.training
    images = network.eval().decode(module.generator.sample_latent(48, seed=0))  # type: ignore[operator]
    network.train(training)
    tile(images[:, 0].clamp(0.0, 1.0).numpy()).save(path)


def main(
    name: Annotated[str, typer.Argument(help="Which generator: one that has a network.")],
    scale: Annotated[float, typer.Option(help="Multiplies the number of steps of every stage.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the start and of every draw.")] = 0,
    sheet: Annotated[Path | None, typer.Option(help="Draw a sheet of samples to this PNG every 500 steps.")] = None,
) -> None:
    """Train a generator on the embedded photographs and write its weights into the package."""
    if name not in TRAINABLE:
        raise BayesdfError(f"generator {name!r} has no network to train; choose one of {', '.join(TRAINABLE)}")
    module = TRAINABLE[name]
    if sheet is not None and not module.generator.invertible:
        raise BayesdfError(f"generator {name!r} paints into photographs and has no sheet of new faces; omit --sheet")
    checkpoint = cache_folder("training") / f"{name}.pt"

    def show(network: torch.nn.Module) -> None:
        if sheet is not None:
            draw_sheet(module, network, sheet)

    network = fit(module, photographs(), seed, checkpoint, scale, show)
    target = WEIGHTS / f"{name}.safetensors"
    with atomic_write(target) as beside:
        beside.write_bytes(pack(network))
    known = digests(WEIGHTS) | {target.name: hashlib.sha256(target.read_bytes()).hexdigest()}
    with atomic_write(WEIGHTS / DIGESTS) as beside:
        beside.write_text("".join(f"{digest}  {file}\n" for file, digest in sorted(known.items())))
    checkpoint.unlink(missing_ok=True)
    show(network)
    typer.echo(f"wrote {target} ({target.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    run_cli(main)

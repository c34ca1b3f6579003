"""The point estimate that the methods start from: a detector trained on training people alone.

    python -m bayesdf.experiments.warm_start resnet10t_half

A blind start learns real against fake, and nothing in its training says which generator made an image. A start on
sources learns the source of each image. Claims about what a detector betrays of the sources need the former; the latter
shows what the labels add.

Training a network from scratch takes longer than finding a posterior over a part of it. Weights trained on the embedded
data's training people ship for the default detector; no picture of validation or test people went into them. A
collection without a generator (`data.leave_out`) has weights of its own, which have not seen that generator either.
"""

import hashlib
import math
from pathlib import Path
from typing import Annotated, Literal, get_args

import torch
import typer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

import bayesdf.data as data
from bayesdf.cache_folder import cache_folder
from bayesdf.cli import console, run_cli
from bayesdf.data import embedded
from bayesdf.errors import BayesdfError
from bayesdf.experiments.start_training import HALF, hide_identity, train_blind
from bayesdf.faces import CREDIT, SIZE
from bayesdf.files import atomic_write
from bayesdf.inference import MCDropout
from bayesdf.models import Detector, build, classifier, priors
from bayesdf.models.priors import Prior

Learnt = Literal["blind", "sources"]
"""What a start has learnt: real against fake without any source, or the sources."""
LEARNT: tuple[str, ...] = get_args(Learnt)

WEIGHTS = Path(__file__).parent / "weights"
EPOCHS = 8
VARIANTS = 9
"""Alignments of each training photograph that generators work on: 240 photographs alone are learnt by heart."""
LR = 1e-3
"""Of a start on sources."""
GAINS = {
    "resnet10t_half": "layer4.0.bn2",
    "resnet10t": "layer4.0.bn2",
    "resnet18": "layer4.1.bn2",
    "xception": "bn4",
    "efficientnet": "bn2",
    "mobilenet": "blocks.5.0.bn1",
}
"""The last normalisation of each network, whose gains and shifts are random in the study."""
BLOCKS = {
    "resnet10t_half": "layer4.0",
    "resnet10t": "layer4.0",
    "resnet18": "layer4.1",
    "xception": "block12",
    "efficientnet": "blocks.6.0",
    "mobilenet": "blocks.5.0",
}
"""The last block of each network."""
Sites = Literal["classifier", "normalisation", "block", "network"]
SITES: tuple[str, ...] = get_args(Sites)
"""Which part of a network is random."""


class PointEstimate(MCDropout):
    """How a start on sources is trained. The progress bar calls it by this name: the study may use MC dropout too."""


def point_estimate(
    name: str,
    collection: data.Collection,
    *,
    learnt: Learnt = "blind",
    epochs: int = EPOCHS,
    seed: int = 0,
    device: str = "auto",
    mixed_precision: bool = False,
    checkpoint: Path | None = None,
) -> nn.Module:
    """Train all weights of a network on the training split.

    Parameters
    ----------
    learnt
        ``blind``: real against fake (see `bayesdf.experiments.start_training`). ``sources``: the source of each image,
        photographs being one, with dropout in the last stage; then the classifiers of the fakes are made one, their
        mean.
    epochs
        Passes over as many images as there are.
    mixed_precision
        Of a blind start: run what tolerates it in bfloat16. On processors that know it this takes about half the time.
    checkpoint
        File that a stopped training goes on from.

    Returns
    -------
    nn.Module
        The network of `build_untrained`, in evaluation mode.
    """
    if learnt == "blind":
        return train_blind(
            build_untrained(name, collection, seed=seed),
            collection.train,
            collection.val,
            steps=epochs * math.ceil(len(collection.train) / (2 * HALF)),
            seed=seed,
            device=device,
            mixed_precision=mixed_precision,
            checkpoint=checkpoint,
        )
    sources = data.relabel(collection, "multiclass")
    method = PointEstimate(
        epochs=epochs,
        lr=LR,
        prior_scale=0.3,
        class_balanced=False,
        augment=hide_identity,
        seed=seed,
        device=device,
        checkpoint=checkpoint,
    )
    detector = Detector(build_untrained(name, sources, seed=seed), {})
    fitted = method.fit(detector, sources.train).network.state_dict()
    binary = build_untrained(name, collection)
    state = {key: fitted[key].cpu() for key in binary.state_dict()}
    for key in (f"{classifier(binary)}.weight", f"{classifier(binary)}.bias"):
        state[key] = torch.stack([state[key][0], state[key][1:].mean(0)])
    binary.load_state_dict(state)
    return binary.eval()


def build_untrained(name: str, collection: data.Collection, seed: int = 0) -> nn.Module:
    """The untrained network as this study uses it: with high-pass channels, and its stem made for small images."""
    size = collection.train[0][0].shape[-1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(name, num_classes=len(collection.classes), high_pass=True, small_stem=size <= 96).eval()


def default_priors(name: str, network: nn.Module, sites: Sites = "normalisation") -> dict[str, Prior]:
    """The priors of the study, over a part of the network that `sites` names.

    - ``classifier``: its weights are normal around zero.
    - ``normalisation``: and the gains and shifts that end the last stage (`GAINS`) are normal around their trained
      values, with half of these as deviation. Networks outside the list get a prior over their classifier alone.
    - ``block``: and so are all weights of the last block (`BLOCKS`).
    - ``network``: and so are all weights of the network.

    Raises
    ------
    BayesdfError
        The last block of the network is not known.
    """
    chosen = {classifier(network): priors.normal(scale=0.3)}
    around = priors.moped(delta=0.5)
    if sites != "classifier" and name in GAINS:
        chosen[GAINS[name]] = around
    if sites == "block":
        if name not in BLOCKS:
            raise BayesdfError(f"--sites block: the last block of {name} is not known; it is of {', '.join(BLOCKS)}")
        chosen[f"{BLOCKS[name]}.*"] = around
    if sites == "network":
        chosen["*"] = around
    return chosen


def shipped(name: str, learnt: Learnt = "blind", without: tuple[str, ...] = (), fold: int = 0) -> Path:
    """Where the weights of a start lie, or would: what it learnt, without which generators, on which fold's people."""
    parts = [name, *(["sources"] if learnt == "sources" else []), *(f"without-{source}" for source in without)]
    return WEIGHTS / f"{'-'.join([*parts, *([f'fold{fold}'] if fold else [])])}.safetensors"


def ships(name: str, collection: data.Collection, learnt: Learnt = "blind") -> bool:
    """Whether weights for this network and data, at this size and without what was left out, come with the package."""
    size = collection.train[0][0].shape[-1]
    return collection.name == "embedded" and size == SIZE and _own(name, collection, learnt).is_file()


def _own(name: str, collection: data.Collection, learnt: Learnt) -> Path:
    return shipped(name, learnt, collection.without, collection.fold)


def digest(name: str, collection: data.Collection, learnt: Learnt = "blind") -> str:
    """Of the weights that ship, by which runs that began with others are told apart; nothing where none do."""
    if not ships(name, collection, learnt):
        return ""
    return hashlib.sha256(_own(name, collection, learnt).read_bytes()).hexdigest()[:16]


def start(
    name: str,
    collection: data.Collection,
    learnt: Learnt = "blind",
    *,
    keep: Path | None = None,
    epochs: int = EPOCHS,
    seed: int = 0,
    device: str = "auto",
) -> nn.Module:
    """The network that posteriors of this data start from: as shipped, else as kept in `keep`, else trained now.

    Parameters
    ----------
    name
        resnet10t_half, resnet18, xception, efficientnet, mobilenet, or any name of torchvision or timm.
    learnt
        See `point_estimate`.
    keep
        File of weights that a training leaves; beside it a stopped one goes on. None: nothing is kept.
    epochs, seed, device
        Of the training, where none ships.

    Raises
    ------
    BayesdfError
        If a file of weights is damaged.
    """
    if ships(name, collection, learnt):
        return load(_own(name, collection, learnt), name, collection)
    if keep is not None and keep.is_file():
        return load(keep, name, collection)
    console.print("    no weights ship for this network and data: training the point estimate first")
    checkpoint = None if keep is None else keep.with_suffix(".pt")
    network = point_estimate(
        name, collection, learnt=learnt, epochs=epochs, seed=seed, device=device, checkpoint=checkpoint
    )
    if keep is None or checkpoint is None:
        return network
    write(network, keep)
    checkpoint.unlink(missing_ok=True)
    return load(keep, name, collection)  # in half precision, as a run that is taken up finds it


def write(network: nn.Module, path: Path) -> None:
    """Write a network's weights in half precision, whole or not at all."""
    half = {key: value.half() if value.is_floating_point() else value for key, value in network.state_dict().items()}
    with atomic_write(path) as beside:
        save_file({key: value.contiguous() for key, value in half.items()}, beside)


def load(path: Path, name: str, collection: data.Collection) -> nn.Module:
    """The network with the weights that `write` wrote, in evaluation mode."""
    network = build_untrained(name, collection)
    try:
        state = load_file(path)
        if not all(bool(value.isfinite().all()) for value in state.values()):
            raise RuntimeError("it holds numbers that are not finite")
        network.load_state_dict(
            {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
        )
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BayesdfError(
            f"the warm start at {path} cannot be read ({reason}): delete it and give the same command again, or "
            "reinstall bayesdf if it came with the package"
        ) from None
    return network.eval()


def main(
    detector: Annotated[
        str, typer.Argument(help="Network: resnet10t_half, resnet18, xception, efficientnet, mobilenet, …")
    ],
    start: Annotated[str, typer.Option(help="What it learns: blind (real against fake) or sources.")] = "blind",
    epochs: Annotated[int, typer.Option(help="Passes over the training images.", min=1)] = EPOCHS,
    without: Annotated[str, typer.Option(help="A generator that the weights shall not have seen.")] = "",
    fold: Annotated[int, typer.Option(help="The fold of the embedded data whose training people they see.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the start and of every batch.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    mixed_precision: Annotated[
        bool, typer.Option("--mixed-precision", help="Compute in bfloat16 where that is precise enough.")
    ] = False,
) -> None:
    """Train a detector's point estimate on the embedded training people and write it into the package."""
    learnt = known_start(start)
    images, manifest, masks = embedded.read(variants=VARIANTS, fold=fold)
    collection = data.collect(images, manifest, "binary", "embedded", CREDIT, fold, masks)
    if without:
        collection, _ = data.leave_out(collection, without)
    target = _own(detector, collection, learnt)
    checkpoint = cache_folder("training") / f"warm_start_{target.stem}_{epochs}_{seed}.pt"
    network = point_estimate(
        detector,
        collection,
        learnt=learnt,
        epochs=epochs,
        seed=seed,
        device=device,
        mixed_precision=mixed_precision,
        checkpoint=checkpoint,
    )
    write(network, target)
    checkpoint.unlink(missing_ok=True)
    print(f"wrote {target} ({target.stat().st_size / 1e6:.1f} MB)")


def known_start(name: str) -> Learnt:
    """What a start has learnt, by its name on the command line."""
    if name not in LEARNT:
        raise BayesdfError(f"--start {name}: choose from {', '.join(LEARNT)}")
    return name  # type: ignore[return-value]


if __name__ == "__main__":
    run_cli(main)

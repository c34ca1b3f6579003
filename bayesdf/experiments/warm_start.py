"""The point estimate that the methods start from: a detector trained on training people alone.

    python -m bayesdf.experiments.warm_start resnet18

Training a network from scratch takes longer than finding a posterior over a part of it. Weights trained on the embedded
data's 24 training people ship for the default detector; no picture of validation or test people went into them. A
collection without a generator (`data.leave_out`) has weights of its own, which have not seen that generator either.
"""

import hashlib
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import bayesdf.data as data
from bayesdf.cache_folder import cache_folder
from bayesdf.cli import console, run_cli
from bayesdf.data import embedded
from bayesdf.errors import BayesdfError
from bayesdf.faces import CREDIT, SIZE
from bayesdf.files import atomic_write
from bayesdf.inference import MCDropout
from bayesdf.models import Detector, build, classifier, priors
from bayesdf.models.priors import Prior

WEIGHTS = Path(__file__).parent / "weights"
EPOCHS = 16
VARIANTS = 3
"""Alignments of each training photograph: 240 photographs alone are learnt by heart."""
LR = 1e-3
LEAST = 32
"""Pixels: the smallest side of a part that a network with five halvings can be asked about."""
GAINS = {"resnet18": "layer4.1.bn2", "xception": "bn4", "efficientnet": "bn2", "mobilenet": "blocks.5.0.bn1"}
"""The last normalisation of each network, whose gains and shifts are random in the study."""


class PointEstimate(MCDropout):
    """How the point estimate is trained. The progress bar calls it by this name: the study may use MC dropout too."""


def point_estimate(
    name: str,
    collection: data.Collection,
    *,
    epochs: int = EPOCHS,
    seed: int = 0,
    device: str = "auto",
    begin: nn.Module | None = None,
    checkpoint: Path | None = None,
) -> nn.Module:
    """Train all weights of a network on the training split, with augmentation and dropout in the last stage.

    It learns the source of each image, photographs being one: generators that differ in their traces alone teach it
    traces, where real against fake alone may be told by who is in the picture. Then the fakes' classifiers are made
    one, their mean.

    Parameters
    ----------
    begin
        A network of `build_untrained` whose weights, but those of the classifier, training goes on from.
    checkpoint
        File that a stopped training goes on from.

    Returns
    -------
    nn.Module
        The network of `build_untrained`, in evaluation mode.
    """
    torch.manual_seed(seed)
    sources = data.relabel(collection, "multiclass")
    network = build_untrained(name, sources)
    head = classifier(network)
    if begin is not None:
        trunk = {key: value for key, value in begin.state_dict().items() if not key.startswith(f"{head}.")}
        network.load_state_dict(trunk, strict=False)
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
    fitted = method.fit(Detector(network, {}), sources.train).network.state_dict()
    binary = build_untrained(name, collection)
    state = {key: fitted[key].cpu() for key in binary.state_dict()}
    for key in (f"{head}.weight", f"{head}.bias"):
        state[key] = torch.stack([state[key][0], state[key][1:].mean(0)])
    binary.load_state_dict(state)
    return binary.eval()


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
    shading = F.avg_pool2d(images, pool, 1, pool // 2, count_include_pad=False)[..., :height, :width]
    share = torch.rand(batch, 1, 1, 1, generator=generator).to(images.device)
    images = (images - share * (shading - shading.mean((1, 2, 3), keepdim=True))).clamp(0.0, 1.0)
    tall, wide = (max(side // 2, min(side, LEAST)) for side in (height, width))
    tops = torch.randint(height - tall + 1, (batch,), generator=generator).tolist()
    lefts = torch.randint(width - wide + 1, (batch,), generator=generator).tolist()
    parts = [image[:, y : y + tall, x : x + wide] for image, y, x in zip(images, tops, lefts, strict=True)]
    return torch.stack(parts)


def build_untrained(name: str, collection: data.Collection) -> nn.Module:
    """The untrained network as this study uses it: with high-pass channels, and its stem made for small images."""
    size = collection.train[0][0].shape[-1]
    return build(name, num_classes=len(collection.classes), high_pass=True, small_stem=size <= 96)


def default_priors(name: str, network: nn.Module, *, last_layer: bool = False) -> dict[str, Prior]:
    """The priors of the study: over the classifier, and over the normalisation that ends the last stage (`GAINS`).

    The classifier's weights are normal around zero; the gains and shifts of the last features are normal around their
    trained values with half of these as deviation. Networks outside the list, and all with `last_layer`, get a prior
    over their classifier alone.
    """
    chosen = {classifier(network): priors.normal(scale=0.3)}
    if name in GAINS and not last_layer:
        chosen[GAINS[name]] = priors.moped(delta=0.5)
    return chosen


def shipped(name: str, without: tuple[str, ...] = (), fold: int = 0) -> Path:
    """Where the weights of a network that was trained without some generators, on a fold's people, lie, or would."""
    return WEIGHTS / f"{'-without-'.join((name, *without))}{f'-fold{fold}' if fold else ''}.safetensors"


def ships(name: str, collection: data.Collection) -> bool:
    """Whether weights for this network and data, at this size and without what was left out, come with the package."""
    size = collection.train[0][0].shape[-1]
    file = shipped(name, collection.without, collection.fold)
    return collection.name == "embedded" and size == SIZE and file.is_file()


def digest(name: str, collection: data.Collection) -> str:
    """Of the weights that ship, by which runs that began with others are told apart; nothing where none do."""
    if not ships(name, collection):
        return ""
    return hashlib.sha256(shipped(name, collection.without, collection.fold).read_bytes()).hexdigest()[:16]


def start(
    name: str,
    collection: data.Collection,
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
        resnet18, xception, efficientnet, mobilenet, or any name of torchvision or timm.
    keep
        File of weights that a training leaves; beside it a stopped one goes on. None: nothing is kept.
    epochs, seed, device
        Of the training, where none ships.

    Raises
    ------
    BayesdfError
        If a file of weights is damaged.
    """
    if ships(name, collection):
        return load(shipped(name, collection.without, collection.fold), name, collection)
    if keep is not None and keep.is_file():
        return load(keep, name, collection)
    console.print("    no weights ship for this network and data: training the point estimate first")
    checkpoint = None if keep is None else keep.with_suffix(".pt")
    network = point_estimate(name, collection, epochs=epochs, seed=seed, device=device, checkpoint=checkpoint)
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
    detector: Annotated[str, typer.Argument(help="Network: resnet18, xception, efficientnet, mobilenet, …")],
    epochs: Annotated[int, typer.Option(help="Passes over the training images.", min=1)] = EPOCHS,
    without: Annotated[str, typer.Option(help="A generator that the weights shall not have seen.")] = "",
    fold: Annotated[
        int, typer.Option(help="The fold of the embedded data whose training people they see, 0 to 3.")
    ] = 0,
    further: Annotated[bool, typer.Option("--further", help="Go on from the weights that ship.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the start and of every batch.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train a detector's point estimate on the embedded training people and write it into the package."""
    collection = data.collect(*embedded.read(variants=VARIANTS, fold=fold), "binary", "embedded", CREDIT, fold)
    if without:
        collection, _ = data.leave_out(collection, without)
    target = shipped(detector, collection.without, fold)
    begin = load(target, detector, collection) if further else None
    checkpoint = cache_folder("training") / f"warm_start_{target.stem}_{epochs}_{seed}.pt"
    network = point_estimate(
        detector, collection, epochs=epochs, seed=seed, device=device, begin=begin, checkpoint=checkpoint
    )
    write(network, target)
    checkpoint.unlink(missing_ok=True)
    print(f"wrote {target} ({target.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    run_cli(main)

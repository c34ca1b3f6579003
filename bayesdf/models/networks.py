"""Blind detectors: image networks without any knowledge of faces, by name.

The four networks of the reliability study (Kose et al., 2025) are ``resnet18``, ``xception``, ``efficientnet`` (B0) and
``mobilenet`` (V3 small). Any other name of torchvision or timm works too.
"""

import difflib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bayesdf.errors import BayesdfError
from bayesdf.models.dense_head import dense_head
from bayesdf.models.located import located

NAMES = {
    "resnet18": "torchvision/resnet18",
    "xception": "timm/legacy_xception",
    "efficientnet": "timm/efficientnet_b0",
    "mobilenet": "timm/mobilenetv3_small_100",
}
"""The four blind networks, and their names in torchvision or timm."""
NARROW: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet10t_half": ("resnet10t", {"channels": (32, 64, 128, 256), "stem_width": 16}),
}
"""Networks of timm with fewer channels: the name there, and what is changed."""

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_RESIDUAL_STD = 0.03  # of aligned 64-pixel photographs of faces, less their 3x3 binomial blur
_RESIDUAL_CUT = 3.0


def build(
    name: str,
    num_classes: int,
    *,
    pretrained: bool = False,
    high_pass: bool = False,
    small_stem: bool = False,
) -> nn.Module:
    """Build a network that maps images (B, 3, H, W) in [0, 1] to logits (B, `num_classes`).

    The network keeps the parameter names of its library. A hook before the first convolution normalises the images, so
    the network takes plain images.

    Parameters
    ----------
    name : str
        ``resnet18``, ``xception``, ``efficientnet``, ``mobilenet``, or any classifier of torchvision or timm. If both
        have the name, it is torchvision's. ``timm/<name>`` is timm's. ``resnet10t_half`` is timm's ``resnet10t`` with
        half the channels: a quarter of the weights.
    num_classes : int
        Number of logits. 1 stands for two classes: it is the logit of the second (see `bayesdf.Detector`).
    pretrained : bool
        Use ImageNet weights, which torchvision or timm download. The classifier starts fresh.
    high_pass : bool
        Give the first convolution three more channels: the image minus a small blur of itself. Traces of generators and
        of blending are in high frequencies, which networks learn late (Fridrich and Kodovsky, "Rich models for
        steganalysis of digital images", 2012; Luo et al., "Generalizing face forgery detection with high-frequency
        features", 2021). As in the former, residuals are truncated (at three standard deviations).
    small_stem : bool
        For images up to about 96 pixels: the stem keeps the resolution. If the network has a max-pool at its root, it
        is removed. Otherwise the stride of the first convolution is set to 1.

    Returns
    -------
    nn.Module
        With an attribute ``recipe``, the arguments of this call, from which `rebuild` builds the same architecture.

    Raises
    ------
    BayesdfError
        The name is unknown, there are no classes, the weights cannot be downloaded, or the network does not have the
        stem that `small_stem` or `high_pass` change.
    """
    if num_classes < 1:
        raise BayesdfError(f"build({name!r}): num_classes is {num_classes}, but a detector has at least one logit")
    try:
        network, mean, std = _create(NAMES.get(name, name), num_classes, pretrained)
    except Exception as error:  # each library, and each way of having no network, raises its own
        if not pretrained or isinstance(error, BayesdfError):
            raise
        cause = (str(error).strip() or type(error).__name__).splitlines()[0][:150]
        raise BayesdfError(
            f"build({name!r}, pretrained=True): its ImageNet weights cannot be had ({cause}): connect to the internet "
            "once, so that they are kept, or leave pretrained out and load weights with network.load_state_dict"
        ) from error
    path = _first_convolution(network)
    if path is None:
        raise BayesdfError(f"build({name!r}): no convolution of 3 channels comes first: pass your own nn.Module")
    if small_stem:
        _keep_resolution(network, path, name)
    if high_pass:
        _set_module(network, path, _widened(network.get_submodule(path), keep=pretrained))
    network.get_submodule(path).register_forward_pre_hook(Preprocess(mean, std, high_pass))
    network.recipe = {  # type: ignore[assignment]
        "name": name,
        "num_classes": num_classes,
        "pretrained": pretrained,
        "high_pass": high_pass,
        "small_stem": small_stem,
    }
    return network


def rebuild(recipe: dict[str, Any]) -> nn.Module:
    """Build the architecture of a network's ``recipe`` with fresh weights. Nothing is downloaded.

    The recipe may be of a network that `located` or `dense_head` made of one from `build`.
    """
    try:
        network = build(
            str(recipe["name"]),
            int(recipe["num_classes"]),
            high_pass=bool(recipe["high_pass"]),
            small_stem=bool(recipe["small_stem"]),
        )
        if recipe.get("located"):
            network = located(network)
        if head := recipe.get("dense_head"):
            network = dense_head(network, head["layer"], int(head["num_classes"]))
        return network
    except (KeyError, TypeError) as error:
        raise BayesdfError(f"the recipe {recipe!r} does not describe a network that build() makes") from error


class Preprocess:
    """Forward pre-hook of the first convolution: it does `preprocess`.

    It is a hook, and not a module around the network, so that parameters keep the names of the library.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], high_pass: bool) -> None:
        self.mean, self.std, self.high_pass = mean, std, high_pass

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (preprocess(inputs[0], self.mean, self.std, self.high_pass), *inputs[1:])


def preprocess(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...], high_pass: bool) -> Tensor:
    """Normalise images (B, 3, H, W) in [0, 1]. With `high_pass` their residual follows, (B, 6, H, W)."""
    normalised = (images - images.new_tensor(mean).view(-1, 1, 1)) / images.new_tensor(std).view(-1, 1, 1)
    return torch.cat([normalised, residual(images)], dim=1) if high_pass else normalised


def residual(images: Tensor) -> Tensor:
    """The image minus its 3x3 binomial blur, truncated, (B, C, H, W). On photographs its variance is about 1.

    >>> residual(torch.full((1, 3, 8, 8), 0.5)).abs().max().item()
    0.0
    """
    channels = images.shape[1]
    binomial = images.new_tensor([1.0, 2.0, 1.0]) / 4
    kernel = torch.outer(binomial, binomial).expand(channels, 1, 3, 3)
    blurred = F.conv2d(F.pad(images, (1, 1, 1, 1), mode="reflect"), kernel, groups=channels)
    return ((images - blurred) / _RESIDUAL_STD).clamp(-_RESIDUAL_CUT, _RESIDUAL_CUT)


def _create(name: str, num_classes: int, pretrained: bool) -> tuple[nn.Module, tuple[float, ...], tuple[float, ...]]:
    """The network of the library that has the name, with the mean and standard deviation that its weights expect."""
    from bayesdf._torchvision import timm, torchvision  # slow to import

    if name in NARROW:
        if pretrained:
            raise BayesdfError(f"build({name!r}, pretrained=True): nobody publishes weights of this narrow network")
        base, changes = NARROW[name]
        return timm.create_model(base, num_classes=num_classes, **changes), _IMAGENET_MEAN, _IMAGENET_STD
    library, _, short = name.rpartition("/")
    if library in ("", "torchvision") and short in torchvision.models.list_models(module=torchvision.models):
        if not pretrained:
            return torchvision.models.get_model(short, num_classes=num_classes), _IMAGENET_MEAN, _IMAGENET_STD
        network = torchvision.models.get_model(short, weights="DEFAULT")
        path, head = [(path, m) for path, m in network.named_modules() if isinstance(m, nn.Linear)][-1]
        _set_module(network, path, nn.Linear(head.in_features, num_classes))
        return network, _IMAGENET_MEAN, _IMAGENET_STD
    # is_model accepts registered names only: "hf-hub:..." would download any file.
    if library in ("", "timm") and timm.is_model(short):
        network = timm.create_model(short, pretrained=pretrained, num_classes=num_classes)
        config = network.pretrained_cfg
        return network, tuple(config.get("mean", _IMAGENET_MEAN)), tuple(config.get("std", _IMAGENET_STD))
    known = [*NAMES, *NARROW, *torchvision.models.list_models(module=torchvision.models), *timm.list_models()]
    close = difflib.get_close_matches(name, known, n=4, cutoff=0.4) or list(NAMES)
    raise BayesdfError(f"there is no network {name!r}; the closest names are {', '.join(dict.fromkeys(close))}")


def _first_convolution(network: nn.Module) -> str | None:
    for path, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            return path if module.in_channels == 3 and module.groups == 1 else None
    return None


def _keep_resolution(network: nn.Module, path: str, name: str) -> None:
    convolution = network.get_submodule(path)
    assert isinstance(convolution, nn.Conv2d)
    if isinstance(getattr(network, "maxpool", None), nn.MaxPool2d):
        network.maxpool = nn.Identity()
    elif convolution.stride == (2, 2) and convolution.kernel_size[0] > 2:
        convolution.stride = (1, 1)
    else:
        raise BayesdfError(
            f"build({name!r}, small_stem=True): its stem has neither a max-pool nor an overlapping "
            "convolution of stride 2; leave small_stem out and enlarge the images"
        )


def _widened(convolution: nn.Module, keep: bool) -> nn.Conv2d:
    """The convolution with twice the input channels. The new weights are zero if the old ones are kept."""
    assert isinstance(convolution, nn.Conv2d)
    wide = nn.Conv2d(
        2 * convolution.in_channels,
        convolution.out_channels,
        convolution.kernel_size,  # type: ignore[arg-type]
        stride=convolution.stride,  # type: ignore[arg-type]
        padding=convolution.padding,  # type: ignore[arg-type]
        bias=convolution.bias is not None,
    )
    with torch.no_grad():
        old = convolution.weight
        new = torch.zeros_like(old) if keep else torch.randn_like(old) * old.std()
        wide.weight.copy_(torch.cat([old, new], dim=1))
        if convolution.bias is not None and wide.bias is not None:
            wide.bias.copy_(convolution.bias)
    return wide


def _set_module(network: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, child = path.rpartition(".")
    setattr(network.get_submodule(parent), child, module)

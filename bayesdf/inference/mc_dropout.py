"""Monte Carlo dropout: a posterior over which channels of a network are there.

Dropout that stays on at prediction time is variational inference with a guide of Bernoulli masks on the rows of the
weights (Gal and Ghahramani, "Dropout as a Bayesian Approximation", 2016). Here a mask belongs to a channel and holds
for every image of a draw, so that a draw is one function.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
import xarray as xr
from torch import Tensor, nn
from torch.utils.data import Dataset

from bayesdf.errors import BayesdfError
from bayesdf.inference.posterior import SAMPLERS, Posterior, fitted_by, told
from bayesdf.inference.rates import SCALE_RATE, grouped, weight_reach
from bayesdf.inference.samplers import Sampler
from bayesdf.inference.samplers.sampler import generator, order, ordered, tensor
from bayesdf.inference.training import Clock, History, Objective, Problem, Training, minimise, pose, rescuing, seeded
from bayesdf.inference.verdict import of_search
from bayesdf.models.detector import Detector
from bayesdf.models.modes import evaluating, hooked
from bayesdf.models.patterns import select

TEMPERATURE = 0.1
"""Of the relaxed masks of concrete dropout, as in the paper's code."""


@dataclass(frozen=True, kw_only=True)
class MCDropout(Training):
    """Monte Carlo dropout.

    The detector's priors are not used: weight decay stands in for a prior N(0, prior_scale²) on all trained weights. A
    loss has, for each image of N, ``|w|² / (2 N prior_scale²)`` of weights that no mask multiplies, and

        |w|² / (2 (1 - rate) N prior_scale²)

    of those that a mask does: equation 7 of Gal and Ghahramani (2016) with the precision of a classifier, 1, for masks
    that are divided by ``1 - rate`` (their M is ``w / (1 - rate)``). A mask multiplies the weights of the first layer
    that runs after it.

    Parameters
    ----------
    rate : float
        Probability that a channel is dropped, at least 0 and below 1.
    layers : str or sequence of str, optional
        Globs over module names: dropout comes after each of these modules. Default: the network's own ``nn.Dropout``
        modules (those of rate above 0) where it has any; else after each block of the last stage and before the
        classifier (see `places`). Own dropout modules always take part, at the rate above.
    prior_scale : float
        Standard deviation in the formula.
    concrete : bool
        Learn a rate for each place, from `rate` on: concrete dropout (Gal, Hron and Kendall, "Concrete Dropout", 2017).
        Masks are relaxed while training, and an image's loss has the term above, at the rates p of the places, and
        that of their equation 3,

            - Σ_place channels H(p_place) / N,    H the entropy of a Bernoulli.
    epochs, lr, batch_size, freeze, class_balanced, augment, views, patience, seed, device, progress, checkpoint
        As for `bayesdf.inference.training.Training`; the sites are the masks. With 0 epochs, or ``freeze="all"``,
        dropout is put into the network as it is.

    Examples
    --------
    >>> posterior = MCDropout(rate=0.2, epochs=10).fit(detector, data.train)  # doctest: +SKIP
    """

    rate: float = 0.1
    layers: str | tuple[str, ...] | list[str] | None = None
    prior_scale: float = 1.0
    concrete: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.rate < 1:
            raise BayesdfError(f"MCDropout: rate is {self.rate}, but must be at least 0 and below 1")
        if not self.prior_scale > 0:
            raise BayesdfError(f"MCDropout: prior_scale is {self.prior_scale}, but must be above 0")
        if self.concrete and (self.rate == 0 or self.freeze == "all"):
            raise BayesdfError(
                f"MCDropout: concrete learns rates, from one above 0 on (here {self.rate}) and with weights to train "
                f"(here freeze is {self.freeze!r})"
            )

    def fit(self, detector: Detector, train: Dataset[Any], validation: Dataset[Any] | None = None) -> Posterior:
        """Train the network under dropout.

        Parameters
        ----------
        detector : Detector
            Left as it is; its network gives the architecture and the starting weights.
        train, validation : torch dataset of (image, label)
            Image float32 (3, H, W) in [0, 1]; label int. On `validation` the class-balanced negative log-likelihood
            is measured after each epoch.

        Returns
        -------
        Posterior
            Over the sites ``<module>.mask`` (C,), with ``loss`` (step) in ``sample_stats``.

        Raises
        ------
        BayesdfError
            The data is empty or of one class, the network does not fit it, a glob matches no module, or the loss is
            not finite.
        """
        clock = Clock()
        channels: dict[str, int] = {}

        def random(network: nn.Module, image: Tensor) -> list[str]:
            channels.update(insert(network, self.rate, self.layers, image))
            return [f"{path}.mask" for path in channels]

        problem = pose(detector, self, train, validation, random)
        sampler = MaskSampler({f"{path}.mask": torch.full((count,), self.rate) for path, count in channels.items()})

        def posterior(history: History) -> Posterior:
            attrs = fitted_by(self, detector, train, clock()) | {"priors": "{}"}
            learnt = objective.learnt()
            objective.forget()
            stats = of_search(history, "loss").into(history.dataset("loss"))
            return Posterior(problem.network, learnt, stats, attrs)

        with seeded(self.seed, problem.device):
            objective = (_Concrete if self.concrete else _Objective)(problem, self, sampler)
            with rescuing(posterior):
                return told(self, posterior(minimise(problem, objective)), problem)


class ChannelDropout(nn.Module):
    """Dropout of whole channels, which are dimension 1 of (B, C, H, W) and the last of anything else.

    In train mode a fresh mask for each image, relaxed where its rate is being learnt (`logit`); in eval mode the buffer
    ``mask`` (C,), all ones (the expectation) unless a draw replaces it.
    """

    mask: Tensor

    def __init__(self, channels: int, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.logit: Tensor | None = None
        self.register_buffer("mask", torch.ones(channels))

    def forward(self, value: Tensor) -> Tensor:
        if self.training:
            noise = torch.rand(len(value), len(self.mask), device=value.device)
            if self.logit is None:
                scaled = (noise >= self.rate).to(value.dtype) / (1 - self.rate)
            else:
                # Gal, Hron and Kendall, equation 5: how much of a channel is dropped.
                drop = torch.sigmoid((self.logit + torch.logit(noise, eps=1e-6)) / TEMPERATURE)
                scaled = (1 - drop) / torch.sigmoid(-self.logit)
            shape = (len(value), -1, 1, 1) if value.dim() == 4 else (len(value), *(1,) * (value.dim() - 2), -1)
            return value * scaled.view(shape)
        return value * (self.mask.view(-1, 1, 1) if value.dim() == 4 else self.mask)


class MaskSampler(Sampler):
    """Independent Bernoulli masks, ``mask_c = b_c / (1 - rate_c)``, ``b_c ~ Bernoulli(1 - rate_c)``."""

    kind: ClassVar[str] = "mask"

    def __init__(self, rates: dict[str, Tensor]) -> None:
        self.rates = rates
        self.shapes = {name: tuple(rate.shape) for name, rate in rates.items()}

    def draw(self, index: int, seed: int) -> dict[str, Tensor]:
        return self.masks(generator(index, seed))

    def masks(self, noise: torch.Generator | None = None) -> dict[str, Tensor]:
        """Masks from the given source of random numbers, by default torch's."""
        return {
            name: (torch.rand(rate.shape, generator=noise) >= rate).float() / (1 - rate)
            for name, rate in self.rates.items()
        }

    def point(self) -> dict[str, Tensor]:
        return {name: torch.ones_like(rate) for name, rate in self.rates.items()}

    def install(self, network: nn.Module) -> None:
        for name, rate in self.rates.items():
            _install(network, name.removesuffix(".mask"), len(rate), float(rate.mean()))

    def to_dataset(self) -> xr.Dataset:
        variables = {f"{name}.rate": ((f"{name}_dim_0",), rate.numpy()) for name, rate in self.rates.items()}
        return xr.Dataset(variables, attrs=order(self.rates))

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset) -> "MaskSampler":
        return cls({name: tensor(dataset[f"{name}.rate"]) for name in ordered(dataset)})


SAMPLERS[MaskSampler.kind] = MaskSampler


class _Objective(Objective):
    """Cross-entropy under fresh masks, with weight decay."""

    def __init__(self, problem: Problem, settings: MCDropout, sampler: MaskSampler) -> None:
        self.problem, self.settings, self.sampler = problem, settings, sampler
        self.weights: dict[tuple[str, ...], dict[str, nn.Parameter]] = {}
        """By the masks that multiply them, and by name."""
        masked = masks_before(problem.network, problem.example[0])
        for name, weight in problem.trained(exclude=set()).items():
            self.weights.setdefault(masked.get(name, ()), {})[name] = weight
        self.reach = {name: min(reach, settings.prior_scale) for name, reach in weight_reach(problem.network).items()}

    def loss(self, module: nn.Module, inputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        losses = F.cross_entropy(module(*inputs), labels, reduction="none")
        return (self.problem.class_weights[labels] * losses).mean() + self.penalty() / self.problem.size

    def penalty(self) -> Tensor:
        """What stands in for minus the logarithm of the prior."""
        squares = [
            _squares(weights) / (1 - self.settings.rate) ** len(masks) for masks, weights in self.weights.items()
        ]
        return torch.stack(squares).sum() / (2 * self.settings.prior_scale**2) if squares else torch.zeros(())

    def groups(self) -> list[dict[str, Any]]:
        trained = {name: weight for weights in self.weights.values() for name, weight in weights.items()}
        return grouped(trained, self.reach, self.settings.lr)

    def draw(self) -> dict[str, Tensor]:
        return {name: mask.to(self.problem.device) for name, mask in self.learnt().masks().items()}

    def learnt(self) -> MaskSampler:
        """The masks of the posterior."""
        return self.sampler

    def forget(self) -> None:
        """Leave nothing of the training in the network."""


def _squares(weights: dict[str, nn.Parameter]) -> Tensor:
    return torch.stack([weight.square().sum() for weight in weights.values()]).sum()


class _Concrete(_Objective):
    """The same with rates that are learnt, one a place."""

    def __init__(self, problem: Problem, settings: MCDropout, sampler: MaskSampler) -> None:
        super().__init__(problem, settings, sampler)
        start = torch.logit(torch.tensor(settings.rate)).item()
        self.logits = {site: torch.tensor(start, device=problem.device, requires_grad=True) for site in sampler.rates}
        for site, logit in self.logits.items():
            self._dropout(site).logit = logit

    def _dropout(self, site: str) -> ChannelDropout:
        module = self.problem.network.get_submodule(site.removesuffix(".mask"))
        assert isinstance(module, ChannelDropout)
        return module

    def penalty(self) -> Tensor:
        rates = torch.sigmoid(torch.stack(list(self.logits.values())))
        channels = torch.tensor([len(rate) for rate in self.sampler.rates.values()], device=rates.device)
        entropy = -(rates * rates.log() + (1 - rates) * (1 - rates).log())
        kept = dict(zip(self.logits, 1 - rates, strict=True))
        squares = rates.new_zeros(())
        for masks, weights in self.weights.items():
            squares = squares + _squares(weights) / math.prod(kept[mask] for mask in masks)
        return squares / (2 * self.settings.prior_scale**2) - (channels * entropy).sum()

    def groups(self) -> list[dict[str, Any]]:
        # A logit has further to go than a weight.
        lr = self.settings.lr
        own = {"params": list(self.logits.values()), "lr": SCALE_RATE if lr is None else 10 * lr}
        return [own, *super().groups()]

    def sites(self) -> dict[str, list[Tensor]]:
        return {site: [logit] for site, logit in self.logits.items()}

    def learnt(self) -> MaskSampler:
        rates = {site: float(torch.sigmoid(logit.detach())) for site, logit in self.logits.items()}
        return MaskSampler({site: torch.full_like(rate, rates[site]) for site, rate in self.sampler.rates.items()})

    def forget(self) -> None:
        for site, rate in self.learnt().rates.items():
            dropout = self._dropout(site)
            dropout.logit, dropout.rate = None, float(rate[0])


def insert(
    network: nn.Module, rate: float, layers: str | tuple[str, ...] | list[str] | None, image: Tensor
) -> dict[str, int]:
    """Put `ChannelDropout` into a network, in place.

    Parameters
    ----------
    network : nn.Module
    rate : float
    layers : globs over module names, or None for the default places
    image : Tensor (1, 3, H, W)
        Runs through the network once, to count channels.

    Returns
    -------
    dict from the path of each `ChannelDropout` to its number of channels
    """
    own = [path for path, module in network.named_modules() if isinstance(module, nn.Dropout) and module.p > 0]
    if layers is not None:
        modules = [path for path, _ in network.named_modules() if path]
        added = [f"{path}.dropout" for path in select(layers, modules)]
    else:
        added = [] if own else places(network)
    counts = _count_channels(network, [*own, *added], image)
    for path, channels in counts.items():
        _install(network, path, channels, rate)
    return counts


def places(network: nn.Module) -> list[str]:
    """Where dropout goes in a network that has none: the paths of the modules to be.

    After each block of the last stage (``<block>.dropout``), and before the classifier
    (``<classifier>.input_dropout``). The classifier is the last ``nn.Linear``. The last stage is ``layer4``
    (ResNets), the last entry of ``stages``, ``blocks`` or ``features`` (EfficientNet, MobileNet, ConvNeXt, …; where
    that is a single block, it alone), or the ``block<n>`` with the highest number (Xception); a network with none of
    these gets the classifier's alone.
    """
    found: list[str] = []
    numbered = [name for name, _ in network.named_children() if name.startswith("block") and name[5:].isdigit()]
    for stage in ("layer4", "stages", "blocks", "features"):
        module = getattr(network, stage, None)
        if isinstance(module, nn.Sequential) and len(module):
            path = stage if stage == "layer4" else f"{stage}.{len(module) - 1}"
            last = network.get_submodule(path)
            found = [f"{path}.{name}" for name, _ in last.named_children()] if _is_stage(last) else [path]
            break
    else:
        if numbered:
            found = [max(numbered, key=lambda name: int(name[5:]))]
    linear = [path for path, module in network.named_modules() if isinstance(module, nn.Linear)]
    result = [f"{path}.dropout" for path in found] + [f"{path}.input_dropout" for path in linear[-1:]]
    if not result:
        raise BayesdfError("MCDropout: no place for dropout is known in this network: name modules with layers=")
    return result


def _is_stage(module: nn.Module) -> bool:
    """Whether a module is a plain sequence of blocks, not of single layers."""
    blocks = list(module.children())
    return type(module) is nn.Sequential and all(any(True for _ in block.children()) for block in blocks)


def _count_channels(network: nn.Module, paths: list[str], image: Tensor) -> dict[str, int]:
    """Channels that each dropout will see; those the image does not reach are left out."""
    counts: dict[str, int] = {}

    def record(path: str, value: Any) -> None:
        if not isinstance(value, Tensor):
            raise BayesdfError(
                f"MCDropout: {path} would see a {type(value).__name__}, not a tensor: choose other layers"
            )
        counts[path] = value.shape[1] if value.dim() == 4 else value.shape[-1]

    def before(path: str) -> Any:
        return lambda module, inputs: record(path, inputs[0])

    def after(path: str) -> Any:
        return lambda module, inputs, output: record(path, output)

    handles = []
    for path in paths:
        owner, _, name = path.rpartition(".")
        if name == "dropout" and not isinstance(_existing(network, path), nn.Dropout):
            handles.append(network.get_submodule(owner).register_forward_hook(after(path)))
        elif name == "input_dropout":
            handles.append(network.get_submodule(owner).register_forward_pre_hook(before(path)))
        else:
            handles.append(network.get_submodule(path).register_forward_pre_hook(before(path)))
    with torch.no_grad(), hooked(handles):
        network(image)
    return {path: counts[path] for path in paths if path in counts}


@torch.no_grad()
def masks_before(network: nn.Module, images: Tensor) -> dict[str, tuple[str, ...]]:
    """The names of weight matrices and kernels that masks multiply, and these: of each the first layer to run after it.

    Parameters
    ----------
    network : nn.Module
        With its `ChannelDropout`.
    images : Tensor (B, 3, H, W)
        Run through the network once.
    """
    found: dict[str, tuple[str, ...]] = {}
    waiting: list[str] = []

    def drawn(path: str) -> Callable[..., None]:
        return lambda *_: waiting.append(f"{path}.mask")

    def runs(weights: list[str]) -> Callable[..., None]:
        def note(*_: object) -> None:
            for weight in weights:
                found.setdefault(weight, tuple(waiting))
            waiting.clear()

        return note

    handles = []
    for path, module in network.named_modules():
        weights = [f"{path}.{name}" for name, value in module.named_parameters(recurse=False) if value.dim() > 1]
        if isinstance(module, ChannelDropout):
            handles.append(module.register_forward_pre_hook(drawn(path)))
        elif weights:
            handles.append(module.register_forward_pre_hook(runs(weights)))
    with evaluating(network), hooked(handles):
        network(images)
    return {weight: masks for weight, masks in found.items() if masks}


def _install(network: nn.Module, path: str, channels: int, rate: float) -> None:
    """A `ChannelDropout` at a path: in place of the network's own, or hooked to the module that holds it."""
    owner_path, _, name = path.rpartition(".")
    owner = network.get_submodule(owner_path)
    own = _existing(network, path)
    dropout = ChannelDropout(channels, rate)
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    owner.register_module(name, dropout.to(device).train(owner.training))
    if own is not None:
        return
    if name == "dropout":
        owner.register_forward_hook(_after)
    elif name == "input_dropout":
        owner.register_forward_pre_hook(_before)
    else:
        raise BayesdfError(f"the network has no dropout module at {path!r}")


def _existing(network: nn.Module, path: str) -> nn.Module | None:
    owner, _, name = path.rpartition(".")
    return dict(network.get_submodule(owner).named_children()).get(name)


def _after(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return module.dropout(output)  # type: ignore[operator]


def _before(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (module.input_dropout(inputs[0]), *inputs[1:])  # type: ignore[operator]

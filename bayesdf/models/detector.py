"""The detector: a Pyro model of labels given images, whose random weights are sites."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.func import functional_call

from bayesdf.errors import BayesdfError
from bayesdf.models.modes import evaluating
from bayesdf.models.patterns import assign
from bayesdf.models.priors import Prior, describe


class Detector:
    """A network with priors over some of its parameters.

    Parameters
    ----------
    network : nn.Module
        Maps images (B, 3, H, W) to logits (B, C).
    priors : mapping from pattern to prior
        Globs over parameter and module names; the most specific wins (see `bayesdf.models.patterns.assign`). A prior
        is a function ``(name, parameter) -> pyro distribution`` (see `bayesdf.models.priors`); None leaves the
        matched parameters without one, that is, to be point estimates.

    Attributes
    ----------
    network : nn.Module
        As given; methods work on copies.
    priors : dict from pattern to prior
    sites : dict from parameter name to prior, in the order of ``network.named_parameters()``

    Raises
    ------
    BayesdfError
        A pattern matches no parameter, or a prior's distribution does not have the shape of its parameter.

    Examples
    --------
    >>> from bayesdf.models import priors
    >>> detector = Detector(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), {"1.weight": priors.normal(0.1)})
    >>> list(detector.sites)
    ['1.weight']
    """

    def __init__(self, network: nn.Module, priors: Mapping[str, Prior | None]) -> None:
        self.network = network
        self.priors = dict(priors)
        names = [name for name, _ in network.named_parameters()]
        assigned = assign(self.priors, names)
        self.sites: dict[str, Prior] = {name: prior for name, prior in assigned.items() if prior is not None}
        parameters = dict(network.named_parameters())
        self._start = {name: parameters[name].detach() for name in self.sites}
        devices = {value.device for value in self._start.values() if value.device.type == "cuda"}
        with torch.random.fork_rng(devices), pyro.poutine.block():
            self.sample()  # says at once what a prior gets wrong

    def __repr__(self) -> str:
        priors = ", ".join(f"{pattern!r}: {describe(prior)}" for pattern, prior in self.priors.items())
        return f"Detector({type(self.network).__name__}, {{{priors}}})"

    def sample(self, device: torch.device | None = None) -> dict[str, Tensor]:
        """Sample every site (and the hyperpriors behind them): parameter name to value. A part of `model`."""
        values = {}
        # Numbers in a user's prior, as in HalfCauchy(0.1), become tensors where the weights are.
        with nullcontext() if device is None or device.type == "cpu" else device:
            for name, prior in self.sites.items():
                parameter = self._start[name]
                parameter = parameter if device is None else parameter.to(device)
                values[name] = pyro.sample(name, _checked(prior(name, parameter), name, parameter, prior))
        return values

    def model(
        self,
        images: Tensor | tuple[Tensor, ...],
        labels: Tensor | None = None,
        *,
        size: int | None = None,
        class_weights: Tensor | None = None,
        network: Callable[..., Tensor] | None = None,
    ) -> Tensor:
        """The Pyro model: ``w ~ prior``, ``label_i ~ Categorical(softmax(network(image_i; w)))``.

        Parameters
        ----------
        images : Tensor (B, 3, H, W)
            Or the tuple of features that `network` takes, where that is the suffix of the network alone.
        labels : Tensor (B,), int64, optional
            Observed labels; sampled where absent.
        size : int, optional
            Number of images in the whole data set: the likelihood of the batch is scaled by ``size / B``. Default B.
        class_weights : Tensor (C,), optional
            Power to which the likelihood of an image of each class is raised.
        network : nn.Module, optional
            Runs in place of ``self.network``, with the same parameter names; methods pass their copy.

        Returns
        -------
        Tensor (B, C)
            Logits.
        """
        inputs = images if isinstance(images, tuple) else (images,)
        weights = self.sample(inputs[0].device)
        module = self.network if network is None else network
        logits = functional_call(module, weights, inputs)  # type: ignore[arg-type]
        batch = torch.arange(len(logits), device=logits.device)
        with pyro.plate("images", size or len(logits), subsample=batch):
            if class_weights is None or labels is None:
                pyro.sample("label", dist.Categorical(logits=logits), obs=labels)
            else:
                with pyro.poutine.scale(scale=class_weights[labels]):
                    pyro.sample("label", dist.Categorical(logits=logits), obs=labels)
        return logits

    def check_output(self, classes: Sequence[str], images: Tensor) -> None:
        """Say what to change where the network's output does not fit the task.

        Parameters
        ----------
        classes : sequence of str
            The names of the task's classes.
        images : Tensor (B, 3, H, W)
            A few images of the data.

        Raises
        ------
        BayesdfError
            The network fails on the images, or its output is not of shape (B, number of classes).
        """
        device = next((p.device for p in self.network.parameters()), images.device)
        try:
            with evaluating(self.network), torch.no_grad():
                logits = self.network(images.to(device))
        except (RuntimeError, ValueError, AssertionError, TypeError) as error:
            cause = " ".join(str(error).split())[:200]
            raise BayesdfError(f"the network fails on images of shape {tuple(images.shape)}: {cause}") from error
        if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(images):
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise BayesdfError(
                f"the network returns {shape} for {len(images)} images, but a detector's network returns "
                f"logits ({len(images)}, {len(classes)}): flatten or index its output"
            )
        if logits.shape[1] != len(classes):
            raise BayesdfError(
                f"the network returns {logits.shape[1]} logits, but the task has {len(classes)} classes "
                f"({', '.join(map(str, classes))}): build it with num_classes={len(classes)}"
            )


def _checked(distribution: Any, name: str, parameter: Tensor, prior: Prior) -> Any:
    """The prior's distribution, if one event of it is one value of the parameter."""
    who = f"the prior {describe(prior)} of {name}"
    if not isinstance(distribution, dist.torch_distribution.TorchDistributionMixin):
        raise BayesdfError(f"{who} returns {type(distribution).__name__}, but must return one of pyro.distributions")
    shape, batch, event = (
        tuple(parameter.shape),
        tuple(distribution.batch_shape),
        tuple(distribution.event_shape),
    )
    if batch + event != shape:
        raise BayesdfError(
            f"{who} has shape {batch + event}, but the parameter has {shape}: expand it, as in "
            f"dist.Normal(torch.zeros_like(parameter), scale).to_event(parameter.dim())"
        )
    if batch:
        raise BayesdfError(
            f"{who} has batch shape {batch} and event shape {event}: append .to_event({len(batch)}), so that "
            "one event is the whole parameter"
        )
    return distribution

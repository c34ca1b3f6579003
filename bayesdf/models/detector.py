"""The detector: a Pyro model of labels given images, whose random weights are sites."""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.func import functional_call

from bayesdf.errors import BayesdfError
from bayesdf.models import priors as ready_made
from bayesdf.models.class_logits import class_logits, has_class_logits, to_class_logits
from bayesdf.models.eval_mode import check_precision, evaluating, hooked
from bayesdf.models.name_patterns import assign
from bayesdf.models.priors import Prior, describe, one_run


class Detector:
    """A network with priors over some of its parameters.

    Parameters
    ----------
    network : nn.Module
        Maps images (B, 3, H, W) to logits (B, C), or to one logit z of class 1 for each image, (B, 1) or (B,). z then
        stands for the two logits (0, z) everywhere. A *dense* network maps images to logits (B, C, h, w), or (B, 1, h,
        w), for a label at each location of an image.
    priors : mapping from pattern to prior
        Globs over parameter and module names. The most specific one wins (see `bayesdf.models.name_patterns.assign`). A
        prior is a function ``(name, parameter) -> pyro distribution`` (see `bayesdf.models.priors`). With None the
        matched parameters have no prior, and are point estimates.

    Attributes
    ----------
    network : nn.Module
        The given network. Methods work on copies of it.
    priors : dict from pattern to prior
    sites : dict from parameter name to prior, in the order of ``network.named_parameters()``

    Raises
    ------
    BayesdfError
        A pattern matches no parameter, a prior is not a function of ``(name, parameter)``, its distribution does not
        have the shape of its parameter, two priors sample a site of the same name, or the network is not in float32.

    Examples
    --------
    >>> from bayesdf.models import priors
    >>> detector = Detector(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), {"1.weight": priors.normal(0.1)})
    >>> list(detector.sites)
    ['1.weight']
    """

    def __init__(self, network: nn.Module, priors: Mapping[str, Prior | None]) -> None:
        self.network = network
        self.priors = _mapping(network, priors)
        check_precision(network)
        names = [name for name, _ in network.named_parameters()]
        assigned = assign(self.priors, names)
        self.sites: dict[str, Prior] = {name: prior for name, prior in assigned.items() if prior is not None}
        parameters = dict(network.named_parameters())
        self._start = {name: parameters[name].detach() for name in self.sites}
        devices = {value.device for value in self._start.values() if value.device.type == "cuda"}
        with torch.random.fork_rng(devices), pyro.poutine.block():
            try:  # finds mistakes in priors early
                with pyro.poutine.trace():
                    self.sample()
            except RuntimeError as error:
                if "Multiple sample sites named" not in str(error):
                    raise
                site = str(error).partition("named")[2].split()[0].strip("'\"")
                raise BayesdfError(
                    f"the site {site!r} is sampled more than once in a run of the model: put the parameter's name into "
                    "its own, or share it between parameters (bayesdf.models.priors.shared)"
                ) from error

    def __repr__(self) -> str:
        priors = ", ".join(f"{pattern!r}: {describe(prior)}" for pattern, prior in self.priors.items())
        return f"Detector({type(self.network).__name__}, {{{priors}}})"

    def sample(self, device: torch.device | None = None) -> dict[str, Tensor]:
        """Sample every site and its hyperpriors. Returns parameter name to value. It is a part of `model`."""
        values = {}
        # Numbers in a user's prior, as in HalfCauchy(0.1), become tensors where the weights are.
        with one_run(), nullcontext() if device is None or device.type == "cpu" else device:
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

        A dense network has a label at each location l of an image, ``label_il ~ Categorical(softmax(network(image_i;
        w)_l))``, and the likelihood is the product over locations. Locations of an image are not independent given the
        weights: neighbours share pixels and mistakes. So the posterior is narrower than the data warrant.

        Parameters
        ----------
        images : Tensor (B, 3, H, W)
            Or the tuple of features that `network` takes, if `network` is only the suffix.
        labels : Tensor (B,), int64, optional
            Observed labels, (B, h, w) of a dense network. If absent, labels are sampled.
        size : int, optional
            Number of images in the whole data set. The likelihood of the batch is scaled by ``size / B``. Default: B.
        class_weights : Tensor (C,), optional
            The power to which the likelihood of a label is raised, by class.
        network : nn.Module, optional
            Runs in place of ``self.network``, with the same parameter names. It returns logits as that of `copy` does.

        Returns
        -------
        Tensor (B, C), or (B, h, w, C) of a dense network
            Logits. Those of a network with one logit are (0, z).
        """
        inputs = images if isinstance(images, tuple) else (images,)
        weights = self.sample(inputs[0].device)
        module = self.network if network is None else network
        logits = functional_call(module, weights, inputs)  # type: ignore[arg-type]
        if network is None and not has_class_logits(self.network):
            logits = class_logits(logits)
        batch = torch.arange(len(logits), device=logits.device)
        with ExitStack() as stack:
            stack.enter_context(pyro.plate("images", size or len(logits), subsample=batch, dim=1 - logits.dim()))
            for name, dim, count in zip(("locations_y", "locations_x"), (-2, -1), logits.shape[1:-1], strict=False):
                stack.enter_context(pyro.plate(name, count, dim=dim))
            if class_weights is not None and labels is not None:
                stack.enter_context(pyro.poutine.scale(scale=class_weights[labels]))
            pyro.sample("label", dist.Categorical(logits=logits), obs=labels)
        return logits

    @torch.no_grad()
    def copy(self, images: Tensor) -> nn.Module:
        """A copy of the network that returns logits as `bayesdf.models.class_logits` says: (B, C), or (B, h, w, C).

        Parameters
        ----------
        images : Tensor (B, 3, H, W)
            A few images of the data, to find out how many logits there are.
        """
        network = copy.deepcopy(self.network)
        device = next((p.device for p in network.parameters()), images.device)
        with evaluating(network):
            output = network(images.to(device))
        return to_class_logits(network) if class_logits(output) is not output else network

    def check_output(self, classes: Sequence[str] | None, images: Tensor) -> None:
        """Check that the network's output fits the task. The error says what to change.

        Parameters
        ----------
        classes : sequence of str, or None
            The names of the task's classes, or None if they are unknown.
        images : Tensor (B, 3, H, W)
            A few images of the data.

        Raises
        ------
        BayesdfError
            The network fails on the images. Its output is not of shape (B, number of classes) or (B, number of classes,
            h, w), nor (B, 1), (B,) or (B, 1, h, w) for two classes. Or it ends in a softmax or a sigmoid.
        """
        check_precision(self.network)
        ran: list[nn.Module] = []
        leaves = [module for module in self.network.modules() if not next(module.children(), None)]
        handles = [module.register_forward_hook(lambda module, *_: ran.append(module)) for module in leaves]
        device = next((p.device for p in self.network.parameters()), images.device)
        try:
            with evaluating(self.network), torch.no_grad(), hooked(handles):
                logits = self.network(images.to(device))
        except (RuntimeError, ValueError, AssertionError, TypeError) as error:
            cause = " ".join(str(error).split())[:200]
            raise BayesdfError(f"the network fails on images of shape {tuple(images.shape)}: {cause}") from error
        if has_class_logits(self.network):  # of a posterior
            logits = logits.movedim(-1, 1)
        if isinstance(logits, Tensor):
            _refuse_probabilities(logits, ran)
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        count = len(images)
        if shape in ((count, 1), (count,)) or (shape[:2] == (count, 1) and len(shape) == 4):
            if classes is not None and len(classes) != 2:
                raise BayesdfError(
                    f"the network returns one logit, which tells 2 classes apart, but the task has {len(classes)} "
                    f"({', '.join(map(str, classes))}): build it with num_classes={len(classes)}"
                )
        elif not isinstance(logits, Tensor) or logits.dim() not in (2, 4) or len(logits) != count:
            expected = f"({count}, {'C' if classes is None else len(classes)}"
            raise BayesdfError(
                f"the network returns {shape} for {count} images, but a detector's network returns logits "
                f"{expected}), or {expected}, h, w) where each location has a label: flatten or index its output"
            )
        elif classes is not None and logits.shape[1] != len(classes):
            raise BayesdfError(
                f"the network returns {logits.shape[1]} logits, but the task has {len(classes)} classes "
                f"({', '.join(map(str, classes))}): build it with num_classes={len(classes)}"
            )


def _refuse_probabilities(output: Tensor, ran: Sequence[nn.Module]) -> None:
    """Refuse the output of a softmax, by its values, or of a sigmoid, by the last module that ran.

    A log-softmax over several classes is allowed: its softmax is the same softmax.
    """
    shares = output.dim() in (2, 4) and output.shape[1] > 1 and len(output) > 0
    inside = bool(((output >= 0) & (output <= 1)).all())
    if shares and inside and bool(((output.sum(1) - 1).abs() <= 1e-4).all()):
        raise BayesdfError(
            "the network returns numbers in 0 to 1 that add to 1, as a softmax does, but logits are expected: take the "
            "softmax off"
        )
    last = next((module for module in reversed(ran) if not isinstance(module, nn.Flatten | nn.Identity)), None)
    if (isinstance(last, nn.Sigmoid) and inside) or (isinstance(last, nn.LogSigmoid) and not shares):
        raise BayesdfError(f"the network ends in {type(last).__name__}, but logits are expected: take it off")


def _mapping(network: Any, priors: Any) -> dict[str, Prior | None]:
    """The priors by pattern, after checks of the network and the priors."""
    if not isinstance(network, nn.Module):
        raise BayesdfError(f"the network is a {type(network).__name__}, but must be an nn.Module")
    example = "priors={'fc': bayesdf.models.priors.normal(0.1)}"
    if not isinstance(priors, Mapping):
        what = f"the function {describe(priors)}" if inspect.isfunction(priors) else f"a {type(priors).__name__}"
        raise BayesdfError(f"priors is {what}, but must map patterns of parameter names to priors, as in {example}")
    for pattern, prior in priors.items():
        who = f"the prior of {pattern!r}"
        if not isinstance(pattern, str):
            raise BayesdfError(f"pattern {pattern!r} is no string: map patterns to priors, as in {example}")
        if prior is None:
            continue
        if isinstance(prior, torch.distributions.Distribution):
            raise BayesdfError(
                f"{who} is a distribution ({type(prior).__name__}), but must be a function (name, parameter) -> "
                "distribution of the parameter's shape: take one of bayesdf.models.priors, or write lambda name, "
                "parameter: dist.Normal(torch.zeros_like(parameter), 0.1).to_event(parameter.dim())"
            )
        if not callable(prior):
            what = type(prior).__name__
            raise BayesdfError(f"{who} is a {what}, but must be a function (name, parameter) -> distribution")
        if getattr(ready_made, getattr(prior, "__name__", ""), None) is prior:
            raise BayesdfError(f"{who} is priors.{describe(prior)} itself: call it, as in {example}")
        try:
            inspect.signature(prior).bind("name", "parameter")
        except TypeError as error:
            raise BayesdfError(f"{who}, {describe(prior)}, must take (name, parameter): {error}") from error
        except ValueError:  # a function without a signature
            continue
    return dict(priors)


def _checked(distribution: Any, name: str, parameter: Tensor, prior: Prior) -> Any:
    """The prior's distribution, after a check that one event of it is one value of the parameter."""
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

"""Monte Carlo dropout: a posterior over which channels of a network are kept.

Dropout that stays on at prediction time is variational inference with a guide of Bernoulli masks on the rows of the
weights (Gal and Ghahramani, "Dropout as a Bayesian Approximation", 2016). Here a mask belongs to a channel. It is
the same for every image of a draw, so that a draw is one function.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from bayesdf.errors import BayesdfError
from bayesdf.inference.channel_dropout import ChannelDropout, insert, masks_before
from bayesdf.inference.convergence import judge_search
from bayesdf.inference.fit_results import report_verdict, root_attrs
from bayesdf.inference.posterior import Posterior
from bayesdf.inference.samplers import MaskSampler
from bayesdf.inference.training import Training
from bayesdf.inference.training.divergence import posterior_on_divergence
from bayesdf.inference.training.history import History
from bayesdf.inference.training.loop import minimise
from bayesdf.inference.training.objective import Objective
from bayesdf.inference.training.problem import Problem, prepare
from bayesdf.inference.training.progress import Clock
from bayesdf.inference.training.rates import SCALE_RATE, parameter_groups, weight_reach
from bayesdf.inference.training.seeds import seeded
from bayesdf.models.detector import Detector


@dataclass(frozen=True, kw_only=True)
class MCDropout(Training):
    """Monte Carlo dropout.

    The detector's priors are not used. Weight decay takes the place of a prior N(0, prior_scale²) on all trained
    weights. For each of N images the loss has the term ``|w|² / (2 N prior_scale²)`` for weights that no mask
    multiplies, and

        |w|² / (2 (1 - rate) N prior_scale²)

    for weights that a mask multiplies. This is equation 7 of Gal and Ghahramani (2016) with the precision of a
    classifier, 1, for masks that are divided by ``1 - rate`` (their M is ``w / (1 - rate)``). A mask multiplies the
    weights of the first layer that runs after it.

    Parameters
    ----------
    rate : float
        Probability that a channel is dropped, at least 0 and below 1.
    layers : str or sequence of str, optional
        Globs over module names. Dropout goes after each of these modules. Default: the network's own ``nn.Dropout``
        modules of rate above 0, if it has any. Else dropout goes after each block of the last stage and before the
        classifier (see `bayesdf.inference.channel_dropout.places`). The network's own dropout modules always take part,
        with the rate above.
    prior_scale : float
        Standard deviation in the formula.
    concrete : bool
        Learn a rate for each place, starting from `rate`: concrete dropout (Gal, Hron and Kendall, "Concrete Dropout",
        2017). Masks are relaxed while training. The loss of an image has the term above, at the rates p of the places,
        and that of their equation 3,

            - Σ_place channels H(p_place) / N,    H the entropy of a Bernoulli.
    epochs, lr, batch_size, freeze, class_balanced, augment, views, patience, seed, device, progress, checkpoint
        As for `bayesdf.inference.training.Training`; the sites are the masks. With 0 epochs, or
        ``freeze="all"``, dropout is put into the network without training.

    Examples
    --------
    >>> posterior = MCDropout(rate=0.2, epochs=10).fit(detector, data.train)  # doctest: +SKIP
    """

    rate: float = 0.05
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
            Over the sites ``<module>.mask`` (C,). ``sample_stats`` has ``loss`` (step).

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

        problem = prepare(detector, self, train, validation, random)
        sampler = MaskSampler({f"{path}.mask": torch.full((count,), self.rate) for path, count in channels.items()})

        def posterior(history: History) -> Posterior:
            attrs = root_attrs(self, detector, train, clock()) | {"priors": "{}"}
            learnt = objective.learnt()
            objective.forget()
            stats = judge_search(history, "loss").add_to(history.to_dataset("loss"))
            return Posterior(problem.network, learnt, stats, attrs)

        with seeded(self.seed, problem.device):
            objective = (_Concrete if self.concrete else _Objective)(problem, self, sampler)
            with posterior_on_divergence(posterior):
                return report_verdict(self, posterior(minimise(problem, objective)), problem)


class _Objective(Objective):
    """Cross-entropy under fresh masks, with weight decay."""

    def __init__(self, problem: Problem, settings: MCDropout, sampler: MaskSampler) -> None:
        self.problem, self.settings, self.sampler = problem, settings, sampler
        self.weights: dict[tuple[str, ...], dict[str, nn.Parameter]] = {}
        """By the masks that multiply them, and by name."""
        masked = masks_before(problem.network, problem.example[0])
        for name, weight in problem.trained_parameters(exclude=set()).items():
            self.weights.setdefault(masked.get(name, ()), {})[name] = weight
        self.reach = {name: min(reach, settings.prior_scale) for name, reach in weight_reach(problem.network).items()}

    def loss(self, module: nn.Module, inputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        losses = F.cross_entropy(module(*inputs).movedim(-1, 1), labels, reduction="none")
        weighted = self.problem.class_weights[labels] * losses
        return weighted.sum() / len(labels) + self.penalty() / self.problem.size

    def penalty(self) -> Tensor:
        """The weight decay, in place of minus the logarithm of the prior."""
        squares = [
            _squares(weights) / (1 - self.settings.rate) ** len(masks) for masks, weights in self.weights.items()
        ]
        return torch.stack(squares).sum() / (2 * self.settings.prior_scale**2) if squares else torch.zeros(())

    def groups(self) -> list[dict[str, Any]]:
        trained = {name: weight for weights in self.weights.values() for name, weight in weights.items()}
        return parameter_groups(trained, self.reach, self.settings.lr)

    def draw(self) -> dict[str, Tensor]:
        return {name: mask.to(self.problem.device) for name, mask in self.learnt().masks().items()}

    def learnt(self) -> MaskSampler:
        """The masks of the posterior."""
        return self.sampler

    def forget(self) -> None:
        """Remove what only training needs from the network."""


def _squares(weights: dict[str, nn.Parameter]) -> Tensor:
    return torch.stack([weight.square().sum() for weight in weights.values()]).sum()


class _Concrete(_Objective):
    """The same with learnt rates, one for each place."""

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

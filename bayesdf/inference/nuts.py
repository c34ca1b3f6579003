"""The No-U-Turn Sampler: draws of the posterior itself, over a small set of sites, as the truth for other methods.

Hamiltonian Monte Carlo that stops by itself when it turns back (Hoffman and Gelman, "The No-U-Turn Sampler", 2014,
algorithm 6, in Pyro's version with multinomial draws from the trajectory). It runs on the unconstrained numbers of all
sites, in coordinates in which the posterior is about equally wide in every direction (see
`bayesdf.inference.whitening`; by the Hessian at the maximum a posteriori). So trees stay shallow even if numbers are
strongly correlated.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from pyro.infer import MCMC
from pyro.infer import NUTS as PyroNUTS
from torch import Tensor
from torch.utils.data import Dataset

from bayesdf.errors import BayesdfError
from bayesdf.inference import whitening
from bayesdf.inference.convergence import Verdict, judge_chains, judge_scales, judge_search
from bayesdf.inference.fit_results import load_values, report_verdict, root_attrs
from bayesdf.inference.joint import Joint
from bayesdf.inference.map import Point
from bayesdf.inference.posterior import Posterior
from bayesdf.inference.samplers import StoredSampler
from bayesdf.inference.training import Training
from bayesdf.inference.training.checkpoint import checkpoint_key, read_checkpoint, write_checkpoint
from bayesdf.inference.training.divergence import posterior_on_divergence
from bayesdf.inference.training.history import History
from bayesdf.inference.training.loop import minimise
from bayesdf.inference.training.problem import Problem, prepare
from bayesdf.inference.training.progress import Clock, progress_bar
from bayesdf.inference.training.seeds import chain_seed, seeded
from bayesdf.inference.whitening import Whitening
from bayesdf.models.detector import Detector

NUMBERS = 50_000
"""The most numbers in all sites. More are refused."""
SPREAD = 1.5
"""The distance of the starts of chains from the mode, in standard deviations of the whitened coordinates."""


@dataclass(frozen=True, kw_only=True)
class NUTS(Training):
    """The No-U-Turn Sampler.

    Every step uses all training images, so it is meant for priors on the last layer. Weights without a prior are found
    by maximum a posteriori, together with the start, and then stay fixed. Images are not augmented while sampling.

    Parameters
    ----------
    chains : int
        Chains run one after another, each from its own start around the mode. `bayesdf.analysis.convergence` compares
        them.
    warmup, samples : int
        Steps of each chain that adapt the step size and are discarded, and draws that are stored.
    target_accept : float
        Mean acceptance to which the step size is adapted, above 0 and below 1. Values nearer to 1 make smaller steps
        and fewer divergences.
    max_tree_depth : int
        A trajectory doubles at most this many times. It has at most ``2^depth - 1`` steps.
    epochs, lr, batch_size, freeze, class_balanced, augment, views, patience, seed, device, progress, checkpoint
        As for `bayesdf.inference.training.Training`, for the maximum a posteriori. With 0 epochs the network
        itself is taken for it. A stopped fit continues with the chain that was not finished.

    Examples
    --------
    >>> posterior = NUTS(epochs=10, freeze="prefix").fit(detector, data.train)  # doctest: +SKIP
    >>> bayesdf.analysis.convergence(posterior.draws())  # doctest: +SKIP
    """

    chains: int = 4
    warmup: int = 300
    samples: int = 500
    target_accept: float = 0.8
    max_tree_depth: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("chains", "warmup", "samples", "max_tree_depth"):
            if getattr(self, name) < 1:
                raise BayesdfError(f"NUTS: {name} is {getattr(self, name)}, but must be at least 1")
        if not 0 < self.target_accept < 1:
            raise BayesdfError(f"NUTS: target_accept is {self.target_accept}, but must be above 0 and below 1")

    def fit(self, detector: Detector, train: Dataset[Any], validation: Dataset[Any] | None = None) -> Posterior:
        """Find the mode, and sample around it.

        Returns
        -------
        Posterior
            Of stored draws (chain, draw). ``sample_stats`` has, by (chain, draw), ``diverging``, ``acceptance_rate``
            (mean over the trajectory), ``lp`` (log density of the unconstrained numbers, up to a constant), ``energy``
            (of the trajectory, potential and kinetic), ``n_steps`` and ``tree_depth`` (doublings completed), and
            ``loss`` (step) of the maximum a posteriori.

        Raises
        ------
        BayesdfError
            There are more than 50,000 numbers, or a site's support has no transform. Also as `bayesdf.SVI.fit`.

        Warns
        -----
        ConvergenceWarning
            Chains disagree, have few effective draws or little energy, or trajectories diverged. Parts of the posterior
            may be missing.
        """
        clock = Clock()
        problem = prepare(detector, self, train, validation)
        with seeded(self.seed, problem.device):
            joint = Joint(detector, problem, centred=False)
            _refuse_many(joint)
            point = Point(joint, problem, coordinates=True)

            def at_mode(history: History) -> Posterior:
                return point.posterior(history, root_attrs(self, detector, train, clock()))

            with posterior_on_divergence(at_mode):
                history = minimise(problem, point, title="maximum")
            load_values(problem.network, point.values())
            chains = _sample(joint, problem, point, self)
        sampler = StoredSampler({name: torch.stack([chain.values[name] for chain in chains]) for name in point.z})
        load_values(problem.network, sampler.point())
        stats = history.to_dataset("loss").assign_coords(chain=np.arange(self.chains), draw=np.arange(self.samples))
        for name in chains[0].stats:
            stats[name] = (("chain", "draw"), torch.stack([chain.stats[name] for chain in chains]).numpy())
        stats = _verdict(self, history, joint, problem, sampler.values, stats).add_to(stats)
        return report_verdict(
            self, Posterior(problem.network, sampler, stats, root_attrs(self, detector, train, clock())), problem
        )


@dataclass
class _Chain:
    """The result of a chain: sites (draw, *site) in the space of the priors, and statistics of each step (draw,)."""

    values: dict[str, Tensor]
    stats: dict[str, Tensor]


class _Space(Whitening):
    """The coordinates u, and the potential there: minus the log density of z, over all training images."""

    def __init__(self, joint: Joint, problem: Problem, mode: dict[str, Tensor]) -> None:
        self.problem = problem
        self.data = whitening.concatenate(list(whitening.features(problem, problem.settings.batch_size)))
        centre = whitening.flatten(mode)
        prior = whitening.prior_information(joint, problem, centre)
        if joint.numbers <= whitening.DENSE:
            precision = whitening.hessian(joint, problem, centre, self.data) + prior.diag()
        else:
            precision = whitening.image_information(joint, problem, centre) + prior
        super().__init__(joint, centre, precision)

    def potential(self, u: Tensor) -> Tensor:
        z, total = self.sites(u), u.new_zeros(())
        for inputs, labels in self.data:
            density = self.joint.log_density(z, self.problem.parts.suffix, inputs, labels, jacobian=True)
            # Each batch has its share of the prior, and its likelihood is scaled to the whole data set.
            total = total - density * (len(labels) / self.problem.size)
        return total


class _Kernel(PyroNUTS):
    """Pyro's sampler, which also records what each step after the warm-up did."""

    def __init__(self, potential: Callable[[Tensor], Tensor], settings: NUTS) -> None:
        self.gradients = 0
        self.notes: list[tuple[bool, float, float, float, int, int]] = []
        self.kinetic: float | None = None

        def counted(parameters: dict[str, Tensor]) -> Tensor:
            self.gradients += 1
            return potential(parameters["u"])

        depth = settings.max_tree_depth
        super().__init__(potential_fn=counted, target_accept_prob=settings.target_accept, max_tree_depth=depth)

    def sample(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        mean, diverged, self.gradients = self._mean_accept_prob, len(self._divergences), 0
        self.kinetic, potential = None, self._potential_energy_last
        params = super().sample(params)
        draw = self._t - self._warmup_steps
        if draw > 0:
            acceptance = mean + (self._mean_accept_prob - mean) * draw  # Pyro keeps the mean over draws alone
            self.notes.append(
                (
                    len(self._divergences) > diverged,
                    acceptance,
                    -float(self._potential_energy_last),
                    float(potential) + (self.kinetic or 0.0),
                    self.gradients,
                    (self.gradients + 1).bit_length() - 1,
                )
            )
        return params

    def _kinetic_energy(self, r_unscaled: dict[str, Tensor]) -> Tensor:
        energy = super()._kinetic_energy(r_unscaled)
        if self.kinetic is None:  # of the momentum at the start of a trajectory
            self.kinetic = float(energy)
        return energy

    def stats(self) -> dict[str, Tensor]:
        names = ("diverging", "acceptance_rate", "lp", "energy", "n_steps", "tree_depth")
        return {name: torch.tensor(column) for name, column in zip(names, zip(*self.notes, strict=True), strict=True)}


def _sample(joint: Joint, problem: Problem, point: Point, settings: NUTS) -> list[_Chain]:
    """All chains. Those of the checkpoint are read, the others are run."""
    paths: list[Path | None] = [None] * settings.chains
    if settings.checkpoint is not None:
        first = Path(settings.checkpoint)
        paths = [first.with_name(f"{first.name}.{1 + number}") for number in range(settings.chains)]
    key = checkpoint_key(problem, point.z.values())
    states = [None if path is None else read_checkpoint(path, key, torch.device("cpu"), "chain") for path in paths]
    found = [None if state is None else _Chain(state["values"], state["stats"]) for state in states]
    if None in found:
        space = _Space(joint, problem, point.z)
    steps = settings.warmup + settings.samples
    with progress_bar(type(settings).__name__, steps * settings.chains, settings.progress) as report:
        for number, path in enumerate(paths):
            chain = found[number]
            if chain is None:
                found[number] = chain = _run(space, settings, number, report)
                if path is not None:
                    write_checkpoint(path, key, {"values": chain.values, "stats": chain.stats})
            else:
                report("", steps)
    return [chain for chain in found if chain is not None]


def _run(space: _Space, settings: NUTS, number: int, report: Callable[[str, int], None]) -> _Chain:
    """One chain, with its own random numbers."""
    torch.manual_seed(chain_seed(settings.seed, number))
    start = SPREAD * torch.randn_like(space.centre)
    kernel = _Kernel(space.potential, settings)
    sampling = MCMC(
        kernel,
        num_samples=settings.samples,
        warmup_steps=settings.warmup,
        initial_params={"u": start},
        hook_fn=lambda kernel, parameters, stage, step: report(f"chain {number + 1}, {stage.lower()}", 1),
        disable_progbar=True,
    )
    sampling.run()
    with torch.no_grad():
        draws = [space.values(u) for u in sampling.get_samples()["u"]]
    values = {name: torch.stack([draw[name] for draw in draws]).cpu() for name in space.joint.shapes}
    return _Chain(values, kernel.stats())


def _refuse_many(joint: Joint) -> None:
    if joint.numbers > NUMBERS:
        sizes = {name: value.numel() for name, value in joint.start.items()}
        largest = max(sizes, key=lambda name: sizes[name])
        raise BayesdfError(
            f"NUTS: the sites have {joint.numbers} numbers, {sizes[largest]} of them in {largest}, but at most "
            f"{NUMBERS} can be sampled: give priors to the last layer alone, or use SGMCMC or SVI"
        )


def _verdict(
    settings: NUTS, history: History, joint: Joint, problem: Problem, draws: dict[str, Tensor], stats: xr.Dataset
) -> Verdict:
    """The verdict on the chains, on their scales, and on the search if it has found weights that stay fixed."""
    advice = f"raise warmup and samples, or target_accept above {settings.target_accept}; or change the prior"
    figures = {name: stats[name].values for name in ("diverging", "energy")}
    found = judge_chains({name: value.numpy() for name, value in draws.items()}, advice, figures)
    found = judge_scales(found, joint, {name: value.flatten(0, 1) for name, value in draws.items()})
    stays = problem.trained_parameters(exclude=set(draws))
    search = judge_search(history, "negative log density").about("the search of the weights without a prior")
    return found & search if stays else found

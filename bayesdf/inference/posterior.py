"""The posterior, which every method's ``fit`` returns: draws, predictions in the ArviZ schema, and saving."""

import copy
import json
import os
import warnings
from collections.abc import Iterator
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from torch.utils.data import Dataset

from bayesdf.errors import BayesdfError, BayesdfWarning
from bayesdf.inference.posterior_format import digest, pack
from bayesdf.inference.prediction.inputs import ImageCheck, as_dataset, is_labelled, json_attr
from bayesdf.inference.prediction.locations import PLACES, centres, places
from bayesdf.inference.prediction.locations import log_likelihood as of_labels
from bayesdf.inference.prediction.predictor import Piece, Predictor, empty_logits, resolve_device
from bayesdf.inference.samplers import Sampler, StoredSampler
from bayesdf.models.class_logits import has_class_logits
from bayesdf.models.eval_mode import check_precision
from bayesdf.store import write_tree

POSTERIOR_NUMBERS = 2_000_000
"""`Posterior.predict` includes the draws of the sites up to this many numbers."""

_UNBALANCED = 1.1  # classes whose sizes differ by a larger factor are not balanced

DRAWS = 50
"""The default number of draws."""


class Posterior:
    """A distribution over the sites of a detector, as some method found it.

    A method's ``fit`` and `load_posterior` return one.

    Attributes
    ----------
    network : nn.Module
        On the CPU, in eval mode, with the point estimates, the buffers and, at the sites, the posterior's centre.
    recipe : dict or None
        How `bayesdf.models.build` (and `located` or `dense_head`) made the network; None for networks made otherwise.
    sampler : Sampler
        What draws are made from; its ``shapes`` name the sites.
    sample_stats : xr.Dataset
        What the method reports: ``elbo`` (step), ``validation_nll`` (epoch), …
    attrs : dict
        Root attributes of every tree made from this posterior: versions, detector, priors, method, settings, seed,
        fingerprint of the data, wall time of the fit.
    """

    def __init__(self, network: nn.Module, sampler: Sampler, sample_stats: xr.Dataset, attrs: dict[str, Any]) -> None:
        self.network = network.cpu().eval()
        self.recipe: dict[str, Any] | None = getattr(network, "recipe", None)
        self.sampler = sampler
        self.sample_stats = sample_stats
        self.attrs = attrs
        self._predictors: dict[torch.device, Predictor] = {}

    def __repr__(self) -> str:
        verdict = self.sample_stats.attrs.get("verdict", "no verdict")
        return f"Posterior({self.attrs.get('method')} over {', '.join(self.sampler.shapes) or 'no sites'}; {verdict})"

    def draws(self, draws: int | None = None, seed: int = 0) -> xr.DataTree:
        """Draw the sites.

        Parameters
        ----------
        draws : int, optional
            In each chain, at least 1. The first ten of fifty draws are the ten draws of the same seed. Default: 50. A
            posterior of stored draws, such as Markov chains, gives all of them by default, in the order in which they
            were made: R-hat and effective sample sizes need that order.
        seed : int
            At least 0.

        Returns
        -------
        xr.DataTree
            Groups ``posterior``, with one variable for each site (chain, draw, <site>_dim_0, …), and ``sample_stats``.
        """
        stored = self.sampler.values if draws is None and isinstance(self.sampler, StoredSampler) else None
        draws = self.check_draws(draws, seed)
        sites = self._posterior(draws, seed) if stored is None else self._of_sites(stored)
        return self._tree({"posterior": sites, "sample_stats": self.sample_stats}, seed)

    def predict(
        self,
        dataset: Any,
        draws: int | None = None,
        seed: int = 0,
        *,
        batch_size: int = 128,
        device: str = "auto",
        mixed_precision: bool = False,
        penultimate: bool = False,
        log_likelihood: bool = False,
    ) -> xr.DataTree:
        """Predict every image under every draw. One draw is the same function for all images.

        Parameters
        ----------
        dataset : torch dataset of (image, label), or images
            Image float (3, H, W) in [0, 1], or uint8. If the data has a ``manifest`` (a row for each image), its
            columns become ``constant_data``. If it has ``classes``, they name the dimension ``class``. Images without
            labels may be a tensor (B, 3, H, W) or (3, H, W), a ``TensorDataset`` of it, the path of a folder or a file,
            or an iterable of tensors, arrays, PIL images or paths. Files and pictures are prepared as the training
            images were. If the posterior does not know how, pass `bayesdf.data.unlabelled`.
        draws : int, optional
            In each chain, at least 1. Default: 50, or all draws of a posterior that holds fewer.
        seed : int
            At least 0. The seed and the index of a draw determine that draw.
        batch_size : int
            Images at once. Only memory and speed depend on it.
        device : str
            ``auto``, ``cpu`` or ``cuda``.
        mixed_precision : bool
            Run the operations that tolerate it in half precision (float16 on a GPU, bfloat16 on a CPU). This is faster
            on GPUs, and logits are then accurate to about three digits.
        penultimate : bool
            Also return the input of the network's classifier for each image, with the sites at the posterior's centre
            (see `bayesdf.models.penultimate`). This costs almost nothing.
        log_likelihood : bool
            Add the group ``log_likelihood`` with ``label`` (chain, draw, image), or (chain, draw, image, y, x): the log
            probability in nats of each label under each draw. From it ``arviz.loo`` and ``arviz.compare`` estimate the
            predictive density of labels left out of the fit. For that, predict the training images, and fit with
            ``class_balanced=False``, because there are no class weights here.

        Returns
        -------
        xr.DataTree
            ``posterior_predictive`` with ``logits`` (chain, draw, image, class), ``observed_data`` with ``label``
            (image) if the images have labels, ``constant_data`` (image), ``sample_stats``, and ``variational`` if the
            method has a formula for its draws. ``posterior`` has at most two million numbers; a larger one is left out,
            and the attribute ``posterior_left_out`` says so. ``features`` with ``penultimate`` (image, feature),
            float32, and ``log_likelihood`` are there on request. A dense network gives logits (chain, draw, image, y,
            x, class). The coordinates ``y`` and ``x`` are the centres of its cells in pixels. The first pixel has 0.

        Raises
        ------
        BayesdfError
            No draws, more draws than a posterior of stored draws holds, an empty data set, images that do not fit the
            network or cannot be read, ``log_likelihood`` of images without labels, or with labels on another grid.

        Warns
        -----
        BayesdfWarning
            The images have another shape or another scale of values than those of training, or hold NaN. Or
            ``log_likelihood`` is asked for, and the fit gave classes other weights.
        """
        draws = self.check_draws(draws, seed)
        dataset = self._dataset(dataset)
        if log_likelihood and not is_labelled(dataset):
            raise BayesdfError("log_likelihood is of labels, which these images do not have: leave it out")
        chains = self.sampler.chains
        logits = log_p = np.empty((0, 0, 0), np.float32)
        labels = np.empty(len(dataset), np.int64)
        features = []
        for piece in self._pieces(dataset, draws, seed, batch_size, device, mixed_precision):
            if piece.images.start == piece.draws.start == 0:
                labels = np.empty((len(labels), *piece.labels.shape[1:]), np.int64)
                logits = empty_logits(draws * chains, len(labels), *piece.logits.shape[2:])
                log_p = empty_logits(draws * chains, *labels.shape) if log_likelihood else log_p
                cells = centres(piece.sides, piece.logits.shape[2:-1])
            logits[piece.draws, piece.images] = piece.logits
            labels[piece.images] = piece.labels
            if log_likelihood:
                log_p[piece.draws, piece.images] = of_labels(piece.logits, piece.labels)
            if penultimate and piece.draws.start == 0:
                features.append(self.predictor(device).penultimate(piece.features, mixed_precision))
        by_chain = logits.reshape(draws, chains, *logits.shape[1:]).swapaxes(0, 1)
        if log_likelihood:
            self._warn_of_weights(labels)
        image = np.arange(len(labels))
        coords = {
            "chain": np.arange(chains),
            "draw": np.arange(draws),
            "image": image,
            **cells,
            "class": self._class_names(dataset, labels, logits),
        }
        dims = ("chain", "draw", "image", *places(logits), "class")
        groups = {
            "posterior_predictive": xr.Dataset({"logits": (dims, by_chain)}, coords),
            "constant_data": _constant_data(dataset, image),
            "sample_stats": self.sample_stats,
        }
        if is_labelled(dataset):
            known = ("image", *PLACES[: labels.ndim - 1])
            on_grid = {name: coords[name] for name in known if name == "image" or labels.shape == logits.shape[1:-1]}
            groups["observed_data"] = xr.Dataset({"label": (known, labels)}, on_grid)
        if log_likelihood:
            of_label = log_p.reshape(draws, chains, *log_p.shape[1:]).swapaxes(0, 1)
            coords = {name: coords[name] for name in dims[:-1]}
            groups["log_likelihood"] = xr.Dataset({"label": (dims[:-1], of_label)}, coords)
        if self.sampler.group == "variational":
            groups["variational"] = self.sampler.to_dataset()
        if penultimate:
            of_images = (("image", "feature"), np.concatenate(features))
            groups["features"] = xr.Dataset({"penultimate": of_images}, {"image": image})
        numbers = chains * draws * sum(int(np.prod(shape)) for shape in self.sampler.shapes.values())
        extra = {}
        if numbers <= POSTERIOR_NUMBERS:
            groups["posterior"] = self._posterior(draws, seed)
        else:
            extra["posterior_left_out"] = f"{numbers} numbers; Posterior.draws(draws={draws}, seed={seed}) makes them"
        return self._tree(groups, seed, extra)

    def stream(
        self,
        dataset: Any,
        draws: int | None = None,
        seed: int = 0,
        *,
        batch_size: int = 128,
        device: str = "auto",
        mixed_precision: bool = False,
    ) -> Iterator[xr.DataArray]:
        """The logits that `predict` would return, piece by piece.

        `bayesdf.analysis.decompose` takes the pieces one by one, so that memory does not grow with the draws.

        Parameters
        ----------
        dataset, draws, seed, batch_size, device, mixed_precision
            As for `predict`.

        Yields
        ------
        xr.DataArray
            Logits float32 (draw, image, class), or (draw, image, y, x, class) of a dense network, of some draws (chains
            take turns) and some images, with coordinates. Labels and the columns of the data's manifest are coordinates
            of ``image``; labels on another grid than the logits are left out. For each chunk of images all draws come
            before the next chunk.
        """
        draws = self.check_draws(draws, seed)
        dataset = self._dataset(dataset)
        known = _constant_data(dataset, np.arange(len(dataset)))
        for piece in self._pieces(dataset, draws, seed, batch_size, device, mixed_precision):
            part = known.isel(image=piece.images)
            coords: dict[str, Any] = {str(name): ("image", part[name].values) for name in part.data_vars}
            if is_labelled(dataset) and piece.labels.shape in (piece.logits.shape[1:-1], piece.logits.shape[1:2]):
                coords["label"] = (("image", *PLACES[: piece.labels.ndim - 1]), piece.labels)
            draw = np.arange(piece.draws.start, piece.draws.stop)
            names = self._class_names(dataset, piece.labels, piece.logits)
            cells = centres(piece.sides, piece.logits.shape[2:-1])
            coordinates = {"draw": draw, "image": part["image"].values, **cells, "class": names, **coords}
            dims = ("draw", "image", *places(piece.logits), "class")
            yield xr.DataArray(piece.logits, coordinates, dims, name="logits")

    def _dataset(self, images: Any) -> Dataset[Any]:
        check_precision(self.network)
        return as_dataset(images, self.attrs)

    def _warn_of_weights(self, labels: np.ndarray) -> None:
        """Warn if the likelihood that was fitted is not that of these labels."""
        counts = np.bincount(labels.ravel())
        counts = counts[counts > 0]
        fitted = json_attr(self.attrs, "settings")
        balanced = isinstance(fitted, dict) and fitted.get("class_balanced") is True
        if balanced and counts.max() > _UNBALANCED * counts.min():
            warnings.warn(
                f"the fit weighed classes (class_balanced=True), of which there are {counts.min()} to {counts.max()} "
                "labels here: log_likelihood does not weigh, so that loo is not of the likelihood that was fitted; fit "
                "with class_balanced=False",
                BayesdfWarning,
                stacklevel=3,
            )

    def _pieces(
        self, dataset: Dataset[Any], draws: int, seed: int, batch_size: int, device: str, mixed: bool
    ) -> Iterator[Piece]:
        if batch_size < 1:
            raise BayesdfError(f"batch_size is {batch_size}, but must be at least 1")
        number = draws * self.sampler.chains
        check = ImageCheck(self.attrs)
        pieces = self.predictor(device).pieces(
            dataset, number, seed, batch_size=batch_size, mixed=mixed, observe=check.observe
        )
        yield from pieces
        check.warn(dataset)

    def predictor(self, device: str = "auto") -> Predictor:
        """The network on a device, split into prefix and suffix. It is made once for each device."""
        where = resolve_device(device)
        if where not in self._predictors:
            network = self.network if where.type == "cpu" else copy.deepcopy(self.network)
            self._predictors[where] = Predictor(network, self.sampler, where)
        return self._predictors[where]

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
        """Write to a Zarr store, whole or not at all, without pickle. `load_posterior` reads it.

        The store has the groups ``network``, ``sample_stats`` and ``variational``. A posterior of stored draws has the
        group ``posterior`` (chain, draw, …) in place of ``variational``, in the order in which the draws were made.
        ArviZ reads it.

        Raises
        ------
        BayesdfError
            The path is taken and `overwrite` is False.
        """
        root = {**self.attrs, "sampler": self.sampler.kind, "recipe": json.dumps(self.recipe)}
        root["class_logits"] = int(has_class_logits(self.network))
        groups = {
            "network": pack(self.network.state_dict()),
            self.sampler.group: self.sampler.to_dataset(),
            "sample_stats": self.sample_stats,
        }
        root["sha256"] = digest(root, groups)
        below = {f"/{name}": group for name, group in groups.items()}
        return write_tree(xr.DataTree.from_dict({"/": xr.Dataset(attrs=root), **below}), path, overwrite)

    def check_draws(self, draws: int | None, seed: int) -> int:
        """The number of draws for this request. Raises an error if there are not enough."""
        capacity = self.sampler.capacity
        if draws is None:
            draws = DRAWS if capacity is None else min(DRAWS, capacity)
        for name, value in (("draws", draws), ("seed", seed)):
            if not isinstance(value, Integral) or isinstance(value, bool):
                raise BayesdfError(f"{name} is {value!r}, but must be a whole number")
        if draws < 1:
            raise BayesdfError(f"draws is {draws}, but must be at least 1")
        if seed < 0:
            raise BayesdfError(f"seed is {seed}, but must be at least 0")
        if capacity is not None and draws > capacity:
            raise BayesdfError(
                f"{draws} draws were asked of a posterior that holds {capacity} (in each chain): ask for fewer, or fit "
                "one that holds more"
            )
        return draws

    def _class_names(self, dataset: Dataset[Any], labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """The names of the data's classes, if these are of what is predicted, else those of the fit.

        There must be as many as logits.
        """
        count, own = logits.shape[-1], labels.ndim == logits.ndim - 2
        trained = json_attr(self.attrs, "classes")
        names = trained if isinstance(trained, list) and len(trained) == count else range(count)
        classes = [str(name) for name in (own and getattr(dataset, "classes", None)) or names]
        if len(classes) != count:
            raise BayesdfError(
                f"the data has {len(classes)} classes ({', '.join(classes)}), but the posterior tells {count} apart: "
                "predict data of the task it was fitted on"
            )
        return np.array(classes, np.str_)

    def _posterior(self, draws: int, seed: int) -> xr.Dataset:
        chains = self.sampler.chains
        made = [self.sampler.draw(index, seed) for index in range(draws * chains)]
        stacked = {name: torch.stack([values[name] for values in made]) for name in self.sampler.shapes}
        return self._of_sites(
            {name: value.unflatten(0, (draws, chains)).transpose(0, 1) for name, value in stacked.items()}
        )

    def _of_sites(self, values: dict[str, Tensor]) -> xr.Dataset:
        """Values (chain, draw, *site) with ArviZ's names for the dimensions."""
        variables = {
            name: (("chain", "draw", *(f"{name}_dim_{k}" for k in range(value.dim() - 2))), value.numpy())
            for name, value in values.items()
        }
        chains, draws = next(iter(values.values())).shape[:2]
        return xr.Dataset(variables, {"chain": np.arange(chains), "draw": np.arange(draws)})

    def _tree(self, groups: dict[str, xr.Dataset], seed: int, extra: dict[str, Any] | None = None) -> xr.DataTree:
        attrs = {**self.attrs, **(extra or {}), "draws_seed": seed}
        return xr.DataTree.from_dict(
            {"/": xr.Dataset(attrs=attrs), **{f"/{name}": group for name, group in groups.items()}}
        )


def coordinates(dataset: Dataset[Any], labels: np.ndarray) -> dict[str, Any]:
    """Coordinates of ``image``: its number, the columns of the manifest, and the label if each image has one."""
    known = _constant_data(dataset, np.arange(len(labels)))
    coords = {"image": known["image"].values, **{str(name): ("image", known[name].values) for name in known.data_vars}}
    return {**coords, "label": ("image", labels)} if is_labelled(dataset) and labels.ndim == 1 else coords


def _constant_data(dataset: Dataset[Any], image: np.ndarray) -> xr.Dataset:
    """The manifest's columns, one value for each image."""
    manifest = getattr(dataset, "manifest", None)
    if manifest is None:
        return xr.Dataset(coords={"image": image})
    if len(manifest) != len(image):
        raise BayesdfError(f"the manifest has {len(manifest)} rows for {len(image)} images: it needs one an image")
    columns = {}
    for name in manifest.columns:
        values = manifest[name].to_numpy()
        if values.dtype.kind not in "biufM":
            values = np.array(["" if value is None or value != value else str(value) for value in values], np.str_)
        columns[str(name)] = ("image", values)
    return xr.Dataset(columns, {"image": image})

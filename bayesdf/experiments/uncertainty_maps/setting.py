"""What do all questions share: the images, the posterior and its controls, and maps of both?"""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

import bayesdf.data as data
from bayesdf.cli import console
from bayesdf.errors import BayesdfError
from bayesdf.experiments import warm_start
from bayesdf.experiments.posteriors import draws_per_chain, fit_or_find
from bayesdf.faces import REGIONS
from bayesdf.inference import Posterior, load_posterior, matched_noise, uncertainty_maps
from bayesdf.inference.maps.method import MapMethod
from bayesdf.inference.samplers import DeltaSampler

KNOWN = ("path", "source", "subject", "donor")
"""Columns of the manifest that maps and masks carry as coordinates."""
QUANTITIES = ("p_fake", "total", "aleatoric", "epistemic")
"""What maps are made of, in the order of tables."""


@dataclass(frozen=True)
class Setting:
    """The settings of a study and what follows from them. Attributes are those of the command line.

    Attributes
    ----------
    collection
        The images.
    template
        Whether faces are taken to lie as those of the embedded data.
    folder
        Of the run; None before it is known.
    fitted
        The posteriors that this process has fitted or found, by the names of their files.
    """

    collection: data.Collection
    detector: str
    method: str
    images: int
    draws: int
    epochs: int | None
    warm_epochs: int
    seed: int
    device: str
    template: bool
    quick: bool
    folder: Path | None = None
    fitted: dict[str, Posterior] = field(default_factory=dict)

    def within(self, folder: Path) -> "Setting":
        """The same in the folder of the run, where posteriors are kept."""
        return replace(self, folder=folder)

    def start(self) -> nn.Module:
        """The network that posteriors start from."""
        assert self.folder is not None
        return warm_start.start(
            self.detector,
            self.collection,
            keep=self.folder / "warm_start.safetensors",
            epochs=self.warm_epochs,
            seed=self.seed,
            device=self.device,
        )

    def posterior(self) -> Posterior:
        """The posterior: that of the main job's run, of the stopped run, or a new fit."""
        return self._fit(self.seed, self.method)

    def another_fit(self) -> Posterior:
        """The same posterior, fitted with another seed."""
        return self._fit(self.seed + 1, f"{self.method}-again")

    def _fit(self, seed: int, name: str) -> Posterior:
        assert self.folder is not None
        if name not in self.fitted:
            self.fitted[name] = fit_or_find(
                self.method,
                self.start(),
                self.detector,
                self.collection,
                self.folder / "posteriors" / f"{name}.zarr",
                epochs=self.epochs,
                seed=seed,
                device=self.device,
                quick=self.quick,
            )
        return self.fitted[name]

    def noise(self, posterior: Posterior) -> Posterior:
        """The control without inference: noise of the posterior's size around the start."""
        return matched_noise(posterior, self.start())

    def untrained(self, posterior: Posterior) -> Posterior:
        """The control without training: the same noise around an untrained network."""
        return matched_noise(posterior, warm_start.build_untrained(self.detector, self.collection, seed=self.seed))

    def deterministic(self) -> Posterior:
        """The network that the posterior starts from, as a posterior of a single point."""
        network = self.start()
        name, value = next(iter(network.named_parameters()))
        return Posterior(network, DeltaSampler({name: value.detach()}), xr.Dataset(), {})

    def some(self, images: data.ImageDataset, number: int | None = None) -> data.ImageDataset:
        """So many images of each source (default: `images`), spread evenly over the rows."""
        source = images.manifest["source"].to_numpy()
        chosen = np.zeros(len(images), bool)
        for name in np.unique(source):
            rows = np.flatnonzero(source == name)
            count = min(self.images if number is None else number, len(rows))
            chosen[rows[np.arange(count) * len(rows) // count]] = True
        return images.take(chosen)

    def maps(
        self, posterior: Posterior, images: data.ImageDataset | Tensor, method: MapMethod, draws_seed: int | None = None
    ) -> xr.Dataset:
        """Maps of some images under the posterior's draws, with coordinates that name the images."""
        tree = uncertainty_maps(
            posterior,
            images,
            method,
            draws_per_chain(posterior, self.draws),
            self.seed if draws_seed is None else draws_seed,
            device=self.device,
            quantities=QUANTITIES,
        )
        found = tree["maps"].to_dataset()
        return found.drop_vars([name for name in found.coords if name not in (*KNOWN, "image", "y", "x")])

    def region_masks(self, images: data.ImageDataset) -> xr.DataArray:
        """The regions of the face in each image: bool (image, region, y, x).

        Raises
        ------
        BayesdfError
            The manifest has no landmarks, and the template was not asked for.
        """
        return xr.DataArray(
            data.face_regions(images, template=self.template),
            {"region": list(REGIONS)},
            ("image", "region", "y", "x"),
        )


def of_main_job(run: Path, method: str, detector: str, collection: data.Collection) -> Posterior | None:
    """The posterior of a run of the main job; None where it has none by this method.

    Raises
    ------
    BayesdfError
        It is no such run, or its posterior is of other images or another network.
    """
    path = run / "posteriors" / f"{method}.zarr"
    if not (run / "posteriors").is_dir():
        raise BayesdfError(f"--posteriors {run}: it is no run of source_attribution")
    if not path.exists():
        console.print(f"    {run} has no posterior by {method}: fitting one", markup=False, highlight=False)
        return None
    found = load_posterior(path)
    name = (found.recipe or {}).get("name")
    if name != detector:
        raise BayesdfError(f"--posteriors {run}: its {method} is of {name}, and --detector is {detector}: give {name}")
    if found.attrs.get("data_fingerprint") != collection.train.fingerprint:
        raise BayesdfError(
            f"--posteriors {run}: its {method} was fitted on other images than these; leave the option out, or give "
            "the same data"
        )
    return found


def digest_of(posterior: Posterior) -> str:
    """What identifies a posterior: its weights and its first draw."""
    digest = hashlib.sha256()
    for part in (posterior.network.state_dict(), posterior.sampler.draw(0, 0)):
        for value in part.values():
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def masks_of(images: data.ImageDataset) -> xr.DataArray:
    """Which pixels were changed: float (image, y, x), with coordinates that name the images."""
    return with_names(images.masks.numpy(), images)


def with_names(values: np.ndarray, images: data.ImageDataset) -> xr.DataArray:
    """Numbers (image, y, x) with what is known of the images."""
    coords = {name: ("image", images.manifest[name].to_numpy(str)) for name in KNOWN}
    return xr.DataArray(values, {"image": np.arange(len(images)), **coords}, ("image", "y", "x"))


def pixels(images: data.ImageDataset) -> Tensor:
    """All images, (N, 3, H, W) in [0, 1]."""
    return torch.stack([image for image, _ in images.__getitems__(list(range(len(images))))])

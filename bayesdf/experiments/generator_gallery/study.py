"""From settings to a DataTree: the samples and their distances are one cell."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from rich.progress import track
from scipy import ndimage

from bayesdf._version import __version__
from bayesdf.data import common_path_grey
from bayesdf.experiments.experiment import Cell, Study
from bayesdf.experiments.generator_gallery.page import present
from bayesdf.experiments.generator_gallery.tables import BLURRED, HELD_OUT
from bayesdf.faces import people, photographs
from bayesdf.generators import GENERATORS, quality
from bayesdf.generators.networks import weights_fingerprint

SHOWN = 12
"""Samples of each generator that the figure shows and the run keeps."""


def study(*, images: int, seed: int, quick: bool = False) -> Study:
    """Declare the study.

    Parameters
    ----------
    images
        Samples of each generator.
    seed
        Of all samples.
    quick
        Whether this is a quick look, which the page says.
    """
    title = f"{images} samples of each of {len(GENERATORS)} generators"
    return Study(
        name="generator_gallery",
        settings={"bayesdf": __version__, "images": images, "seed": seed},
        follows={"weights": weights_fingerprint()},
        cells=[Cell("gallery", title, partial(work, images, seed))],
        present=present,
        collect=lambda results: results["gallery"],
        attrs={"quick": quick},
    )


def work(images: int, seed: int, folder: Path) -> xr.DataTree:
    """Draw the samples and measure them.

    Returns
    -------
    xr.DataTree
        `distances`: what `distances` returns, over `source`, and `latent_dim`. `samples`: `picture` (row, image, y, x),
        grey values of 0 to 255, the first `SHOWN` of each generator and as many photographs.
    """
    held_out = np.isin(photographs().subject, people()["test"])
    reference = common_path_grey(photographs().images[held_out])
    others = photographs().images[~held_out]
    made = {name: GENERATORS[name].sample(images, seed) for name in track(GENERATORS, "sampling", transient=True)}
    made = {HELD_OUT: others, BLURRED: ndimage.gaussian_filter(others, (0, 2, 2)), **made}
    made = {name: common_path_grey(part) for name, part in made.items()}
    table = distances(made, reference, seed)
    table["latent_dim"] = [float(GENERATORS[name].latent_dim) if name in GENERATORS else np.nan for name in table.index]
    rows = {"photographs": others[::25], **{name: made[name] for name in GENERATORS}}
    pictures = np.stack([part[:SHOWN] for part in rows.values()])
    samples = xr.Dataset(
        {"picture": (("row", "image", "y", "x"), (pictures * 255.0).round().astype(np.uint8))}, {"row": list(rows)}
    )
    return xr.DataTree.from_dict({"/distances": xr.Dataset.from_dataframe(table), "/samples": samples})


def distances(samples: dict[str, NDArray[np.float32]], reference: NDArray[np.float32], seed: int) -> pd.DataFrame:
    """Fréchet and kernel distance of each set of images to the reference, the latter with a 95 % interval over images.

    Every set is cut to the size of the smallest, since the Fréchet distance depends on the number. The intervals come
    from halves of the images (delete-half jackknife, Shao and Wu 1989): images drawn twice would count as alike.
    """
    target = quality.features(reference)
    number = min(len(images) for images in samples.values())
    rng = np.random.default_rng(seed)
    rows = []
    for name, images in samples.items():
        found = quality.features(images[:number])
        halves = (rng.permutation(number)[: number // 2] for _ in range(200))
        again = [quality.kernel(found[half], target) for half in halves]
        low, high = np.quantile(again, [0.025, 0.975])
        row = {"source": name, "images": number, "frechet": quality.frechet(found, target)}
        rows.append({**row, "kernel": quality.kernel(found, target), "kernel_low": low, "kernel_high": high})
    return pd.DataFrame(rows).set_index("source")

"""What do the nine generators make, and how far is it from photographs?

    python -m bayesdf.experiments.generator_gallery

Draws a row of samples of each, and measures their distance to photographs of people none of the whole-image generators
was trained on, beside the distance of other people's photographs, which is as near as one can come.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from numpy.typing import NDArray
from rich.progress import track
from rich.table import Table
from scipy import ndimage

from bayesdf import report
from bayesdf._version import __version__
from bayesdf.cli import console, run_cli
from bayesdf.data import common_path_grey
from bayesdf.errors import BayesdfError
from bayesdf.experiments.run import refuse_used, workspace, write_figures, write_tables
from bayesdf.faces import people, photographs
from bayesdf.generators import GENERATORS, quality

HELD_OUT = "photographs, other people"
BLURRED = "photographs, blurred by 2 px"


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


def main(
    images: Annotated[int, typer.Option(help="Samples of each generator; 40 to 2000.")] = 300,
    out: Annotated[Path, typer.Option(help="Folder of the run; must be new or empty.")] = Path("runs/gallery"),
    seed: Annotated[int, typer.Option(help="Seed of all samples.", min=0, max=2**32 - 1)] = 0,
) -> None:
    """Draw the generators' samples and measure their distance to photographs of people held out."""
    if not 40 <= images <= 2000:
        raise BayesdfError(f"--images {images}: give 40 to 2000")
    refuse_used(out)
    held_out = np.isin(photographs().subject, people()["test"])
    reference = common_path_grey(photographs().images[held_out])
    others = photographs().images[~held_out]
    made = {name: GENERATORS[name].sample(images, seed) for name in track(GENERATORS, "sampling", transient=True)}
    made = {HELD_OUT: others, BLURRED: ndimage.gaussian_filter(others, (0, 2, 2)), **made}
    made = {name: common_path_grey(part) for name, part in made.items()}
    settings = {"bayesdf": __version__, "images": images, "seed": seed}
    with workspace(out, settings) as folder:
        table = distances(made, reference, seed)
        for name in GENERATORS:
            table.loc[name, "latent_dim"] = GENERATORS[name].latent_dim
        rows = {"photographs": others[::25], **{name: made[name] for name in GENERATORS}}
        figure = report.face_sheet(
            {name: part[:12] for name, part in rows.items()},
            title="What each generator makes",
            subtitle=f"The first twelve samples of seed {seed}, not chosen; after crop, resize, 8 bits and JPEG.",
        )
        write_tables(folder, {"distances": table})
        write_figures(folder, {"samples": figure})
    shown_table = Table(title="Distance to photographs of ten people held out (kernel distance: 95 % interval)")
    for column in ("source", "Fréchet", "kernel x 1000"):
        shown_table.add_column(column, justify="left" if column == "source" else "right")
    for source, row in table.iterrows():
        low, high = 1e3 * row["kernel_low"], 1e3 * row["kernel_high"]
        shown_table.add_row(
            str(source), f"{row['frechet']:.2f}", f"{1e3 * row['kernel']:.0f} ({low:.0f} to {high:.0f})"
        )
    console.print(shown_table)
    console.print(f"finished; see {out.resolve()}", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run_cli(main)

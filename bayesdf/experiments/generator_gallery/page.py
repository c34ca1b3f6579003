"""What does the page of a run say, and what the screen?"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import xarray as xr

from bayesdf.experiments.experiment import Presentation, Summary
from bayesdf.experiments.generator_gallery.tables import BLURRED, HELD_OUT, metrics, tables
from bayesdf.faces import CREDIT
from bayesdf.report.page import GLOSSARY, Picture, Section, Table, of_quick, write_page

MEASURED = (
    "Distances are between features (principal components of a scattering transform) of two sets of images: samples "
    "and photographs of ten people whom no generator of whole images has seen. The Fréchet distance compares means and "
    "covariances. The kernel distance compares all moments. Photographs of other people are a reference, and no bound."
)
WORDS = {
    "source": GLOSSARY["source"],
    "95 % interval": "The kernel distance is measured again and again on half of the images, chosen at random "
    "(delete-half jackknife). The interval is the range in which 95 % of the results lie.",
}


def present(tree: xr.DataTree) -> Presentation:
    """What a run shows, from its DataTree."""
    from bayesdf.experiments.generator_gallery.figures import figures

    made = tables(tree)
    return Presentation(
        metrics=metrics(tree),
        tables=made,
        figures=figures(tree),
        page=lambda path, pictures: page(path, tree, pictures, made),
        summary=Summary(
            title="Distance to photographs of ten people held out (kernel distance: 95 % interval)",
            columns=("source", "Fréchet", "kernel x 1000"),
            rows=[
                (
                    str(source),
                    f"{row['frechet']:.2f}",
                    _kernel(row),
                )
                for source, row in made["distances"].iterrows()
            ],
        ),
    )


def page(path: Path, tree: xr.DataTree, pictures: Mapping[str, bytes], tables: Mapping[str, pd.DataFrame]) -> None:
    """Write the report."""
    shown = tables["distances"]
    nearest = str(shown["kernel"].drop(index=[HELD_OUT, BLURRED]).idxmin())
    kernels = {str(source): _kernel(row) for source, row in shown.iterrows()}
    settings = {name: tree.attrs[name] for name in ("bayesdf", "images", "seed")}
    settings["quick"] = tree.attrs["quick"] == "True"
    write_page(
        path,
        "The generators and their samples",
        [
            Section("Samples", [Picture(pictures["samples"], "A row for each generator, photographs above.")]),
            Section(
                "Distance to photographs",
                [
                    MEASURED,
                    Table(_printed(shown), "Intervals hold 95 % over images (delete-half jackknife)."),
                ],
            ),
        ],
        question="What do the generators' samples look like, and how far are they from photographs?",
        answer=f"By the kernel distance (times 1000), samples of {nearest} are nearest to photographs of people "
        f"held out: {kernels[nearest]}. Photographs of other people are at {kernels[HELD_OUT]}.",
        cautions=of_quick(settings),
        settings=settings,
        credits=[f"Photographs: {CREDIT}."],
        glossary=WORDS,
    )


def _printed(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the kernel distance times 1000, as everywhere on the page and the screen."""
    kernels = {name: 1e3 * table[name] for name in ("kernel", "kernel_low", "kernel_high")}
    return table.assign(**kernels).rename(
        columns={
            "kernel": "kernel x 1000",
            "kernel_low": "kernel x 1000.low",
            "kernel_high": "kernel x 1000.high",
        }
    )


def _kernel(row: pd.Series) -> str:
    """The kernel distance times 1000 with its interval, as printed."""
    value, low, high = (1e3 * row[name] for name in ("kernel", "kernel_low", "kernel_high"))
    return f"{value:.0f} ({low:.0f} to {high:.0f})"

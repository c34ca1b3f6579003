"""The gallery: a row a generator, a distance a row, one line for a mistake."""

from pathlib import Path

import pandas as pd
import pytest

from bayesdf.errors import BayesdfError
from bayesdf.experiments.generator_gallery.__main__ import main
from bayesdf.experiments.generator_gallery.tables import BLURRED, HELD_OUT
from bayesdf.generators import GENERATORS
from bayesdf.report.page import QUICK
from bayesdf.store import open_run


def test_every_generator_has_a_row_and_a_distance(tmp_path: Path) -> None:
    out = tmp_path / "gallery"
    main(images=2000, out=out, seed=3, quick=True)
    table = pd.read_csv(out / "tables" / "distances.csv", index_col=0)
    assert set(GENERATORS) < set(table.index)
    assert (out / "figures" / "samples.png").stat().st_size > 50_000
    made = table.loc[list(GENERATORS)]
    assert open_run(out)["samples/picture"].sizes["row"] == len(GENERATORS) + 1
    page = (out / "report.html").read_text()
    assert QUICK in page and "64.000" not in page
    kernel = 1e3 * table.loc["vae", ["kernel", "kernel_low", "kernel_high"]]
    assert "{:.3f} ({:.3f} to {:.3f})".format(*kernel) in page
    assert {*table["images"]} == {40} and table["latent_dim"].isna().sum() == 2
    assert (made["kernel_low"] <= made["kernel_high"]).all()
    assert table.loc[HELD_OUT, "kernel"] < table.loc[BLURRED, "kernel"]
    with pytest.raises(BayesdfError, match="holds a run that has finished"):
        main(images=40, out=out, seed=3)


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BayesdfError, match="give 40 to 2000"):
        main(images=3, out=tmp_path / "gallery", seed=0)

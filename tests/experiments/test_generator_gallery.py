"""The gallery: a row a generator, a distance a row, one line for a mistake."""

from pathlib import Path

import pandas as pd
import pytest

from bayesdf.errors import BayesdfError
from bayesdf.experiments.generator_gallery.__main__ import main
from bayesdf.experiments.generator_gallery.tables import BLURRED, HELD_OUT
from bayesdf.generators import GENERATORS
from bayesdf.store import open_run


def test_every_generator_has_a_row_and_a_distance(tmp_path: Path) -> None:
    out = tmp_path / "gallery"
    main(images=40, out=out, seed=3)
    table = pd.read_csv(out / "tables" / "distances.csv", index_col=0)
    assert set(GENERATORS) < set(table.index)
    assert (out / "figures" / "samples.png").stat().st_size > 50_000
    made = table.loc[list(GENERATORS)]
    assert open_run(out)["samples/picture"].sizes["row"] == len(GENERATORS) + 1
    assert (out / "report.html").is_file()
    assert (made["kernel_low"] <= made["kernel_high"]).all()
    assert table.loc[HELD_OUT, "kernel"] < table.loc[BLURRED, "kernel"]
    with pytest.raises(BayesdfError, match="holds a run that has finished"):
        main(images=40, out=out, seed=3)


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BayesdfError, match="give 40 to 2000"):
        main(images=3, out=tmp_path / "gallery", seed=0)

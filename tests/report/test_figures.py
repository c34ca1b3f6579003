"""What experiments share of drawing: the style, confusion and reliability, and sheets of faces."""

import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from bayesdf.analysis import Estimate, reliability_table
from bayesdf.errors import BayesdfError
from bayesdf.report import confusion_matrix, face_sheet, palette, reliability_diagram, save
from bayesdf.report.style import legible, percent, plain, png
from tests.report.conftest import SOURCES
from tests.report.drawn import ODD_NAMES, labelled, texts


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    fake = rng.uniform(size=300)
    label = (rng.uniform(size=300) < fake).astype(np.int64)
    return reliability_table(np.stack([1 - fake, fake], axis=1), label)


def test_confusion_matrix_shows_shares_and_counts(counts):
    figure = labelled(confusion_matrix(counts), "80 %\n8", "90 %\n9", "20 images", "85 %", "true source", "(10 images)")
    heat = figure.axes[0].collections[0].get_array()
    np.testing.assert_allclose(np.asarray(heat).reshape(3, 3), [[0.8, 0.2, 0], [0.1, 0.9, 0], [0, 0, 0]])


def test_reliability_diagram_says_counts_and_error(table):
    figure = labelled(
        reliability_diagram(table, Estimate(0.046, 0.03, 0.06)),
        "300 images",
        "0.046",
        "0.030 to 0.060",
        "confidence",
    )
    points = figure.axes[0].lines[1].get_xydata()
    np.testing.assert_allclose(points, table[["confidence", "accuracy"]])
    assert [bar.get_height() for bar in figure.axes[1].patches] == list(table["count"])
    assert "nan" not in texts(reliability_diagram(table, Estimate(0.046, np.nan, np.nan)))


@pytest.mark.filterwarnings("ignore:Glyph .* missing")
def test_names_cannot_break_a_figure(counts):
    for name, other in ODD_NAMES:
        names = dict(zip(SOURCES, ("real", name, other), strict=True))
        assert png(confusion_matrix(counts.rename(index=names, columns=names)))
    assert plain("a\nb$" + "c" * 50) == "a·b\\$" + "c" * 27 + "…"


def test_one_colour_a_source_everywhere():
    whole = palette(["vae", "real", "swap"])
    assert palette(["swap", "vae"])["vae"] == whole["vae"] != whole["swap"]
    many = palette([f"g{i}" for i in range(15)])
    assert len(set(many.values())) == 16


def test_shares_do_not_round_to_all_or_none():
    assert [percent(share) for share in (0, 0.001, 0.41, 0.996, 1)] == [
        "0 %",
        "0.1 %",
        "41 %",
        "99.6 %",
        "100 %",
    ]


def test_headings_are_dark_enough():
    for colour in palette(["a", "b", "c", "d", "e", "f"]).values():
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(legible(colour))]
        assert 1.05 / (np.dot(linear, (0.2126, 0.7152, 0.0722)) + 0.05) >= 4.5


def test_matplotlib_is_left_as_it_was(tmp_path, counts):
    before, open_before = dict(mpl.rcParams), mpl._pylab_helpers.Gcf.get_all_fig_managers()
    path = save(confusion_matrix(counts), tmp_path / "confusion.png")
    assert path.read_bytes() == png(confusion_matrix(counts))
    assert dict(mpl.rcParams) == before
    assert mpl._pylab_helpers.Gcf.get_all_fig_managers() == open_before


def test_empty_rows_draw():
    labelled(confusion_matrix(pd.DataFrame([[0]], index=["a"], columns=["a"])))


def test_a_sheet_without_faces_is_refused():
    with pytest.raises(BayesdfError, match="at least one image"):
        face_sheet({"none": np.zeros((0, 4, 4, 3))}, title="", subtitle="")


def test_nothing_that_draws_is_loaded_before_it_is_asked_for():
    code = "import sys, bayesdf.report; assert not {'matplotlib', 'seaborn'} & set(sys.modules); bayesdf.report.palette"
    subprocess.run([sys.executable, "-c", code], check=True)

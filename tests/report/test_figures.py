import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from bayesdf.analysis import Estimate, reliability_table
from bayesdf.errors import BayesdfError
from bayesdf.report import (
    certainty_rows,
    certainty_sheet,
    confusion_matrix,
    face_sheet,
    palette,
    reliability_diagram,
    sample_sheet,
    save,
    source_accuracy,
    uncertainty_by_source,
)
from bayesdf.report.style import legible, percent, plain, png
from tests.report.conftest import SOURCES


def texts(figure: Figure) -> str:
    """All that is written on a figure."""
    return " ".join(text.get_text() for text in figure.findobj(mpl.text.Text))


def labelled(figure: Figure, *words: str) -> Figure:
    """Draws without error and shows the words."""
    assert png(figure).startswith(b"\x89PNG")
    for word in words:
        assert word in texts(figure)
    return figure


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


def test_uncertainty_has_a_panel_a_source(uncertainty):
    figure = labelled(uncertainty_by_source(uncertainty), "60 images", "(20)", "aleatoric", "epistemic", "nats")
    visible = [ax for ax in figure.axes if ax.get_visible()]
    assert len(visible) == 3 and visible[0].get_title(loc="left") == "real (20)"
    assert "1 below 1e-06" in texts(figure)
    own = visible[0].collections[1].get_offsets()
    real = uncertainty.isel(image=(uncertainty["source"] == "real").values)
    np.testing.assert_allclose(own[1:, 0], real["aleatoric"][1:])
    with pytest.raises(BayesdfError, match="no coordinate 'source'"):
        uncertainty_by_source(uncertainty.drop_vars("source"))


@pytest.mark.parametrize("columns", [1, 3])
def test_the_label_of_the_axis_stays_below_the_subtitle(uncertainty, columns):
    figure = uncertainty_by_source(uncertainty, columns=columns)
    figure.draw_without_rendering()
    label = next(text for text in figure.texts if text.get_text().startswith("epistemic"))
    subtitle = next(text for text in figure.texts if text.get_text().startswith("60 images"))
    assert label.get_window_extent().y1 < subtitle.get_window_extent().y0
    assert label.get_window_extent().y0 > 0


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


def test_accuracy_bars_have_intervals_and_chance(summary):
    figure = labelled(source_accuracy(summary), "chance 20 %", "30 %", "99.6 %", "mean probability alone", "accuracy")
    assert [bar.get_width() for bar in figure.axes[0].patches] == list(summary["accuracy"])


def test_certainty_sheet_ranks_and_frames(uncertainty, faces):
    rows = certainty_rows(uncertainty, 5)
    certain = rows["Most certain photographs (lowest total uncertainty)"]
    photographs = uncertainty["total"].values[uncertainty["label"].values == 0]
    np.testing.assert_allclose(uncertainty["total"].values[certain], np.sort(photographs)[:5])
    disputed = rows["Most disputed among the draws (highest epistemic uncertainty)"]
    assert uncertainty["epistemic"].values[disputed[0]] == uncertainty["epistemic"].max()
    figure = labelled(certainty_sheet(faces, uncertainty, columns=5), "60 images", "P(fake)", "epistemic", "real")
    assert len(figure.axes) == 20
    shown = np.concatenate(list(rows.values()))
    wrong = (uncertainty["prediction"] != uncertainty["label"]).values[shown]
    assert [ax.spines["left"].get_visible() for ax in figure.axes] == list(wrong)
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), faces[certain[0]])
    with pytest.raises(BayesdfError, match="59 images given for 60"):
        certainty_sheet(faces[1:], uncertainty)


def test_sample_sheet_has_a_row_a_source(uncertainty, faces):
    figure = labelled(sample_sheet(faces, uncertainty["source"], columns=4), "real (20 images)", "vae (20 images)")
    assert len(figure.axes) == 12
    assert png(figure) == png(sample_sheet(faces, uncertainty["source"], columns=4))
    grey = labelled(sample_sheet(faces[..., 0], uncertainty["source"], columns=30))
    assert len(grey.axes) == 60
    with pytest.raises(BayesdfError, match="at least one image"):
        face_sheet({"none": np.zeros((0, 4, 4, 3))}, title="", subtitle="")


@pytest.mark.filterwarnings("ignore:Glyph .* missing")
def test_names_cannot_break_a_figure(uncertainty, faces, counts):
    for name, other in (("$\\frac{", "a$b$c"), ("x\ny\x00", "名" * 100), ("", "\\$"), ("_^{", "vae")):
        names = dict(zip(SOURCES, ("real", name, other), strict=True))
        assert png(confusion_matrix(counts.rename(index=names, columns=names)))
        renamed = np.array([names[source] for source in uncertainty["source"].values])
        assert png(uncertainty_by_source(uncertainty.assign_coords(source=("image", renamed))))
        assert png(sample_sheet(faces, renamed, columns=2))
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
    before = dict(mpl.rcParams)
    path = save(confusion_matrix(counts), tmp_path / "confusion.png")
    assert path.read_bytes() == png(confusion_matrix(counts))
    assert dict(mpl.rcParams) == before
    assert not mpl._pylab_helpers.Gcf.get_all_fig_managers()


def test_empty_rows_and_single_sources_draw(uncertainty):
    labelled(confusion_matrix(pd.DataFrame([[0]], index=["a"], columns=["a"])))
    labelled(uncertainty_by_source(uncertainty.isel(image=[0])))

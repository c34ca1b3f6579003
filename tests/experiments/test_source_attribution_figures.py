"""The source attribution's figures, from an invented run."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from bayesdf.errors import BayesdfError
from bayesdf.experiments.source_attribution.figures import (
    certainty_rows,
    certainty_sheet,
    sample_sheet,
    source_accuracy,
    uncertainty_by_source,
)
from bayesdf.report.style import png
from tests.report.conftest import SOURCES
from tests.report.drawn import ODD_NAMES, labelled, texts


@pytest.fixture(scope="module")
def uncertainty() -> xr.Dataset:
    rng = np.random.default_rng(0)
    images = 60
    source = np.array(SOURCES)[np.arange(images) % 3]
    fake = 1 / (1 + np.exp(-rng.normal(np.where(source == "real", -2, 2), 2)))
    probability = np.stack([1 - fake, fake], axis=1)
    total = -(probability * np.log(probability)).sum(axis=1)
    share = rng.uniform(0.1, 0.9, size=images)
    share[0] = 1e-9
    return xr.Dataset(
        {
            "total": ("image", total),
            "aleatoric": ("image", total * (1 - share)),
            "epistemic": ("image", total * share),
            "prediction": ("image", (fake > 0.5).astype(int)),
            "probability": (("image", "class"), probability),
        },
        coords={"source": ("image", source), "label": ("image", (source != "real").astype(int))},
    )


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    return np.random.default_rng(0).uniform(size=(60, 16, 16, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def summary() -> pd.DataFrame:
    rows = {
        "mean probability alone": (0.3, 0.25, 0.35),
        "uncertainty": (0.996, 0.9, 1.0),
        "odd": (0.5,) + 2 * (np.nan,),
    }
    table = pd.DataFrame(rows, index=["accuracy", "accuracy.low", "accuracy.high"]).T
    return table.assign(chance=0.2).rename_axis("features")


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


@pytest.mark.filterwarnings("ignore:Glyph .* missing")
def test_names_cannot_break_a_figure(uncertainty, faces):
    for name, other in ODD_NAMES:
        names = dict(zip(SOURCES, ("real", name, other), strict=True))
        renamed = np.array([names[source] for source in uncertainty["source"].values])
        assert png(uncertainty_by_source(uncertainty.assign_coords(source=("image", renamed))))
        assert png(sample_sheet(faces, renamed, columns=2))


def test_a_single_image_draws(uncertainty):
    labelled(uncertainty_by_source(uncertainty.isel(image=[0])))

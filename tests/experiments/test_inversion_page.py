"""What a run of the inversion study shows, from an invented run."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.figure import Figure

from bayesdf import analysis
from bayesdf.experiments.experiment import Presentation
from bayesdf.experiments.inversion.names import METHODS, SCORES
from bayesdf.experiments.inversion.page import present
from bayesdf.experiments.inversion.plan import Plan
from bayesdf.experiments.inversion.tables import COST
from bayesdf.report.style import png

SOURCES = ["flow", "mouth", "real", "vae"]
CANDIDATES = ["flow", "vae"]
EACH = 6
IMAGES = EACH * len(SOURCES)


def answer(names: list[str], right: float) -> xr.Dataset:
    truth = np.repeat(SOURCES, EACH)
    probability = np.full((IMAGES, len(names)), (1.0 - right) / (len(names) - 1))
    probability[np.arange(IMAGES), [names.index(name) for name in truth]] = right
    return xr.Dataset(
        {
            "probability": (("image", "source"), probability),
            "prediction": ("image", np.array(names)[probability.argmax(1)]),
            "truth": ("image", truth),
        },
        coords={"source": names, "cluster": ("image", np.arange(IMAGES))},
    )


def right(methods: list[str], conditions: list[tuple[str, float]], shares: dict[str, list[float]]) -> xr.Dataset:
    """Eight samples of candidates and two photographs; the first share of the samples is right."""
    table = np.zeros((len(methods), len(conditions), 10), bool)
    for m, method in enumerate(methods):
        for c, share in enumerate(shares[method]):
            table[m, c, : round(8 * share)] = True
            table[m, c, 8:] = [True, False]
    return xr.Dataset(
        {"right": (("method", "condition", "image"), table), "refused": (("method", "condition", "image"), ~table)},
        coords={
            "method": methods,
            "kind": ("condition", [kind for kind, _ in conditions]),
            "strength": ("condition", [strength for _, strength in conditions]),
            "source": ("image", ["flow"] * 4 + ["vae"] * 4 + ["real"] * 2),
            "subject": ("image", [f"p{row}" for row in range(10)]),
        },
    )


@pytest.fixture(scope="module")
def tree() -> xr.DataTree:
    rng = np.random.default_rng(0)
    source = np.repeat(SOURCES, EACH)
    pixel = rng.uniform(0.03, 0.06, (IMAGES, 2))
    for c, name in enumerate(CANDIDATES):
        pixel[source == name, c] = 0.008
    methods = [name for name in METHODS if not name.startswith("clean")]
    shares = {
        "inversion": [1.0, 1.0, 0.5],
        "inversion_augmented": [1.0, 1.0, 1.0],
        "smallest_error": [1.0, 1.0, 0.75],
        "classifier": [1.0, 0.5, 0.75],
        "classifier_augmented": [0.75, 0.75, 0.5],
    }
    summary = ["clean", *methods, "clean_smallest_error"]
    estimates = np.tile([0.9, 0.8, 1.0], (len(summary), 1))
    unknown = estimates.copy()
    unknown[[name.endswith("smallest_error") for name in summary]] = np.nan
    pictures = rng.integers(0, 255, (4, 64, 64), dtype=np.uint8)
    names = [*SOURCES, "none of these"]
    groups = {
        "/attribution": xr.Dataset(
            {"accuracy_candidates": (("method", "estimate"), estimates)}
            | {key: (("method", "estimate"), unknown) for key in SCORES[1:]},
            coords={"method": summary, "estimate": ["value", "low", "high"]},
        ),
        **{
            f"/attribution/{name}": answer(SOURCES if "classifier" in name else names, 0.7)
            for name in summary
            if "smallest" not in name
        },
        "/evidence": xr.Dataset(
            {
                "pixel": (("image", "candidate"), pixel),
                "evaluations": (("image", "candidate"), np.full((IMAGES, 2), 20)),
            },
            coords={"candidate": CANDIDATES, "source": ("image", source)},
        ),
        "/robustness": right(methods, [("none", 0.0), ("blur", 1.0), ("jpeg", 50.0)], shares),
        "/attack": right(methods, [("none", 0.0), ("classifier", 8.0), ("inversion", 8.0)], shares),
        "/open_set": xr.Dataset(
            {"none": (("left_out", "image"), np.stack([np.where(source == name, 1.0, -1.0) for name in CANDIDATES]))},
            coords={
                "left_out": CANDIDATES,
                "source": ("image", source),
                "subject": ("image", [f"p{row}" for row in range(IMAGES)]),
            },
        ),
        "/examples": xr.Dataset(
            {
                "picture": (("image", "y", "x"), pictures),
                "reconstruction": (("candidate", "image", "y", "x"), np.stack([pictures] * 2)),
                "pixel": (("candidate", "image"), pixel[::EACH].T),
                "loss": (("candidate", "image"), pixel[::EACH].T ** 2),
            },
            coords={"candidate": CANDIDATES, "source": ("image", SOURCES)},
        ),
        "/throughput": xr.Dataset({name: ("candidate", [0.1, 0.2]) for name in COST}, coords={"candidate": CANDIDATES}),
    }
    made = xr.DataTree.from_dict(groups)
    settings = {"bayesdf": "0", "candidates": "flow,vae", **asdict(Plan()), "weights": "0", "quick": False}
    made.attrs = {name: str(value) for name, value in settings.items()}
    return made


@pytest.fixture(scope="module")
def shown(tree: xr.DataTree) -> Presentation:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analysis, "cluster_bootstrap", partial(analysis.cluster_bootstrap, resamples=100))
        return present(tree)


@pytest.fixture(scope="module")
def tables(shown: Presentation) -> Mapping[str, pd.DataFrame]:
    return shown.tables


@pytest.fixture(scope="module")
def figures(shown: Presentation) -> Mapping[str, Figure]:
    return shown.figures


@pytest.fixture(scope="module")
def pictures(figures: Mapping[str, Figure]) -> dict[str, bytes]:
    return {name: png(figure) for name, figure in figures.items()}


def texts(figure: Figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(mpl.text.Text))


WORDS = {
    "reconstructions": ["What the candidates make", "made again by flow", "mouth, not inverted", "255", "picture"],
    "errors": ["How nearly", "root mean square error", "24 pictures", "its own", "photographs", "flow (6 own)"],
    "confusion_inversion": ["true source", "source named", "none of these", "24 images"],
    "confusion_classifier": ["true source", "source named", "classifier"],
    "reliability": ["right as often", "confidence", "24 images", "0.900"],
    "perturbations": ["What the perturbations do", "Gaussian blur", "pixels", "JPEG once more: quality", "none"],
    "robustness": ["after perturbations", "8 samples", "Gaussian blur", "standard deviation (pixels)", "95 %", "named"],
    "attacks": ["under attack", "8 samples", "attack on inversion", "largest change of a pixel (of 255)", "95 %"],
    "open_set": ["does not know", "24 pictures", "AUC", "flow (6): 1.00", "share"],
}


def test_every_figure_can_be_read_alone(figures: Mapping[str, Figure], pictures: dict[str, bytes]) -> None:
    assert set(figures) == set(WORDS)
    for name, words in WORDS.items():
        assert pictures[name].startswith(b"\x89PNG")
        for word in words:
            assert word.lower() in texts(figures[name]).lower(), (name, word)


def test_curves_are_the_shares_with_their_intervals(
    figures: Mapping[str, Figure], tables: Mapping[str, pd.DataFrame]
) -> None:
    blur = figures["robustness"].axes[0]
    drawn = {line.get_label(): line for line in blur.containers}
    for method, share in (("inversion", 1.0), ("classifier", 0.5)):
        values = drawn[METHODS[method]].lines[0].get_ydata(orig=False)
        np.testing.assert_allclose(values, [1.0, share])
    jpeg = figures["robustness"].axes[1]  # the axis shows the quality, which falls to the right
    assert jpeg.get_xlabel() == "quality" and list(jpeg.get_xticks()) == [0.0, 50.0]
    assert [label.get_text() for label in jpeg.get_xticklabels()] == ["none", "50"]
    table = tables["robustness"]
    row = table[(table["kind"] == "blur") & (table["method"] == "classifier") & (table["of"] == "candidates")]
    assert row["right.low"].item() < 0.5 < row["right.high"].item() and row["images"].item() == 8
    assert set(table[table["of"] == "photographs"]["right"]) == {0.5}
    assert "smallest_error" not in set(table[table["of"] == "photographs"]["method"])


def test_the_comparison_says_where_inversion_falls_further(tables: Mapping[str, pd.DataFrame]) -> None:
    table = tables["robustness_comparison"].set_index(["method", "kind"])
    assert not table.loc[("inversion", "blur"), "falls_further"]
    assert table.loc[("inversion", "blur"), "difference"] == -0.5
    assert table.loc[("inversion", "jpeg"), "falls_further"]
    assert table.loc[("inversion", "jpeg"), "difference"] == 0.25
    assert not table.loc[("inversion_augmented", "jpeg"), "falls_further"]
    assert table.loc[("inversion_augmented", "jpeg"), "drop_against"] == 0.25


def test_metrics_are_flat_and_tables_whole(shown: Presentation) -> None:
    metrics, tables = shown.metrics, shown.tables
    assert metrics["clean.accuracy_candidates"] == 0.9 and "smallest_error.ece" not in metrics
    assert metrics["open_set.vae.auc"] == 1.0
    assert metrics["robustness.blur.1.classifier"] == 0.5 and metrics["attack.inversion.8.inversion"] == 0.5
    assert metrics["robustness.conditions"] == 4
    assert metrics["robustness.conditions_inversion_falls_further"] == 1
    assert len(tables["probability"]) == IMAGES and tables["confusion_inversion"].to_numpy().sum() == IMAGES
    errors = tables["errors"].set_index(["candidate", "source"])
    assert errors.loc[("vae", "vae"), "median_error"] == pytest.approx(255 * 0.008)


def test_the_page_and_the_summary_hold_all_of_it(
    shown: Presentation, pictures: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    shown.page(path, pictures)
    text = path.read_text()
    assert text.count("data:image/png") == len(pictures)
    assert "Where inversion falls further than the classifier that saw as much: 1 of 4 comparisons" in text
    assert "90.0%" in text and "log loss" in text and "none of these" in text
    assert 'src="http' not in text and "<script" not in text
    assert "2.000, 4.000, 8.000" in text and "quick look" not in text
    assert ("classifier", *["0.900 (0.800 to 1.000)"] * 2) in shown.summary.rows

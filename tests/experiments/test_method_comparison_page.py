"""The method comparison's figures, tables and page, from an invented run."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.figure import Figure

import bayesdf.analysis as analysis
from bayesdf.analysis.intervals import to_dataset
from bayesdf.experiments.method_comparison import methods
from bayesdf.experiments.method_comparison import page as presentation
from bayesdf.experiments.method_comparison.figures import draw_cost, figures
from bayesdf.experiments.method_comparison.measures import QUALITY
from bayesdf.experiments.method_comparison.tables import metrics, over_seeds
from bayesdf.experiments.method_comparison.tables import tables as tables_of
from bayesdf.report.methods import METHODS
from bayesdf.report.style import png
from tests.report.drawn import texts

DRAWS = {"map": 1, "svi": 6, "nuts": 8}
SEEN, UNSEEN = 40, 12
STUCK = {"converged": 0, "verdict": "NOT converged: R-hat 1.31: raise samples"}
OTHERS = [name for name in METHODS if name != "map"]


def group(logits: np.ndarray, sources: list[str]) -> dict[str, xr.Dataset]:
    """What a posterior says of images of those sources."""
    image = {"image": np.arange(len(sources))}
    label = np.array([int(source != "real") for source in sources])
    return {
        "posterior_predictive": xr.Dataset({"logits": (("chain", "draw", "image", "class"), logits[None])}, image),
        "observed_data": xr.Dataset({"label": ("image", label)}, image),
        "constant_data": xr.Dataset(
            {"source": ("image", sources), "subject": ("image", [f"p{row % 5}" for row in range(len(sources))])}, image
        ),
    }


def posterior(name: str, seed: int) -> xr.DataTree:
    """One fit: SVI is right more often than MAP, and doubts what it has not seen."""
    rng = np.random.default_rng([seed, DRAWS[name]])
    sources = ["real" if row % 2 else "vae" for row in range(SEEN)]
    margin = np.array([-1.0 if source == "real" else 1.0 for source in sources])
    margin = margin * (3.0 if name == "svi" else 1.0) + rng.normal(size=SEEN)
    spread = 0.0 if name == "map" else 0.3

    def logits(centre: np.ndarray, width: float) -> np.ndarray:
        draws = centre + width * rng.normal(size=(DRAWS[name], len(centre)))
        return np.stack([-draws / 2, draws / 2], axis=-1)

    groups = {f"/{key}": value for key, value in group(logits(margin, spread), sources).items()}
    unseen = group(logits(rng.normal(size=UNSEEN), 5 * spread), ["swap $x^2$ <b>"] * UNSEEN)
    groups |= {f"/left_out/{key}": value for key, value in unseen.items()}
    tree = xr.DataTree.from_dict(groups)
    known, unknown = tree, tree["left_out"]
    assert isinstance(unknown, xr.DataTree)
    evaluated = analysis.evaluate(known, resamples=20)
    told = {
        **{str(key): analysis.estimate(evaluated, str(key)) for key in evaluated},
        "aurc": analysis.aurc(known, resamples=20),
        "ood_auroc_epistemic": analysis.ood_auroc(known, unknown, resamples=20),
        "ood_auroc_total": analysis.ood_auroc(known, unknown, by="total", resamples=20),
        "caught": analysis.Estimate(0.5, 0.4, 0.6),
    }
    price = {
        "fit_seconds": (1.0 + 0.1 * seed) * DRAWS[name] if (name, seed) != ("nuts", 1) else np.nan,
        "draw_seconds": 1e-3 * DRAWS[name],
        "forward_seconds": 0.1,
        "prefix_seconds": 0.09,
        "timed_images": 40,
        "draws": DRAWS[name],
    }
    groups |= {
        "/uncertainty": analysis.decompose(known),
        "/left_out/uncertainty": analysis.decompose(unknown),
        "/metrics": to_dataset(told).assign_attrs(images=SEEN, clusters=5),
        "/cost": xr.Dataset(price),
        "/sample_stats": xr.Dataset(attrs=STUCK if name == "nuts" else {"converged": 1, "verdict": "converged: flat"}),
    }
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs={"images": 80}), **groups})


def run(seeds: int, *names: str) -> xr.DataTree:
    return xr.DataTree.from_dict({f"{name}/{seed}": posterior(name, seed) for name in names for seed in range(seeds)})


MANIFEST = pd.DataFrame({"source": ["real", "vae"], "split": ["train", "test"], "subject": ["a", "b"]})
LEFT_OUT = pd.DataFrame({"source": ["swap"], "split": ["test"], "subject": [""]})


@pytest.fixture(scope="module")
def tree() -> xr.DataTree:
    return run(3, *DRAWS)


@pytest.fixture(scope="module")
def tables(tree: xr.DataTree) -> dict[str, pd.DataFrame]:
    return tables_of(tree, MANIFEST, LEFT_OUT)


def test_the_interval_over_seeds_is_students() -> None:
    """Of 1, 2, 3: the mean 2, and 4.3027 (the 97.5 % point of t with 2 degrees of freedom) times 1 / sqrt(3)."""
    value, low, high = over_seeds([1.0, 3.0, 2.0])
    assert value == 2.0 and high - 2.0 == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6) == 2.0 - low
    value, low, high = over_seeds([0.7, float("nan")])
    assert value == 0.7 and np.isnan([low, high]).all()
    assert np.isnan(over_seeds([float("nan")])).all()


def test_tables_hold_what_the_fits_say(tree: xr.DataTree, tables: dict[str, pd.DataFrame]) -> None:
    means, each = tables["comparison"], tables["seeds"]
    assert list(means.index) == list(DRAWS) and len(each) == 9
    for key in QUALITY:
        own = [float(tree[f"svi/{seed}/metrics/{key}"][0]) for seed in range(3)]
        assert means[key]["svi"] == pytest.approx(np.mean(own))
        assert means[f"{key}.low"]["svi"] <= means[key]["svi"] <= means[f"{key}.high"]["svi"]
    assert means["draw_ratio"]["nuts"] == pytest.approx(0.08)
    assert list(each.loc["svi", "fit_ratio"]) == pytest.approx([6.0] * 3)
    assert list(means["draws"]) == [1, 6, 8]
    assert (tables["uncertainty"].loc["map"] == 0.0).all() and list(tables["uncertainty"])[-1].startswith("swap")
    assert tables["images"].loc["swap", "test, left out"] == 1 and tables["images"].loc["subjects", "train"] == 1


def test_a_fit_that_was_taken_up_has_no_time(tables: dict[str, pd.DataFrame]) -> None:
    assert np.isnan(tables["seeds"].loc["nuts", "fit_seconds"].iloc[1])
    assert tables["comparison"]["fit_seconds"]["nuts"] == pytest.approx((1.0 + 1.2) / 2 * 8)


def test_differences_are_paired(tree: xr.DataTree, tables: dict[str, pd.DataFrame]) -> None:
    means, gaps = tables["comparison"], tables["differences"]
    assert list(gaps.index) == ["svi", "nuts"]
    for key in ("nll", "brier", "aurc", "accuracy", "balanced_accuracy"):
        assert gaps[key]["svi"] == pytest.approx(means[key]["svi"] - means[key]["map"], abs=1e-9)
        assert (
            gaps[f"{key}.low"]["svi"] < gaps[key]["svi"] + 1e-9 and gaps[key]["svi"] - 1e-9 < gaps[f"{key}.high"]["svi"]
        )
    assert gaps["nll.high"]["svi"] < 0 and gaps["nll.significant"]["svi"] == 1.0
    same = run(2, "map")
    twice = xr.DataTree.from_dict({"map": same["map"], "svi": same["map"]})
    gap = tables_of(twice, MANIFEST, LEFT_OUT)["differences"].loc["svi"]
    np.testing.assert_allclose(gap, 0.0, atol=1e-12)


def test_methods_that_are_alike_are_not_told_apart() -> None:
    """Eleven twins of MAP, other seeds of the same method: the page says so, whatever single intervals would."""
    fits = {"map/0": posterior("map", 0), **{f"{name}/0": posterior("map", 1 + n) for n, name in enumerate(OTHERS)}}
    tree = xr.DataTree.from_dict(fits)
    tables = tables_of(tree, MANIFEST, LEFT_OUT)
    assert not tables["differences"].filter(like=".significant").any(axis=None)
    said = presentation.answer(tables, "swap")
    assert "55 differences tested together" in said and "no method's negative log-likelihood is told from" in said


def test_metrics_are_flat(tree: xr.DataTree, tables: dict[str, pd.DataFrame]) -> None:
    flat = metrics(tree, tables)
    assert flat["svi.nll"] == pytest.approx(np.mean([flat[f"svi.{seed}.nll"] for seed in range(3)]))
    assert flat["svi.over_map.nll"] == pytest.approx(flat["svi.nll"] - flat["map.nll"])  # type: ignore[operator]
    assert flat["map.0.images"] == SEEN and flat["nuts.2.draws"] == 8


@pytest.fixture(scope="module")
def made(tree: xr.DataTree, tables: dict[str, pd.DataFrame]) -> dict[str, Figure]:
    return figures(tree, tables, "swap $x^2$ <b>")


def test_every_figure_says_what_it_shows(made: dict[str, Figure]) -> None:
    words = {
        "quality": ["40 test images", "12 of a generator", "negative log-likelihood", "lower is better"],
        "reliability": ["confidence", "share that is right", "40 test images"],
        "risk_coverage": ["coverage", "risk", "40 test images"],
        "left_out": [
            "epistemic uncertainty",
            "nats",
            "20 photographs, 20 fakes",
            "12 of the left-out",
            "one draw: none",
        ],
        "cost": ["seconds to fit", "NUTS", "3 seeds"],
        "draw_cost": ["MAP 1, SVI, mean field 6, NUTS 8", "of one run of the network"],
    }
    assert set(made) == set(words)
    for name, figure in made.items():
        assert png(figure).startswith(b"\x89PNG")
        written = texts(figure).replace("\n", " ")
        for word in words[name]:
            assert word in written, (name, word)


def test_one_seed_has_figures_too() -> None:
    tree = run(1, "map")
    made = figures(tree, tables_of(tree, MANIFEST, LEFT_OUT), "swap")
    assert "1 seed a method" in texts(made["quality"])


def test_without_map_there_is_no_ratio_and_no_difference(made: dict[str, Figure], tmp_path: Path) -> None:
    tree = run(2, "svi", "nuts")
    tables = tables_of(tree, MANIFEST, LEFT_OUT)
    assert tables["comparison"]["fit_ratio"].isna().all() and not len(tables["differences"])
    assert "training, of MAP's" not in texts(draw_cost(tree, tables["comparison"], tables["seeds"]))
    text = page(tmp_path, tree, tables, made)
    assert "than MAP" not in text and "How much higher" not in text


def test_the_page_answers_first(
    tree: xr.DataTree, tables: dict[str, pd.DataFrame], made: dict[str, Figure], tmp_path: Path
) -> None:
    text = page(tmp_path, tree, tables, made)
    assert (
        "judged best by SVI, mean field" in text and "10 differences tested together" in text and "surely" not in text
    )
    assert "<b>" not in text and 'src="http' not in text and "<script" not in text
    assert text.count("data:image/png") == 6
    stuck = len(tree["nuts"].children)
    assert f"{stuck} of {3 * stuck} fits have not converged: NUTS, seed 0, " in text
    assert "quick look" in text.split("judged best by")[0]


def page(folder: Path, tree: xr.DataTree, tables: dict[str, pd.DataFrame], pictures: dict[str, Figure]) -> str:
    path = folder / "report.html"
    settings = {"left_out": "swap", "seeds": len(tree["svi"].children), "quick": True}
    presentation.page(path, pictures, tables, settings, ["A note."], "someone")
    return path.read_text()


def test_every_method_is_described() -> None:
    assert set(methods.ABOUT) == set(methods.FACTORIES)

"""The posterior over sources is Bayes' rule, and knows what it does not know."""

import random
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import multivariate_t
from scipy.stats import t as student
from sklearn.metrics import roc_auc_score

from bayesdf import analysis
from bayesdf.errors import BayesdfError, BayesdfWarning
from bayesdf.inversion import (
    NONE,
    Attribution,
    Inversion,
    evidence,
    evidence_model,
    fit_attribution,
    load_attribution,
)
from bayesdf.inversion.loss import FLOOR

CANDIDATES = ["ann", "bob", "cid"]
TERMS = ["pixel", "gradient"]
CORRELATION = 0.8 * np.ones((6, 6)) + 0.2 * np.eye(6)
SCALE = 0.3**2 * CORRELATION
FREEDOM = 8.0


def means(gain: float = 0.5) -> dict[str, NDArray]:
    """Each candidate explains its own better by `gain`; photographs are explained worse by all."""
    found = {name: np.full((3, 2), -3.0) for name in [*CANDIDATES, "real"]}
    for row, name in enumerate(CANDIDATES):
        found[name][row] -= gain
    found["real"] += 0.3
    return found


def simulate(count: int, seed: int, centres: dict[str, NDArray]) -> xr.DataArray:
    rng = np.random.default_rng(seed)
    values = [
        multivariate_t(centre.ravel(), SCALE, df=FREEDOM).rvs(count, random_state=rng).reshape(-1, 3, 2)
        for centre in centres.values()
    ]
    return xr.DataArray(
        np.concatenate(values),
        dims=("image", "candidate", "term"),
        coords={"candidate": CANDIDATES, "term": TERMS, "source": ("image", np.repeat(list(centres), count))},
    )


def exact(table: xr.DataArray, centres: dict[str, NDArray], scale: NDArray) -> NDArray:
    """Bayes' rule with the parameters that made the evidence; columns in the order of sorted names."""
    flat = table.values.reshape(len(table), -1)
    density = np.stack(
        [multivariate_t(centres[name].ravel(), scale, df=FREEDOM).pdf(flat) for name in sorted(centres)], 1
    )
    return density / density.sum(1, keepdims=True)


def log_loss(result: xr.Dataset) -> float:
    names = list(result["source"].values)
    columns = [names.index(name) for name in result["truth"].values]
    return float(-np.log(result["probability"].values[range(len(columns)), columns]).mean())


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short chains, where convergence is not what is tested."""
    monkeypatch.setattr(evidence_model, "WARMUP", 60)
    monkeypatch.setattr(evidence_model, "THINNING", 1)


@pytest.fixture(scope="module")
def fitted() -> Attribution:
    return fit_attribution(simulate(150, 0, means()), none=0.0)


def test_probabilities_are_those_of_bayes_rule(fitted: Attribution) -> None:
    held_out = simulate(200, 1, means())
    result = fitted.probability(held_out)
    known = result["probability"].sel(source=sorted(means())).values
    right = exact(held_out, means(), SCALE)
    assert np.abs(known - right).mean() < 0.02
    truth = [sorted(means()).index(name) for name in held_out["source"].values]
    best = -np.log(right[range(len(truth)), truth]).mean()
    assert log_loss(result) < best + 0.02
    np.testing.assert_allclose(result["probability"].sum("source"), 1.0)
    assert result["probability"].sel(source=NONE).max() == 0.0


def test_evidence_that_rises_together_is_not_counted_twice(fitted: Attribution) -> None:
    """Taking the errors to be independent, with everything else known, is far worse on held-out images."""
    held_out = simulate(200, 2, means())
    truth = [sorted(means()).index(name) for name in held_out["source"].values]
    naive = exact(held_out, means(), np.diag(np.diag(SCALE)))[range(len(truth)), truth]
    assert log_loss(fitted.probability(held_out)) < -np.log(naive).mean() - 0.1


def test_it_is_calibrated(fitted: Attribution) -> None:
    result = fitted.probability(simulate(400, 3, means()))
    confidence = result["probability"].max("source").values
    right = (result["prediction"] == result["truth"]).values
    bins = np.digitize(confidence, np.linspace(0.3, 1.0, 8))
    gaps = [abs(confidence[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    assert sum(gaps) < 0.03


@pytest.mark.filterwarnings("ignore:few independent")
@pytest.mark.parametrize("count", [2, 3, 5, 10, 50])
def test_claims_are_kept_however_few_images_calibrate(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claimed probability less accuracy, over ten calibration sets: not told from 0 by Student's t at 0.1 %."""
    monkeypatch.setattr(evidence_model, "THINNING", 2)
    gaps = []
    for seed in range(10):
        model = fit_attribution(simulate(count, 100 * count + seed, means()), none=0.0, draws=64)
        result = model.probability(simulate(40, 7000 + 100 * count + seed, means()))
        claimed = result["probability"].max("source").values
        gaps.append(claimed.mean() - (result["prediction"] == result["truth"]).values.mean())
    assert abs(np.mean(gaps)) < student.ppf(0.9995, 9) * np.std(gaps, ddof=1) / np.sqrt(10)


@pytest.mark.usefixtures("hasty")
def test_few_images_are_told() -> None:
    with pytest.warns(BayesdfWarning, match=r"few independent calibration images \(ann 5, bob 5, cid 5, real 5\)"):
        fit_attribution(simulate(5, 13, means()), draws=2)
    table = simulate(20, 13, means())
    with pytest.warns(BayesdfWarning, match="real 4"):
        fit_attribution(
            table.assign_coords(subject=("image", [f"p{row % 4}" if row >= 60 else "" for row in range(80)])), draws=2
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_attribution(table, draws=2)


@pytest.mark.usefixtures("hasty")
def test_copies_of_images_are_no_new_images() -> None:
    """Each calibration image ten times over, and named as the same: the answers are those of the images once."""
    table = simulate(10, 14, means()).assign_coords(subject=("image", [f"p{row}" for row in range(40)]))
    tenfold = table.isel(image=np.repeat(np.arange(40), 10))
    judged = simulate(30, 15, means())
    once, copied, taken = (
        fit_attribution(each).probability(judged)["probability"].values
        for each in (table, tenfold, tenfold.drop_vars("subject"))
    )
    assert np.abs(copied - once).mean() < 0.5 * np.abs(taken - once).mean()


def test_the_analysis_layer_understands_the_result(fitted: Attribution) -> None:
    table = simulate(50, 4, means(2.0)).assign_coords(subject=("image", np.arange(200) % 10))
    result = fitted.probability(table)
    figures = analysis.score(result, resamples=50)
    assert figures["accuracy"].sel(estimate="value") > 0.9
    assert analysis.confusion(result).to_numpy().sum() == 200
    assert set(result["cluster"].values) == set(range(10))


def test_a_source_left_out_is_none_of_these() -> None:
    """Calibrated without `dan`, who is explained by nobody, and unlike photographs in other ways."""
    model = fit_attribution(simulate(40, 5, means(1.5)), none=0.2)
    stranger = np.full((3, 2), -3.0) + np.array([[-0.3, 0.4], [0.3, -0.4], [0.2, 0.5]])
    held_out = simulate(100, 6, means(1.5) | {"dan": stranger})
    result = model.probability(held_out)
    assert set(result["truth"].values) == {*CANDIDATES, "real", NONE}
    unknown = (held_out["source"] == "dan").values
    assert roc_auc_score(unknown, result["probability"].sel(source=NONE).values) > 0.8
    assert (result["prediction"] == result["truth"]).values[~unknown].mean() > 0.87


def test_the_order_of_candidates_and_images_does_not_matter() -> None:
    table = simulate(12, 7, means())
    turned = table.isel(candidate=[2, 0, 1], term=[0, 1])
    renamed = table.assign_coords(
        candidate=["bob", "cid", "ann"],
        source=(
            "image",
            [{"ann": "bob", "bob": "cid", "cid": "ann"}.get(s, s) for s in table["source"].values],
        ),
    )
    one, same, permuted = (fit_attribution(each).probability(each)["probability"] for each in (table, turned, renamed))
    xr.testing.assert_allclose(one, same)
    for old, new in (("ann", "bob"), ("bob", "cid"), ("cid", "ann"), ("real", "real")):
        assert np.abs(one.sel(source=old).values - permuted.sel(source=new).values).mean() < 0.02


def test_identical_candidates_are_equally_probable() -> None:
    """Two names for one generator, each with calibration images of its own."""
    table = simulate(120, 8, means(2.0)).isel(candidate=[0, 0, 2]).assign_coords(candidate=CANDIDATES)
    table = table[(table["source"] != "bob").values]
    source = np.array(table["source"].values)
    twins = np.flatnonzero(source == "ann")
    source[twins[1::2]] = "bob"
    result = fit_attribution(table.assign_coords(source=("image", source))).probability(table[twins])["probability"]
    shares = result.sel(source=["ann", "bob"])
    assert shares.sum("source").mean() > 0.9
    assert abs(float((shares.sel(source="ann") - shares.sel(source="bob")).mean())) < 0.1
    assert shares.sel(source="ann").std() < 0.15


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("candidates", [["ann"], ["ann", "bob"]])
def test_fewer_candidates_work_too(candidates: list[str]) -> None:
    """A source that is no candidate, such as a fake that cannot be inverted, can be named all the same."""
    table = simulate(30, 9, means(2.0)).sel(candidate=candidates)
    table = table[np.isin(table["source"].values, [*candidates, "real"])]
    result = fit_attribution(table).probability(table)
    assert (result["prediction"] == result["truth"]).values.mean() > 0.95


@pytest.mark.usefixtures("hasty")
def test_priors_move_the_answer() -> None:
    table = simulate(20, 10, means(0.2))
    even = fit_attribution(table, none=0.1)
    np.testing.assert_allclose(even.prior, [0.225, 0.225, 0.225, 0.1, 0.225])
    bent = fit_attribution(table, prior={"ann": 8.0, "bob": 1.0, "cid": 1.0, "real": 0.0})
    np.testing.assert_allclose(bent.prior, [0.72, 0.09, 0.09, 0.1, 0.0])
    assert (bent.probability(table)["probability"].sel(source="real") == 0.0).all()


def test_it_is_kept_and_read_again(fitted: Attribution, tmp_path: Path) -> None:
    path = fitted.save(tmp_path / "attribution.zarr")
    again = load_attribution(path)
    table = simulate(5, 11, means())
    xr.testing.assert_identical(again.probability(table), fitted.probability(table))
    with pytest.raises(BayesdfError, match="does not exist"):
        load_attribution(tmp_path / "nothing.zarr")
    other = replace(fitted, freedom=fitted.freedom + 1.0).save(tmp_path / "other.zarr")
    shutil.copytree(other / "attribution_model" / "freedom", path / "attribution_model" / "freedom", dirs_exist_ok=True)
    with pytest.raises(BayesdfError, match="is damaged"):
        load_attribution(path)


@pytest.mark.usefixtures("hasty")
def test_fitting_leaves_the_callers_randomness_alone() -> None:
    states = [random.getstate(), torch.get_rng_state().tolist()]
    fit_attribution(simulate(10, 12, means()), draws=2)
    assert [random.getstate(), torch.get_rng_state().tolist()] == states


def inversion(name: str, pixel: list[float]) -> Inversion:
    count, error = len(pixel), np.array(pixel)
    return Inversion(
        name,
        latent=np.zeros((count, 2), np.float32),
        reconstruction=np.zeros((count, 64, 64), np.float32),
        pixel=error,
        gradient=error,
        perceptual=error,
        energy=np.ones(count),
        loss=error**2,
        evaluations=np.ones(count, np.int64),
        start=np.zeros(count, np.int64),
        stopped=np.full(count, "plateau"),
        shared=0,
    )


def test_evidence_is_a_table_of_logarithms() -> None:
    table = evidence({"a": inversion("a", [0.0, 0.1]), "b": inversion("b", [0.2, 0.3])}, source=["a", "b"])
    assert table.dims == ("image", "candidate", "term") and table.shape == (2, 2, 4)
    assert list(table["source"].values) == ["a", "b"]
    np.testing.assert_allclose(table.sel(candidate="a", term="pixel").values, np.log([FLOOR, 0.1]), atol=2e-3)
    np.testing.assert_allclose(table.sel(term="energy").values, 0.0, atol=2e-3)
    with pytest.raises(BayesdfError, match="different images"):
        evidence({"a": inversion("a", [0.1]), "b": inversion("b", [0.1, 0.2])})
    with pytest.raises(BayesdfError, match="no inversions"):
        evidence({})


def test_bad_evidence_is_told_in_one_line(fitted: Attribution) -> None:
    table = simulate(3, 12, means())
    broken = table.copy(data=np.where(np.arange(6).reshape(3, 2) == 3, np.nan, table.values))
    cases = [
        (lambda: fit_attribution(table.drop_vars("source")), "source of each image is unknown"),
        (lambda: fit_attribution(table, ["ann"]), "1 sources given for 12 images"),
        (lambda: fit_attribution(table, ["ann"] * 12), "all images come from source 'ann'"),
        (lambda: fit_attribution(table, ["ann"] * 11 + ["bob"]), "'bob' has a single image"),
        (lambda: fit_attribution(table, [NONE] * 6 + ["bob"] * 6), "leave its images out"),
        (lambda: fit_attribution(broken), "by bob is nan"),
        (lambda: fit_attribution(table.rename(term="thing")), "'term'"),
        (lambda: fit_attribution(table, none=1.0), "none=1.0"),
        (lambda: fit_attribution(table, prior={"ann": 1.0}), "prior names"),
        (lambda: fit_attribution(table, prior=dict.fromkeys(means(), 0.0)), "not all of them 0"),
        (lambda: fitted.probability(table.sel(candidate=["ann", "bob"])), "lacks candidate 'cid'"),
    ]
    for call, message in cases:
        with pytest.raises(BayesdfError, match=message) as raised:
            call()
        assert "\n" not in str(raised.value)

"""Means over images: the bootstrap that exists, generator by generator, and paired differences in one line."""

import numpy as np
import pytest
import xarray as xr

from bayesdf.analysis import centred_gaussian, cluster_bootstrap, design, estimate, localisation, mean_over_images
from bayesdf.errors import BayesdfError


@pytest.fixture
def figures():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60, 2)) + np.repeat(rng.normal(size=(12, 1)), 5, axis=0)
    values[7, 1] = np.nan
    person = np.repeat(np.array([f"p{number}" for number in range(12)]), 5)
    return xr.Dataset(
        {"auroc": (("image", "quantity"), values), "area": ("region", [0.2, 0.8])},
        coords={
            "quantity": ["epistemic", "aleatoric"],
            "subject": ("image", person),
            "source": ("image", np.tile(["swap", "mouth", "mouth", "swap", "warp"], 12)),
        },
    )


def test_the_interval_is_that_of_the_cluster_bootstrap(figures):
    found = mean_over_images(figures, resamples=200)
    assert found["auroc"].dims == ("quantity", "estimate") and set(found) == {"auroc", "auroc_images"}
    values = figures["auroc"].sel(quantity="epistemic").values
    expected = cluster_bootstrap(np.mean, [values], **design(figures, 60), resamples=200)
    assert estimate(found.sel(quantity="epistemic"), "auroc") == expected
    assert found["auroc_images"].values.tolist() == [60, 59]
    value = float(found["auroc"].sel(quantity="aleatoric", estimate="value"))
    assert value == pytest.approx(np.nanmean(figures["auroc"].values[:, 1]))


def test_each_generator_has_its_own_mean(figures):
    found = mean_over_images(figures, by="source", resamples=50)
    assert found["auroc"].dims == ("source", "quantity", "estimate")
    assert list(found["source"].values) == ["mouth", "swap", "warp"]
    own = figures.isel(image=np.flatnonzero(figures["source"].values == "warp"))
    alone = mean_over_images(own, resamples=50)
    xr.testing.assert_allclose(found.sel(source="warp", drop=True), alone)


def test_a_paired_difference_is_a_subtraction():
    rng = np.random.default_rng(1)
    masks = xr.DataArray(np.zeros((30, 12, 12)), dims=("image", "y", "x"))
    masks = masks.assign_coords(subject=("image", np.repeat(np.arange(10).astype(str), 3)))
    for image, (row, column) in enumerate(rng.integers(0, 8, (30, 2))):
        masks[image, row : row + 4, column : column + 4] = 1.0
    maps = xr.Dataset({"epistemic": masks + rng.normal(size=masks.shape), "nothing": masks * 0.0})
    better = localisation(maps, masks) - localisation(centred_gaussian(masks), masks)
    found = mean_over_images(better, resamples=200)["auroc"].sel(quantity="epistemic")
    one, rival = localisation(maps["epistemic"], masks)["auroc"], localisation(centred_gaussian(masks), masks)["auroc"]
    pair = cluster_bootstrap(
        lambda a, b: a.mean() - b.mean(), [one, rival], clusters=masks["subject"].values, resamples=200
    )
    np.testing.assert_allclose(found, pair, atol=1e-12)


def test_without_people_without_figures_and_without_spread(figures):
    alone = mean_over_images(figures["auroc"].drop_vars(["subject", "source"])[:, 0].rename(None), resamples=50)
    assert set(alone) == {"mean", "mean_images"} and float(alone["mean"][1]) < float(alone["mean"][2])
    same = mean_over_images(xr.ones_like(figures["auroc"][:, 0]))["auroc"]
    assert float(same[0]) == 1.0 and np.isnan(same[1:]).all()
    none = mean_over_images(figures["auroc"] * np.nan)
    assert np.isnan(none["auroc"]).all() and (none["auroc_images"] == 0).all()


def test_bad_input_gets_one_line(figures):
    with pytest.raises(
        BayesdfError, match="no coordinate 'generator'; their coordinates are quantity, subject, source"
    ):
        mean_over_images(figures, by="generator")
    with pytest.raises(BayesdfError, match="none of them is over images"):
        mean_over_images(figures[["area"]])
    with pytest.raises(BayesdfError, match="an array of shape"):
        mean_over_images(figures["auroc"].values)

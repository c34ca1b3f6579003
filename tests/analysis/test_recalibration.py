import numpy as np
import pytest
import xarray as xr
from sklearn.linear_model import LogisticRegression

from bayesdf.analysis import decompose, estimate, evaluate, fit_scaling, rescale
from bayesdf.errors import BayesdfError


def overconfident(images: int = 4000, draws: int = 1, seed: int = 0) -> xr.DataTree:
    """A detector three times too sure, and two units of margin too ready to say fake."""
    rng = np.random.default_rng(seed)
    margin = 2.0 * rng.normal(size=images)
    label = (rng.uniform(size=images) < 1.0 / (1.0 + np.exp(-margin))).astype(np.int64)
    told = 3.0 * margin + 2.0 + 0.5 * rng.normal(size=(draws, 1))
    logits = np.stack([-0.5 * told, 0.5 * told], -1)[None]
    return xr.DataTree.from_dict(
        {
            "posterior_predictive": xr.Dataset(
                {"logits": (("chain", "draw", "image", "class"), logits)}, coords={"class": ["real", "fake"]}
            ),
            "observed_data": xr.Dataset({"label": ("image", label)}),
        }
    )


def test_scale_and_shift_are_those_of_logistic_regression() -> None:
    tree = overconfident()
    found = fit_scaling(tree)
    logits = tree["posterior_predictive/logits"].values[0, 0]
    margin, label = logits[:, 1] - logits[:, 0], tree["observed_data/label"].values
    truth = LogisticRegression(C=np.inf, class_weight="balanced").fit(margin[:, None], label)
    assert float(found["scale"]) == pytest.approx(truth.coef_[0, 0], rel=0.02)
    assert float(found["shift"][1] - found["shift"][0]) == pytest.approx(truth.intercept_[0], abs=0.02)
    assert float(found["scale"]) == pytest.approx(1 / 3, rel=0.1)
    assert float(found["shift"].sum()) == pytest.approx(0.0, abs=1e-9)


def test_others_are_predicted_truly_afterwards() -> None:
    scaling = fit_scaling(overconfident(draws=8))
    others = overconfident(draws=8, seed=1)
    before, after = (evaluate(tree, resamples=10) for tree in (others, rescale(others, scaling)))
    assert estimate(before, "ece").value > 0.1 > 0.03 > estimate(after, "ece").value
    assert estimate(after, "nll").value < estimate(before, "nll").value
    split = decompose(rescale(others, scaling))
    np.testing.assert_allclose(split["total"], split["aleatoric"] + split["epistemic"], atol=1e-12)
    untouched = overconfident(draws=8, seed=1)
    assert others.identical(untouched)


def test_a_detector_that_is_right_is_left_alone() -> None:
    tree = overconfident()
    scaling = fit_scaling(rescale(tree, fit_scaling(tree)))
    assert float(scaling["scale"]) == pytest.approx(1.0, abs=0.01)
    assert float(abs(scaling["shift"]).max()) < 0.01


def test_a_class_without_images_is_refused() -> None:
    tree = overconfident(images=50)
    tree["observed_data"]["label"][:] = 1
    with pytest.raises(BayesdfError, match="every class"):
        fit_scaling(tree)


def test_the_likelihood_of_other_logits_does_not_stay() -> None:
    tree = overconfident(40)
    tree["log_likelihood"] = xr.DataTree(xr.Dataset({"label": (("chain", "draw", "image"), np.zeros((1, 1, 40)))}))
    changed = rescale(tree, fit_scaling(tree))
    assert "log_likelihood" not in changed.children and "log_likelihood" in tree.children

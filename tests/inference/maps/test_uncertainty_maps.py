"""What holds of all methods of maps."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import Dataset

from bayesdf import analysis
from bayesdf.errors import BayesdfError
from bayesdf.inference import uncertainty_maps
from bayesdf.inference.maps import uncertainty_maps as module
from bayesdf.inference.maps.predictive import QUANTITIES, Predictive
from tests.inference.maps.small import convolutional, dense, pictures

METHODS = sorted(module.METHODS)


class Labelled(Dataset):
    classes = ("real", "a", "b")

    def __init__(self):
        self.images, self.manifest = pictures(), pd.DataFrame({"source": list("rabb"), "path": list("wxyz")})

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.images[index], torch.tensor([0, 1, 2, 2][index])


@pytest.mark.parametrize("made", [convolutional, dense])
@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_maps_in_any_batches(method, made):
    posterior = made()
    found = [uncertainty_maps(posterior, pictures(), method, 5, 1, batch_size=size)["maps"] for size in (4, 4, 1, 3)]
    for name in QUANTITIES:
        assert found[0][name].dtype == np.float32
        np.testing.assert_array_equal(found[0][name], found[1][name])
        scale = float(abs(found[0][name]).max())
        assert scale > 0
        for other in found[2:]:
            np.testing.assert_allclose(found[0][name], other[name], rtol=1e-4, atol=1e-4 * scale)
    other = uncertainty_maps(posterior, pictures(), method, 5, 2)["maps"]
    assert not np.allclose(other["total"], found[0]["total"])


@pytest.mark.parametrize("method", METHODS)
def test_a_tree_that_says_what_it_holds(method):
    data = Labelled()
    tree = uncertainty_maps(convolutional(), data, method, 3, quantities=("epistemic", "p_fake"))
    maps = tree["maps"]
    assert tree.attrs["draws_seed"] == 0 and maps.attrs["method"] == method and maps.attrs["draws"] == 3
    assert list(maps.data_vars) == ["epistemic", "p_fake"] and maps["epistemic"].dims == ("image", "y", "x")
    assert maps["source"].values.tolist() == list("rabb") and maps["label"].values.tolist() == [0, 1, 2, 2]
    assert maps["epistemic"].attrs["units"].startswith("nats")
    # Centres of cells that cover the picture: their mean is its middle.
    assert float(maps["y"].mean()) == float(maps["x"].mean()) == 7.5
    if not maps.attrs["signed"]:
        assert float(maps["epistemic"].min()) >= 0


def test_values_are_those_of_the_decomposition():
    posterior = convolutional()
    found = Predictive(posterior, 7, 3)(pictures())
    expected = analysis.decompose(posterior.predict(pictures(), draws=7, seed=3))
    for name in ("total", "aleatoric", "epistemic"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-6)
    np.testing.assert_allclose(found["p_fake"], expected["probability"][:, 1:].sum("class"), atol=1e-6)


def test_evidence_of_a_dense_network_is_its_decomposition():
    posterior = dense()
    maps = uncertainty_maps(posterior, pictures(), "evidence", 7, 3)["maps"]
    expected = analysis.decompose(posterior.predict(pictures(), draws=7, seed=3))
    for name in ("total", "aleatoric", "epistemic"):
        np.testing.assert_allclose(maps[name], expected[name], atol=1e-6)
    assert maps["y"].values.tolist() == expected["y"].values.tolist()


def test_maps_beyond_memory_are_kept_in_a_file(monkeypatch):
    from bayesdf.inference.prediction import predictor

    expected = uncertainty_maps(convolutional(), pictures(), draws=2)["maps"]["total"].values
    monkeypatch.setattr(predictor, "LOGIT_BYTES", 1)
    found = uncertainty_maps(convolutional(), pictures(), draws=2)["maps"]["total"]
    np.testing.assert_array_equal(found.values, expected)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"method": "saliency"}, "no method of maps 'saliency': choose from"),
        ({"quantities": ("doubt",)}, "no quantity 'doubt': choose from total"),
        ({"quantities": ()}, "no quantity is asked for"),
        ({"draws": 0}, "draws is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"images": torch.rand(0, 3, 8, 8)}, "no images"),
        ({"images": torch.rand(2, 4, 8, 8)}, "the network fails on images of shape"),
    ],
)
def test_bad_input_gets_one_line(change, words):
    with pytest.raises(BayesdfError, match=words):
        uncertainty_maps(convolutional(), **{"images": pictures(), **change})

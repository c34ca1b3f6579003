"""Labels of cells are those of the masks, and stay with their images."""

import numpy as np
import pandas as pd
import pytest
import torch

import bayesdf.data as data
from bayesdf.errors import BayesdfError
from bayesdf.inference import SVI
from bayesdf.inference.batches import batches
from bayesdf.models import Detector, build, dense_head, priors

KIND = {"real": "none", "flow": "whole", "other": "unknown", "swap": "part"}
FAKES = {"real": "none", "one": "unknown", "other": "unknown"}
SIDE = 8


def made(kinds: dict[str, str] = KIND) -> data.Collection:
    """Random pictures; the mask of a swap is 1 in the left half, and 0.6 in the upper right quarter."""
    rows = [
        {"source": source, "subject": f"{split}{person}", "split": split, "bytes": 1, "donor": "", "video": ""}
        for person in range(3)
        for split in data.SPLITS
        for source in kinds
    ]
    manifest = pd.DataFrame(rows).assign(path=[f"picture {row}" for row in range(len(rows))])
    manifest["mask"] = manifest["source"].map(kinds)
    manifest.attrs["common_path"] = {"size": SIDE, "quality": 90}
    images = np.random.default_rng(0).integers(0, 255, (len(rows), SIDE, SIDE, 3), dtype=np.uint8)
    masks = np.zeros(((manifest["mask"] == "part").sum(), SIDE, SIDE), np.uint8)
    masks[:, :, : SIDE // 2] = 255
    masks[:, : SIDE // 2, SIDE // 2 :] = 153
    return data.collect(images, manifest, "multiclass", "made up", "", masks=masks)


def test_labels_are_those_of_the_masks():
    train = made().train
    found = data.pixel_labels(train, 2)
    known = (train.manifest["mask"] != "unknown").to_numpy()
    assert len(found) == known.sum() and found.classes == ["untouched", "changed"]
    assert found.manifest["path"].tolist() == train.manifest["path"][known].tolist()
    expected = {"real": [[0, 0], [0, 0]], "flow": [[1, 1], [1, 1]], "swap": [[1, 1], [1, 0]]}
    images = {row["path"]: image for (image, _), (_, row) in zip(train, train.manifest.iterrows(), strict=True)}
    for (image, label), (_, row) in zip(found, found.manifest.iterrows(), strict=True):
        assert label.dtype == torch.int64 and label.tolist() == expected[row["source"]]
        assert torch.equal(image, images[row["path"]])
    together = next(batches(found, 100, torch.device("cpu")))
    assert torch.equal(together[1], found.labels) and torch.equal(together[0][3], found[3][0])
    assert data.pixel_labels(train, 2).fingerprint == found.fingerprint != data.pixel_labels(train, 4).fingerprint


@pytest.mark.parametrize("grid", [1, 3, SIDE])
def test_more_than_half_of_a_cell(grid):
    """Against a loop over pixels. Bounds of cells are rounded outwards."""
    part = made().train
    found = data.pixel_labels(part, grid)
    masks = part.masks[(part.manifest["mask"] != "unknown").to_numpy()].numpy()
    for row in range(grid):
        for column in range(grid):
            ends = [(cell * SIDE // grid, -(-(cell + 1) * SIDE // grid)) for cell in (row, column)]
            mean = masks[:, slice(*ends[0]), slice(*ends[1])].mean((1, 2), dtype=float)
            assert (found.labels[:, row, column].numpy() == (mean > 0.5 + 1e-6)).all()


def test_a_dense_detector_learns_from_them(tmp_path):
    collection = made()
    network = dense_head(build("resnet10t_half", 2, small_stem=True), "layer1")
    train = data.pixel_labels(collection.train, network(torch.rand(1, 3, SIDE, SIDE)).shape[-1])
    detector = Detector(network, {"head": priors.normal(1.0)})
    posterior = SVI(epochs=2, freeze="prefix", progress=False).fit(detector, train)
    tree = posterior.predict(train, draws=2)
    assert tree["posterior_predictive/logits"]["class"].values.tolist() == ["untouched", "changed"]
    assert tree["observed_data/label"].shape == train.labels.shape
    assert tree["constant_data/source"].values.tolist() == train.manifest["source"].tolist()
    whole = posterior.predict(collection.test, draws=2)  # five classes of images, two of pixels
    assert whole["posterior_predictive/logits"]["class"].values.tolist() == ["untouched", "changed"]
    assert whole["observed_data/label"].dims == ("image",)


@pytest.mark.parametrize(
    ("given", "grid", "message"),
    [
        (lambda: made().train, SIDE + 1, f"from 1 to {SIDE}"),
        (lambda: made().train, 2.0, "grid is 2.0"),
        (made, 2, "Collection has no masks.*data.train"),
        (lambda: torch.utils.data.TensorDataset(torch.zeros(2)), 2, "TensorDataset has no masks"),
        (lambda: data.relabel(made(FAKES), "source").train, 2, "of none of the 6 images"),
    ],
)
def test_bad_input_gets_one_line(given, grid, message):
    with pytest.raises(BayesdfError, match=message) as error:
        data.pixel_labels(given(), grid)
    assert "\n" not in str(error.value)

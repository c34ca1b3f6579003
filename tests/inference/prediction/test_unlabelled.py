"""Images without labels are predicted as the same images with labels are, in whatever form they come."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from bayesdf import analysis, data
from bayesdf.errors import BayesdfError, BayesdfWarning
from bayesdf.inference import SVI, load_posterior, logit_moments
from bayesdf.models import Detector, priors

# Fits here are short on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::bayesdf.errors.BayesdfWarning")

SIZE, QUALITY = 16, 70


class Prepared(Dataset):
    """What `data.load` gives, as far as prediction looks at it."""

    classes = ("real", "fake")

    def __init__(self, images):
        self.images = images
        self.manifest = pd.DataFrame({"label": np.arange(len(images)) % 2})
        self.manifest.attrs["common_path"] = {"size": SIZE, "quality": QUALITY}

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], index % 2


@pytest.fixture(scope="module")
def pictures():
    noise = np.random.default_rng(0).integers(0, 255, (6, 5, 7, 3), dtype=np.uint8)
    return [Image.fromarray(pixels).resize((28, 20), Image.Resampling.BICUBIC) for pixels in noise]


@pytest.fixture(scope="module")
def images(pictures):
    """As training images are prepared."""
    pixels = np.stack([data.common_path(picture, SIZE, QUALITY)[0] for picture in pictures])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope="module")
def posterior(images):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    method = SVI(epochs=1, batch_size=6, progress=False)
    return method.fit(Detector(network, {"4": priors.normal(1.0)}), Prepared(images))


@pytest.fixture(scope="module")
def folder(pictures, tmp_path_factory):
    root = tmp_path_factory.mktemp("unknown")
    (root / "below").mkdir()
    for index, picture in enumerate(pictures):
        picture.save(root / ("below" if index > 3 else ".") / f"{'b' if index < 4 else 'z'}{index}.png")
    (root / "notes.txt").write_text("no image")
    return root


def logits(tree):
    return tree["posterior_predictive/logits"].values


FORMS = {
    "tensor": lambda images, pictures: images,
    "data set of images": lambda images, pictures: TensorDataset(images),
    "array": lambda images, pictures: images.numpy(),
    "bytes": lambda images, pictures: (images * 255).round().to(torch.uint8),
    "doubles": lambda images, pictures: images.double(),
    "list of tensors": lambda images, pictures: list(images),
    "generator": lambda images, pictures: (image.numpy() for image in images),
    "pictures": lambda images, pictures: pictures,
    "arrays of bytes": lambda images, pictures: [np.asarray(picture) for picture in pictures],
    "array of floats": lambda images, pictures: np.stack([np.asarray(picture) for picture in pictures]) / 255.0,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_images_gives_the_logits_of_labelled_ones(posterior, images, pictures, form):
    expected = posterior.predict(Prepared(images), draws=3)
    found = posterior.predict(FORMS[form](images, pictures), draws=3)
    np.testing.assert_allclose(logits(found), logits(expected), atol=1e-5)
    assert found["posterior_predictive"]["class"].values.tolist() == ["real", "fake"]
    assert "observed_data" not in found.children and "label" not in found["constant_data"]


def test_files_are_prepared_as_training_images_were(posterior, images, folder):
    expected = logits(posterior.predict(images, draws=2))
    files = [
        *[folder / f"b{index}.png" for index in range(4)],
        *[folder / "below" / f"z{index}.png" for index in (4, 5)],
    ]
    for given in (folder, str(folder), files, [str(file) for file in files]):
        tree = posterior.predict(given, draws=2)
        np.testing.assert_allclose(logits(tree), expected, atol=1e-6)
    named = posterior.predict(folder, draws=1)["constant_data/path"].values.tolist()
    assert named == ["b0.png", "b1.png", "b2.png", "b3.png", "below/z4.png", "below/z5.png"]
    one = posterior.predict(files[4], draws=2)
    np.testing.assert_allclose(logits(one), expected[:, :, 4:5], atol=1e-6)


def test_a_single_image_is_one(posterior, images, pictures):
    expected = logits(posterior.predict(images, draws=2))[:, :, :1]
    for one in (images[0], images[0].numpy(), pictures[0]):
        np.testing.assert_allclose(logits(posterior.predict(one, draws=2)), expected, atol=1e-6)


def test_pieces_and_moments_know_no_labels_either(posterior, images):
    pieces = list(posterior.stream(images, draws=4))
    assert all("label" not in piece.coords for piece in pieces)
    told = analysis.decompose(iter(pieces))
    xr.testing.assert_allclose(told["epistemic"], analysis.decompose(posterior.predict(images, draws=4))["epistemic"])
    np.testing.assert_allclose(
        logit_moments(posterior, images)["mean"], logit_moments(posterior, Prepared(images))["mean"]
    )


def test_what_needs_labels_says_so(posterior, images):
    tree = posterior.predict(images, draws=2)
    assert analysis.decompose(tree).sizes["image"] == 6
    with pytest.raises(BayesdfError, match="no true labels"):
        analysis.evaluate(tree)
    with pytest.raises(BayesdfError, match="labels, which these images do not have"):
        posterior.predict(images, draws=2, log_likelihood=True)


def test_a_saved_posterior_knows_how_files_are_prepared(posterior, folder, tmp_path):
    posterior.save(tmp_path / "p.zarr")
    again = load_posterior(tmp_path / "p.zarr", Detector(posterior.network, {"4": priors.normal(1.0)}))
    np.testing.assert_array_equal(logits(again.predict(folder, draws=2)), logits(posterior.predict(folder, draws=2)))


def test_files_must_say_how_they_are_prepared_where_nobody_knows(posterior, images, folder):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 2))
    labelled = TensorDataset(images, torch.arange(6) % 2)
    own = SVI(epochs=0, progress=False).fit(Detector(network, {"1": priors.normal(1.0)}), labelled)
    with pytest.raises(BayesdfError, match=r"unlabelled\(images, size=16"):
        own.predict(folder)
    found = own.predict(data.unlabelled(folder, size=SIZE, quality=QUALITY), draws=2)
    np.testing.assert_allclose(logits(found), logits(own.predict(images, draws=2)), atol=1e-4)


def test_images_of_another_size_are_warned_of(posterior):
    with pytest.warns(BayesdfWarning, match=r"shape \(3, 20, 20\).*fitted to images of shape \(3, 16, 16\)"):
        posterior.predict(torch.rand(2, 3, 20, 20), draws=1)


BAD = {
    "a flat tensor": (torch.rand(4), "shape"),
    "numbers": ([1, 2], "image 0 is a int"),
    "nothing": ([], "empty"),
    "no folder": ("nowhere/at/all", "no file and no folder"),
    "no file": (["nowhere.png"], "no file at nowhere.png"),
    "a loader": (DataLoader(TensorDataset(torch.rand(2, 3, 16, 16))), "pass its .dataset"),
    "whole numbers": (torch.ones(2, 3, 16, 16, dtype=torch.int64), "int64"),
    "two sizes": ([torch.rand(3, 16, 16), torch.rand(3, 18, 16)], "different shapes"),
    "a dictionary": ([{"image": torch.rand(3, 16, 16)}] * 2, "image 0 is a dict"),
    "values beyond 1": ([np.full((16, 16, 3), 255.0)], "outside 0 to 1"),
    "bytes in floats": (torch.full((2, 3, 16, 16), 255.0), "divide them by 255"),
    "triples": (TensorDataset(torch.rand(2, 3, 16, 16), torch.ones(2), torch.ones(2)), "tuple of 3"),
    "nothing at all": (None, "NoneType"),
    "labels that are no numbers": (TensorDataset(torch.rand(2, 3, 16, 16), torch.tensor([0.5, 0.1])), "class numbers"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_image_gets_one_line(posterior, what):
    images, message = BAD[what]
    with pytest.raises(BayesdfError, match=message) as caught:
        posterior.predict(images, draws=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("first", [True, False])
def test_wrong_channels_get_one_line(posterior, images, first):
    fresh = type(posterior)(posterior.network, posterior.sampler, posterior.sample_stats, posterior.attrs)
    if not first:
        fresh.predict(images, draws=1)
    with pytest.raises(BayesdfError, match=r"network fails on images of shape \(2, 1, 16, 16\)"):
        fresh.predict(torch.rand(2, 1, 16, 16), draws=1)


def test_an_unreadable_file_is_named(posterior, tmp_path):
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(BayesdfError, match=r"cut\.png cannot be read"):
        posterior.predict(tmp_path, draws=1)


def test_a_column_of_labels_is_labels(posterior, images):
    tree = posterior.predict(TensorDataset(images, torch.arange(6)[:, None] % 2), draws=1)
    assert tree["observed_data/label"].values.tolist() == [0, 1] * 3


def test_data_of_a_folder_says_how_its_images_were_prepared(photos):
    """Files of the test split, as an investigator would give them, are predicted as `data.load` prepares them."""
    loaded = data.leave_out(data.relabel(data.load(photos, size=SIZE, quality=QUALITY), "binary"), "blur")[0]
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 2))
    posterior = SVI(epochs=0, progress=False).fit(Detector(network, {"2": priors.normal(1.0)}), loaded.train)
    files = [photos / path for path in loaded.test.manifest["path"]]
    np.testing.assert_allclose(
        logits(posterior.predict(files, draws=2)), logits(posterior.predict(loaded.test, draws=2)), atol=1e-5
    )

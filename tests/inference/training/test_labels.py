"""Labels are read as they were meant, or refused."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from bayesdf.errors import BayesdfError
from bayesdf.inference import MAP, SVI, Laplace, MCDropout
from bayesdf.inference.training.labels import all_labels, class_numbers
from bayesdf.models import Detector, priors
from tests.inference.linear import Logistic, simulate

WEIGHTS = torch.tensor([1.0, -0.5])
SHORT = {"epochs": 3, "batch_size": 16, "progress": False}
METHODS = {"map": MAP(**SHORT), "svi": SVI(**SHORT), "laplace": Laplace(**SHORT), "dropout": MCDropout(**SHORT)}


def data():
    return simulate(torch.randn(40, 2, generator=torch.Generator().manual_seed(0)), WEIGHTS, seed=0)


class Items(Dataset):
    """A data set of whatever items these are."""

    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


SAME = {
    "column": lambda labels: labels[:, None],
    "floats": lambda labels: labels.float(),
    "booleans": lambda labels: labels.bool(),
    "bytes": lambda labels: labels.to(torch.uint8),
    "column of floats": lambda labels: labels[:, None].double(),
}


@pytest.mark.parametrize("form", SAME)
@pytest.mark.parametrize("method", METHODS)
def test_other_forms_of_the_same_labels_give_the_same_fit(method, form):
    images, labels = data().tensors
    detector = Detector(Logistic(2), {"linear": priors.normal(1.0)})
    found = [METHODS[method].fit(detector, TensorDataset(images, given)) for given in (labels, SAME[form](labels))]
    assert found[0].sample_stats.identical(found[1].sample_stats)
    predicted = found[0].predict(TensorDataset(images, SAME[form](labels)), draws=2)
    assert (predicted["observed_data/label"].values == labels.numpy()).all()


WRONG = {
    "one-hot": (lambda labels: torch.nn.functional.one_hot(labels), "argmax"),
    "soft": (lambda labels: labels * 0.8 + 0.1, "soft labels"),
    "not a number": (lambda labels: labels * float("nan"), "class numbers"),
    "pictures": (lambda labels: labels[:, None, None].expand(-1, 2, 2), "grid of 2 x 2.*one label an image"),
}


@pytest.mark.parametrize("form", WRONG)
def test_labels_that_would_have_to_be_guessed_are_refused(form):
    images, labels = data().tensors
    change, word = WRONG[form]
    detector = Detector(Logistic(2), {"linear": priors.normal(1.0)})
    with pytest.raises(BayesdfError, match=word):
        MAP(**SHORT).fit(detector, TensorDataset(images, change(labels)))


@pytest.mark.parametrize(
    ("item", "word"),
    [
        ({"image": torch.zeros(3), "label": 1}, "dict"),
        ((torch.zeros(3), 1, "path"), "3 parts"),
        (torch.zeros(3), "Tensor"),
        ((torch.zeros(3), "fake"), "fake"),
        ((torch.zeros(3), torch.tensor([0.0, 1.0])), "argmax"),
        ((torch.zeros(3), 0.5), "soft labels"),
    ],
)
def test_items_that_are_no_pair_are_refused(item, word):
    with pytest.raises(BayesdfError, match=word):
        all_labels(Items(item, item))


def test_names_are_no_class_numbers():
    with pytest.raises(BayesdfError, match="str"):
        class_numbers(np.array(["real", "fake"]))


def test_a_manifest_and_labels_of_another_length_are_refused():
    dataset = Items(*((torch.zeros(3), 0) for _ in range(3)))
    dataset.manifest = pd.DataFrame({"label": [0, 1]})
    with pytest.raises(BayesdfError, match="3 images and 2 labels"):
        all_labels(dataset)

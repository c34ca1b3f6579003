"""A checkpoint is of one fit: whatever else is fitted, it is not taken for that."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from bayesdf.errors import BayesdfError
from bayesdf.inference import MAP, SVI
from bayesdf.models import Detector, priors


def data(seed=0):
    noise = torch.Generator().manual_seed(seed)
    images = torch.rand(24, 3, 2, 2, generator=noise)
    return TensorDataset(images, (images.mean((1, 2, 3)) > 0.5).long())


def network(activation=None, rate=0.0):
    torch.manual_seed(0)
    middle = nn.ReLU() if activation is None else activation
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 4), middle, nn.Dropout(rate), nn.Linear(4, 2))


def of_scale(scale):
    def prior(name, parameter):
        return dist.Normal(torch.zeros_like(parameter), scale).to_event(parameter.dim())

    return prior


def noisy(size):
    def augment(images, noise):
        return images + size * torch.rand(images.shape, generator=noise)

    return augment


def guide_of(family):
    def guide(*_):
        for name, shape in (("4.weight", (2, 4)), ("4.bias", (2,))):
            loc = pyro.param(f"{name}.loc", torch.zeros(shape))
            pyro.sample(name, family(loc, 0.1).to_event(len(shape)))

    return guide


def changed(part):
    """Another data set with one image, or one label, changed."""
    other = data()
    if part == "image":
        other.tensors[0][5, 0, 0, 0] += 0.01
    else:
        other.tensors[1][5] = 1 - other.tensors[1][5]
    return other


NEAR = {"4": priors.normal(1.0)}
BASE = {"network": {}, "priors": NEAR, "train": data, "validation": data, "augment": None, "guide": None}
OTHERS = {
    "an image": {"train": lambda: changed("image")},
    "a label": {"train": lambda: changed("label")},
    "a validation image": {"validation": lambda: changed("image")},
    "a validation label": {"validation": lambda: changed("label")},
    "a prior of the same name": {"priors": {"4": of_scale(0.5)}},
    "the activation": {"network": {"activation": nn.Tanh()}},
    "the dropout": {"network": {"rate": 0.8}},
    "the augmentation": {"augment": noisy(0.1)},
}


def fit(path, **given):
    made = {**BASE, **given}
    method = MAP if made["guide"] is None else SVI
    options = {} if made["guide"] is None else {"guide": made["guide"]}
    settings = {"epochs": 2, "progress": False, "augment": made["augment"], "checkpoint": path, **options}
    detector = Detector(network(**made["network"]), made["priors"])
    return method(**settings).fit(detector, made["train"](), made["validation"]())


@pytest.mark.parametrize("name", OTHERS)
def test_a_checkpoint_is_refused_where_something_else_is_fitted(tmp_path, name):
    other = OTHERS[name]
    begin = {"priors": {"4": of_scale(1.0)}} if "priors" in other else {}
    begin |= {"augment": noisy(0.01)} if "augment" in other else {}
    fit(tmp_path / "fit.pt", **begin)
    fit(tmp_path / "fit.pt", **begin)  # the same once more is taken up
    with pytest.raises(BayesdfError, match="is of other data, settings or weights"):
        fit(tmp_path / "fit.pt", **other)


def test_a_checkpoint_is_refused_where_the_guide_is_another_function_of_the_same_name(tmp_path):
    fit(tmp_path / "fit.pt", guide=guide_of(dist.Normal))
    with pytest.raises(BayesdfError, match="is of other data, settings or weights"):
        fit(tmp_path / "fit.pt", guide=guide_of(dist.Laplace))

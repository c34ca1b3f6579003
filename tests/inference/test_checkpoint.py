"""A stopped fit goes on from its checkpoint, and no other fit does."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from bayesdf.errors import BayesdfError
from bayesdf.inference import MAP, SVI, checkpoint
from bayesdf.models import Detector, priors
from tests.inference.convolutional import convolutional, noisy, pictures, short, stop


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


def noise_of(size):
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
    "the augmentation": {"augment": noise_of(0.1)},
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
    begin |= {"augment": noise_of(0.01)} if "augment" in other else {}
    fit(tmp_path / "fit.pt", **begin)
    fit(tmp_path / "fit.pt", **begin)  # the same once more is taken up
    with pytest.raises(BayesdfError, match="is of other data, settings or weights"):
        fit(tmp_path / "fit.pt", **other)


def test_a_checkpoint_is_refused_where_the_guide_is_another_function_of_the_same_name(tmp_path):
    fit(tmp_path / "fit.pt", guide=guide_of(dist.Normal))
    with pytest.raises(BayesdfError, match="is of other data, settings or weights"):
        fit(tmp_path / "fit.pt", guide=guide_of(dist.Laplace))


@pytest.mark.parametrize("settings", [{}, {"freeze": "prefix", "views": 2}, {"guide": "lowrank", "patience": 9}])
def test_a_stopped_fit_goes_on_to_the_same_posterior(tmp_path, settings):
    model, train = Detector(convolutional(), {"3": priors.normal(0.1)}), pictures()
    validation = pictures() if "patience" in settings else None
    whole = short(epochs=6, augment=noisy, **settings).fit(model, train, validation)
    resumable = short(epochs=6, augment=noisy, checkpoint=tmp_path / "fit.pt", **settings)
    stop(resumable, model, train, validation)
    assert (tmp_path / "fit.pt").is_file()
    again = resumable.fit(model, train, validation)
    assert [item.name for item in tmp_path.iterdir()] == ["fit.pt"]
    assert again.sample_stats.drop_attrs().identical(whole.sample_stats.drop_attrs())
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name]), name
    assert whole.draws(3)["posterior"].to_dataset().equals(again.draws(3)["posterior"].to_dataset())


def test_a_checkpoint_of_another_fit_or_a_damaged_one_is_refused(tmp_path):
    model, path = Detector(convolutional(), {"3": priors.normal(0.1)}), tmp_path / "fit.pt"
    stop(short(checkpoint=path), model, pictures(), step=5)
    wider = Detector(convolutional(), {"3": priors.normal(0.2)})
    for seed, other, data in ((1, model, pictures()), (0, model, pictures(26)), (0, wider, pictures())):
        with pytest.raises(BayesdfError, match=r"fit\.pt is of other data, settings or weights"):
            short(checkpoint=path, seed=seed).fit(other, data)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BayesdfError, match=r"fit\.pt is not a checkpoint of a fit"):
        short(checkpoint=path).fit(model, pictures())


def test_forgetting_deletes_what_the_fit_noted_and_nothing_else(tmp_path):
    method = short(checkpoint=tmp_path / "fit")
    others = [tmp_path / name for name in ("fit.csv", "fit.zarr", "fitting")]
    for path in others:
        path.mkdir() if path.suffix == ".zarr" else path.write_text("")
    method.fit(Detector(convolutional(), {"3": priors.normal(0.1)}), pictures())
    (tmp_path / "fit.1").write_text("")
    method.forget()
    assert sorted(tmp_path.iterdir()) == sorted(others)


def test_a_checkpoint_of_another_version_names_it(tmp_path, monkeypatch):
    path = tmp_path / "fit.pt"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "__version__", "0.0.9")
        fit(path)
    assert torch.load(path, weights_only=True)["bayesdf"] == "0.0.9"
    with pytest.raises(BayesdfError, match=r"fit\.pt was written by bayesdf 0\.0\.9, but .*: delete it, .*") as caught:
        fit(path)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_from_before_versions_were_noted_is_taken_up_or_told(tmp_path):
    path = tmp_path / "fit.pt"
    fit(path)
    state = torch.load(path, weights_only=True)
    torch.save({name: value for name, value in state.items() if name != "bayesdf"}, path)
    fit(path)
    with pytest.raises(BayesdfError, match=r"fit\.pt was written by an older version of bayesdf.*: delete it, .*"):
        fit(path, train=lambda: changed("image"))

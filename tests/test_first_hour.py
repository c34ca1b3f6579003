"""What a newcomer does in a first hour, rightly and wrongly: each step gives a result that is checked, or one line that
names the way out. None ends in the traceback of another error."""

import urllib.error
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import arviz as az
import matplotlib
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import bayesdf as bdf
from bayesdf import analysis, store
from bayesdf.errors import BayesdfError, BayesdfWarning
from bayesdf.generators import GENERATORS, Generator
from bayesdf.inversion import invert
from bayesdf.models import priors

matplotlib.use("Agg")
IMAGES, SIDE = 48, 8


def network(classes: int = 2) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, classes))


class Pairs(Dataset[Any]):
    """Images with whatever a data set may hold beside them."""

    def __init__(self, images: torch.Tensor, item: Callable[[torch.Tensor, int], Any]) -> None:
        self.images, self.item = images, item

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        return self.item(self.images[index], index)


class World:
    """What is at hand: images (the fakes are brighter), a detector, a posterior, its predictions, folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        noise = torch.Generator().manual_seed(0)
        self.y = torch.arange(IMAGES) % 2
        grey = torch.rand(IMAGES, 3, SIDE, SIDE, generator=noise) * 0.5 + 0.3 * self.y[:, None, None, None]
        self.x = grey.clamp(0, 1)
        self.data = TensorDataset(self.x, self.y)
        self.scores = pd.DataFrame({"cnn": [0.9, 0.2, 0.7, 0.4], "vit": [0.8, 0.3, 0.2, 0.1], "label": [1, 0, 1, 0]})

    def detector(self, prior: Any = None) -> bdf.Detector:
        torch.manual_seed(0)
        return bdf.Detector(network(), {"2": prior or priors.normal(10.0)})

    def fit(self, data: Any = None, prior: Any = None, detector: Any = None) -> Any:
        detector = detector or self.detector(prior)
        return bdf.MAP(epochs=60, lr=0.1, progress=False).fit(detector, self.data if data is None else data)

    @cached_property
    def posterior(self) -> Any:
        return bdf.Laplace(epochs=60, lr=0.1, progress=False).fit(self.detector(), self.data)

    @cached_property
    def predictions(self) -> Any:
        return self.posterior.predict(self.data, draws=8)

    @cached_property
    def saved(self) -> Path:
        return Path(self.posterior.save(self.folder / "posterior.zarr"))

    @cached_property
    def run(self) -> Path:
        store.write_tree(xr.DataTree(children={"svi": self.predictions.copy()}), self.folder / "run" / "run.zarr")
        return self.folder / "run"

    @cached_property
    def photos(self) -> Path:
        """Six people, real and made by a generator, two pictures each."""
        rng = np.random.default_rng(0)
        for source in ("real", "vae"):
            for person in range(6):
                for number in range(2):
                    pixels = rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)
                    self.picture(f"photos/{source}/p{person}/{number}.png", pixels)
        return self.folder / "photos"

    def picture(self, name: str, pixels: Any = None) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((20, 20, 3), np.uint8) if pixels is None else pixels).save(path)
        return path

    def csv(self, **columns: Any) -> pd.DataFrame:
        path = self.folder / "scores.csv"
        self.scores.assign(**columns).to_csv(path, index=False)
        return pd.read_csv(path)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("first_hour"))


@dataclass(frozen=True)
class Step:
    """One step: `does` gives a result that `holds`, or ends in one line in which these words are found."""

    name: str
    does: Callable[[World], Any]
    holds: Callable[[Any, World], Any] | None = None
    says: str | None = None


STEPS: list[Step] = []


def works(name: str, does: Callable[[World], Any], holds: Callable[[Any, World], Any]) -> None:
    STEPS.append(Step(name, does, holds=holds))


def says(name: str, words: str, does: Callable[[World], Any]) -> None:
    STEPS.append(Step(name, does, says=words))


def accurate(posterior: Any, world: World) -> bool:
    """Whether it tells bright from dark images."""
    prediction = analysis.decompose(posterior.predict(world.data, draws=1))["prediction"].values
    return bool((prediction == world.y.numpy()).mean() > 0.9)


def of_all(predictions: Any, world: World) -> bool:
    """Whether these are the logits of all images, as for the labelled ones, without labels."""
    logits = predictions["posterior_predictive/logits"]
    np.testing.assert_allclose(logits, world.predictions["posterior_predictive/logits"], rtol=1e-5, atol=1e-6)
    return "label" not in predictions.get("observed_data", xr.Dataset())


# A detector.
says("a slip in a pattern", "closest are.*2.weight", lambda w: bdf.Detector(network(), {"2.wieght": priors.normal(1)}))
says("a prior that is a distribution", "function", lambda w: bdf.Detector(network(), {"2": dist.Normal(0.0, 1.0)}))
says("a prior that is a number", "function", lambda w: bdf.Detector(network(), {"2": 0.1}))
says("priors without a mapping", "priors", lambda w: bdf.Detector(network(), priors.normal(1.0)))
says("a network that is a name", "nn.Module|build", lambda w: bdf.Detector("resnet18", {"fc": priors.normal(1.0)}))
says("a prior without to_event", "to_event", lambda w: w.detector(lambda n, p: dist.Normal(torch.zeros_like(p), 1.0)))
says("a prior of one number", "zeros_like|expand", lambda w: w.detector(lambda n, p: dist.Normal(0.0, 1.0)))
says("a prior that returns nothing", "pyro.distributions", lambda w: w.detector(lambda n, p: None))
says("a scale below zero", "above 0", lambda w: priors.normal(-1.0))
says("a name of a network with a slip", "resnet18", lambda w: bdf.models.build("resnet81", num_classes=2))
says("a hyperprior of several layers", "shared", lambda w: w.fit(prior=one_scale_for_all))
works("a hyperprior for each layer", lambda w: w.fit(prior=one_scale_each), accurate)


def one_scale_for_all(name: str, parameter: torch.Tensor) -> Any:
    scale = pyro.sample("scale", dist.Gamma(2.0, 1.0))
    return dist.Normal(torch.zeros_like(parameter), scale).to_event(parameter.dim())


def one_scale_each(name: str, parameter: torch.Tensor) -> Any:
    scale = pyro.sample(f"{name}.scale", dist.Gamma(20.0, 1.0))
    return dist.Normal(torch.zeros_like(parameter), scale).to_event(parameter.dim())


def offline(world: World) -> Any:
    def refuse(*given: Any, **options: Any) -> Any:
        raise urllib.error.URLError("no network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(world.folder / "hub"))
        patch.setattr(torch.hub, "urlopen", refuse)
        return bdf.models.build("resnet18", num_classes=2, pretrained=True)


says("pretrained weights without a network", "pretrained.*connect", offline)

says("a scale that is a word", "above 0", lambda w: priors.normal("a"))  # type: ignore[arg-type]
says("a network that ends in a softmax", "take the softmax off", lambda w: fit_ending_in(w, nn.Softmax(1)))
says("a network of one logit that ends in a sigmoid", "Sigmoid", lambda w: fit_ending_in(w, nn.Sigmoid(), 1))
says("a network of two logits that ends in a sigmoid", "Sigmoid", lambda w: fit_ending_in(w, nn.Sigmoid()))
works(
    "a network that ends in a log-softmax",
    lambda w: w.fit(detector=bdf.Detector(nn.Sequential(*network(), nn.LogSoftmax(1)), {"2": priors.normal(10.0)})),
    accurate,
)
for method, way in {"MAP": bdf.MAP, "SVI": bdf.SVI, "SVI, lowrank": lambda **o: bdf.SVI(guide="lowrank", **o)}.items():
    says(
        f"a prior over positive numbers alone, {method}",
        "2.weight is over positive numbers.*priors.normal",
        lambda w, way=way: way(epochs=1, progress=False).fit(w.detector(positive), w.data),
    )
says(
    "a prior over a simplex, lowrank",
    "2.weight.*support",
    lambda w: bdf.SVI(guide="lowrank", epochs=1).fit(bdf.Detector(network(), {"2.weight": simplex}), w.data),
)


def fit_ending_in(world: World, last: nn.Module, classes: int = 2) -> Any:
    layers = nn.Sequential(*network(classes), last)
    return world.fit(detector=bdf.Detector(layers, {"2": priors.normal(10.0)}))


def positive(name: str, parameter: torch.Tensor) -> Any:
    return dist.HalfNormal(torch.ones_like(parameter)).to_event(parameter.dim())


def simplex(name: str, parameter: torch.Tensor) -> Any:
    return dist.Dirichlet(torch.ones_like(parameter)).to_event(parameter.dim() - 1)


# Labels.
says("labels 1 and 2", "subtract 1", lambda w: w.fit(TensorDataset(w.x, w.y + 1)))
says("labels -1 and 1", r"map -1 to 0 and 1 to 1", lambda w: w.fit(TensorDataset(w.x, 2 * w.y - 1)))
works("labels (N, 1)", lambda w: w.fit(TensorDataset(w.x, w.y[:, None])), accurate)
works("labels as floats", lambda w: w.fit(TensorDataset(w.x, w.y.float())), accurate)
says("labels one-hot", "argmax", lambda w: w.fit(TensorDataset(w.x, nn.functional.one_hot(w.y))))
says("labels between the classes", "soft|class numbers", lambda w: w.fit(TensorDataset(w.x, w.y * 0.5 + 0.1)))
says("labels from 1", "from 1 to 2.*subtract 1", lambda w: w.fit(Named(w.x, lambda image, k: (image, w.y[k] + 1))))
says(
    "labels as words",
    "class number",
    lambda w: w.fit(Pairs(w.x, lambda image, k: (image, "fake" if k % 2 else "real"))),
)
says("items that are dicts", "pair", lambda w: w.fit(Pairs(w.x, lambda image, k: {"image": image, "label": w.y[k]})))
says("items that are triples", "pair", lambda w: w.fit(Pairs(w.x, lambda image, k: (image, w.y[k], "path"))))
says("images without labels", "label", lambda w: w.fit(TensorDataset(w.x)))
says("a tensor to fit", "label|pair", lambda w: w.fit(w.x))
says("one class alone", "at least two", lambda w: w.fit(TensorDataset(w.x, torch.zeros_like(w.y))))


class Named(Pairs):
    classes = ("real", "fake")


# Fitting.
says("a slip in the name of a guide", "normal", lambda w: bdf.SVI(guide="norml").fit(w.detector(), w.data))
says("a rate below zero", "lr", lambda w: bdf.SVI(lr=-0.1).fit(w.detector(), w.data))
says("three classes, two logits", "num_classes=3", lambda w: w.fit(TensorDataset(w.x, torch.arange(IMAGES) % 3)))
says(
    "a network in float64",
    r"float32|\.float\(\)",
    lambda w: bdf.MAP(epochs=1).fit(in_float64(), TensorDataset(w.x.double(), w.y)),
)
says("images of one channel", "channel|shape", lambda w: bdf.MAP(epochs=1).fit(convolutional(), of_one_channel(w)))


says("a word for a number", "epochs is 'a'.*whole number", lambda w: bdf.SVI(epochs="a"))  # type: ignore[arg-type]
says("a network for a detector", "Detector", lambda w: bdf.SVI().fit(network(), w.data))  # type: ignore[arg-type]
says("no data", "None", lambda w: bdf.SVI().fit(w.detector(), None))  # type: ignore[arg-type]
says("a loader to fit", r"\.dataset", lambda w: w.fit(DataLoader(w.data)))
says("a path to fit", r"load\(path\)\.train", lambda w: w.fit(str(w.photos)))
says("three splits to fit", r"data\.train", lambda w: w.fit(bdf.data.load(w.photos, size=16)))
says(
    "NaN in the first images",
    r"2 training images.*index 0, 1\)",
    lambda w: w.fit(TensorDataset(with_values(w.x, [0, 1]), w.y)),
)
says(
    "infinity in a validation image",
    r"1 validation image .*index 7\)",
    lambda w: bdf.MAP().fit(
        w.detector(), w.data, Pairs(with_values(w.x, [7], float("inf")), lambda image, k: (image, w.y[k]))
    ),
)


def with_values(images: torch.Tensor, which: list[int], value: float = float("nan")) -> torch.Tensor:
    images = images.clone()
    images[which, 0, 0, 0] = value
    return images


def in_float64() -> bdf.Detector:
    return bdf.Detector(network().double(), {"2": priors.normal(1.0)})


def convolutional() -> bdf.Detector:
    layers = nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return bdf.Detector(nn.Sequential(*layers), {"0": priors.normal(1.0)})


def of_one_channel(world: World) -> Any:
    return TensorDataset(world.x[:, :1], world.y)


# Predicting.
works("predict a tensor", lambda w: w.posterior.predict(w.x, draws=8), of_all)
works("predict a data set of images alone", lambda w: w.posterior.predict(TensorDataset(w.x), draws=8), of_all)
works("predict a list of tensors", lambda w: w.posterior.predict(list(w.x), draws=8), of_all)
works("predict an array", lambda w: w.posterior.predict(w.x.numpy(), draws=8), of_all)
works(
    "predict one image",
    lambda w: w.posterior.predict(w.x[0], draws=8)["posterior_predictive/logits"],
    lambda logits, w: logits.sizes["image"] == 1,
)
works(
    "predict a folder",
    lambda w: w.posterior.predict(bdf.data.unlabelled(w.photos, size=SIDE), draws=3),
    lambda found, w: found["constant_data/path"].size == 24,
)
says("a folder, of no known preparation", "unlabelled", lambda w: w.posterior.predict(w.photos))
works(
    "an unknown file, by what was fitted to files",
    lambda w: w.fit(bdf.data.load(w.photos, size=16).train).predict(w.photos / "vae" / "p0" / "0.png", draws=1),
    lambda found, w: found["posterior_predictive/logits"].shape[2:] == (1, 2),
)
says("a folder that is missing", "nowhere", lambda w: w.posterior.predict(w.folder / "nowhere"))
says("a loader", "dataset", lambda w: w.posterior.predict(DataLoader(w.data)))
says("all three splits at once", "test", lambda w: w.posterior.predict(bdf.data.load(w.photos, size=16)))
says("images of other channels", "channel|shape|fitted", lambda w: w.posterior.predict(w.x[:, :1]))
says("an image that is no image", "readme.txt|image", lambda w: w.posterior.predict([no_image(w)]))
says("no images", "empty", lambda w: w.posterior.predict(TensorDataset(w.x[:0], w.y[:0])))
says("no draws", "at least 1", lambda w: w.posterior.predict(w.data, draws=0))
says("figures without labels", "labels", lambda w: analysis.evaluate(w.posterior.predict(w.x, draws=2)))
says("draws between two numbers", "whole number", lambda w: w.posterior.predict(w.data, draws=2.5))
says("NaN in an image to predict", "image 3, 5", lambda w: w.posterior.predict(with_values(w.x, [3, 5])))
says(
    "NaN after predicting",
    "image holds NaN, or",
    lambda w: analysis.decompose(xr.DataArray(np.full((2, 3, 2), np.nan), dims=("draw", "image", "class"))),
)
says("images in 0 to 255", "scale of training", lambda w: w.posterior.predict(w.x * 255 - 0.3))
says("images in -1 to 1", "scale of training", lambda w: bdf.load_posterior(w.saved, w.detector()).predict(w.x * 2 - 1))
for other in ("x ** 2", "x.clamp(0.3, 0.6)", "x * 0", "(x * 1.6).clamp(0, 1)", "x + 0.1 * (x > 0.7)"):
    works(
        f"images of another exposure, {other}",
        lambda w, other=other: quietly(lambda: w.posterior.predict(eval(other, {"x": w.x}), draws=2)),
        lambda found, w: True,
    )
works(
    "one odd image among many",
    lambda w: quietly(lambda: w.posterior.predict(with_values(w.x, [3], 9.0), draws=2)),
    lambda found, w: True,
)
says(
    "loo of another likelihood",
    "class_balanced=False",
    lambda w: (
        bdf.MAP(epochs=1, progress=False)
        .fit(w.detector(), unbalanced(w))
        .predict(unbalanced(w), draws=1, log_likelihood=True)
    ),
)


def quietly(does: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error", BayesdfWarning)
        return does()


def unbalanced(world: World) -> Any:
    return TensorDataset(world.x[:, :, :4, :4], (torch.arange(IMAGES) % 4 == 1).long())


works(
    "what the prior says of images",
    lambda w: analysis.decompose(bdf.prior_predictive(w.detector(), w.data, draws=20)),
    lambda found, w: found.sizes["image"] == IMAGES and (found["epistemic"] > 0).all(),
)


def no_image(world: World) -> Path:
    path = world.folder / "readme.txt"
    path.write_text("no image")
    return path


# Analysing.
works(
    "uncertainty of predictions",
    lambda w: analysis.decompose(w.predictions),
    lambda found, w: (found["prediction"].values == w.y.numpy()).mean() > 0.9,
)
works("figures", lambda w: analysis.evaluate(w.predictions, resamples=9), lambda found, w: found["auroc"][0] > 0.9)
says("logits as an array", "dims=.*from_scores", lambda w: analysis.decompose(np.zeros((3, 4, 2))))
says("logits as a tensor", "numpy", lambda w: analysis.decompose(torch.zeros(3, 4, 2)))
says("a whole run", r"\['svi'\]", lambda w: analysis.decompose(bdf.open_run(w.run)))
says("the result of decompose", "predictions", lambda w: analysis.evaluate(analysis.decompose(w.predictions)))
says("the posterior instead of predictions", "predict", lambda w: analysis.decompose(w.posterior))
says("probabilities for logits", "from_scores", lambda w: analysis.decompose(after_softmax(w.predictions)))
says("attribute without features", "scalars", lambda w: analysis.attribute(w.predictions))
says("convergence of an array", "draws", lambda w: analysis.convergence(np.zeros((2, 50))))
says("sources nobody told", "source", lambda w: analysis.attribute(analysis.scalars(w.predictions)))
works(
    "sources told by uncertainty",
    lambda w: analysis.attribute(analysis.scalars(w.predictions), np.where(w.y, "vae", "real")),
    lambda found, w: (found["truth"] == found["prediction"]).mean() > 0.6,
)
says("a single draw has no spread", "draws=2", lambda w: analysis.scalars(w.posterior.predict(w.data, draws=1)))
says("labels on the wrong images", "48 images", lambda w: analysis.evaluate(with_label(w, w.y.numpy()[:5])))
works(
    "labels beside the logits",
    lambda w: analysis.evaluate(with_label(w, w.y.numpy()), resamples=9),
    lambda found, w: found["accuracy"][0] > 0.9,
)


def after_softmax(predictions: Any) -> xr.DataArray:
    logits = predictions["posterior_predictive/logits"]
    p = np.exp(logits)
    return p / p.sum("class")


def with_label(world: World, label: np.ndarray) -> Any:
    logits = world.predictions["posterior_predictive"].to_dataset()[["logits"]]
    return xr.DataTree.from_dict(
        {"posterior_predictive": logits, "observed_data": xr.Dataset({"label": ("image", label)})}
    )


# Scores of other detectors.
works(
    "scores from a CSV file",
    lambda w: analysis.decompose(analysis.from_scores(w.csv(), kind="probability")),
    lambda found, w: np.allclose(found["probability"][:, 1], w.scores[["cnn", "vit"]].mean(axis=1)),
)
says("a table for logits", "from_scores", lambda w: analysis.evaluate(w.csv()))
says("percentages", "100", lambda w: analysis.from_scores(w.csv(cnn=[90.0, 20, 70, 40]), kind="probability"))
says("a kind with a slip", "'log-odds'", lambda w: analysis.from_scores(w.csv(), kind="logodds"))  # type: ignore[arg-type]
says(
    "a detector that failed",
    "leave out",
    lambda w: analysis.from_scores(w.csv(vit=[0.8, None, 0.1, 0.2]), kind="probability"),
)
says(
    "labels under another name", "labels='y'", lambda w: analysis.from_scores(w.csv(y=[1, 0, 1, 0]), kind="probability")
)
for capitals in ("Label", "SOURCE", "Subject "):
    says(
        f"a column {capitals!r}",
        "rename",
        lambda w, capitals=capitals: analysis.from_scores(w.csv(**{capitals: [1.0, 0, 1, 0]}), kind="probability"),
    )
for number in ([10, 11, 12, 13], ["a", "b", "c", "d"]):
    says(
        f"a column of names of images, {number[0]}",
        r"set_index\('id'\)",
        lambda w, number=number: analysis.from_scores(w.csv(id=number), kind="probability"),
    )
works(
    "names of images as index",
    lambda w: analysis.from_scores(w.csv(id=["a", "b", "c", "d"]).set_index("id"), kind="probability"),
    lambda tree, w: tree["posterior_predictive"]["image"].values.tolist() == ["a", "b", "c", "d"],
)
says("scores turned round", r"scores\.T", lambda w: analysis.from_scores(np.full((2, 90), 0.3), kind="probability"))

# Data.
says("nothing to load", "embedded", lambda w: bdf.data.load(None))  # type: ignore[arg-type]
says("a size that is a word", "whole number", lambda w: bdf.data.load(w.photos, size="64"))  # type: ignore[arg-type]
works(
    "data, shown",
    lambda w: bdf.data.load(w.photos, size=16),
    lambda data, w: (
        all(part in repr(data) for part in ("24 images of 6 people", "train", "real, fake"))
        and all("\n" not in repr(one) and " at 0x" not in repr(one) for one in (data, data.train))
        and f"real {int((data.train.labels == 0).sum())}" in repr(data.train)
    ),
)
says("a slip in embedded", "embedded", lambda w: bdf.data.load("embeded"))
says("a missing folder of images", "nowhere", lambda w: bdf.data.load(w.folder / "nowhere"))
says("an empty folder", "no images", lambda w: bdf.data.load(empty(w)))
says("no folder of photographs", "real", lambda w: bdf.data.load(only_fakes(w), size=16))
says("a file for a folder", "folder", lambda w: bdf.data.load(w.picture("alone.png")))
says("a slip in the task", "binary", lambda w: bdf.data.load(w.photos, task="binray"))  # type: ignore[arg-type]
says("a broken image", "broken.png", lambda w: bdf.data.load(with_a_broken_image(w), size=16))
works(
    "a folder of photographs",
    lambda w: bdf.data.load(w.photos, size=16),
    lambda data, w: len(data.train) + len(data.val) + len(data.test) == 24 and data.classes == ["real", "fake"],
)
works(
    "swaps named after two people",
    lambda w: bdf.data.load(swaps(w), size=16).manifest,
    lambda manifest, w: pairs_stay_together(manifest),
)


def swaps(world: World) -> Path:
    """Twelve people, each swapped with a neighbour: `swap/000_001.png` and `swap/001_000.png`."""
    for person in range(12):
        world.picture(f"swaps/real/{person:03d}.png")
        world.picture(f"swaps/swap/{person:03d}_{person ^ 1:03d}.png")
    return world.folder / "swaps"


def pairs_stay_together(manifest: pd.DataFrame) -> bool:
    people = manifest["path"].str.extractall(r"(\d{3})")[0].droplevel(1)
    return bool((manifest["split"].loc[people.index].groupby(people.to_numpy()).nunique() == 1).all())


def empty(world: World) -> Path:
    (world.folder / "empty").mkdir(exist_ok=True)
    return world.folder / "empty"


def only_fakes(world: World) -> Path:
    for person in range(4):
        for source in ("vae", "gan"):
            world.picture(f"fakes/{source}/p{person}/1.png")
    return world.folder / "fakes"


def with_a_broken_image(world: World) -> Path:
    for person in range(4):
        for source in ("real", "gan"):
            world.picture(f"broken/{source}/p{person}/1.png")
    (world.folder / "broken" / "real" / "p0" / "broken.png").write_bytes(b"no image")
    return world.folder / "broken"


# Keeping.
says("saved twice", "overwrite=True", lambda w: w.posterior.save(w.saved))
works("saved over", lambda w: w.posterior.save(w.saved, overwrite=True), lambda path, w: path.is_dir())
works(
    "loaded and predicted",
    lambda w: bdf.load_posterior(w.saved, w.detector()).predict(w.data, draws=8),
    lambda again, w: np.array_equal(again["posterior_predictive/logits"], w.predictions["posterior_predictive/logits"]),
)
says("loaded without its network", "detector=", lambda w: bdf.load_posterior(w.saved))
says("loaded with a network", "must be a Detector", lambda w: bdf.load_posterior(w.saved, network()))  # type: ignore[arg-type]
says("loaded from nowhere", "nowhere", lambda w: bdf.load_posterior(w.folder / "nowhere.zarr"))
says("a run for a posterior", "Posterior.save", lambda w: bdf.load_posterior(w.run / "run.zarr"))
says("loaded into another network", "architecture", lambda w: bdf.load_posterior(w.saved, into_three_classes()))
says("a run that is not there", "nowhere", lambda w: bdf.open_run(w.folder / "nowhere"))
works(
    "a run read and written again",
    lambda w: store.write_tree(bdf.open_run(w.run), w.folder / "again.zarr"),
    lambda path, w: store.open_tree(path).identical(bdf.open_run(w.run)),
)
works(
    "a run written by xarray",
    lambda w: bdf.open_run(w.run).to_zarr(w.folder / "by_xarray.zarr", mode="w"),
    lambda _, w: "svi" in xr.open_datatree(w.folder / "by_xarray.zarr", engine="zarr").children,
)


def into_three_classes() -> bdf.Detector:
    return bdf.Detector(network(3), {"2": priors.normal(1.0)})


# ArviZ.
works("az.summary", lambda w: az.summary(in_arviz(w)), lambda table, w: len(table) == 8)
works("az.ess", lambda w: az.ess(in_arviz(w)), lambda found, w: np.isfinite(found["2.bias"]).all())
works(
    "az.plot_trace",
    lambda w: az.plot_trace(w.posterior.draws(30)["posterior"].to_dataset()),
    lambda axes, w: axes.size >= 2,
)
works("az.plot_forest", lambda w: az.plot_forest(in_arviz(w)), lambda axes, w: len(axes) >= 1)
works(
    "az.loo",
    lambda w: az.loo(az.InferenceData.from_datatree(w.posterior.predict(w.data, draws=50, log_likelihood=True))),
    lambda found, w: np.isfinite(found.elpd_loo),
)


def in_arviz(world: World) -> Any:
    """ArviZ before version 1 reads a DataTree by this call."""
    return az.InferenceData.from_datatree(world.posterior.draws(30))


# Generators.
says("a slip in a generator's name", "dcgan", lambda w: invert(np.zeros((1, 64, 64)), "dcgna"))  # type: ignore[arg-type]
says("images of another size", "64", lambda w: invert(np.zeros((1, 32, 32)), GENERATORS["dcgan"]))
says("a generator that makes nothing", "decode", lambda w: Generator("mine").sample(1, seed=0))


@pytest.mark.parametrize("step", STEPS, ids=[step.name for step in STEPS])
def test_a_step_ends_in_a_result_or_in_one_line(step: Step, world: World) -> None:
    with warnings.catch_warnings(record=True) as warned, torch.random.fork_rng([]):
        warnings.simplefilter("always", BayesdfWarning)
        line, result = None, None
        try:
            result = step.does(world)
        except BayesdfError as error:
            line = str(error)
    said = [str(one.message) for one in warned if issubclass(one.category, BayesdfWarning)]
    if step.holds is not None:
        assert line is None, line
        assert step.holds(result, world)
        return
    lines = said if line is None else [line]
    assert any(pd.Series([one]).str.contains(step.says, regex=True)[0] for one in lines), lines
    assert all("\n" not in one for one in lines)


def test_there_are_forty_steps_and_more() -> None:
    assert len({step.name for step in STEPS}) == len(STEPS) >= 40

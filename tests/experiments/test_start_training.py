"""A blind start: pairs of one person, no source, and a stopped training that goes on to the same weights."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

import bayesdf.data as data
from bayesdf.errors import BayesdfError
from bayesdf.experiments import start_training


@pytest.fixture(scope="module")
def collection(photos: Path) -> data.Collection:
    return data.load(photos, size=32)


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(6, 2))


def trained(images: data.ImageDataset, steps: int = 6, **settings: object) -> dict[str, torch.Tensor]:
    return start_training.train_blind(network(), images, steps=steps, device="cpu", **settings).state_dict()


def test_no_source_is_read(collection: data.Collection) -> None:
    """With the names of the generators changed about, the same weights come out, bit for bit."""
    manifest = collection.manifest.drop(columns="label")
    swapped = manifest.assign(source=manifest["source"].map({"real": "real", "blur": "edges", "edges": "blur"}))
    other = data.collect(collection.train.images, swapped, "binary", "swapped", "")
    assert (collection.train.manifest["source"] != other.train.manifest["source"]).any()
    one, two = trained(collection.train), trained(other.train)
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_half_of_a_batch_are_photographs_and_each_fake_is_of_the_same_person(collection: data.Collection) -> None:
    pairs = start_training.Pairs(collection.train)
    noise = torch.Generator().manual_seed(0)
    asked: list[int] = []
    pairs.images = type("Spy", (), {"__getitems__": lambda self, rows: asked.extend(rows) or [(torch.zeros(1), 0)]})()
    pairs.batch(noise)
    half, manifest = start_training.HALF, collection.train.manifest
    assert len(asked) == 2 * half
    labels = collection.train.labels.numpy()[asked]
    np.testing.assert_array_equal(labels, np.repeat([0, 1], half))
    who = manifest["subject"].to_numpy()[asked]
    np.testing.assert_array_equal(who[:half], who[half:])


def test_fakes_of_nobody_stand_beside_any_photograph(collection: data.Collection) -> None:
    manifest = collection.manifest.drop(columns="label")
    blur = manifest["source"] == "blur"
    manifest.loc[blur, ["subject", "donor", "video"]] = ""
    new = data.collect(collection.train.images, manifest, "binary", "new faces", "")
    pairs = start_training.Pairs(new.train)
    nobody = set(np.flatnonzero((new.train.manifest["source"] == "blur").to_numpy()))
    assert nobody and all(nobody < set(rows) for rows in pairs.fakes.values())


def test_weights_are_averaged_over_the_last_steps(collection: data.Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the recurrence: mean = decay mean + (1 - decay) weights, begun with the weights after the first step."""
    given, batch, seen = network(), start_training.Pairs.batch, []

    def watch(self: start_training.Pairs, noise: torch.Generator) -> torch.Tensor:
        seen.append(given.state_dict()["0.weight"].clone())
        return batch(self, noise)

    monkeypatch.setattr(start_training, "AVERAGED", 0.0)
    last = trained(collection.train)["0.weight"]
    monkeypatch.setattr(start_training, "AVERAGED", 0.5)
    monkeypatch.setattr(start_training.Pairs, "batch", watch)
    start_training.train_blind(given, collection.train, steps=6, device="cpu")
    mean = seen[1]
    for weights in [*seen[2:], last]:
        mean = 2 / 3 * mean + 1 / 3 * weights
    torch.testing.assert_close(given.state_dict()["0.weight"], mean)
    assert not torch.allclose(mean, last)


def test_the_average_that_validates_best_is_kept(
    collection: data.Collection, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[torch.Tensor] = []
    answers = iter([0.6, 0.9, 0.7])

    def judge(given: nn.Module, images: data.ImageDataset, where: torch.device) -> float:
        assert images is collection.val
        asked.append(given.state_dict()["0.weight"].clone())
        return next(answers)

    monkeypatch.setattr(start_training, "_auroc", judge)
    monkeypatch.setattr(start_training, "VALIDATED", 3)
    kept = trained(collection.train, validation=collection.val)["0.weight"]
    assert torch.equal(kept, asked[1]) and not torch.equal(kept, asked[2])
    assert "kept the weights of step 4 of 6: validation AUROC 0.900" in " ".join(capsys.readouterr().err.split())


def test_the_auroc_of_validation_is_that_of_the_logits(collection: data.Collection) -> None:
    given = network().eval()
    pictures = torch.stack([image for image, _ in collection.val.__getitems__(list(range(len(collection.val))))])
    with torch.no_grad():
        logits = given(pictures)
    expected = roc_auc_score(collection.val.labels.numpy(), (logits[:, 1] - logits[:, 0]).numpy())
    assert start_training._auroc(given, collection.val, torch.device("cpu")) == pytest.approx(expected)
    assert given.training


def test_a_stopped_training_goes_on_to_the_same_weights(
    collection: data.Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start_training, "SAVED_EVERY", 2)
    checkpoint, batch, judged = tmp_path / "start.pt", start_training.Pairs.batch, {"validation": collection.val}
    whole = trained(collection.train, **judged)
    made: list[int] = []

    def stop(self: start_training.Pairs, noise: torch.Generator) -> torch.Tensor:
        made.append(1)
        if len(made) == 6:
            raise KeyboardInterrupt
        return batch(self, noise)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(start_training.Pairs, "batch", stop)
        trained(collection.train, checkpoint=checkpoint, **judged)
    again = trained(collection.train, checkpoint=checkpoint, **judged)
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
    with pytest.raises(BayesdfError, match="is of other data, settings or weights"):
        trained(collection.train, steps=7, checkpoint=checkpoint, **judged)


def test_it_learns() -> None:
    """Fakes without fine structure: a small network tells them in few steps, of people it never saw too."""
    rng = np.random.default_rng(0)
    rough = rng.integers(0, 255, (80, 32, 32, 3), dtype=np.uint8)
    smooth = np.repeat(np.repeat(rough[:, ::4, ::4], 4, 1), 4, 2)
    person = [f"p{number // 4}" for number in range(80)]
    split = np.repeat(["train", "val", "test"], [40, 20, 20])
    rows = [
        {
            "path": f"{source}/{number}",
            "source": source,
            "subject": person[number],
            "donor": "",
            "video": "",
            "bytes": 1,
        }
        for source in ("real", "smooth")
        for number in range(80)
    ]
    manifest = pd.DataFrame(rows).assign(split=np.tile(split, 2))
    images = data.collect(np.concatenate([rough, smooth]), manifest, "binary", "squares", "")
    given = network()
    start_training.train_blind(given, images.train, steps=250, device="cpu")
    pictures = torch.stack([image for image, _ in images.test.__getitems__(list(range(len(images.test))))])
    with torch.no_grad():
        right = given(pictures).argmax(1) == images.test.labels
    assert right.float().mean() > 0.9


def test_half_the_precision_is_used_and_weights_stay_whole(collection: data.Collection) -> None:
    whole, half = (trained(collection.train, mixed_precision=mixed) for mixed in (False, True))
    assert not torch.equal(whole["0.weight"], half["0.weight"])
    assert all(value.dtype != torch.bfloat16 for value in half.values())


def test_a_loss_that_is_not_finite_stops_it(collection: data.Collection) -> None:
    broken = network()
    with torch.no_grad():
        broken[0].weight.fill_(float("nan"))
    with pytest.raises(BayesdfError, match="the loss of step 0 is nan"):
        start_training.train_blind(broken, collection.train, steps=2, device="cpu")


@pytest.mark.parametrize(("side", "part"), [(32, 32), (64, 32), (128, 64)])
def test_a_picture_without_identity_is_half_of_it(side: int, part: int) -> None:
    images = torch.rand(3, 3, side, side)
    once, again = (start_training.hide_identity(images, torch.Generator().manual_seed(1)) for _ in range(2))
    assert once.shape == (3, 3, part, part) and torch.equal(once, again)
    assert once.min() >= 0.0 and once.max() <= 1.0

"""The embedded data: disjoint people, one path for all images, and no shortcut."""

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage
from sklearn.metrics import roc_auc_score

import bayesdf.data as data
from bayesdf.data import embedded, prepared
from bayesdf.generators import GENERATORS


@pytest.fixture(scope="module")
def collection() -> data.Collection:
    return data.load("embedded", task="binary")


def test_sources_and_counts(collection: data.Collection) -> None:
    counts = collection.manifest.groupby(["split", "source"]).size().unstack()
    assert set(counts.columns) == {"real", *GENERATORS} and len(GENERATORS) >= 5
    assert (counts.loc["train"] == 240).all() and (counts.loc["val"] == 60).all() and (counts.loc["test"] == 100).all()


def test_splits_share_neither_people_nor_photographs(collection: data.Collection) -> None:
    manifest = collection.manifest
    for column in ("subject", "video"):
        assert (manifest.groupby(column)["split"].nunique() == 1).all()
    donors = manifest[manifest["donor"] != ""]
    home = manifest.drop_duplicates("subject").set_index("subject")["split"]
    assert (home[donors["donor"]].to_numpy() == donors["split"].to_numpy()).all()


def test_items_are_images_and_labels(collection: data.Collection) -> None:
    image, label = collection.test[0]
    assert image.shape == (3, 64, 64) and image.dtype.is_floating_point and image.min() >= 0 and image.max() <= 1
    assert label.item() == collection.test.manifest["label"][0]
    batch = collection.test.__getitems__([5, 0])
    assert (batch[1][0] == image).all() and batch[1][1] == label


@pytest.mark.parametrize(("task", "classes"), [("binary", 2), ("multiclass", 6), ("source", 5)])
def test_tasks(task: data.Task, classes: int) -> None:
    collection = data.load("embedded", task=task)
    assert len(collection.classes) == classes
    manifest = collection.train.manifest
    assert set(manifest["label"]) == set(range(classes))
    if task != "binary":
        assert (np.array(collection.classes)[manifest["label"]] == manifest["source"]).all()
    assert ("real" in set(manifest["source"])) == (task != "source")


def test_the_cache_gives_what_making_gives(collection: data.Collection, cache: object) -> None:
    images, manifest = embedded._make(64, data.QUALITY)
    again, kept = embedded.read()
    np.testing.assert_array_equal(images, again)
    pd.testing.assert_frame_equal(manifest, kept, check_dtype=False)


def test_a_killed_writer_leaves_no_half_set(cache: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> tuple[np.ndarray, pd.DataFrame]:
        return np.zeros((2, 4, 4, 3), np.uint8), pd.DataFrame({"subject": ["a", "b"], "video": ["a", "b"]})

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pd.DataFrame, "to_csv", fail)
        with pytest.raises(OSError, match="No space"):
            prepared.prepared("half", make)
    images, _ = prepared.prepared("half", make)
    assert len(images) == 2
    assert not [path for path in prepared.cache_folder("datasets").iterdir() if path.name.startswith(".half")]


def statistics(collection: data.Collection) -> pd.DataFrame:
    """What a shortcut would look at: mean, variance, file size, and energy above half the Nyquist frequency."""
    images = np.stack([np.asarray(image[0]) for image, _ in collection.test])
    detail = images - ndimage.gaussian_filter(images, (0, 1, 1))
    return pd.DataFrame(
        {
            "mean": images.mean((1, 2)),
            "variance": images.var((1, 2)),
            "file size": collection.test.manifest["bytes"],
            "high-frequency energy": (detail**2).mean((1, 2)),
        }
    )


def test_no_simple_statistic_solves_the_task(collection: data.Collection) -> None:
    """Real against every generator, by one number an image.

    Brightness says nothing about any generator. What smooths the whole picture (the VAE, whose decoder draws every
    pixel) may show in the amount of detail, as it does for VAEs at large; what is made in a part of a photograph may
    not. All fakes together stay near chance.
    """
    table = statistics(collection)
    source = collection.test.manifest["source"]
    for name, column in table.items():
        fake = (source != "real").to_numpy()
        assert abs(roc_auc_score(fake, column) - 0.5) < 0.2, name
        for generator in GENERATORS:
            rows = source.isin(["real", generator])
            auc = roc_auc_score(source[rows] == generator, column[rows])
            whole_picture = generator == "vae" and name in ("file size", "high-frequency energy")
            assert abs(auc - 0.5) < (0.5 if whole_picture else 0.25), (name, generator)

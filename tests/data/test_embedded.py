"""The embedded data: disjoint people, one path for all images, and no shortcut."""

import functools
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import bayesdf.data as data
from bayesdf.data import embedded, image_cache
from bayesdf.data.masks import no_masks
from bayesdf.errors import BayesdfError
from bayesdf.experiments import warm_start
from bayesdf.faces import people, photographs
from bayesdf.generators import GENERATORS

NOTHING = np.zeros((2, 4, 4, 3), np.uint8)


@pytest.fixture(scope="module")
def collection() -> data.Collection:
    return data.load("embedded", task="binary")


def test_sources_and_counts(collection: data.Collection) -> None:
    counts = collection.manifest.groupby(["split", "source"]).size().unstack()
    assert set(counts.columns) == {"real", *GENERATORS} and len(GENERATORS) == 9
    assert (counts.loc["train"] == 240).all() and (counts.loc["val"] == 60).all() and (counts.loc["test"] == 100).all()


def test_splits_share_neither_people_nor_photographs(collection: data.Collection) -> None:
    manifest = collection.manifest
    for column in ("subject", "video"):
        named = manifest[manifest[column] != ""]
        assert (named.groupby(column)["split"].nunique() == 1).all()
    donors = manifest[manifest["donor"] != ""]
    home = manifest.drop_duplicates("subject").set_index("subject")["split"]
    assert (home[donors["donor"]].to_numpy() == donors["split"].to_numpy()).all()


def test_items_are_images_and_labels(collection: data.Collection) -> None:
    image, label = collection.test[0]
    assert image.shape == (3, 64, 64) and image.dtype.is_floating_point and image.min() >= 0 and image.max() <= 1
    assert label.item() == collection.test.manifest["label"][0]
    batch = collection.test.__getitems__([5, 0])
    assert (batch[1][0] == image).all() and batch[1][1] == label


@pytest.mark.parametrize(("task", "classes"), [("binary", 2), ("multiclass", 10), ("source", 9)])
def test_tasks(task: data.Task, classes: int) -> None:
    collection = data.load("embedded", task=task)
    assert len(collection.classes) == classes
    manifest = collection.train.manifest
    assert set(manifest["label"]) == set(range(classes))
    if task != "binary":
        assert (np.array(collection.classes)[manifest["label"]] == manifest["source"]).all()
    assert ("real" in set(manifest["source"])) == (task != "source")


def test_the_cache_gives_what_making_gives(cache: object, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"train": [], "val": [embedded.donor_groups()["val"][0][:2]], "test": []}
    monkeypatch.setattr(embedded, "donor_groups", lambda fold: few)
    images, manifest, masks = embedded.read()
    again, made, drawn = embedded._make(64, data.QUALITY, 1, 0)
    assert len(images) == 2 * 10 * (1 + len(GENERATORS))
    np.testing.assert_array_equal(images, embedded.read()[0])
    np.testing.assert_array_equal(images, again)
    np.testing.assert_array_equal(masks, drawn)
    pd.testing.assert_frame_equal(manifest, made, check_dtype=False)


def test_masks_are_those_of_the_generators(collection: data.Collection) -> None:
    """Photographs are unchanged, new faces are new throughout, a manipulation says which pixels it changed."""
    part = collection.val
    for source, rows in part.manifest.groupby("source").groups.items():
        masks, (kind,) = part.masks[list(rows)].numpy(), set(part.manifest["mask"][rows])
        assert masks.shape == (60, 64, 64) and masks.dtype == np.float32
        if source == data.REAL:
            assert kind == "none" and not masks.any()
            continue
        rng = np.random.default_rng([0, 1, [data.REAL, *GENERATORS].index(source), 0])
        made = []
        for group in embedded.donor_groups()["val"]:
            faces = photographs().take(np.isin(photographs().subject, group))
            made.append(GENERATORS[str(source)].fakes(faces, rng).mask)
        np.testing.assert_allclose(masks, np.concatenate(made), atol=0.51 / 255)
        assert kind == ("whole" if GENERATORS[str(source)].manipulate is None else "part")


def test_outside_the_mask_a_fake_is_its_photograph(collection: data.Collection) -> None:
    """After the common path too, up to what JPEG spreads within its blocks of 8 by 8 pixels."""
    part = collection.test
    images = part.images[part._rows].astype(float)
    photo = dict(zip(part.manifest["video"], images[part.manifest["source"] == data.REAL], strict=False))
    for source in ("poisson_swap", "autoencoder_swap", "mouth"):
        rows = np.flatnonzero(part.manifest["source"] == source)
        change = np.abs(images[rows] - [photo[video] for video in part.manifest["video"][rows]]).mean(-1)
        mask = part.masks[rows].numpy()
        blocks = mask.reshape(-1, 8, 8, 8, 8).max((2, 4), keepdims=True)
        untouched = np.broadcast_to(blocks, (len(rows), 8, 8, 8, 8)).reshape(mask.shape) == 0.0
        # A weight of the blend that is 0 in 8 bits can still turn a value that lies between two grey levels.
        assert untouched.mean() > 0.2 and change[untouched].mean() <= (0.0 if source == "poisson_swap" else 0.05)
        assert change[mask > 0.9].mean() > 5.0


def test_redrawn_photographs_are_changed_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"train": [people()["train"][:2]], "val": [], "test": []}
    chosen = {name: GENERATORS[name] for name in ("vae", "mouth")}
    monkeypatch.setattr(embedded, "GENERATORS", chosen)
    monkeypatch.setattr(embedded, "donor_groups", lambda fold: few)
    _, manifest, masks = embedded.read(32, variants=2)
    kinds = manifest.groupby("source")["mask"].unique()
    assert kinds.map(list).to_dict() == {data.REAL: ["none"], "vae": ["whole"], "mouth": ["part"]}
    assert masks.shape == ((manifest["source"] == "mouth").sum(), 32, 32) and masks.any((1, 2)).all()
    assert not manifest.attrs["aligned"] and embedded.read(32)[1].attrs["aligned"]


@pytest.mark.parametrize("fold", range(4))
def test_folds_share_no_person(fold: int) -> None:
    parts = people(fold)
    assert {split: len(members) for split, members in parts.items()} == {"train": 24, "val": 6, "test": 10}
    assert len({*parts["train"], *parts["val"], *parts["test"]}) == 40
    groups = embedded.donor_groups(fold)
    assert {split: sorted(chain(*own)) for split, own in groups.items()} == parts
    assert len(groups["train"]) == 1 and all(len(group) in (3, 4) for group in groups["val"] + groups["test"])


def test_every_person_is_in_the_test_of_one_fold() -> None:
    assert sorted(chain(*(people(fold)["test"] for fold in range(4)))) == sorted(set(photographs().subject))
    for fold in (-1, 4):
        with pytest.raises(BayesdfError, match="the folds 0 to 3"):
            people(fold)


def test_fold_0_is_the_split_of_the_shipped_weights(collection: data.Collection) -> None:
    """The people, and the images as a generator makes them from the seeds that never had a fold."""
    assert people()["test"] == ["s06", "s08", "s13", "s14", "s15", "s16", "s30", "s32", "s34", "s40"]
    assert people()["val"] == ["s09", "s17", "s20", "s26", "s33", "s37"]
    assert collection.fold == 0 and collection.fingerprint == data.load("embedded", fold=0, folds=4).fingerprint
    rng = np.random.default_rng([0, 1, [data.REAL, *GENERATORS].index("vae"), 0])
    made = []
    for group in embedded.donor_groups()["val"]:
        faces = photographs().take(np.isin(photographs().subject, group))
        made += [data.common_path(image, 64, data.QUALITY)[0] for image in GENERATORS["vae"].fakes(faces, rng).images]
    kept = (collection.manifest["source"] == "vae") & (collection.manifest["split"] == "val")
    np.testing.assert_array_equal(collection.train.images[kept.to_numpy()], np.stack(made))


def test_each_fold_has_fakes_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same two people in the test of two folds: their photographs are the same images, and no fake is."""
    few = {"train": [], "val": [], "test": [people()["test"][:2]]}
    chosen = {name: GENERATORS[name] for name in ("vae", "dcgan", "poisson_swap")}
    monkeypatch.setattr(embedded, "GENERATORS", chosen)
    monkeypatch.setattr(embedded, "donor_groups", lambda fold: few)
    made = [embedded._make(32, data.QUALITY, 1, fold) for fold in (0, 1)]
    pd.testing.assert_series_equal(made[0][1]["path"], made[1][1]["path"])
    same = (made[0][0] == made[1][0]).all((1, 2, 3))
    real = (made[0][1]["source"] == data.REAL).to_numpy()
    new = (made[0][1]["subject"] == "").to_numpy()
    assert same[real].all() and not same[new].any() and not same[~real & ~new].all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fold": 4}, "the embedded data has the folds 0 to 3"),
        ({"folds": 5}, "the embedded data has 4 folds"),
        ({"folds": 0}, "folds is 0: give 1 to 10"),
        ({"folds": 11}, "folds is 11: give 1 to 10"),
        ({"fold": 0.5}, "fold is 0.5, but must be a whole number"),
        ({"folds": True}, "folds is True, but must be a whole number"),
    ],
)
def test_folds_that_do_not_exist_are_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(BayesdfError, match=message):
        data.load("embedded", **given)


def test_a_killed_writer_leaves_no_half_set(cache: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> image_cache.Content:
        return NOTHING, pd.DataFrame({"subject": ["a", "b"], "video": ["a", "b"]}), no_masks(NOTHING)

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pd.DataFrame, "to_csv", fail)
        with pytest.raises(OSError, match="No space"):
            image_cache.cached_images("half", make)
    images, *_ = image_cache.cached_images("half", make)
    assert len(images) == 2
    assert not [path for path in image_cache.cache_folder("datasets").iterdir() if path.name.startswith(".half")]


def test_many_who_meet_a_damaged_set_get_a_whole_one_made_once(cache: object) -> None:
    made = []

    def make() -> image_cache.Content:
        made.append(1)
        time.sleep(0.05)
        images = np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3)
        return images, pd.DataFrame({"subject": ["a", "b"]}), images[:1, ..., 0]

    early, *_ = image_cache.cached_images("met", make)
    (folder,) = image_cache.cache_folder("datasets").glob("met*")
    with ThreadPoolExecutor(6) as readers:
        for count, name in enumerate(("images.npy", "manifest.csv", "masks.npy"), 2):
            (folder / name).rename(folder / "lost")
            for images, manifest, masks in readers.map(lambda _: image_cache.cached_images("met", make), range(6)):
                assert images.sum() == np.arange(96).sum() and list(manifest["subject"]) == ["a", "b"]
                np.testing.assert_array_equal(masks, images[:1, ..., 0])
            assert len(made) == count
    assert early.sum() == np.arange(96).sum()  # whoever read it before reads on
    assert [path.name for path in folder.parent.glob("*met*")] == [folder.name]


def test_a_set_in_a_cache_that_cannot_be_written_is_read(cache: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> image_cache.Content:
        return NOTHING, pd.DataFrame({"subject": ["a", "b"]}), no_masks(NOTHING)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError

    image_cache.cached_images("shared", make)
    for step in ("_exclusive_lock", "_write"):
        monkeypatch.setattr(image_cache, step, refused)
    assert len(image_cache.cached_images("shared", make)[0]) == 2


@pytest.mark.parametrize("name", ["__version__", "FORMAT"])
def test_what_another_version_kept_is_not_taken(
    photos: Path, cache: object, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    made: list[str] = []
    kept = (NOTHING, pd.DataFrame({"subject": ["a", "b"]}), no_masks(NOTHING))
    monkeypatch.setattr(image_cache, "_intact", lambda folder: made.append(folder.name))
    for version in ("1", "2"):
        monkeypatch.setattr(image_cache, name, version)
        data.load(photos, size=16)
        image_cache.cached_images("kept", lambda: kept)
    assert len(set(made)) == 4


STATISTICS = ["mean", "variance", "file size", "high-frequency energy"]


@functools.cache
def statistics(part: data.ImageDataset) -> pd.DataFrame:
    """What a shortcut would look at: brightness, contrast, file size, and the energy that a small blur takes away."""
    images = np.stack([np.asarray(image[0]) for image, _ in part])
    detail = images - ndimage.gaussian_filter(images, (0, 1, 1))
    columns = [images.mean((1, 2)), images.var((1, 2)), part.manifest["bytes"], (detail**2).mean((1, 2))]
    return pd.DataFrame(dict(zip(STATISTICS, columns, strict=True)))


LIMITS = {
    # What is made or moved in a part of a photograph leaves its brightness, size and detail about as they were.
    "mouth": 0.62,
    "poisson_swap": 0.62,
    # A network's drawing of the inner face, and bilinear resampling of the whole, cost some detail: their real trace.
    "autoencoder_swap": 0.75,
    "reenactment": 0.75,
    # A critic kept these as rough and as bright as photographs; the flow's grain is its own.
    "dcgan": 0.62,
    "diffusion": 0.65,
    "stylegan": 0.68,
    "flow": 0.78,
    # Of the VAE only brightness and contrast are judged: it draws every pixel, and its smoothness meets the eye.
    "vae": 0.7,
}


@pytest.mark.parametrize("columns", [*[[name] for name in STATISTICS], STATISTICS], ids=[*STATISTICS, "all four"])
def test_no_simple_statistic_solves_the_task(collection: data.Collection, columns: list[str]) -> None:
    """A classifier fitted on the training people's statistics, judged on the test people (balanced accuracy).

    Real against each generator by itself, which is the most favourable case, and real against all.
    """
    fit, judged = statistics(collection.train)[columns], statistics(collection.test)[columns]
    fit_source, source = collection.train.manifest["source"], collection.test.manifest["source"]
    for generator, limit in {**LIMITS, "all": 0.7}.items():
        among = [*GENERATORS] if generator == "all" else [generator]
        if generator == "vae" and columns not in (["mean"], ["variance"]):
            continue
        rows, test_rows = fit_source.isin(["real", *among]), source.isin(["real", *among])
        model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
        model.fit(fit[rows], fit_source[rows] != "real")
        found = balanced_accuracy_score(source[test_rows] != "real", model.predict(judged[test_rows]))
        assert found < limit, (generator, found)


def test_test_people_fall_into_groups_that_share_nobody(collection: data.Collection) -> None:
    manifest = collection.test.manifest
    group = data.subject_groups(manifest)
    people = pd.concat([manifest["subject"], manifest["donor"]])
    rows = pd.concat([group, group])
    named = (people != "").to_numpy()
    assert (rows[named].groupby(people[named].to_numpy()).nunique() == 1).all()
    assert group[manifest["subject"] != ""].nunique() == 3


def test_new_faces_are_of_nobody_and_stand_alone(collection: data.Collection) -> None:
    """A face that was drawn from noise belongs to no person, so it is linked to none."""
    manifest = collection.test.manifest
    new = manifest["source"].isin([name for name, generator in GENERATORS.items() if generator.manipulate is None])
    assert ((manifest["subject"] == "") == new).all() and (manifest["donor"][new] == "").all()
    assert data.subject_groups(manifest)[new].is_unique


def test_the_shipped_start_is_for_these_images_alone(collection: data.Collection) -> None:
    images, manifest, masks = embedded.read()
    small = data.collect(images[:, ::2, ::2], manifest, "binary", "embedded", "", masks=masks[:, ::2, ::2])
    assert warm_start.ships("resnet10t_half", collection) and not warm_start.ships("resnet10t_half", small)

"""Each image keeps its own mask, whatever becomes of its data set."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import bayesdf.data as data
from bayesdf.data.masks import mask_path
from bayesdf.errors import BayesdfError

KIND = {"real": "none", "flow": "whole", "other": "unknown", "swap": "part", "mouth": "part"}


def made() -> tuple[np.ndarray, pd.DataFrame, np.ndarray]:
    """Pictures in mixed order. The mask of picture n is n throughout."""
    rows = [
        {"source": source, "subject": f"{split}{person}", "split": split, "bytes": 1, "donor": "", "video": ""}
        for person in range(4)
        for split in data.SPLITS
        for source in KIND
    ]
    manifest = pd.DataFrame(rows).assign(path=[f"picture {row}" for row in range(len(rows))])
    order = np.random.default_rng(0).permutation(len(rows))
    manifest = manifest.assign(mask=manifest["source"].map(KIND)).iloc[order].reset_index(drop=True)
    images = np.broadcast_to(order.astype(np.uint8)[:, None, None, None], (len(rows), 4, 4, 3))
    return images, manifest, images[(manifest["mask"] == "part").to_numpy()][..., 0]


@pytest.fixture(scope="module")
def collection() -> data.Collection:
    images, manifest, masks = made()
    return data.collect(images, manifest, "multiclass", "made up", "", masks=masks)


def check(part: data.ImageDataset) -> None:
    masks = part.masks.numpy()
    assert masks.shape == (len(part), 4, 4) and masks.dtype == np.float32
    for (image, _), mask, (_, row) in zip(part, masks, part.manifest.iterrows(), strict=True):
        known = {"none": 0.0, "whole": 1.0, "unknown": np.nan, "part": float(image[0, 0, 0])}
        assert row["mask"] == KIND[row["source"]]
        np.testing.assert_allclose(mask, known[row["mask"]], atol=1e-6)


def splits(collection: data.Collection) -> list[data.ImageDataset]:
    return [collection.train, collection.val, collection.test]


def test_every_image_has_its_own_mask(collection: data.Collection) -> None:
    for part in splits(collection):
        check(part)


def test_masks_stay_with_their_images(collection: data.Collection) -> None:
    rest, unseen = data.leave_out(collection, "swap")
    twice, _ = data.leave_out(rest, "mouth")
    source = data.relabel(collection, "source")
    back = data.relabel(source, "multiclass")
    few = data.thin(rest, 2)
    for part in [unseen, *(part for made in (rest, twice, source, back, few) for part in splits(made))]:
        check(part)
    assert len(twice.masks) == 0 and len(unseen) == 4
    assert back.fingerprint == collection.fingerprint


def test_masks_follow_the_order_in_which_rows_are_taken(collection: data.Collection) -> None:
    part = collection.test
    order = np.random.default_rng(3).permutation(len(part))
    for rows in (order, order[::3], order[:0], np.flatnonzero(part.manifest["mask"] == "part")[::-1]):
        check(part.take(rows))
        check(part.take(rows).take(np.arange(len(rows))[::-1]))


def test_without_masks_photographs_are_unchanged_and_fakes_unknown() -> None:
    images, manifest, masks = made()
    bare = data.collect(images, manifest.drop(columns="mask"), "multiclass", "made up", "")
    for part in splits(bare):
        real = torch.from_numpy((part.manifest["source"] == "real").to_numpy(copy=True))
        assert (part.masks[real] == 0.0).all() and part.masks[~real].isnan().all()
        assert (part.manifest["mask"] == np.where(real.numpy(), "none", "unknown")).all()
    # Masks have no part in what identifies images and labels.
    assert bare.fingerprint == data.collect(images, manifest, "multiclass", "made up", "", masks=masks).fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("fewer", r"masks are uint8 \(23, 4, 4\), but must be uint8 \(24, 4, 4\)"),
        ("none", r"masks are uint8 \(0, 4, 4\), but must be uint8 \(24, 4, 4\)"),
        ("smaller", r"masks are uint8 \(24, 2, 2\), but must be uint8 \(24, 4, 4\)"),
        ("floats", r"masks are float64 \(24, 4, 4\), but must be uint8"),
        ("word", r"the manifest's column `mask` says 'some' of picture \d+: it must be one of none, part"),
        ("photograph", r"the manifest's column `mask` says 'part' of the photograph picture \d+"),
    ],
)
def test_masks_of_other_images_are_one_clear_line(change: str, message: str) -> None:
    images, manifest, masks = made()
    given = {"fewer": masks[1:], "none": None, "smaller": masks[:, :2, :2], "floats": masks / 255.0}
    if change == "word":
        manifest = manifest.assign(mask=manifest["mask"].replace("whole", "some"))
    elif change == "photograph":
        manifest = manifest.assign(mask=manifest["mask"].replace("none", "part"))
    with pytest.raises(BayesdfError, match=message):
        data.collect(images, manifest, "multiclass", "made up", "", masks=given.get(change, masks))


def test_masks_take_the_geometry_of_images() -> None:
    """A mask and a picture of the same shape lie in the same place after crop and resize."""
    y, x = np.mgrid[:90, :120]
    blob = np.exp(-((x - 70.0) ** 2 + (y - 30.0) ** 2) / 200.0)
    for size in (90, 48, 30):
        image = data.common_path(blob, size, None)[0][..., 0]
        mask = mask_path(blob, size)
        assert mask.shape == (size, size) and mask.dtype == np.uint8
        np.testing.assert_allclose(mask.astype(float), image.astype(float), atol=8.0)
    np.testing.assert_array_equal(mask_path(np.ones((90, 120)), 33), 255)
    np.testing.assert_array_equal(mask_path(Image.new("L", (90, 120), 0), 33), 0)

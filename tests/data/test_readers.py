"""What every reader must give: images and rows that belong together, and splits that share nobody.

A reader that is added gets a line in `READERS`.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bayesdf import data
from bayesdf.data import embedded, folder
from bayesdf.data.image_cache import Content
from bayesdf.data.manifest import COLUMNS, SPLITS

SIDE = 64
READERS: dict[str, Callable[[Path], Content]] = {
    "embedded": lambda photos: embedded.read(SIDE),
    "folder": lambda photos: folder.read(photos, SIDE, 90, None, 0, 0.0),
}


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two people in each split of the embedded data. `test_embedded.py` tests all of them."""
    groups = {split: [whole[0][:2]] for split, whole in embedded.donor_groups().items()}
    monkeypatch.setattr(embedded, "donor_groups", lambda fold=0: groups)


@pytest.mark.parametrize("name", READERS)
def test_a_reader_gives_images_and_rows_that_belong_together(name: str, photos: Path) -> None:
    images, manifest, masks = READERS[name](photos)
    assert images.shape == (len(manifest), SIDE, SIDE, 3) and images.dtype == np.uint8
    assert masks.shape == ((manifest["mask"] == "part").sum(), SIDE, SIDE) and masks.dtype == np.uint8
    assert ((manifest["mask"] == "none") == (manifest["source"] == data.REAL)).all()
    assert set(COLUMNS) <= set(manifest.columns)
    texts = manifest[[column for column in COLUMNS if column != "bytes"]]
    assert all(isinstance(value, str) for value in texts.to_numpy().ravel())
    assert set(manifest["split"]) == set(SPLITS)
    assert data.REAL in set(manifest["source"]) and manifest["source"].nunique() >= 3
    # Real or fake, every image went through JPEG: a file of one colour is small, none is empty.
    assert (manifest["bytes"] > 100).all()
    for _, rows in manifest.groupby("source"):
        assert set(rows["split"]) == set(SPLITS)


@pytest.mark.parametrize("name", READERS)
def test_no_person_and_no_video_is_in_two_splits(name: str, photos: Path) -> None:
    manifest = READERS[name](photos)[1]
    people = pd.concat(
        [manifest[["split", column]].set_axis(["split", "who"], axis=1) for column in ("subject", "donor")]
    )
    videos = manifest[["split", "video"]].set_axis(["split", "who"], axis=1)
    for table in (people, videos):
        known = table[table["who"] != ""]
        assert len(known) and (known.groupby("who")["split"].nunique() == 1).all()


@pytest.mark.parametrize("name", READERS)
def test_a_reader_gives_the_same_twice(name: str, photos: Path) -> None:
    (first, rows, masks), (second, again, others) = (READERS[name](photos) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(masks, others)
    pd.testing.assert_frame_equal(rows, again)

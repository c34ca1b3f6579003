"""Parts of a data set: without a generator, and with fewer images. Nothing else is lost."""

import numpy as np
import pandas as pd
import pytest
import torch

import bayesdf.data as data
from bayesdf.errors import BayesdfError

SOURCES = ("real", "flow", "swap", "vae")


@pytest.fixture(scope="module")
def collection() -> data.Collection:
    """Pictures that tell their own row in their pixels, in mixed order."""
    return data.collect(*made(SOURCES), "multiclass", "made up", "")


def made(sources: tuple[str, ...]) -> tuple[np.ndarray, pd.DataFrame]:
    rows = [
        {"source": source, "subject": f"{split}{person}", "split": split, "bytes": 1, "donor": "", "video": ""}
        for person in range(3)
        for split in data.SPLITS
        for source in sources
    ]
    manifest = pd.DataFrame(rows).assign(path=[f"picture {row}" for row in range(len(rows))])
    order = np.random.default_rng(0).permutation(len(rows))
    images = np.broadcast_to(order.astype(np.uint8)[:, None, None, None], (len(rows), 4, 4, 3))
    return images, manifest.iloc[order].reset_index(drop=True)


def rows_in_pixels(part: data.ImageDataset) -> list[str]:
    """The pictures of a data set, by their pixels."""
    return [f"picture {round(255 * float(image[0, 0, 0]))}" for image, _ in part]


def test_nothing_of_it_is_left_and_nothing_else_is_lost(collection: data.Collection) -> None:
    rest, unseen = data.leave_out(collection, "swap")
    assert rest.without == ("swap",) and rest.name == collection.name and collection.without == ()
    for split in data.SPLITS:
        before, after = getattr(collection, split), getattr(rest, split)
        others = before.manifest[before.manifest["source"] != "swap"]
        assert list(after.manifest["path"]) == list(others["path"]) == rows_in_pixels(after)
    assert list(rest.manifest["path"]) == list(collection.manifest.query("source != 'swap'")["path"])
    own = collection.test.manifest.query("source == 'swap'")
    assert list(unseen.manifest["path"]) == list(own["path"]) == rows_in_pixels(unseen)
    assert len(unseen) == 3


def test_labels_are_those_of_the_sources_left(collection: data.Collection) -> None:
    rest, unseen = data.leave_out(collection, "swap")
    assert rest.classes == ["real", "flow", "vae"] and unseen.classes == collection.classes
    assert (np.array(rest.classes)[rest.train.labels] == rest.train.manifest["source"]).all()
    binary, fakes = data.leave_out(data.relabel(collection, "binary"), "swap")
    assert binary.classes == ["real", "fake"] and torch.equal(fakes.labels, torch.ones(3, dtype=torch.int64))


def test_what_was_left_out_is_remembered(collection: data.Collection) -> None:
    """Whoever looks for weights by a collection's name must not find those that saw the generator."""
    rest, _ = data.leave_out(data.leave_out(collection, "vae")[0], "swap")
    assert rest.without == ("swap", "vae")
    assert data.relabel(rest, "binary").without == ("swap", "vae")
    assert rest.fingerprint != collection.fingerprint


@pytest.mark.parametrize("source", ["magic", "real", ""])
def test_only_a_generator_can_be_left_out(collection: data.Collection, source: str) -> None:
    with pytest.raises(BayesdfError, match=f"no generator '{source}' to leave out: choose one of flow, swap, vae"):
        data.leave_out(collection, source)


def test_the_last_generator_stays() -> None:
    with pytest.raises(BayesdfError, match="only generator"):
        data.leave_out(data.collect(*made(("real", "vae")), "binary", "made up", ""), "vae")


def test_a_thinned_collection_keeps_its_share_of_every_source_and_split(collection: data.Collection) -> None:
    few = data.thin(collection, 2)
    for split in data.SPLITS:
        part, whole = getattr(few, split), getattr(collection, split)
        assert list(part.manifest["path"]) == rows_in_pixels(part)
        for source in SOURCES:
            own, all_ = (side.manifest[side.manifest["source"] == source]["path"].tolist() for side in (part, whole))
            assert own == all_[::2]
    assert few.classes == collection.classes and few.fingerprint != collection.fingerprint
    assert data.thin(collection, 1) is collection
    with pytest.raises(BayesdfError, match="every is 0"):
        data.thin(collection, 0)

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


def test_rows_are_taken_by_a_mask_or_by_their_numbers(collection: data.Collection) -> None:
    part = collection.test
    mask = np.random.default_rng(1).random(len(part)) > 0.5
    rows = np.flatnonzero(mask)
    for chosen in (
        mask,
        mask.tolist(),
        torch.from_numpy(mask),
        pd.Series(mask),
        rows,
        rows.tolist(),
        rows.astype("u1"),
    ):
        some = part.take(chosen)
        assert some.fingerprint == part.take(mask).fingerprint
        assert rows_in_pixels(some) == list(some.manifest["path"]) == part.manifest["path"][mask].tolist()
    assert len(part.take([])) == len(part.take(np.zeros(len(part), bool))) == 0


def test_rows_are_taken_in_the_order_in_which_they_are_given(collection: data.Collection) -> None:
    part = collection.test
    order = np.random.default_rng(2).permutation(len(part))
    turned = part.take(order)
    assert rows_in_pixels(turned) == list(turned.manifest["path"]) == part.manifest["path"].iloc[order].tolist()
    assert torch.equal(turned.labels, part.labels[torch.from_numpy(order)])
    assert turned.take(np.argsort(order)).fingerprint == part.fingerprint


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ([True, False], r"take: chosen has 2 values, but there are 12 images"),
        ([0, 12], r"take: there is no row 12: 12 images have the rows 0 to 11"),
        ([-1], r"take: there is no row -1"),
        ([3, 1, 3], r"take: row 3 is chosen more than once"),
        ([0.0, 1.0], r"take: chosen is a list, shape \(2,\), but must be bool \(12,\) or a list of row numbers"),
        (["real/0.png"], r"take: chosen is a list"),
        (3, r"take: chosen is a int, but must be"),
        (None, r"take: chosen is a NoneType"),
        (slice(3), r"take: chosen is a slice"),
        ([[0], [1, 2]], r"take: chosen is a list"),
        (np.ones((12, 1), bool), r"take: chosen is a ndarray, shape \(12, 1\)"),
    ],
)
def test_another_choice_is_one_clear_line(collection: data.Collection, chosen: object, message: str) -> None:
    assert len(collection.test) == 12
    with pytest.raises(BayesdfError, match=message) as caught:
        collection.test.take(chosen)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)

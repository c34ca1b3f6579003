"""Folds of a user's own people: everyone is judged once, nobody on both sides, whatever the order of the files."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bayesdf.data as data
from bayesdf.data.manifest import SPLITS, check_manifest, subject_groups
from bayesdf.data.splits import split_fold
from bayesdf.errors import BayesdfError


def people_and_swaps(people: int = 24, swaps: bool = True) -> pd.DataFrame:
    """A photograph and a fake of each person, new faces of nobody, and a swap of each even person with the next."""
    rows = [(f"real/{n}.png", "real", f"p{n}", "") for n in range(people)]
    rows += [(f"vae/{n}.png", "vae", "", "") for n in range(people)]
    rows += [(f"blur/{n}.png", "blur", f"p{n}", "") for n in range(people)]
    rows += [(f"swap/{n}.png", "swap", f"p{n}", f"p{n + 1}") for n in range(0, people, 2) if swaps]
    frame = pd.DataFrame(rows, columns=["path", "source", "subject", "donor"])
    return frame.assign(video=frame["path"], bytes=1000)


@pytest.mark.parametrize("folds", [2, 3, 4, 6])
@pytest.mark.parametrize("seed", [0, 1])
def test_everyone_is_judged_once_and_nobody_is_on_both_sides(folds: int, seed: int) -> None:
    manifest = people_and_swaps()
    tests = []
    for fold in range(folds):
        split = split_fold(manifest, fold, folds, None, seed)
        # no person, donor or video in two splits
        check_manifest(manifest.assign(split=split, mask="unknown"), "multiclass")
        assert (subject_groups(manifest).groupby(split).nunique() > 0).all()
        assert set(manifest["source"][split == "test"]) == {"real", "vae", "blur", "swap"}
        tests.append(split == "test")
    assert (np.sum(tests, axis=0) == 1).all()
    images = np.sum(tests, axis=1)
    assert images.max() <= 1.5 * images.min()


def test_folds_do_not_depend_on_the_order_of_the_rows() -> None:
    manifest = people_and_swaps()
    for fold in range(3):
        home = dict(zip(manifest["path"], split_fold(manifest, fold, 3, None, 0), strict=True))
        for seed in range(5):
            mixed = manifest.sample(frac=1.0, random_state=seed).reset_index(drop=True)
            assert dict(zip(mixed["path"], split_fold(mixed, fold, 3, None, 0), strict=True)) == home


def test_the_seed_deals_the_folds() -> None:
    manifest = people_and_swaps()
    assert len({tuple(split_fold(manifest, 0, 4, None, seed)) for seed in (0, 0, 1, 2)}) == 3


@pytest.mark.parametrize(("fractions", "val"), [(None, 0.2), ((0.3, 0.3, 0.4), 0.5), ((0.5, 0.2, 0.3), 2 / 7)])
def test_the_others_are_dealt_in_the_proportion_of_train_and_val(
    fractions: tuple[float, float, float] | None, val: float
) -> None:
    manifest = people_and_swaps(60, swaps=False)
    shares = pd.Series(split_fold(manifest, 1, 4, fractions, 0)).value_counts(normalize=True)
    assert shares["test"] == pytest.approx(0.25, abs=0.01)
    assert shares["val"] / (shares["train"] + shares["val"]) == pytest.approx(val, abs=0.02)


@pytest.mark.parametrize(("people", "folds", "enough"), [(3, 2, False), (4, 2, True), (3, 3, True), (4, 5, False)])
def test_too_few_people_are_one_line(people: int, folds: int, enough: bool) -> None:
    manifest = people_and_swaps(people, swaps=False)
    if enough:
        for fold in range(folds):
            assert set(split_fold(manifest, fold, folds, None, 0)) == set(SPLITS)
        return
    with pytest.raises(BayesdfError, match=f"of {people} separate subject.s.; {folds} folds need at least") as raised:
        split_fold(manifest, 0, folds, None, 0)
    assert "\n" not in str(raised.value)


def test_linked_people_count_as_one() -> None:
    manifest = people_and_swaps(12, swaps=False)
    chain = [(f"swap/{n}.png", "swap", f"p{n}", f"p{n + 1}") for n in range(9)]
    linked = pd.DataFrame(chain, columns=["path", "source", "subject", "donor"])
    manifest = pd.concat([manifest, linked.assign(video=linked["path"], bytes=1000)], ignore_index=True)
    with pytest.raises(BayesdfError, match=r"source 'swap' has 9 image\(s\) of 1 separate subject"):
        split_fold(manifest, 0, 3, None, 0)


def test_a_fold_that_leaves_a_split_without_a_source_is_one_line() -> None:
    """Every source has as many people as three folds need, but they cannot all be dealt out."""
    held = {"real": "01234", "blur": "1234", "vae": "024", "swap": "0123"}
    rows = [(f"{source}/{person}.png", source, person) for source, held_by in held.items() for person in held_by]
    manifest = pd.DataFrame(rows, columns=["path", "source", "subject"]).assign(donor="", video="")
    with pytest.raises(
        BayesdfError, match=r"^fold \d of 3 leaves source 'vae' without val images: ask for fewer folds"
    ):
        for fold in range(3):
            split_fold(manifest, fold, 3, None, 0)


def test_a_folder_is_loaded_fold_by_fold(photos: Path) -> None:
    collections = [data.load(photos, size=16, fold=fold, folds=3) for fold in range(3)]
    assert [collection.fold for collection in collections] == [0, 1, 2] and "; fold 2)" in repr(collections[2])
    judged = [person for collection in collections for person in set(collection.test.manifest["subject"])]
    assert sorted(judged) == sorted(set(collections[0].manifest["subject"]))
    assert len({collection.fingerprint for collection in collections}) == 3
    assert data.load(photos, size=16, fold=0, folds=1).fingerprint == data.load(photos, size=16).fingerprint
    with pytest.raises(BayesdfError, match="with folds=3 there are the folds 0 to 2"):
        data.load(photos, size=16, fold=3, folds=3)


def test_a_folder_that_fixes_its_split_has_no_folds(photos: Path, tmp_path: Path) -> None:
    for split, people in {"train": range(6), "val": range(6, 8), "test": range(8, 12)}.items():
        for source in ("real", "blur", "edges"):
            for person in people:
                target = tmp_path / source / split / f"p{person:02d}" / "0.png"
                target.parent.mkdir(parents=True)
                target.write_bytes((photos / source / f"p{person:02d}" / "0.png").read_bytes())
    assert set(data.load(tmp_path, size=16).manifest["split"]) == set(SPLITS)
    with pytest.raises(BayesdfError, match=r"says itself .* \(by its folders\): leave the folds \(--folds\) out"):
        data.load(tmp_path, size=16, folds=2)

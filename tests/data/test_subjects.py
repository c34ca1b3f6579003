"""Who is in an image, by its name or by a table, and the splits that follow."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import bayesdf.data as data
from bayesdf.data import folder, subjects
from bayesdf.data.splits import split_by_subject
from bayesdf.errors import BayesdfError, BayesdfWarning


def read(paths: Sequence[str], root: Path = Path("nowhere")) -> pd.DataFrame:
    return subjects.find_people(root, list(paths))


def manifest(paths: Sequence[str]) -> pd.DataFrame:
    found = read(paths).reset_index()
    return found.assign(source=[path.split("/")[0] for path in paths])


def of(paths: Sequence[str], path: str) -> tuple[str, str, str]:
    row = read(paths).loc[path]
    return row["subject"], row["donor"], row["rule"]


ORIGINALS = [f"real/{number:03d}.png" for number in range(12)]
SWAPS = [f"swap/{a:03d}_{b:03d}.png" for one in range(0, 12, 2) for a, b in ((one, one + 1), (one + 1, one))]


@pytest.mark.parametrize(
    ("real", "fake", "expected"),
    [
        ("real/000.png real/005.png", "swap/000_005.png", ("000", "005", "pair")),
        ("real/000.png real/005.png", "swap/000_005_0031.png", ("000", "005", "pair")),
        ("real/000/01.png real/005/01.png", "swap/000_005/0031.png", ("000", "005", "pair")),
        ("real/id0_0000.png real/id1_0003.png", "Celeb/id0_id1_0007.png", ("id0", "id1", "pair")),
        ("real/01__hug.png real/02__talk.png", "dfd/01_02__hug__YVGY8LOK.png", ("01", "02", "pair")),
        ("real/anna_1.png real/bob_1.png", "swap/anna_1_bob_2.png", ("anna", "bob", "pair")),
        ("real/000.png real/001.png", "swap/000_777.png", ("000", "", "number")),
        ("real/anna2_0.png", "swap/anna2_0.png", ("anna2", "", "number")),
        # The same names among photographs: frame 1 of video 000, not 000 with the face of 001.
        ("real/000_001.png real/001_000.png", "swap/000_001.png", ("000", "", "number")),
        ("real/anna.png", "swap/anna_fake.png", ("anna", "", "name")),
        ("real/anna.png", "swap/anna_swap_3.png", ("anna_swap", "", "number")),
    ],
)
def test_names_of_fakes(real: str, fake: str, expected: tuple[str, str, str]) -> None:
    assert of([*real.split(), fake], fake) == expected


@pytest.mark.parametrize(
    ("path", "subject"),
    [
        ("real/alice/01.png", "alice"),
        ("real/alice/deep/down/01.png", "alice"),
        ("real/anna2_3.png", "anna2"),
        ("real/anna (3).png", "anna"),
        ("real/George_W_Bush_0001.png", "George_W_Bush"),
        ("real/anna_01_02.png", "anna"),
        ("real/07.png", "07"),
        ("real/anna2.png", "anna2"),
        ("real/img_0001.png", "img_0001"),
        ("real/IMG_0001.png", "IMG_0001"),
        ("real/person_01_3.png", "person_01"),
        ("vae/vae_0001.png", "vae_0001"),
        ("real/bedroom12.png", "bedroom12"),
        ("real/train/01.png", "01"),
        ("real/test/anna/01.png", "anna"),
    ],
)
def test_names_of_people(path: str, subject: str) -> None:
    assert of([path], path)[:2] == (subject, "")


def test_pairs_are_known_without_photographs_when_their_parts_recur() -> None:
    assert of(SWAPS, "swap/001_000.png") == ("001", "000", "pair")
    numbered = [f"swap/{name}_{number}.png" for name in ("anna", "bob") for number in range(4)]
    assert of(numbered, "swap/anna_2.png") == ("anna", "", "number")


def test_words_with_several_numbers_are_people() -> None:
    """anna1 and anna2 are one person where bo and cy come with several numbers too; p1 and p2, or img1, are not."""
    people = [f"real/{name}{n}.png" for name in ("anna", "bo", "cy") for n in range(3)]
    assert of(people, "real/bo2.png") == ("bo", "", "number")
    assert of([*people, "swap/anna1_cy2.png"], "swap/anna1_cy2.png") == ("anna", "cy", "pair")
    assert of(people[:6], "real/bo2.png") == ("bo2", "", "name")
    others = [f"real/{name}{n}.png" for name in ("p", "img", "real", "4") for n in range(3)]
    assert set(read(others)["rule"]) == {"name"}


def test_some_images_in_folders_named_as_splits_are_an_error() -> None:
    with pytest.raises(
        BayesdfError, match=r"real/train/1\.png lies in a folder named as a split and vae/1\.png does not"
    ):
        read(["real/train/1.png", "vae/1.png"])


@pytest.mark.parametrize("seed", range(5))
def test_target_and_source_lie_in_one_split(seed: int) -> None:
    """Twelve pairs as FaceForensics++ names them: 9 of 12 were parted."""
    rows = manifest([*ORIGINALS, *SWAPS])
    split = split_by_subject(rows, None, seed)
    home = dict(zip(rows["path"], split, strict=True))
    for path in SWAPS:
        target, source = Path(path).stem.split("_")
        assert home[path] == home[f"real/{target}.png"] == home[f"real/{source}.png"]
    assert set(split) == {"train", "val", "test"}


def test_numbered_files_of_one_name_lie_in_one_split() -> None:
    paths = [f"{source}/{name}2_{n}.png" for source in ("real", "vae") for name in ("anna", "bo", "cy") for n in (0, 1)]
    rows = manifest(paths)
    rows["split"] = split_by_subject(rows, None, 0)
    assert (rows.groupby("subject")["split"].nunique() == 1).all() and rows["subject"].nunique() == 3


@pytest.mark.parametrize(("subjects_", "test"), [(3, 1), (4, 1), (5, 2), (6, 2), (20, 5)])
def test_a_source_of_five_people_has_two_in_the_test(subjects_: int, test: int) -> None:
    rows = manifest([f"{source}/{n}.png" for source in ("real", "vae", "swap") for n in range(subjects_)])
    for seed in range(10):
        split = pd.Series(split_by_subject(rows, None, seed))
        people = rows.groupby([rows["source"], split])["subject"].nunique().unstack()
        assert (people["test"] == test).all() and (people.min() >= 1).all()


def test_asked_shares_are_dealt() -> None:
    rows = manifest([f"{source}/{n}.png" for source in ("real", "vae") for n in range(20)])
    for fractions in ((0.2, 0.3, 0.5), (0.8, 0.1, 0.1)):
        shares = pd.Series(split_by_subject(rows, fractions, 0)).value_counts(normalize=True)
        assert [shares[name] for name in data.SPLITS] == pytest.approx(fractions)


def test_new_faces_of_two_parts_of_a_data_set_are_strangers() -> None:
    """Rows were named by their number in a part: the third of one part was linked to the third of another."""
    parts = [
        pd.DataFrame({"path": [f"vae/{split}/{n}" for n in range(4)], "subject": "", "donor": ""}) for split in "ab"
    ]
    assert pd.concat([data.subject_groups(part) for part in parts]).is_unique


def test_frames_of_one_video_are_linked() -> None:
    """Two frames of a clip of nobody, and two people who appear in one video."""
    rows = pd.DataFrame(
        {
            "path": [*"uvwxyz"],
            "subject": ["", "", "", "anna", "bob", "cy"],
            "donor": "",
            "video": ["clip 1", "clip 1", "clip 2", "party", "party", ""],
        }
    )
    group = data.subject_groups(rows).tolist()
    assert group[0] == group[1] and group[3] == group[4] and len(set(group)) == 4


def test_what_was_taken_for_a_person_is_said() -> None:
    text = data.describe_people(manifest([*ORIGINALS, *SWAPS, "vae/img_1.png"]))
    assert text.startswith("25 images: 25 show 13 people. Some images show two people. ")
    assert "there are 7 such groups. " in text and "\n" not in text
    assert "(12 images, such as swap/000_001.png: 000 and 001)" in text
    assert "every number after a general word (1 images, such as vae/img_1.png: img_1)" in text


@pytest.mark.parametrize(
    ("paths", "warned"),
    [
        (["real/001.png", "real/002.png", "vae/001.png"], True),
        (["real/img_1.png", "real/img_2.png", "vae/x.png"], True),
        (["real/001.png", "real/002.png", "real/anna.png", "vae/x.png"], True),
        (["real/001.png", "real/ben/1.png", "vae/x.png"], False),
        (["real/anna/001.png", "real/ben/002.png", "vae/001.png"], False),
        (["real/anna.png", "real/ben.png", "vae/001.png"], False),
        ([*ORIGINALS, *SWAPS], False),
    ],
)
def test_photographs_named_by_numbers_are_doubtful(paths: Sequence[str], warned: bool) -> None:
    cautions = data.people_cautions(manifest(paths))
    assert len(cautions) == warned
    for line in cautions:
        assert paths[0] in line and subjects.TABLE in line and "real/anna/001.png" in line and "\n" not in line


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two sources with the photographs 1 … 6 of unknown people."""
    for source in ("real", "vae"):
        (tmp_path / source).mkdir()
        for n in range(1, 7):
            pixels = np.random.default_rng([n, len(source)]).integers(0, 255, (20, 20), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / source / f"portrait_{n}.png")
    return tmp_path


def table(root: Path, **columns: Sequence[str]) -> pd.DataFrame:
    """A table that names three people, two photographs each, and new faces of nobody."""
    paths = [f"{source}/portrait_{n}.png" for source in ("real", "vae") for n in range(1, 7)]
    frame = pd.DataFrame({"path": paths, "subject": [*"aabbcc", *[""] * 6], **columns})
    frame.to_csv(root / subjects.TABLE, index=False)
    return frame


def test_one_person_by_name_is_an_error_that_shows_the_way(root: Path) -> None:
    with pytest.raises(BayesdfError, match=r"portrait_1.png were taken for one person, 'portrait'.*subjects\.csv"):
        data.load(root, size=16)


def test_a_table_says_who_is_in_an_image(root: Path) -> None:
    donors = ["", "", "", "", "b", "", *[""] * 6]  # one picture of c shows b as well: two groups are too few
    table(root)
    rows = data.load(root, size=16).manifest.set_index("path")
    assert rows["subject"]["real/portrait_4.png"] == "b" and rows["subject"]["vae/portrait_4.png"] == ""
    assert (rows[rows["subject"] != ""].groupby("subject")["split"].nunique() == 1).all()
    assert rows.groupby("source")["split"].nunique().eq(3).all()
    assert rows["video"]["real/portrait_4.png"] == "real/portrait_4.png"
    table(root, donor=donors)
    with pytest.raises(BayesdfError, match=r"2 separate subject.*linked by images of two of them, such as real/por"):
        data.load(root, size=16)


def test_a_table_chooses_the_split(root: Path) -> None:
    split = ["test", "test", "train", "train", "val", "val"] * 2
    table(root, split=split)
    assert data.load(root, size=16).manifest["split"].tolist() == split
    with pytest.raises(BayesdfError, match="its table"):
        data.load(root, size=16, fractions=(0.5, 0.25, 0.25))
    table(root, split=split, subject=[*"aaabbc", *[""] * 6])
    with pytest.raises(BayesdfError, match="subject 'a' is in more than one split"):
        data.load(root, size=16)
    table(root, split=split, video=[*[""] * 6, "clip", "", "clip", "", "", ""])
    with pytest.raises(BayesdfError, match="video 'clip' is in more than one split"):
        data.load(root, size=16)


def test_folders_choose_the_split(root: Path) -> None:
    for file in sorted(root.glob("*/*.png")):
        n = int(file.stem[-1])
        home = file.parent / data.SPLITS[n % 3]
        home.mkdir(exist_ok=True)
        file.rename(home / f"{n}.png")
    with pytest.warns(BayesdfWarning, match=r"each of 6 photographs such as real/.*subjects\.csv"):
        rows = data.load(root, size=16).manifest
    assert (rows["split"] == [path.split("/")[1] for path in rows["path"]]).all()
    assert rows["subject"].nunique() == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="subject"), r"lacks the column\(s\) subject \(it has path\)"),
        (lambda t: t.iloc[:-2], r"no row for vae/portrait_5\.png \(2 of 12"),
        (lambda t: pd.concat([t, t.iloc[:1]]), r"names real/portrait_1\.png on lines 2 and 14"),
        (lambda t: t.replace("vae/portrait_1.png", "vae/x.png"), r"line 8 names vae/x\.png, which is no image"),
        (lambda t: t.replace("a", ""), r"line 2: the photograph real/portrait_1\.png has no subject \(2 such"),
        (lambda t: t.assign(split=["train"] * 11 + ["dev"]), r"line 13: split 'dev'.*none of train, val, test"),
        (lambda t: t.assign(split=["train"] * 11 + [""]), "give every image one"),
    ],
)
def test_a_table_that_does_not_fit_gets_one_line(root: Path, change: object, message: str) -> None:
    change(table(root)).to_csv(root / subjects.TABLE, index=False)  # type: ignore[operator]
    with pytest.raises(BayesdfError, match=message) as caught:
        data.load(root, size=16)
    assert "\n" not in str(caught.value)


def test_tables_of_other_programs_are_read(root: Path) -> None:
    text = table(root).to_csv(index=False).replace("real/", ".\\real\\").replace("path,subject", "Path, Subject")
    (root / subjects.TABLE).write_text("\ufeff" + text, encoding="utf-8")
    assert data.load(root, size=16).manifest["subject"].nunique() == 4
    (root / subjects.TABLE).write_bytes(b"\xff\xfe\x00path")
    with pytest.raises(BayesdfError, match="cannot be read as a table"):
        data.load(root, size=16)


def test_a_column_that_is_not_used_is_named(root: Path) -> None:
    table(root, age=["7"] * 12)
    with pytest.warns(BayesdfWarning, match="age are not used"):
        data.load(root, size=16)


def test_a_group_that_holds_most_images_is_named() -> None:
    chain = [f"swap/{n:03d}_{n + 1:03d}.png" for n in range(6)]
    rows = manifest([*ORIGINALS, *chain, "swap/008.png", "swap/009.png", "swap/010.png"])
    with pytest.warns(BayesdfWarning, match=r"62% of the images are linked.*7 people in 13 images are linked"):
        folder.assign_splits(rows, None, 0)


def test_the_embedded_split_is_fixed() -> None:
    with pytest.raises(BayesdfError, match="split is fixed"):
        data.load("embedded", fractions=(0.5, 0.25, 0.25))

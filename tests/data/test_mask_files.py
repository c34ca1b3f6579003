"""Masks that users bring: where they lie, what they say, and everything that can be wrong with them."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bayesdf.data as data
from bayesdf.errors import BayesdfError
from tests.data.test_folder import picture

pytestmark = pytest.mark.filterwarnings("ignore:each of .* photographs such as")
WIDTH, HEIGHT = 70, 60


def drawn(box: tuple[int, int, int, int] = (20, 10, 50, 30), mode: str = "L") -> Image.Image:
    """A mask that is white in a box (left, top, right, bottom)."""
    mask = Image.new("L", (WIDTH, HEIGHT), 0)
    mask.paste(255, box)
    return mask.convert(mode)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two sources, eight subjects, one image each."""
    for number, source in enumerate(["real", "swap"]):
        (tmp_path / "set" / source).mkdir(parents=True)
        for subject in range(8):
            picture(10 * number + subject, (WIDTH, HEIGHT)).save(tmp_path / "set" / source / f"{subject}.png")
    return tmp_path / "set"


def mask_of(collection: data.Collection, path: str) -> tuple[str, np.ndarray]:
    for part in (collection.train, collection.val, collection.test):
        for row in np.flatnonzero(part.manifest["path"] == path):
            return part.manifest["mask"][row], part.masks[int(row)].numpy()
    raise AssertionError(path)


def test_a_folder_without_masks_knows_its_photographs_alone(root: Path) -> None:
    collection = data.load(root, size=16)
    kind, mask = mask_of(collection, "real/0.png")
    assert kind == "none" and (mask == 0.0).all()
    kind, mask = mask_of(collection, "swap/0.png")
    assert kind == "unknown" and np.isnan(mask).all()
    assert len(collection.masks) == 0


@pytest.mark.parametrize("place", ["swap/3_mask.png", "swap/3_mask.PNG", "masks/swap/3.png"])
def test_a_mask_beside_its_image_or_in_the_tree_of_masks(root: Path, place: str) -> None:
    before = data.load(root, size=60, quality=None)
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    drawn().save(root / place)
    collection = data.load(root, size=60, quality=None)
    assert list(collection.manifest["path"]) == list(before.manifest["path"])
    np.testing.assert_array_equal(collection.train.images, before.train.images)
    kind, mask = mask_of(collection, "swap/3.png")
    # The centred square begins 5 pixels from the left.
    expected = np.zeros((60, 60))
    expected[10:30, 15:45] = 1.0
    assert kind == "part"
    np.testing.assert_array_equal(mask, expected)
    assert (collection.manifest["mask"] == "unknown").sum() == 7
    assert collection.fingerprint == before.fingerprint


def test_deeper_folders_and_other_suffixes_have_masks_too(root: Path) -> None:
    for source in ("real", "swap"):
        (root / source / "a").mkdir()
        picture(7, (WIDTH, HEIGHT)).save(root / source / "a" / "x.y.jpg", quality=95)
    (root / "masks" / "swap" / "a").mkdir(parents=True)
    (root / "masks" / "real" / "a").mkdir(parents=True)
    drawn().save(root / "masks" / "swap" / "a" / "x.y.png")
    drawn((0, 0, 0, 0)).save(root / "masks" / "real" / "a" / "x.y.png")
    collection = data.load(root, size=16)
    assert mask_of(collection, "swap/a/x.y.jpg")[0] == "part"
    assert mask_of(collection, "real/a/x.y.jpg")[0] == "none"


def test_a_smaller_mask_keeps_its_share_and_its_place(root: Path) -> None:
    """Against the means of whole cells, which an exact resampling by a half would give within an edge's width."""
    drawn((5, 0, 35, 60)).save(root / "swap" / "3_mask.png")
    mask = mask_of(data.load(root, size=20), "swap/3.png")[1]
    assert mask.min() >= 0.0 and mask.max() <= 1.0 and mask.mean() == pytest.approx(0.5, abs=0.01)
    assert (mask[:, :8] == 1.0).all() and (mask[:, 12:] == 0.0).all()


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "P", "LA", "transparent", "16 bits"])
def test_masks_of_all_modes_say_the_same(root: Path, mode: str) -> None:
    mask = drawn()
    if mode == "transparent":  # white everywhere, seen in the box alone
        mask = Image.merge("RGBA", [Image.new("L", mask.size, 255)] * 3 + [mask])
    elif mode == "16 bits":
        mask = Image.fromarray(np.asarray(mask).astype(np.uint16) * 257)
    else:
        mask = mask.convert(mode)
    mask.save(root / "swap" / "3_mask.png")
    found = mask_of(data.load(root, size=60), "swap/3.png")[1]
    assert (found[10:30, 15:45] == 1.0).all() and found.sum() == 20 * 30


def test_a_white_mask_is_a_whole_one_and_a_soft_one_keeps_its_values(root: Path) -> None:
    drawn((0, 0, WIDTH, HEIGHT)).save(root / "swap" / "3_mask.png")
    ramp = np.broadcast_to(np.linspace(0, 255, HEIGHT).round().astype(np.uint8)[:, None], (HEIGHT, WIDTH))
    Image.fromarray(ramp.copy()).save(root / "swap" / "4_mask.png")
    collection = data.load(root, size=60)
    kind, mask = mask_of(collection, "swap/3.png")
    assert kind == "whole" and (mask == 1.0).all()
    kind, mask = mask_of(collection, "swap/4.png")
    assert kind == "part"
    np.testing.assert_allclose(mask, ramp[:, 5:65] / 255.0, atol=1e-6)


def test_a_mask_has_the_size_of_what_is_displayed(root: Path) -> None:
    """An image with an orientation tag: the mask is that of the turned image."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise
    picture(3, (WIDTH, HEIGHT)).save(root / "swap" / "3.png", exif=exif)
    drawn().save(root / "swap" / "3_mask.png")
    with pytest.raises(BayesdfError, match=r"has 70 x 60 pixels, but its image swap/3\.png is displayed with 60 x 70"):
        data.load(root, size=16)
    drawn().transpose(Image.Transpose.ROTATE_270).save(root / "swap" / "3_mask.png")
    assert mask_of(data.load(root, size=16), "swap/3.png")[0] == "part"


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        ("another size", r"3_mask\.png has 64 x 64 pixels, but its image swap/3\.png is displayed with 70 x 60"),
        ("empty", r"3_mask\.png of the fake swap/3\.png is empty: changed pixels must be white"),
        ("zeros and ones", r"3_mask\.png of the fake swap/3\.png has no value above 1 of 255"),
        ("of a photograph", r"3_mask\.png marks pixels of the photograph real/3\.png as changed"),
        ("no image beside", r"9_mask\.png is a mask without its image: there is no image .*swap/9\.\*"),
        ("no image in the tree", r"masks/swap/9\.png is a mask without its image"),
        ("a source called masks", r"masks/9\.png is a mask without its image.*the folder `masks` is for masks"),
        ("two masks", r"swap/3\.png has two masks"),
        ("two images", r"3_mask\.png could be the mask of .*3\.jpg or of 3\.png"),
        ("a JPEG", r"3_mask\.jpg is a mask in another format: save masks as PNG"),
        ("truncated", r"3_mask\.png cannot be read"),
        ("not an image", r"3_mask\.png cannot be read"),
        ("another format", r"3_mask\.png cannot be read"),
        ("huge", r"3_mask\.png cannot be read \(10000 x 10000 pixels are over the limit"),
        ("link outside", "points outside"),
        ("link to a folder", "is a link to a folder"),
    ],
)
def test_bad_masks_get_one_clear_line(root: Path, tmp_path: Path, breakage: str, message: str) -> None:
    beside, tree = root / "swap" / "3_mask.png", root / "masks" / "swap"
    tree.mkdir(parents=True)
    if breakage == "another size":
        drawn().resize((64, 64)).save(beside)
    elif breakage == "empty":
        drawn((0, 0, 0, 0)).save(beside)
    elif breakage == "zeros and ones":
        drawn().point(lambda value: value // 255).save(beside)
    elif breakage == "of a photograph":
        drawn().save(root / "real" / "3_mask.png")
    elif breakage == "no image beside":
        drawn().save(root / "swap" / "9_mask.png")
    elif breakage == "no image in the tree":
        drawn().save(tree / "9.png")
    elif breakage == "a source called masks":
        drawn().save(root / "masks" / "9.png")
    elif breakage == "two masks":
        drawn().save(beside)
        drawn().save(tree / "3.png")
    elif breakage == "two images":
        picture(3).save(root / "swap" / "3.jpg")
        drawn().save(beside)
    elif breakage == "a JPEG":
        drawn().save(beside.with_suffix(".jpg"))
    elif breakage == "truncated":
        drawn().save(beside)
        beside.write_bytes(beside.read_bytes()[:60])
    elif breakage == "not an image":
        beside.write_text("hello")
    elif breakage == "another format":
        drawn().save(beside, "BMP")
    elif breakage == "huge":
        Image.new("1", (10_000, 10_000)).save(beside)
    elif breakage == "link outside":
        drawn().save(tmp_path / "elsewhere.png")
        beside.symlink_to(tmp_path / "elsewhere.png")
    else:
        tree.rmdir()
        (tmp_path / "elsewhere").mkdir()
        tree.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BayesdfError, match=message) as caught:
        data.load(root, size=16)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("place", "beside", "tree"),
    [
        ("swap/masks/a/3.png", "3_mask.png", "masks/swap/a/3.png"),
        ("swap/a/Mask/3.png", "3_mask.png", "masks/swap/a/3.png"),
        ("swap/masks/3_mask.png", "3_mask.png", "masks/swap/3.png"),
        ("Masks/swap/3.png", "3_mask.png", "masks/swap/3.png"),
        ("mask/swap/3.jpg", "3_mask.png", "masks/swap/3.png"),
        ("mask/3.png", "3_mask.png", "masks/<source>/3.png"),
        *[
            (f"swap/3{end}.png", "3_mask.png", "masks/swap/3.png")
            for end in ("-mask", "_Mask", " mask", "_masks", "-MASKS")
        ],
        ("swap/3-mask.jpg", "3_mask.png", "masks/swap/3.png"),
        ("swap/9-mask.png", "9_mask.png", "masks/swap/9.png"),
    ],
)
def test_masks_elsewhere_are_no_fakes(root: Path, place: str, beside: str, tree: str) -> None:
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    drawn().save(root / place)
    line = f"{root / place} looks like a mask: call it {beside} beside its image, or put it at {root / tree};"
    with pytest.raises(BayesdfError, match=re.escape(line)) as caught:
        data.load(root, size=16)
    assert "\n" not in str(caught.value)


def test_a_mask_in_the_tree_has_its_images_own_name(root: Path) -> None:
    (root / "masks" / "swap").mkdir(parents=True)
    drawn().save(root / "masks" / "swap" / "3_mask.png")
    with pytest.raises(BayesdfError, match=r"in the folder `masks` a mask has its image's own name, so call it 3\.png"):
        data.load(root, size=16)


def test_names_that_merely_contain_the_word_are_images(root: Path) -> None:
    for place in (
        "real/unmasked/1.png",
        "real/mask_anna/1.png",
        "real/masked.png",
        "real/mask.png",
        "maskgit/mask01.png",
    ):
        (root / place).parent.mkdir(exist_ok=True)
        picture(len(place), (WIDTH, HEIGHT)).save(root / place)
    for subject in range(8):
        picture(subject, (WIDTH, HEIGHT)).save(root / "maskgit" / f"{subject}.png")
    drawn().convert("RGB").save(root / "real" / "face-mask.jpg")  # no image face.*: a photograph of a mask
    assert len(data.load(root, size=16).manifest) == 16 + 8 + 6


def test_a_changed_mask_is_read_again(root: Path) -> None:
    drawn().save(root / "swap" / "3_mask.png")
    before = mask_of(data.load(root, size=16), "swap/3.png")[1]
    drawn((0, 0, 30, 30)).save(root / "swap" / "3_mask.png")
    os.utime(root / "swap" / "3_mask.png", ns=(1, 1))
    assert not np.array_equal(before, mask_of(data.load(root, size=16), "swap/3.png")[1])


def test_a_table_of_subjects_names_images_and_no_masks(root: Path) -> None:
    drawn().save(root / "swap" / "3_mask.png")
    rows = [f"{source}/{subject}.png,s{subject}" for source in ("real", "swap") for subject in range(8)]
    (root / "subjects.csv").write_text("\n".join(["path,subject", *rows]))
    assert mask_of(data.load(root, size=16), "swap/3.png")[0] == "part"


def test_the_mask_of_a_skipped_image_is_skipped(root: Path) -> None:
    (root / "swap" / "2.png").write_text("hello")
    for name in ("2", "3"):
        drawn().save(root / "swap" / f"{name}_mask.png")
    with pytest.warns(match=r"skipped swap/2\.png"):
        collection = data.load(root, size=16, skip_unreadable=0.1)
    assert len(collection.masks) == 1 and mask_of(collection, "swap/3.png")[0] == "part"


def test_masks_are_no_unlabelled_images(root: Path) -> None:
    (root / "masks" / "swap").mkdir(parents=True)
    drawn().save(root / "masks" / "swap" / "4.png")
    drawn().save(root / "swap" / "3_mask.png")
    picture(5).save(root / "swap" / "no_mask.png")
    names = data.unlabelled(root).manifest["path"]
    assert len(names) == 17 and "swap/no_mask.png" in set(names)

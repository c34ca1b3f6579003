"""A user's own folders, and everything that can be wrong with them."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bayesdf.data as data
from bayesdf.data.splits import split_by_subject
from bayesdf.errors import BayesdfError, BayesdfWarning

pytestmark = pytest.mark.filterwarnings("ignore:each of .* photographs such as")


def picture(seed: int, size: tuple[int, int] = (70, 60)) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two sources, eight subjects, one image each; all files are written the same way."""
    for number, source in enumerate(["real", "vae"]):
        (tmp_path / "set" / source).mkdir(parents=True)
        for subject in range(8):
            picture(10 * number + subject).save(tmp_path / "set" / source / f"{subject}.png")
    return tmp_path / "set"


def test_a_folder_is_a_data_set(root: Path) -> None:
    collection = data.load(root, task="binary", size=32)
    assert collection.classes == ["real", "fake"]
    assert {len(collection.train) + len(collection.val) + len(collection.test)} == {16}
    image, label = collection.train[0]
    assert image.shape == (3, 32, 32) and label.item() in (0, 1)
    assert set(collection.manifest.columns) >= set(data.COLUMNS)


def test_pairs_of_the_same_name_stay_in_one_split(root: Path) -> None:
    manifest = data.load(root, size=32).manifest
    assert (manifest.groupby("subject")["split"].nunique() == 1).all()
    assert (manifest.groupby("split")["source"].nunique() == 2).all()


def test_a_folder_below_the_source_names_the_subject(root: Path) -> None:
    for source in ("real", "vae"):
        for subject in "abc":
            (root / source / subject).mkdir()
            for number in range(2):
                picture(number).save(root / source / subject / f"{number}x.png")
    manifest = data.load(root, size=32).manifest
    assert (manifest[manifest["path"].str.contains("/a/")]["subject"] == "a").all()
    assert (manifest.groupby("subject")["split"].nunique() == 1).all()


def test_every_source_reaches_every_split(root: Path) -> None:
    """A source with only three subjects among many."""
    (root / "rare").mkdir()
    for subject in (1, 4, 6):
        picture(subject).save(root / "rare" / f"{subject}.png")
    manifest = data.load(root, size=16).manifest
    for seed in range(20):
        split = split_by_subject(manifest, None, seed)
        assert (manifest["source"].groupby(split).nunique() == 3).all()
    assert (manifest.groupby("source")["split"].nunique() == 3).all()


def test_the_seed_deals_the_subjects(root: Path) -> None:
    splits = {tuple(data.load(root, size=16, seed=seed).manifest["split"]) for seed in (0, 0, 1, 2, 3)}
    assert 2 <= len(splits) <= 4
    assert data.load(root, size=16, seed=1).fingerprint == data.load(root, size=16, seed=1).fingerprint


def test_a_changed_file_is_read_again(root: Path) -> None:
    before = data.load(root, size=16).fingerprint
    picture(99).save(root / "real" / "0.png")
    os.utime(root / "real" / "0.png", ns=(1, 1))
    assert data.load(root, size=16).fingerprint != before


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        ("missing", "no folder at .*: give a folder"),
        ("empty", "no images below"),
        ("one class", "found \\['real', 'fake'\\]|no image of class|at least two classes"),
        ("no real", "no folder named `real`"),
        ("one image", "source 'lonely' has 1 image.*leave the source out$"),
        ("truncated", r"1 of 16 images .*real/3\.png"),
        ("not an image", r"real/3\.png"),
        ("link outside", "points outside"),
        ("huge", r"real/3\.png \(10000 x 10000 pixels are over the limit"),
    ],
)
def test_bad_folders_get_one_clear_line(root: Path, tmp_path: Path, breakage: str, message: str) -> None:
    victim = root / "real" / "3.png"
    if breakage == "missing":
        root = tmp_path / "nowhere"
    elif breakage == "empty":
        shutil.rmtree(root)
        root.mkdir()
    elif breakage == "one class":
        shutil.rmtree(root / "vae")
    elif breakage == "no real":
        (root / "real").rename(root / "photos")
    elif breakage == "one image":
        (root / "lonely").mkdir()
        picture(0).save(root / "lonely" / "x.png")
    elif breakage == "truncated":
        victim.write_bytes(victim.read_bytes()[:300])
    elif breakage == "not an image":
        victim.write_text("hello")
    elif breakage == "link outside":
        victim.unlink()
        picture(3).save(tmp_path / "elsewhere.png")
        victim.symlink_to(tmp_path / "elsewhere.png")
    elif breakage == "huge":
        Image.new("1", (10_000, 10_000)).save(victim)
    with pytest.raises(BayesdfError, match=message) as caught:
        data.load(root, size=16)
    assert "\n" not in str(caught.value)


def test_unreadable_images_are_skipped_only_when_allowed(root: Path) -> None:
    (root / "real" / "9.png").write_text("hello")
    with pytest.raises(BayesdfError, match="skip_unreadable"):
        data.load(root, size=16, skip_unreadable=0.05)
    with pytest.warns(BayesdfWarning, match=r"skipped real/9\.png"):
        collection = data.load(root, size=16, skip_unreadable=0.1)
    assert len(collection.manifest) == 16


@pytest.mark.parametrize("kind", ["format", "size", "JPEG quality"])
def test_what_separates_the_sources_is_said_before_training(root: Path, kind: str) -> None:
    for file in sorted((root / "vae").iterdir()):
        with Image.open(file) as image:
            image.load()
        if kind == "format":
            file.unlink()
            image.save(file.with_suffix(".webp"), lossless=True)
        elif kind == "size":
            image.resize((64, 64)).save(file)
    if kind == "JPEG quality":
        for source, quality in (("real", 95), ("vae", 75)):
            for file in sorted((root / source).iterdir()):
                with Image.open(file) as image:
                    image.save(file.with_suffix(".jpg"), quality=quality)
                file.unlink()
    with pytest.warns(BayesdfWarning, match=f"the files' {kind} tells real from fake"):
        data.load(root, size=16)


def test_sources_written_the_same_way_raise_no_warning(root: Path) -> None:
    data.load(root, size=16)  # warnings of ours are errors in this test run


def test_source_task_needs_no_photographs(root: Path) -> None:
    (root / "real").rename(root / "gan")
    assert data.load(root, task="source", size=16).classes == ["gan", "vae"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"task": "guess"},
        {"size": 4},
        {"skip_unreadable": 2.0},
        {"skip_unreadable": float("nan")},
        {"seed": -1},
        {"quality": 0},
        {"quality": 100},
        {"fractions": (0.9, 0.2, 0.1)},
    ],
)
def test_bad_arguments(root: Path, arguments: dict[str, object]) -> None:
    with pytest.raises(BayesdfError):
        data.load(root, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("damage", ["cut images", "empty images", "cut manifest", "rows lost"])
def test_a_damaged_cache_is_made_anew(root: Path, cache: Path, damage: str) -> None:
    before = data.load(root, size=16)
    (folder,) = [
        path for path in (cache / "datasets").iterdir() if path.name.startswith("folder-") and _holds(path, root)
    ]
    images, manifest = folder / "images.npy", folder / "manifest.csv"
    if damage == "cut images":
        images.write_bytes(images.read_bytes()[:-1000])
    elif damage == "empty images":
        images.write_bytes(b"")
    elif damage == "cut manifest":
        manifest.write_text(manifest.read_text()[:200])
    else:
        manifest.write_text("".join(manifest.read_text().splitlines(keepends=True)[:-3]))
    assert data.load(root, size=16).fingerprint == before.fingerprint


def _holds(folder: Path, root: Path) -> bool:
    from bayesdf.data import image_cache

    return image_cache._intact(folder) and folder.stat().st_mtime >= root.stat().st_mtime


def test_an_orientation_tag_is_obeyed(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise
    wide = Image.new("L", (64, 64), 0)
    wide.paste(255, (0, 0, 64, 16))
    wide.save(root / "real" / "0.png", exif=exif)
    collection = data.load(root, size=16, quality=None)
    row = int(np.flatnonzero(collection.manifest["path"] == "real/0.png")[0])
    pixels = np.asarray(collection.train.images[row])
    assert pixels[:, -1].mean() > 250 and pixels[:, 0].mean() < 5


def test_sixteen_bits_keep_their_range(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (64, 1))
    pixels, _ = data.common_path(Image.fromarray(ramp), 64, None)
    np.testing.assert_allclose(pixels[0, :, 0], np.linspace(0, 255, 64), atol=1.0)


def test_numbers_as_names_are_names(root: Path) -> None:
    (root / "vae").rename(root / "007")
    assert data.load(root, task="multiclass", size=16).classes == ["real", "007"]


def test_a_folder_called_embedded_is_not_the_embedded_data(root: Path) -> None:
    from bayesdf.experiments import warm_start

    moved = root.rename(root.parent / "embedded")
    assert not warm_start.ships("resnet10t_half", data.load(moved, size=64))


def test_links_to_folders_are_named(root: Path, tmp_path: Path) -> None:
    (root / "vae").rename(tmp_path / "elsewhere")
    (root / "vae").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BayesdfError, match="is a link to a folder"):
        data.load(root, size=16)


def test_other_formats_are_not_tried(root: Path) -> None:
    (root / "real" / "3.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    with pytest.raises(BayesdfError, match=r"real/3\.png"):
        data.load(root, size=16)

"""Regions of the face lie where the manifest's landmarks are. The template is taken only where it is asked for."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw

import bayesdf.data as data
from bayesdf.data.landmarks import COLUMNS
from bayesdf.errors import BayesdfError
from bayesdf.faces import REGIONS, TEMPLATE, region_masks
from tests.data.test_folder import picture

pytestmark = pytest.mark.filterwarnings("ignore:each of .* photographs such as")
EYES = REGIONS.index("eyes")


def folder(root: Path, points: dict[str, np.ndarray], size: tuple[int, int]) -> Path:
    """Two sources of eight subjects, with a table that has landmarks."""
    rows = []
    for number, source in enumerate(("real", "swap")):
        (root / source).mkdir(parents=True)
        for subject in range(8):
            path = f"{source}/{subject}.png"
            picture(10 * number + subject, size).save(root / path)
            rows.append({"path": path, "subject": f"s{subject}"} | dict.fromkeys(COLUMNS, ""))
            rows[-1] |= dict(zip(COLUMNS, points[path].ravel(), strict=True)) if path in points else {}
    pd.DataFrame(rows).to_csv(root / "subjects.csv", index=False)
    return root


def everywhere(points: np.ndarray) -> dict[str, np.ndarray]:
    return {f"{source}/{subject}.png": points for source in ("real", "swap") for subject in range(8)}


def test_the_embedded_data_says_itself_that_it_is_aligned() -> None:
    collection = data.load("embedded", task="multiclass")
    parts = [collection.val, data.relabel(collection, "binary").val, data.thin(collection, 3).val]
    for part in [*parts, *data.leave_out(collection, "vae")[::-1][:1]]:
        regions = data.face_regions(part)
        assert regions.shape == (len(part), 7, 64, 64)
        np.testing.assert_array_equal(regions[-1], region_masks(64))


def test_landmarks_of_a_table_go_through_crop_and_resize(tmp_path: Path) -> None:
    """A square is drawn over the left eye. The region of the eyes covers it in the image of the data set."""
    points = TEMPLATE * 3.0 + [60.0, 10.0]
    root = folder(tmp_path, everywhere(points), (300, 200))
    for file in root.glob("*/*.png"):
        with Image.open(file) as opened:
            image = opened.convert("RGB")
        x, y = points[0]
        ImageDraw.Draw(image).rectangle((0, 0, 300, 200), fill=(0, 0, 0))
        ImageDraw.Draw(image).rectangle((x - 5, y - 5, x + 5, y + 5), fill=(255, 255, 255))
        image.save(file)
    part = data.load(root, size=48, quality=None).train
    regions, manifest = data.face_regions(part), part.manifest
    assert regions.shape == (len(part), 7, 48, 48)
    for (image, _), region in zip(part, regions, strict=True):
        white = image[0].numpy() > 0.5
        assert white.any() and region[EYES][white].all()
    y, x = np.nonzero(part[0][0][0].numpy() > 0.5)
    assert manifest["left_eye_x"][0] == pytest.approx(x.mean(), abs=0.3)
    assert manifest["left_eye_y"][0] == pytest.approx(y.mean(), abs=0.3)


def test_a_turned_photograph_has_the_landmarks_of_what_is_displayed(tmp_path: Path) -> None:
    points = np.array([[10.0, 30.0], [50.0, 30.0], [30.0, 50.0], [15.0, 70.0], [45.0, 70.0]])
    root = folder(tmp_path, everywhere(points), (60, 80))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(1, (80, 60)).save(root / "real" / "0.png", exif=exif)
    manifest = data.load(root, size=60).manifest.set_index("path")
    for path in ("real/0.png", "real/1.png"):  # ten rows above and below are cut off
        assert manifest.loc[path, list(COLUMNS)].tolist() == pytest.approx((points - [0.0, 10.0]).ravel().tolist())


def test_the_template_is_taken_only_when_told_to(tmp_path: Path) -> None:
    root = folder(tmp_path / "some", {"real/0.png": TEMPLATE}, (64, 64))
    part = data.load(root, size=64).train
    with pytest.raises(BayesdfError, match=r"(real|swap)/\d\.png has no landmarks.* such images\).*subjects\.csv"):
        data.face_regions(part)
    np.testing.assert_array_equal(data.face_regions(part, template=True)[0], region_masks(64))
    (root / "subjects.csv").unlink()
    part = data.load(root, size=64).train
    with pytest.raises(
        BayesdfError, match=r"no landmarks of the faces.*left_eye_x.*subjects\.csv.*template=True"
    ) as caught:
        data.face_regions(part)
    assert "\n" not in str(caught.value)
    np.testing.assert_array_equal(data.face_regions(part, template=True)[-1], region_masks(64))


def test_a_landmark_that_is_no_number_is_one_clear_line(tmp_path: Path) -> None:
    root = folder(tmp_path, everywhere(TEMPLATE), (64, 64))
    table = root / "subjects.csv"
    table.write_text(table.read_text().replace("18.3", "left", 1))
    with pytest.raises(BayesdfError, match=r"left_eye_x of real/0\.png is 'left': landmarks are numbers"):
        data.load(root, size=32)


def test_a_table_with_some_landmarks_names_the_missing_ones(tmp_path: Path) -> None:
    root = folder(tmp_path, everywhere(TEMPLATE), (64, 64))
    table = pd.read_csv(root / "subjects.csv").drop(columns=["nose_y", "mouth_right_x"])
    table.to_csv(root / "subjects.csv", index=False)
    with pytest.raises(
        BayesdfError, match=r"has landmarks \(left_eye_x, …\) but lacks the column\(s\) nose_y, mouth_right_x:"
    ):
        data.load(root, size=32)


@pytest.mark.parametrize(
    ("moved", "message"),
    [
        ({(0, 0): 400.0}, r"left_eye_x of swap/3\.png is 400, but the image is displayed with 64 x 48 pixels \(1 such"),
        ({(2, 1): -24.1}, r"nose_y of swap/3\.png is -24\.1, but the image"),
        ({(4, 1): 72.1}, r"mouth_right_y of swap/3\.png is 72\.1, but the image"),
        ({(0, 0): 50.0, (1, 0): 20.0}, r"left_eye_x of swap/3\.png is 50, right of right_eye_x, 20 \(1 such"),
        ({(3, 0): 50.0, (4, 0): 20.0}, r"mouth_left_x of swap/3\.png is 50, right of mouth_right_x, 20"),
        ({(2, 1): -23.9}, None),  # a face may be partly outside
        ({(1, 0): 95.0, (4, 1): 71.9}, None),
    ],
)
def test_landmarks_that_cannot_be_are_one_clear_line(
    tmp_path: Path, moved: dict[tuple[int, int], float], message: str | None
) -> None:
    points = TEMPLATE.copy()
    for place, value in moved.items():
        points[place] = value
    root = folder(tmp_path, everywhere(TEMPLATE) | {"swap/3.png": points}, (64, 48))
    if message is None:
        assert np.isfinite(data.load(root, size=32).manifest[list(COLUMNS)].to_numpy(float)).all()
        return
    with pytest.raises(BayesdfError, match=message) as caught:
        data.load(root, size=32)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("what", ["folder", "collection", "array", "empty"])
def test_regions_are_those_of_a_data_set(what: str) -> None:
    collection = data.load("embedded")
    given = {
        "folder": ("my/folder", "takes images with a manifest, not 'my/folder': pass a part .* data.test"),
        "collection": (collection, "not a Collection: pass a part of what bayesdf.data.load returns, as data.test"),
        "array": (np.zeros((2, 3, 8, 8)), "not a ndarray: pass a part"),
        "empty": (collection.test.take([]), "without images"),
    }
    with pytest.raises(BayesdfError, match=given[what][1]):
        data.face_regions(given[what][0])  # type: ignore[arg-type]


def test_images_that_are_not_square_have_no_regions() -> None:
    rows = [
        {"source": source, "subject": split, "split": split, "bytes": 1, "donor": "", "video": "", "path": ""}
        for split in data.SPLITS
        for source in ("real", "vae")
    ]
    part = data.collect(np.zeros((6, 20, 30, 3), np.uint8), pd.DataFrame(rows), "binary", "wide", "").train
    with pytest.raises(BayesdfError, match="images are 20 x 30 pixels"):
        data.face_regions(part, template=True)

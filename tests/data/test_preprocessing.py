import io

import numpy as np
import pytest
import torch
from PIL import Image

from bayesdf.data import augment, common_path
from bayesdf.data.audit import jpeg_quality


def test_grey_array_and_picture_take_the_same_path() -> None:
    grey = np.random.default_rng(0).uniform(size=(64, 64))
    picture = Image.fromarray((grey * 255).round().astype(np.uint8))
    for quality in (None, 90):
        one, two = common_path(grey, 64, quality), common_path(picture, 64, quality)
        np.testing.assert_array_equal(one[0], two[0])
        assert one[1] == two[1]


def test_without_compression_pixels_are_only_quantised() -> None:
    grey = np.random.default_rng(0).uniform(size=(64, 64))
    pixels, length = common_path(grey, 64, None)
    assert length == 0 and np.abs(pixels / 255.0 - grey[..., None]).max() <= 0.5 / 255 + 1e-9


def test_crop_is_central_and_square() -> None:
    wide = np.zeros((40, 100))
    wide[:, 30:70] = 1.0
    assert (common_path(wide, 40, None)[0] == 255).all()


def test_transparency_and_palettes_become_colours() -> None:
    for mode in ("RGBA", "P", "LA", "CMYK"):
        assert common_path(Image.new(mode, (20, 20)), 16)[0].shape == (16, 16, 3)


@pytest.mark.parametrize("quality", [30, 50, 75, 90, 95])
def test_jpeg_quality_is_read_from_the_tables(quality: int) -> None:
    buffer = io.BytesIO()
    Image.new("L", (16, 16)).save(buffer, "JPEG", quality=quality)
    assert jpeg_quality(Image.open(buffer)) == pytest.approx(quality, abs=1.5)


def test_augmentation_keeps_images_images_and_is_seeded() -> None:
    images = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    one, two, other = (augment(images, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert one.shape == images.shape and one.min() >= 0 and one.max() <= 1
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_augmentation_shifts_by_whole_pixels() -> None:
    """Every image is a mirrored or shifted, re-toned copy: no pixel is interpolated."""
    images = torch.rand(20, 1, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.4
    for before, after in zip(images, augment(images, torch.Generator().manual_seed(1)), strict=True):
        centre = after[0, 8:-8, 8:-8]
        best = 0.0
        for candidate in (before[0], before[0].flip(-1)):
            for dy in range(-4, 5):
                for dx in range(-4, 5):
                    part = candidate[8 + dy : 56 + dy, 8 + dx : 56 + dx]
                    stacked = torch.stack([part.flatten(), centre.flatten()])
                    best = max(best, torch.corrcoef(stacked)[0, 1].item())
        assert best > 0.9999

"""A forgiving generator undoes what happened to its pictures."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bayesdf.data import common_path_grey
from bayesdf.errors import BayesdfError
from bayesdf.generators import GENERATORS, Generator
from bayesdf.inversion import forgiving, invert, perturb
from bayesdf.inversion.transforms import TRANSFORMS, ZOOM


def plane() -> Generator:
    """Pictures on a plane through grey, as rough as a grid of 4 x 4: a latent of eight values."""
    coarse = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    axes = F.interpolate(coarse, size=(64, 64), mode="bicubic").flatten(1)

    def decode(latent: Tensor) -> Tensor:
        return 0.5 + 0.25 * torch.tanh(0.5 * (latent @ axes)).view(-1, 1, 64, 64)

    def encode(images: Tensor) -> Tensor:
        return 2.0 * torch.atanh((4.0 * (images.flatten(1) - 0.5)).clamp(-0.99, 0.99)) @ torch.linalg.pinv(axes)

    return Generator("plane", 8, decode=decode, encode=encode)


def test_a_forgiving_generator_undoes_what_happened() -> None:
    """Zoomed, darkened and blurred, the plane's picture is explained by it as well as it was before."""
    generator = plane()
    images = generator.sample(3, 5)
    latent = torch.randn(3, 8)
    same = forgiving(generator).decode(F.pad(latent, (0, TRANSFORMS)))  # type: ignore[misc]
    torch.testing.assert_close(same, generator.decode(latent))  # type: ignore[misc]
    for name, strength in (("crop", 0.1), ("brightness", 40.0), ("blur", 2.0)):
        changed = perturb(images, name, strength)
        strict, forgiven = (invert(changed, one, steps=60).pixel.mean() for one in (generator, forgiving(generator)))
        assert forgiven < strict / 2, name
    with pytest.raises(BayesdfError, match="cannot be inverted"):
        forgiving(Generator("painter"))


@pytest.mark.parametrize("crop", [0.1, 0.2, 0.3])
def test_a_crop_is_undone(crop: float) -> None:
    """A generator of faces explains its pictures, part of them cut away, nearly as well as before."""
    generator = GENERATORS["dcgan"]
    images = common_path_grey(generator.sample(4, 5))
    before = invert(images, forgiving(generator), steps=20)
    after = invert(perturb(images, "crop", crop), forgiving(generator), steps=20)
    zoom = after.latent[:, -TRANSFORMS]
    np.testing.assert_allclose(np.exp(-ZOOM * zoom), 1.0 - crop, atol=0.02)
    assert np.median(after.loss / before.loss) < 2.0

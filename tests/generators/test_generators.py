"""Every generator has the same shape; the blends do what their equations say."""

from types import ModuleType

import numpy as np
import pytest
from safetensors.torch import load_file

from bayesdf.errors import BayesdfError
from bayesdf.faces import SIZE, Faces, photographs
from bayesdf.generators import GENERATORS, networks
from bayesdf.generators.blend import (
    alpha_blend,
    face_mask,
    motion_field,
    mouth_mask,
    poisson_blend,
    resample,
    soften,
)
from bayesdf.generators.fakes import pick_donors


@pytest.fixture(scope="module")
def faces() -> Faces:
    return photographs().take(np.isin(photographs().subject, ["s01", "s05", "s09", "s20"]))


@pytest.mark.parametrize("generator", GENERATORS.values(), ids=GENERATORS)
def test_a_generator_makes_a_face_for_every_photograph(generator: ModuleType, faces: Faces) -> None:
    fakes = generator.make(faces, np.random.default_rng(0))
    assert fakes.images.shape == faces.images.shape and fakes.images.dtype == np.float32
    assert np.isfinite(fakes.images).all() and fakes.images.min() >= 0.0 and fakes.images.max() <= 1.0
    assert (faces.subject[fakes.donor] != faces.subject).all()
    assert np.abs(fakes.images - faces.images).mean(axis=(1, 2)).min() > 1e-3, "an image came back unchanged"


@pytest.mark.parametrize("generator", GENERATORS.values(), ids=GENERATORS)
def test_fakes_look_like_faces(generator: ModuleType, faces: Faces) -> None:
    """Each fake correlates with a photograph about as photographs of different people do, at the least."""

    def standard(images: np.ndarray) -> np.ndarray:
        flat = images.reshape(len(images), -1)
        flat = flat - flat.mean(1, keepdims=True)
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)

    real = standard(faces.images)
    others = faces.subject[:, None] != faces.subject
    between_people = (real @ real.T)[others].mean()
    made = standard(generator.make(faces, np.random.default_rng(1)).images)
    assert (made @ real.T).mean(axis=1).min() > 0.3 * between_people


@pytest.mark.parametrize("generator", GENERATORS.values(), ids=GENERATORS)
def test_the_seed_decides(generator: ModuleType, faces: Faces) -> None:
    one, same, other = (generator.make(faces, np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.images, same.images)
    assert not np.array_equal(one.images, other.images)


def test_donors_are_other_people_of_near_pose(faces: Faces) -> None:
    donors = pick_donors(faces, np.random.default_rng(0))
    assert (faces.subject[donors] != faces.subject).all()
    gap = np.linalg.norm(faces.landmarks[donors] - faces.landmarks, axis=(1, 2)).mean()
    shuffled = np.random.default_rng(0).permutation(len(faces))
    assert gap < np.linalg.norm(faces.landmarks[shuffled] - faces.landmarks, axis=(1, 2)).mean()


def test_poisson_blend_keeps_gradients_inside_and_values_outside() -> None:
    rng = np.random.default_rng(0)
    target, made = rng.uniform(size=(2, SIZE, SIZE))
    mask = face_mask(photographs().landmarks[0])
    blended = poisson_blend(made, target, mask)
    np.testing.assert_array_equal(blended[~mask], target[~mask])

    def laplacian(image: np.ndarray) -> np.ndarray:
        return 4 * image[1:-1, 1:-1] - image[:-2, 1:-1] - image[2:, 1:-1] - image[1:-1, :-2] - image[1:-1, 2:]

    inside = mask[1:-1, 1:-1]
    np.testing.assert_allclose(laplacian(blended)[inside], laplacian(made)[inside], atol=1e-9)


def test_poisson_blend_of_an_image_with_its_brighter_self_is_the_image() -> None:
    image = photographs().images[7].astype(float)
    mask = face_mask(photographs().landmarks[7])
    np.testing.assert_allclose(poisson_blend(image + 0.2, image, mask), image, atol=1e-9)


def test_alpha_blend_ends_where_the_mask_ends() -> None:
    target, made = np.zeros((SIZE, SIZE)), np.ones((SIZE, SIZE))
    mask = mouth_mask(photographs().landmarks[3])
    blended = alpha_blend(made, target, mask)
    assert blended[mask].max() > 0.95 and blended[~mask].max() < 0.35
    assert soften(mask).min() >= 0.0 and soften(mask).max() <= 1.0


def test_motion_field_carries_the_landmarks_and_holds_the_border() -> None:
    start, end = photographs().landmarks[0], photographs().landmarks[0] + [3.0, -2.0]
    field = motion_field(start, end)
    for (x0, y0), (x1, y1) in zip(start, end.round().astype(int), strict=True):
        assert np.hypot(*(field[y1, x1] - (x0, y0))) < 1.5
    np.testing.assert_allclose(field[0, 0], [0, 0], atol=1e-6)
    image = photographs().images[0]
    np.testing.assert_allclose(resample(image, motion_field(start, start)), image, atol=1e-5)


@pytest.mark.parametrize("damage", ["missing", "truncated", "another network"])
def test_damaged_weights_are_one_clear_error(damage: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    from pathlib import Path

    from bayesdf.generators import vae

    folder = Path(str(tmp_path)) / "weights"
    folder.mkdir()
    shipped = Path(networks.__file__).parent / "weights"
    if damage == "truncated":
        (folder / "vae.safetensors").write_bytes((shipped / "vae.safetensors").read_bytes()[:5000])
    if damage == "another network":
        (folder / "vae.safetensors").write_bytes((shipped / "mouth.safetensors").read_bytes())
    monkeypatch.setattr(networks.importlib.resources, "files", lambda _: folder.parent)
    with pytest.raises(BayesdfError, match=r"generator vae: weights .* run `python -m bayesdf.generators.train vae`"):
        networks.load_weights(vae.VAE(), "vae")


@pytest.mark.parametrize("name", [name for name, module in GENERATORS.items() if hasattr(module, "STEPS")])
def test_weights_ship_small(name: str) -> None:
    from pathlib import Path

    path = Path(networks.__file__).parent / "weights" / f"{name}.safetensors"
    assert path.stat().st_size < 4e6
    assert all(value.dtype.itemsize == 2 for value in load_file(path).values())

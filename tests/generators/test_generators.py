"""Every generator has the same shape; the blends do what their equations say."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bayesdf.errors import BayesdfError
from bayesdf.faces import SIZE, Faces, photographs
from bayesdf.generators import GENERATORS, Generator, dcgan, networks, stages, train
from bayesdf.generators.blend import (
    alpha_blend,
    displacement,
    face_mask,
    motion_field,
    mouth_mask,
    poisson_blend,
    resample,
    soften,
)
from bayesdf.generators.fakes import NOBODY, Fakes, pick_donors


@pytest.fixture(scope="module")
def faces() -> Faces:
    return photographs().take(np.isin(photographs().subject, ["s01", "s05", "s09", "s20"]))


@pytest.fixture(scope="module")
def fakes_of(faces: Faces) -> Callable[[str], Fakes]:
    """A generator's fakes of seed 0, made once for all tests."""
    return functools.cache(lambda name: GENERATORS[name].fakes(faces, np.random.default_rng(0)))


ALL = pytest.mark.parametrize("generator", GENERATORS.values(), ids=GENERATORS)
INVERTIBLE = pytest.mark.parametrize(
    "generator", [g for g in GENERATORS.values() if g.invertible], ids=lambda g: g.name
)


@ALL
def test_a_generator_makes_a_face_for_every_photograph(
    generator: Generator, faces: Faces, fakes_of: Callable[[str], Fakes]
) -> None:
    fakes = fakes_of(generator.name)
    assert fakes.images.shape == faces.images.shape and fakes.images.dtype == np.float32
    assert np.isfinite(fakes.images).all() and fakes.images.min() >= 0.0 and fakes.images.max() <= 1.0
    assert np.abs(fakes.images - faces.images).mean(axis=(1, 2)).min() > 1e-3, "an image came back unchanged"
    if generator.manipulate is None:
        assert (fakes.donor == NOBODY).all()
    else:
        assert (faces.subject[fakes.donor] != faces.subject).all()


@ALL
def test_the_mask_says_which_pixels_are_changed(
    generator: Generator, faces: Faces, fakes_of: Callable[[str], Fakes]
) -> None:
    fakes = fakes_of(generator.name)
    mask, change = fakes.mask, np.abs(fakes.images - faces.images)
    assert mask.shape == fakes.images.shape and mask.dtype == np.float32 and mask.min() >= 0.0 and mask.max() == 1.0
    np.testing.assert_array_equal(fakes.images[mask == 0.0], faces.images[mask == 0.0])
    assert (change[mask > 0.5] > 0.0).mean() > 0.95
    assert (change * (mask > 0.5)).mean(axis=(1, 2)).min() > 1e-3, "the marked part came back unchanged"
    if generator.manipulate is None:
        assert (mask == 1.0).all()
    else:
        assert (mask < 1.0).any(axis=(1, 2)).all()


def test_each_manipulation_marks_its_part_of_the_face(faces: Faces, fakes_of: Callable[[str], Fakes]) -> None:
    """A swap the inner face and no corner, a mouth its lower part alone, a motion by how far it goes."""
    for name in ("autoencoder_swap", "poisson_swap", "mouth"):
        mask = fakes_of(name).mask
        assert not mask[:, [0, 0, -1, -1], [0, -1, 0, -1]].any() and (mask == 0.0).mean() > 0.35
    assert (fakes_of("autoencoder_swap").mask > 0.0).mean() > 2 * (fakes_of("mouth").mask > 0.0).mean()
    assert not fakes_of("mouth").mask[:, :32].any()
    assert set(np.unique(fakes_of("poisson_swap").mask)) == {0.0, 1.0}
    # A displacement of a hundredth of a pixel changes a value by a hundredth of the local gradient, which is below 1.
    still = fakes_of("reenactment").mask < 0.01
    change = np.abs(fakes_of("reenactment").images - faces.images)
    assert still.any() and change[still].max() < 0.02


@ALL
def test_fakes_look_like_faces(generator: Generator, faces: Faces, fakes_of: Callable[[str], Fakes]) -> None:
    """Nine in ten fakes correlate with photographs about as photographs of different people do, at the least."""

    def standard(images: np.ndarray) -> np.ndarray:
        flat = images.reshape(len(images), -1)
        flat = flat - flat.mean(1, keepdims=True)
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)

    real = standard(faces.images)
    others = faces.subject[:, None] != faces.subject
    between_people = (real @ real.T)[others].mean()
    made = standard(fakes_of(generator.name).images)
    assert np.quantile((made @ real.T).mean(axis=1), 0.1) > 0.4 * between_people


@ALL
def test_the_seed_decides(generator: Generator, faces: Faces, fakes_of: Callable[[str], Fakes]) -> None:
    same, other = (generator.fakes(faces, np.random.default_rng(seed)).images for seed in (0, 1))
    np.testing.assert_array_equal(fakes_of(generator.name).images, same)
    assert not np.array_equal(same, other)
    drawn, again, another = (generator.sample(3, seed) for seed in (5, 5, 6))
    assert drawn.shape == (3, SIZE, SIZE)
    np.testing.assert_array_equal(drawn, again)
    assert not np.array_equal(drawn, another)


@ALL
def test_samples_differ_from_each_other_as_photographs_do(generator: Generator) -> None:
    """No generator has collapsed onto a few faces."""
    from scipy.spatial.distance import pdist

    photos = pdist(photographs().images[::10].reshape(40, -1)).mean()
    assert pdist(generator.sample(40, seed=0).reshape(40, -1)).mean() > 0.6 * photos


@ALL
def test_every_generator_says_what_it_is(generator: Generator) -> None:
    assert generator.family and generator.paper
    assert generator.invertible == (generator.decode is not None) == (generator.latent_dim > 0)


@INVERTIBLE
def test_latents_lead_to_images_and_gradients_lead_back(generator: Generator) -> None:
    code = generator.sample_latent(2, seed=0).requires_grad_()
    assert code.shape == (2, generator.latent_dim)
    assert generator.decode is not None and generator.encode is not None
    images = generator.decode(code)
    assert images.shape == (2, 1, SIZE, SIZE)
    (slope,) = torch.autograd.grad(images.sum(), code)
    assert torch.isfinite(slope).all() and (slope != 0).any(1).all()
    assert generator.encode(images.detach()).shape == code.shape


@INVERTIBLE
def test_the_encoder_starts_nearer_than_chance(generator: Generator) -> None:
    assert generator.decode is not None and generator.encode is not None
    with torch.no_grad():
        images = generator.decode(generator.sample_latent(16, seed=1))
        guessed = generator.decode(generator.encode(images))
        other = generator.decode(generator.sample_latent(16, seed=2))
    region = 1.0 if generator.region is None else torch.from_numpy(generator.region)

    def gap(made: torch.Tensor) -> float:
        return ((made - images) * region).pow(2).mean().sqrt().item()

    assert gap(guessed) < (1e-4 if generator.exact else 0.6 * gap(other))


def test_manipulations_work_on_photographs_and_cannot_be_sampled_without() -> None:
    with pytest.raises(BayesdfError, match="generator empty: has no `decode`"):
        Generator("empty").sample(1, seed=0)


def test_training_that_was_stopped_goes_on_as_if_it_had_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two stages, one with a critic; killed in the second."""
    faces = photographs()
    monkeypatch.setattr(stages, "ALIGNMENTS", 1)
    monkeypatch.setattr(train, "SAVE_EVERY", 2)
    short = {name: (3, begin) for name, (_, begin) in dcgan.STAGES.items() if name != "guess"}
    monkeypatch.setattr(dcgan, "STAGES", short)
    whole = train.fit(dcgan, faces, 0, tmp_path / "whole.pt").state_dict()
    seen = []

    def stop(network: torch.nn.Module) -> None:
        seen.append(network)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.fit(dcgan, faces, 0, tmp_path / "stopped.pt", show=stop)
    kept = (tmp_path / "stopped.pt").read_bytes()
    with pytest.raises(BayesdfError, match=r"other settings .*dcgan 0 .* then, .*dcgan 1 .* now"):
        train.fit(dcgan, faces, 1, tmp_path / "stopped.pt")
    assert (tmp_path / "stopped.pt").read_bytes() == kept
    resumed = train.fit(dcgan, faces, 0, tmp_path / "stopped.pt").state_dict()
    for key, value in whole.items():
        torch.testing.assert_close(resumed[key], value, rtol=0, atol=0, msg=key)


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
    blended = alpha_blend(made, target, soften(mask))
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
    np.testing.assert_allclose(displacement(motion_field(start, start)), 0.0, atol=1e-5)
    assert displacement(motion_field(start, end)).max() == pytest.approx(np.hypot(3.0, 2.0), rel=0.25)


@pytest.mark.parametrize("damage", ["missing", "truncated", "another network", "a byte"])
def test_damaged_weights_are_one_clear_error(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bayesdf.generators import vae

    folder = tmp_path / "weights"
    folder.mkdir()
    shipped = Path(networks.__file__).parent / "weights"
    if damage == "truncated":
        (folder / "vae.safetensors").write_bytes((shipped / "vae.safetensors").read_bytes()[:5000])
    if damage == "another network":
        (folder / "vae.safetensors").write_bytes((shipped / "mouth.safetensors").read_bytes())
    if damage == "a byte":
        whole = bytearray((shipped / "vae.safetensors").read_bytes())
        whole[len(whole) // 2] ^= 1
        (folder / "vae.safetensors").write_bytes(whole)
    (folder / "SHA256SUMS").write_text((shipped / "SHA256SUMS").read_text())
    monkeypatch.setattr(networks.importlib.resources, "files", lambda _: folder.parent)
    with pytest.raises(BayesdfError, match=r"generator vae: weights .* run `python -m bayesdf.generators.train vae`"):
        networks.load_weights(vae.VAE(), "vae")


def test_weights_ship_small() -> None:
    folder = Path(networks.__file__).parent / "weights"
    files = {path.stem: path for path in folder.glob("*.safetensors")}
    assert set(files) == set(train.TRAINABLE)
    assert sum(path.stat().st_size for path in files.values()) < 25e6
    for path in files.values():
        assert all(value.dtype.itemsize == 2 for value in load_file(path).values())

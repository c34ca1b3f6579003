"""Inversion finds the latent that made a picture, and says so honestly when it does not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bayesdf._version import __version__
from bayesdf.errors import BayesdfError
from bayesdf.generators import GENERATORS, perceptual
from bayesdf.generators.generator import Generator
from bayesdf.inversion import Inversion, Weights, forgiving, invert, loss, preconditioner, search
from bayesdf.inversion.lbfgs import ROUNDING
from bayesdf.inversion.loss import FLOOR

LATENT = 12
PLAIN = Weights(gradient=0.0, perceptual=0.0, noise=0.0)


@pytest.fixture(scope="module")
def toy() -> Generator:
    """A random convolutional network of 12 values; its encoder is a rough linear fit."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = nn.Sequential(
            nn.Linear(LATENT, 16 * 64),
            nn.Unflatten(1, (16, 8, 8)),
            nn.SiLU(),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.Conv2d(16, 8, 3, padding=1),
            nn.SiLU(),
            nn.Upsample(scale_factor=4, mode="bilinear"),
            nn.Conv2d(8, 1, 3, padding=1),
        ).requires_grad_(False)

    def decode(latent: Tensor) -> Tensor:
        return torch.sigmoid(4.0 * network(latent))

    latent = torch.randn(400, LATENT, generator=torch.Generator().manual_seed(0))
    images = decode(latent).flatten(1)
    weight = images.T @ torch.linalg.solve(images @ images.T + 1.0 * torch.eye(400), latent)  # ridge, dual form
    return Generator("toy", LATENT, decode=decode, encode=lambda x: x.flatten(1) @ weight)


@pytest.fixture(scope="module")
def pictures(toy: Generator) -> np.ndarray:
    return toy.sample(5, seed=7)


def linear(region: np.ndarray | None = None, spread: float = 0.0) -> tuple[Generator, Tensor, Tensor]:
    source = torch.Generator().manual_seed(5)
    matrix = 0.03 * torch.randn(4096, LATENT, generator=source) * torch.logspace(-spread, 0.0, LATENT)
    offset = torch.full((4096,), 0.5)
    generator = Generator("linear", LATENT, decode=lambda z: (offset + z @ matrix.T).view(-1, 1, 64, 64), region=region)
    return generator, matrix, offset


def same(one: Inversion, other: Inversion) -> None:
    for name, value in vars(one).items():
        np.testing.assert_array_equal(value, getattr(other, name), err_msg=name)


def check_minimum(found: Inversion, exact: Tensor, curvature: Tensor) -> None:
    """The loss is above its minimum by no more than the share ε² at which the search says that it ends.

    Ten times that is allowed: the search's own measure of it is an estimate, and slopes are rounded.
    """
    miss = torch.from_numpy(found.latent).double() - exact
    excess = ((miss @ curvature) * miss).sum(1).numpy() / found.loss
    assert excess.max() < 10.0 * ROUNDING**2
    assert (found.stopped == "plateau").all() and found.evaluations.max() < 40


def test_what_a_generator_made_is_made_again_to_machine_precision(toy: Generator, pictures: np.ndarray) -> None:
    pictures = pictures[:3]
    found = invert(pictures, toy, weights=PLAIN, tolerance=0.0, floor=0.0, steps=120)
    assert found.pixel.max() < 1e-6
    np.testing.assert_allclose(found.latent, toy.sample_latent(5, 7)[:3], atol=1e-4)
    np.testing.assert_allclose(found.reconstruction, pictures, atol=1e-5)
    np.testing.assert_allclose(found.energy, (found.latent**2).mean(1), rtol=1e-5)


@pytest.mark.parametrize("spread", [0.0, 1.0])
@pytest.mark.parametrize("noise", [0.0, 0.05, 0.3])
def test_a_linear_generator_gives_the_ridge_solution(noise: float, spread: float) -> None:
    """Also where some of the latent moves the picture ten times as far as the rest."""
    generator, matrix, offset = linear(spread=spread)
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(2))
    weights = Weights(gradient=0.0, perceptual=0.0, noise=noise)
    found = invert(image, generator, weights=weights, tolerance=0.0, floor=0.0)
    design, target = matrix.double(), (image.flatten(1) - offset).double()
    normal = design.T @ design + noise**2 * torch.eye(LATENT)
    exact = torch.linalg.solve(normal, design.T @ target.T).T
    check_minimum(found, exact, normal / 4096)
    left = (image.flatten(1) - offset - exact.float() @ matrix.T).pow(2).mean(1).sqrt()
    np.testing.assert_allclose(found.pixel, left, rtol=1e-4)


def test_gradients_count_by_their_weight() -> None:
    """Differences of neighbours are linear too: a second block of least squares."""
    generator, matrix, offset = linear()
    image = torch.rand(2, 64, 64, generator=torch.Generator().manual_seed(2))
    found = invert(image, generator, weights=Weights(1.0, 0.7, 0.0, 0.0), tolerance=0.0, floor=0.0)

    def differences(pixels: Tensor) -> Tensor:
        square = pixels.view(-1, 64, 64)
        return torch.cat([square.diff(dim=2).flatten(1), square.diff(dim=1).flatten(1)], 1)

    design = torch.cat([matrix, (0.7 / 2.0) ** 0.5 * differences(matrix.T).T])
    residual = image.flatten(1) - offset
    target = torch.cat([residual, (0.7 / 2.0) ** 0.5 * differences(residual)], 1)
    design, target = design.double(), target.double()
    exact = torch.linalg.solve(design.T @ design, design.T @ target.T).T
    check_minimum(found, exact, design.T @ design / 4096)


def test_only_the_region_counts() -> None:
    region = np.zeros((64, 64), dtype=np.float32)
    region[16:48, 16:48] = 1.0
    generator, _, _ = linear(region)
    truth = generator.sample(2, seed=1)
    outside = np.where(region, truth, np.random.default_rng(0).random((2, 64, 64))).astype(np.float32)
    found = invert(outside, generator, weights=Weights(noise=0.0), tolerance=0.0, floor=0.0)
    assert found.pixel.max() < 1e-6 and found.gradient.max() < 1e-6 and found.perceptual.max() < 1e-5
    np.testing.assert_allclose(found.latent, generator.sample_latent(2, 1), atol=1e-3)


def test_the_prior_keeps_idle_entropy_at_rest() -> None:
    """Values of latent that change nothing stay at the prior's mode."""
    generator, _, _ = linear()
    assert generator.decode is not None
    idle = Generator("idle", 2 * LATENT, decode=lambda z: generator.decode(z[:, :LATENT]))  # type: ignore[misc]
    found = invert(generator.sample(2, seed=3), idle, weights=Weights(noise=0.02), tolerance=0.0, floor=0.0)
    assert np.abs(found.latent[:, LATENT:]).max() < 1e-3 < np.abs(found.latent[:, :LATENT]).max()


def test_an_exact_inverse_needs_one_evaluation() -> None:
    generator, matrix, offset = linear()
    inverse = torch.linalg.pinv(matrix)
    exact = Generator(
        "exact",
        LATENT,
        decode=generator.decode,
        encode=lambda x: (x.flatten(1) - offset) @ inverse.T,
        exact=True,
    )
    found = invert(generator.sample(4, seed=1), exact, restarts=5)
    assert (found.evaluations == 1).all() and (found.start == 0).all() and (found.stopped == "floor").all()
    np.testing.assert_allclose(found.latent, generator.sample_latent(4, 1), atol=1e-3)


def test_the_encoder_saves_evaluations(toy: Generator, pictures: np.ndarray) -> None:
    """One that is a tenth of a standard deviation off; the toy's own is too rough to save more than chance does."""
    truth = torch.as_tensor(toy.sample_latent(5, 7))
    near = truth + 0.1 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    guided = invert(pictures, Generator("near", LATENT, decode=toy.decode, encode=lambda x: near[: len(x)]))
    blind = invert(pictures, toy, amortised=False)
    assert invert(pictures, toy).pixel.max() < 2 * FLOOR > guided.pixel.max()
    assert guided.evaluations.mean() < 0.8 * blind.evaluations.mean()
    assert guided.shared == preconditioner.PROBES


def test_what_the_probes_taught_is_kept(pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second call probes no more, and finds the same; other weights, losses and seeds are probed anew."""
    monkeypatch.setattr(preconditioner, "PROBES", 32)
    monkeypatch.setattr(preconditioner, "CACHE_SIZE", 5 * LATENT**2)
    monkeypatch.setattr(preconditioner, "_CACHE", {})
    probed, strength = 0, 1.0
    plain, _, _ = linear()
    assert plain.decode is not None

    def decode(latent: Tensor) -> Tensor:
        nonlocal probed
        probed += len(latent) == 32
        return plain.decode(strength * latent)  # type: ignore[misc]

    counted = Generator("counted", LATENT, decode=decode)
    first = invert(pictures[:1], counted, steps=5)
    assert probed == 1
    same(invert(pictures[:1], counted, steps=5), first)
    assert probed == 1
    invert(pictures[:1], counted, steps=5, seed=1)
    invert(pictures[:1], counted, steps=5, weights=Weights(noise=0.2))
    strength = 0.5
    assert not np.array_equal(invert(pictures[:1], counted, steps=5).latent, first.latent)
    assert probed == 4
    for seed in range(6):
        invert(pictures[:1], counted, steps=2, seed=seed)
    assert probed == 9 and len(preconditioner._CACHE) == 5


def test_restarts_are_counted_and_the_best_wins(toy: Generator, pictures: np.ndarray) -> None:
    one = invert(pictures, toy, amortised=False)
    three = invert(pictures, toy, amortised=False, restarts=3)
    assert (three.evaluations > one.evaluations).all()
    assert three.loss.max() <= one.loss.max() + 1e-6 and three.start.max() <= 2


def test_early_stops_cost_little_accuracy(toy: Generator) -> None:
    noise = np.random.default_rng(0).normal(0.0, 0.02, (4, 64, 64))
    pictures = np.clip(toy.sample(4, seed=2) + noise, 0.0, 1.0)
    early = invert(pictures, toy)
    full = invert(pictures, toy, tolerance=0.0, floor=0.0)
    assert (early.stopped == "plateau").all()
    assert early.evaluations.sum() < full.evaluations.sum()
    np.testing.assert_allclose(early.pixel, full.pixel, rtol=2e-3)
    stopped = invert(pictures, toy, steps=2, tolerance=0.0, floor=0.0)
    assert (stopped.stopped == "steps").all() and (stopped.evaluations == 2).all()


def test_the_seed_decides_and_chunks_do_not(toy: Generator, pictures: np.ndarray) -> None:
    pictures = pictures[:3]
    one = invert(pictures, toy, restarts=2, seed=4)
    same(one, invert(torch.from_numpy(pictures)[:, None], toy, restarts=2, seed=4))
    small = invert(pictures, toy, restarts=2, seed=4, chunk=3)
    np.testing.assert_allclose(small.latent, one.latent, atol=2e-2)
    np.testing.assert_allclose(small.pixel, one.pixel, rtol=1e-2, atol=1e-4)
    other = invert(pictures, toy, restarts=2, seed=5, amortised=False)
    assert not np.array_equal(other.latent, one.latent)


def test_a_killed_run_goes_on_to_the_same_result(toy: Generator, pictures: np.ndarray, tmp_path: Path) -> None:
    whole = invert(pictures, toy, chunk=2)
    path = tmp_path / "deep" / "inversion.pt"
    encode, calls = toy.encode, 0
    assert encode is not None

    def failing(images: Tensor) -> Tensor:
        nonlocal calls
        calls += 1  # the first of every call is the one by which weights are told apart
        if calls == 4:
            raise KeyboardInterrupt
        return encode(images)

    with pytest.raises(KeyboardInterrupt):
        invert(pictures, Generator("toy", LATENT, decode=toy.decode, encode=failing), chunk=2, checkpoint=path)
    calls = 4
    again = Generator("toy", LATENT, decode=toy.decode, encode=failing)
    same(invert(pictures, again, chunk=2, checkpoint=path), whole)
    assert calls == 6, "two of three chunks were known"
    same(invert(pictures, again, chunk=2, checkpoint=path), whole)
    assert calls == 7, "all was known"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    with pytest.raises(BayesdfError, match="other images, settings or weights"):
        invert(pictures, toy, chunk=2, seed=1, checkpoint=path)
    invert(pictures[:1], toy, restarts=1, steps=12, checkpoint=tmp_path / "other.pt")
    with pytest.raises(BayesdfError, match="other images, settings or weights"):
        invert(pictures[:1], toy, restarts=11, steps=2, checkpoint=tmp_path / "other.pt")
    path.write_bytes(b"no checkpoint")
    with pytest.raises(BayesdfError, match="not a checkpoint"):
        invert(pictures, toy, chunk=2, checkpoint=path)


def test_a_checkpoint_of_an_earlier_version_is_read_or_named(
    toy: Generator, pictures: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 0.1.0 did not write its name, and called the latent `entropy`."""
    path = tmp_path / "inversion.pt"
    whole = invert(pictures[:2], toy, steps=3, checkpoint=path)
    state = torch.load(path, weights_only=True)
    assert state.pop("version") == __version__
    state["parts"] = [{"entropy" if name == "latent" else name: part[name] for name in part} for part in state["parts"]]
    torch.save(state, path)
    monkeypatch.setattr(search, "descend", lambda *_: pytest.fail("searched again"))
    same(invert(pictures[:2], toy, steps=3, checkpoint=path), whole)
    for module in (search, loss):
        monkeypatch.setattr(module, "__version__", "9.0")
    with pytest.raises(
        BayesdfError, match=r"inversion.pt was written by bayesdf 0.1.0, but this is 9.0: .* delete"
    ) as raised:
        invert(pictures[:2], toy, steps=3, checkpoint=path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 32, 32), np.float32), r"shape \(2, 1, 32, 32\)"),
        (np.zeros((2, 3, 64, 64), np.float32), r"shape \(2, 3, 64, 64\)"),
        (np.zeros((0, 64, 64), np.float32), r"shape \(0, 1, 64, 64\)"),
        (np.zeros((64, 64), np.float32), r"shape \(64, 64\)"),
        (np.zeros((1, 64, 64), np.uint8), "floats in"),
        (np.full((1, 64, 64), np.nan, np.float32), "image 0 has NaN"),
        (np.full((1, 64, 64), 1.5, np.float32), "from 1.5 to 1.5"),
    ],
)
def test_bad_images_are_told_in_one_line(toy: Generator, images: np.ndarray, message: str) -> None:
    with pytest.raises(BayesdfError, match=message) as raised:
        invert(images, toy)
    assert "\n" not in str(raised.value)


def flat(z: Tensor) -> Tensor:
    return z.sum(1).view(-1, 1, 1, 1).expand(-1, 1, 64, 64)


@pytest.mark.parametrize(
    ("decode", "encode", "message"),
    [
        (None, None, "no `decode`"),
        (lambda z: flat(z)[:, 0], None, "decode makes"),
        (lambda z: flat(z) * torch.nan, None, "NaN or infinite"),
        (lambda z: flat(z).detach(), None, "not differentiable"),
        (lambda z: torch.ones(len(z), 1, 64, 64, requires_grad=True) * 0.5, None, "not differentiable"),
        (flat, lambda x: x.flatten(1), "encode makes"),
        (flat, lambda x: torch.full((len(x), 3), torch.nan), "encode makes"),
    ],
)
def test_generators_that_cannot_be_inverted(
    decode: Callable[[Tensor], Tensor] | None, encode: Callable[[Tensor], Tensor] | None, message: str
) -> None:
    with pytest.raises(BayesdfError, match=message) as raised:
        invert(np.full((1, 64, 64), 0.5, np.float32), Generator("odd", 3, decode=decode, encode=encode))
    assert "generator odd" in str(raised.value) and "\n" not in str(raised.value)
    if encode is not None:
        odd = forgiving(Generator("odd", 3, decode=decode, encode=encode))
        with pytest.raises(BayesdfError, match="generator odd: encode makes"):
            invert(np.full((1, 64, 64), 0.5, np.float32), odd)


@pytest.mark.parametrize(
    "settings", [{"restarts": 0}, {"steps": 0}, {"chunk": 0}, {"tolerance": -1.0}, {"floor": float("nan")}]
)
def test_settings_out_of_range(toy: Generator, pictures: np.ndarray, settings: dict) -> None:
    with pytest.raises(BayesdfError, match=next(iter(settings))):
        invert(pictures, toy, **settings)


@pytest.mark.parametrize("values", [(-1.0, 1.0, 1.0, 0.0), (0.0, 0.0, 0.0, 0.1), (1.0, float("nan"), 1.0, 0.1)])
def test_weights_out_of_range(values: tuple[float, ...]) -> None:
    with pytest.raises(BayesdfError, match="weights"):
        Weights(*values)


def test_edge_strengths_forgive_small_shifts() -> None:
    """Relative to their size they change less than pixels do when a picture moves by a pixel; flat ones have none."""
    picture = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    picture = torch.nn.functional.interpolate(picture, size=(64, 64), mode="bicubic").clamp(0.0, 1.0)
    moved = picture.roll(1, -1)

    def change(one: Tensor, other: Tensor) -> float:
        return float((one - other).norm() / (one - one.mean()).norm())

    there = perceptual.features(picture)
    assert there.shape == (1, 1344)
    assert change(there, perceptual.features(moved)) < 0.8 * change(picture, moved)
    assert perceptual.features(torch.full((1, 1, 64, 64), 0.7)).max() < 2e-3


def test_a_generator_may_be_named(monkeypatch: pytest.MonkeyPatch, toy: Generator, pictures: np.ndarray) -> None:
    monkeypatch.setitem(GENERATORS, "toy", toy)
    same(invert(pictures[:1], "toy", steps=3), invert(pictures[:1], toy, steps=3))
    with pytest.raises(BayesdfError, match="the generator is 'dcgn', but must be a Generator, or one of vae, dcgan"):
        invert(pictures, "dcgn")
    with pytest.raises(BayesdfError, match="the generator is a Sequential"):
        invert(pictures, nn.Sequential())  # type: ignore[arg-type]

"""What the benchmarks measure with: an interval, the published inversion, mirrored draws, maps by the plain way."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from bayesdf.generators import Generator

FOLDER = Path(__file__).parents[1] / "benchmarks"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        spec.loader.exec_module(module)
    return module


def linear(name: str, seed: int) -> Generator:
    """Pictures around grey, a sum of four fixed patterns."""
    patterns = torch.randn(4, 64 * 64, generator=torch.Generator().manual_seed(seed)) * 0.05
    return Generator(name, latent_dim=4, decode=lambda latent: (0.5 + latent @ patterns).view(-1, 1, 64, 64))


def test_published_inversion_finds_the_picture_and_its_source() -> None:
    benchmark = load("inversion")
    makers = [linear("one", 1), linear("other", 2)]
    pictures = np.concatenate([maker.decode(maker.sample_latent(2, 3))[:, 0].numpy() for maker in makers])  # type: ignore[misc]
    paths = np.stack([benchmark.published(pictures, maker, seed=0) for maker in makers], 1)
    assert paths.shape == (500, 2, 4)
    assert (np.diff(paths, axis=0) <= 0).all()  # the lowest so far
    assert paths[-1].argmin(0).tolist() == [0, 0, 1, 1]
    # The other's patterns explain a share of about 4 of 4096 of what is left.
    spread = ((pictures - 0.5) ** 2).mean((1, 2))
    assert (paths[-1][[0, 0, 1, 1], range(4)] < 0.02 * spread).all()
    assert (paths[-1][[1, 1, 0, 0], range(4)] > 0.95 * spread).all()


def test_squared_error_counts_the_generators_own_pixels() -> None:
    benchmark = load("inversion")
    region = np.zeros((64, 64), np.float32)
    region[:32] = 1.0
    flat = Generator("flat", latent_dim=1, decode=lambda z: z.view(-1, 1, 1, 1).expand(-1, 1, 64, 64), region=region)
    picture = torch.zeros(1, 1, 64, 64)
    picture[..., 32:, :] = 9.0
    assert benchmark.squared_error(flat, torch.tensor([[0.5]]), picture).item() == pytest.approx(0.25)


def test_paired_difference_of_few_images_is_no_certainty() -> None:
    difference = load("inversion").paired_difference
    alike = difference(np.ones(18, bool), np.ones(18, bool))
    bound = 1 - 0.0125 ** (1 / 18)  # none of 18 at 97.5 %, both sides
    assert alike == pytest.approx((0.0, -bound, bound))
    one, other = np.arange(40) < 30, np.arange(40) % 2 == 0
    value, low, high = difference(one, other)
    assert value == pytest.approx(0.25)
    assert difference(other, one) == pytest.approx((-value, -high, -low))


def test_paired_difference_covers() -> None:
    difference, rng = load("inversion").paired_difference, np.random.default_rng(0)
    held = []
    for _ in range(400):
        state = rng.choice(3, size=18, p=[0.7, 0.2, 0.1])  # alike, for one alone, for the other alone
        _, low, high = difference(state != 2, state != 1)
        held.append(low <= 0.1 <= high)
    assert np.mean(held) >= 0.95


def test_mirrored_draws_are_pairs_that_can_be_made_again() -> None:
    benchmark = load("antithetic")
    loc, scale = {"a": torch.randn(3, 2), "b": torch.randn(5)}, {"a": torch.full((3, 2), 0.3), "b": torch.ones(5)}
    kinds = {"a": "real", "b": "positive"}
    plain, mirrored = benchmark.NormalSampler(loc, scale, kinds), benchmark.Mirrored(loc, scale, kinds)
    draws = [mirrored.draw(index, 7) for index in range(4)]
    for index in (3, 0, 2, 1):
        again = benchmark.Mirrored(loc, scale, kinds).draw(index, 7)
        assert all(torch.equal(again[name], draws[index][name]) for name in loc)
    for pair in range(2):
        even, odd = draws[2 * pair], draws[2 * pair + 1]
        assert all(torch.equal(even[name], plain.draw(pair, 7)[name]) for name in loc)
        torch.testing.assert_close(even["a"] + odd["a"], 2 * loc["a"])
        torch.testing.assert_close(even["b"].log() + odd["b"].log(), 2 * loc["b"])


def test_pairs_of_an_odd_figure_are_opposite_and_of_an_even_one_alike() -> None:
    half = np.random.default_rng(0).standard_normal((200, 5))
    margin = np.stack([half, -half], 1).reshape(400, 5)
    rho = load("antithetic").pair_correlations(np.stack([np.zeros_like(margin), margin], -1))
    assert np.allclose(rho["margin (mean margin, profile)"], -1.0)
    assert np.allclose(rho["probability (mean probability)"], -1.0)  # symmetric around a half
    for name in ("squared deviation of the margin (log_margin_sd)", "entropy of a draw (aleatoric)"):
        assert np.allclose(rho[name], 1.0)


def test_maps_of_a_loop_over_draws_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark = load("maps")

    class Saliency:
        """What captum's does."""

        def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
            self.function = function

        def attribute(self, images: torch.Tensor, target: int | None = None) -> torch.Tensor:
            pixels = images.detach().requires_grad_()
            value = self.function(pixels)
            value = value if target is None else value[:, target]
            return torch.autograd.grad(value.sum(), pixels)[0].abs()

    monkeypatch.setattr(benchmark.peers, "installed", lambda name: SimpleNamespace(Saliency=Saliency))
    torch.manual_seed(0)
    network = benchmark.build("resnet10t_half", 2).eval()
    posterior = benchmark.posterior_over(network, ["fc"])
    images = benchmark.images_of(2, 32).tensors[0]
    maps = benchmark.uncertainty_maps(posterior, images, "gradient", 3, quantities=benchmark.QUANTITIES)["maps"]
    for name, expected in benchmark.captum_loop(network, posterior, images, 3).items():
        np.testing.assert_allclose(maps[name], expected, atol=1e-3 * float(expected.max()))
    figures = benchmark.row("resnet10t_half", 32, 2, 3, 1, torch.device("cpu"))
    assert {name for name in figures if "/" in name} == {
        "gradient / saliency",
        "evidence / forward",
        "gradient / captum, one map",
        "captum loop / saliency",
    }
    monkeypatch.setattr(benchmark.peers, "installed", lambda name: None)
    assert not any("captum" in name for name in benchmark.row("resnet10t_half", 32, 2, 3, 1, torch.device("cpu")))


def test_ratios_are_of_the_same_turn() -> None:
    found = {"one": [2.0, 30.0, 4.0], "unit": [1.0, 10.0, 1.0]}
    assert load("maps").ratio(found, "one", "unit") == 3.0

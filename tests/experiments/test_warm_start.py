"""The point estimate that posteriors start from."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import bayesdf.data as data
from bayesdf.errors import BayesdfError
from bayesdf.experiments import warm_start
from bayesdf.faces.people import FOLDS


@pytest.fixture(scope="module")
def collection(photos: Path) -> data.Collection:
    return data.load(photos, size=32)


def test_weights_come_back_in_half_precision(collection: data.Collection, tmp_path: Path) -> None:
    network = warm_start.build_untrained("mobilenet", collection)
    warm_start.write(network, tmp_path / "weights.safetensors")
    again = warm_start.load(tmp_path / "weights.safetensors", "mobilenet", collection)
    for (name, value), other in zip(network.state_dict().items(), again.state_dict().values(), strict=True):
        torch.testing.assert_close(value, other, rtol=1e-3, atol=1e-6, msg=name)


def test_a_kept_start_is_used_and_a_damaged_one_refused(collection: data.Collection, tmp_path: Path) -> None:
    keep = tmp_path / "weights.safetensors"
    first = warm_start.start("mobilenet", collection, keep=keep, epochs=0, seed=1, device="cpu")
    again = warm_start.start("mobilenet", collection, keep=keep, epochs=0, seed=2, device="cpu")
    torch.testing.assert_close(first.conv_stem.weight, again.conv_stem.weight, rtol=1e-3, atol=1e-6)
    keep.write_bytes(keep.read_bytes()[:1000])
    with pytest.raises(BayesdfError, match=r"warm start at .* cannot be read"):
        warm_start.start("mobilenet", collection, keep=keep, epochs=0, seed=1, device="cpu")


def test_every_network_of_the_study_has_its_priors(collection: data.Collection) -> None:
    from bayesdf.models import Detector

    for name in warm_start.GAINS:
        network = warm_start.build_untrained(name, collection)
        sites = Detector(network, warm_start.default_priors(name, network)).sites
        assert 3 <= len(sites) <= 4, name
        wider = Detector(network, warm_start.default_priors(name, network, "block")).sites
        whole = Detector(network, warm_start.default_priors(name, network, "network")).sites
        assert set(sites) < set(wider) < set(whole) == {key for key, _ in network.named_parameters()}, name


def test_weights_ship_for_the_default_detector_and_data_alone(collection: data.Collection) -> None:
    assert warm_start.ships("resnet10t_half", data.load("embedded"))
    assert all(warm_start.shipped("resnet10t_half", fold=fold).stat().st_size < 3e6 for fold in range(FOLDS))
    assert warm_start.ships("resnet18", data.load("embedded"), "sources")
    assert not warm_start.ships("resnet18", data.load("embedded"))
    assert not warm_start.ships("resnet10t_half", collection)
    assert not warm_start.ships("mobilenet", data.load("embedded"))


def test_weights_that_saw_a_generator_do_not_serve_where_it_is_left_out(
    collection: data.Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest, _ = data.leave_out(data.load("embedded"), "diffusion")
    assert not warm_start.ships("resnet10t_half", rest) and warm_start.digest("resnet10t_half", rest) == ""
    monkeypatch.setattr(warm_start, "WEIGHTS", tmp_path)
    network = warm_start.build_untrained("mobilenet", rest)
    warm_start.write(network, warm_start.shipped("mobilenet", "blind", ("diffusion",)))
    assert [path.name for path in tmp_path.iterdir()] == ["mobilenet-without-diffusion.safetensors"]
    assert warm_start.ships("mobilenet", rest) and len(warm_start.digest("mobilenet", rest)) == 16
    assert not warm_start.ships("mobilenet", data.leave_out(data.load("embedded"), "vae")[0])
    assert not warm_start.ships("mobilenet", data.load("embedded"))
    given = warm_start.start("mobilenet", rest, keep=tmp_path / "none", epochs=9, seed=0, device="cpu")
    torch.testing.assert_close(given.conv_stem.weight, network.conv_stem.weight, rtol=1e-3, atol=1e-6)


def test_weights_of_another_fold_are_never_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have seen the people of this fold's test."""
    monkeypatch.setattr(warm_start, "WEIGHTS", tmp_path)
    first = data.load("embedded")
    second = replace(first, fold=1)
    warm_start.write(warm_start.build_untrained("mobilenet", first), warm_start.shipped("mobilenet"))
    assert warm_start.ships("mobilenet", first) and not warm_start.ships("mobilenet", second)
    warm_start.write(warm_start.build_untrained("mobilenet", first, seed=1), warm_start.shipped("mobilenet", fold=1))
    assert {path.name for path in tmp_path.iterdir()} == {"mobilenet.safetensors", "mobilenet-fold1.safetensors"}
    digests = {warm_start.digest("mobilenet", given) for given in (first, second)}
    assert len(digests) == 2 and "" not in digests
    for changed in (data.relabel(second, "multiclass"), data.leave_out(second, "vae")[0], data.thin(second, 2)):
        assert changed.fold == 1


def test_the_command_leaves_a_generator_out(
    collection: data.Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[data.Collection] = []

    def train(name: str, given: data.Collection, **settings: object) -> torch.nn.Module:
        trained.append(given)
        return warm_start.build_untrained(name, given)

    monkeypatch.setattr(warm_start, "WEIGHTS", tmp_path)
    monkeypatch.setattr(warm_start, "point_estimate", train)
    manifest = collection.manifest.drop(columns="label")
    monkeypatch.setattr(warm_start.embedded, "read", lambda variants, fold: (collection.train.images, manifest, None))
    warm_start.main("mobilenet", "sources", 1, "blur", seed=0, device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["mobilenet-sources-without-blur.safetensors"]
    warm_start.main("mobilenet", epochs=1, without="blur", fold=1, seed=0, device="cpu")
    stems = {path.stem for path in tmp_path.iterdir()}
    assert stems == {"mobilenet-sources-without-blur", "mobilenet-without-blur-fold1"}
    assert [given.fold for given in trained] == [0, 1]
    assert set(trained[0].manifest["source"]) == {"real", "edges"}
    with pytest.raises(BayesdfError, match="no generator 'magic' to leave out"):
        warm_start.main("mobilenet", epochs=1, without="magic", seed=0, device="cpu")
    with pytest.raises(BayesdfError, match="--start magic: choose from blind, sources"):
        warm_start.main("mobilenet", "magic")


def test_the_progress_bar_says_that_it_is_the_point_estimate(
    collection: data.Collection, capsys: pytest.CaptureFixture[str]
) -> None:
    warm_start.point_estimate("mobilenet", collection, epochs=1, device="cpu")
    shown = capsys.readouterr().out
    assert "PointEstimate" in shown and "MCDropout" not in shown

"""Where is the detector unsure: the experiment from the command line to the page, on few images."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import bayesdf as bdf
import bayesdf.data as data
from bayesdf.errors import BayesdfError
from bayesdf.experiments.uncertainty_maps import conveyance, dense, faithfulness, localisation, sanity
from bayesdf.experiments.uncertainty_maps.halves import halves
from bayesdf.experiments.uncertainty_maps.localisation import MADE
from bayesdf.experiments.uncertainty_maps.page import answer, headline
from bayesdf.experiments.uncertainty_maps.setting import masks_of, of_main_job
from bayesdf.experiments.uncertainty_maps.tables import best, estimate_of, is_own
from bayesdf.experiments.uncertainty_maps.tables import localisation as localisation_table
from bayesdf.inference.maps.integrated_gradient import IntegratedGradient
from bayesdf.inference.maps.occlusion import Occlusion
from bayesdf.inference.maps.smooth_gradient import SmoothGradient
from bayesdf.inference.maps.superpixels import Superpixels
from bayesdf.models import build

COMMAND = [sys.executable, "-m", "bayesdf.experiments.uncertainty_maps"]


@pytest.fixture(scope="module")
def collection() -> data.Collection:
    return data.thin(data.load("embedded", "binary"), 5)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, collection: data.Collection) -> Path:
    """A whole run on few images, with coarse maps."""
    from bayesdf.experiments.uncertainty_maps.__main__ import main

    out = tmp_path_factory.mktemp("maps") / "run"
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(sanity, "STEPS", 2)
        patch.setattr(sanity, "IMAGES", 1)
        patch.setattr(faithfulness, "IMAGES", 1)
        small = {
            "smooth_gradient": SmoothGradient(copies=1),
            "integrated_gradient": IntegratedGradient(steps=2),
            "occlusion": Occlusion(patch=32),
            "superpixels": Superpixels(segments=4),
        }
        for name, made in small.items():
            patch.setitem(MADE, name, made)
        main(out=out, images=2, draws=4, quick=True)
    return out


@pytest.mark.slow
def test_a_run_is_whole(run: Path) -> None:
    tree = bdf.open_run(run)
    assert {"localisation", "faithfulness", "sanity", "conveyance", "dense", "source"} <= set(tree.children)
    assert {path.stem for path in (run / "figures").glob("*.png")} >= {"maps", "localisation", "curves", "regions"}
    page = (run / "report.html").read_text()
    assert "Where is the detector unsure" in page and answer(tree, _tables(run)).split(".")[0] in page
    metrics = json.loads((run / "metrics.json").read_text())
    table = pd.read_csv(run / "tables" / "localisation.csv", index_col=0)
    for name in table.index:
        assert metrics[f"localisation.{name}.auroc"] == pytest.approx(table["auroc"][name])


def _tables(run: Path) -> dict[str, pd.DataFrame]:
    return {path.stem: pd.read_csv(path, index_col=0) for path in (run / "tables").glob("*.csv")}


@pytest.mark.slow
def test_position_scores_one_half_on_halves_and_maps_keep_their_scale(run: Path) -> None:
    """Regions' shares add to one, and evidence averages to the images' logits: what the store says obeys identities."""
    tree = bdf.open_run(run)
    regions = tree["source/regions"].to_dataset()
    np.testing.assert_allclose(regions["share"].sum("region"), 1.0, rtol=1e-6)
    for name in MADE:
        maps = tree[f"localisation/maps/{name}"].to_dataset()
        np.testing.assert_allclose(maps["total"], maps["aleatoric"] + maps["epistemic"], atol=2e-4) if maps.attrs[
            "signed"
        ] or name == "evidence" else None
        assert np.isfinite(maps["p_fake"]).all()


@pytest.mark.slow
def test_the_best_map_is_chosen_by_validation_people_alone(run: Path) -> None:
    tree = bdf.open_run(run)
    groups = {node.path: node.to_dataset(inherit=False) for node in tree.subtree}
    other = groups["/localisation/test/halves"]
    groups["/localisation/test/halves"] = other.assign(auroc=1.0 - other["auroc"])
    assert best(xr.DataTree.from_dict(groups)) == best(tree)
    scores = groups["/localisation/val/halves"]["auroc"].mean("image")
    own = [name for name in scores["map"].values if is_own(name) and not name.endswith(":p_fake")]
    assert best(tree) == str(own[int(scores.sel(map=own).values.argmax())])


@pytest.mark.slow
def test_paired_differences_are_those_of_the_stored_scores(run: Path) -> None:
    tree = bdf.open_run(run)
    table = localisation_table(tree)
    scores = tree["localisation/test/whole"].to_dataset()["auroc"]
    name = "gradient:epistemic"
    expected = float((scores.sel(map=name) - scores.sel(map="centred")).mean())
    assert table["over_centred"][name] == pytest.approx(expected)


def test_half_changed_fakes_are_fake_on_one_side_and_photograph_on_the_other(collection: data.Collection) -> None:
    """Only marked pixels may differ from the photograph by more than what JPEG does; position scores one half."""
    test = collection.test
    photographs = test.take(test.labels.numpy() == 0)
    half = halves(test, photographs, seed=3)
    assert half is not None
    place = {path: row for row, path in enumerate(test.manifest["path"])}
    inside, outside = half.masks.values > 0.5, half.within.values & ~(half.masks.values > 0.5)
    for row, path in enumerate(half.masks["path"].values):
        fake = test[place[str(path)]][0]
        photograph = test[place["real/" + str(path).split("/", 1)[1]]][0]
        picture = half.images[row]
        torch.testing.assert_close(picture[:, inside[row]], fake[:, inside[row]])
        torch.testing.assert_close(picture[:, outside[row]], photograph[:, outside[row]])
    centred = bdf.analysis.localisation(bdf.analysis.centred_gaussian(half.masks), half.masks, within=half.within)
    mean = bdf.analysis.mean_over_images(centred)["auroc"].sel(estimate=["low", "high"]).values
    assert mean[0] < 0.5 < mean[1]


def test_the_map_of_another_picture_is_of_the_same_source_and_another_person(collection: data.Collection) -> None:
    partly = collection.test.take((collection.test.manifest["mask"] == "part").to_numpy())
    numbers = masks_of(partly).copy(
        data=np.broadcast_to(np.arange(len(partly), dtype=float)[:, None, None], partly.masks.shape)
    )
    other = localisation._of_others(numbers).values[:, 0, 0].astype(int)
    source, subject = partly.manifest["source"].to_numpy(), partly.manifest["subject"].to_numpy()
    assert (source[other] == source).all()
    assert (subject[other] != subject).all()


@pytest.mark.parametrize("kind", conveyance.PATCHES)
def test_a_patch_is_where_its_mask_says(kind: str) -> None:
    images = torch.full((5, 3, 32, 32), 0.5)
    patched, place = conveyance.paste(images, kind, seed=1)
    assert (place.flatten(1).sum(1) == 64).all()
    assert (patched - images).abs().sum(1)[~place].max() == 0.0
    assert patched.min() >= 0.0 and patched.max() <= 1.0
    assert (patched - images).abs().sum(1)[place].mean() > 0.1
    again, _ = conveyance.paste(images, kind, seed=1)
    torch.testing.assert_close(again, patched)


def test_bad_input_gets_one_line(tmp_path: Path) -> None:
    said = [
        (["--regions", "guess"], "choose auto or template"),
    ]
    for arguments, expected in said:
        done = subprocess.run(
            [*COMMAND, "--out", str(tmp_path / "out"), *arguments],
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 2 and expected in done.stderr, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_run_is_refused(collection: data.Collection, tmp_path: Path) -> None:
    with pytest.raises(BayesdfError, match="is no run of source_attribution"):
        of_main_job(tmp_path, "svi", "resnet10t_half", collection)
    (tmp_path / "posteriors").mkdir()
    assert of_main_job(tmp_path, "svi", "resnet10t_half", collection) is None


@pytest.mark.slow
def test_a_posterior_of_another_network_is_refused(run: Path, collection: data.Collection) -> None:
    with pytest.raises(BayesdfError, match="is of resnet10t_half, and --detector is resnet18"):
        of_main_job(run, "svi", "resnet18", collection)
    with pytest.raises(BayesdfError, match="fitted on other images"):
        of_main_job(run, "svi", "resnet10t_half", collection)


@pytest.mark.slow
def test_the_screen_and_the_tables_say_the_same_of_the_dense_detector(run: Path) -> None:
    tree, made = bdf.open_run(run), _tables(run)
    rows = headline(tree, made)
    for name in ("dense", "mean mask"):
        said = rows[f"    {name}: calibration error of pixels"]
        assert said == str(estimate_of(made["dense"], name.replace(" ", "_"), "ece"))
    assert set(made["sparsification"].index) == {"total", "aleatoric", "epistemic", "position"}


def test_the_dense_head_depends_on_the_seed_alone(collection: data.Collection, tmp_path: Path) -> None:
    """Whatever ran before: a stopped run goes on with the same detector."""
    heads = []
    for state in (0, 1):
        torch.manual_seed(state)
        heads.append(dense.network_of(build("resnet10t_half", 2, small_stem=True), collection, seed=3).head.weight)
    torch.testing.assert_close(heads[0], heads[1])


def test_data_without_masks_is_refused(collection: data.Collection) -> None:
    from bayesdf.experiments.uncertainty_maps.study import _refuse_without_masks

    manifest = collection.manifest.drop(columns=["label", "mask"])
    without = data.collect(np.asarray(collection.train.images), manifest, "binary", "mine", "")
    with pytest.raises(BayesdfError, match="have a mask of changed pixels"):
        _refuse_without_masks(without)

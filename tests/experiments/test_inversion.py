"""The inversion study on small generators: what it writes, that it repeats and resumes, and its parts by themselves."""

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import xarray as xr
from torch import Tensor, nn

import bayesdf as bdf
from bayesdf import analysis
from bayesdf.cli import run_cli
from bayesdf.data import common_path_grey
from bayesdf.errors import BayesdfError
from bayesdf.experiments import inversion
from bayesdf.experiments.experiment import Study
from bayesdf.experiments.inversion import __main__ as command
from bayesdf.experiments.inversion.attacks import adaptive_round, pgd_attack
from bayesdf.experiments.inversion.classifier import classify, train
from bayesdf.experiments.inversion.pictures import ROLES, Pictures, make_pictures
from bayesdf.experiments.inversion.plan import Plan
from bayesdf.experiments.inversion.study import study, work
from bayesdf.experiments.inversion.tables import metrics, open_set, tables
from bayesdf.experiments.outputs import write_metrics
from bayesdf.faces import Faces, photographs
from bayesdf.faces import people as people_in
from bayesdf.generators import GENERATORS, Generator
from bayesdf.generators.fakes import NOBODY, Fakes
from bayesdf.inversion import NONE, attribute, evidence_model, invert, load_attribution, preconditioner

PLAN = Plan(images=3, calibration=4, train=20, disturbed=2, strengths=1, budgets=(8.0,), rounds=2, steps=4, epochs=8)


def plane(name: str, seed: int, grid: int) -> Generator:
    """Pictures on a plane through grey, as rough as the grid is fine: a latent of eight values."""
    source = torch.Generator().manual_seed(seed)
    coarse = torch.randn(8, 1, grid, grid, generator=source)
    axes = F.interpolate(coarse, size=(64, 64), mode="bicubic").flatten(1)

    def decode(latent: Tensor) -> Tensor:
        return 0.5 + 0.25 * torch.tanh(0.5 * (latent @ axes)).view(-1, 1, 64, 64)

    def encode(images: Tensor) -> Tensor:
        return 2.0 * torch.atanh((4.0 * (images.flatten(1) - 0.5)).clamp(-0.99, 0.99)) @ torch.linalg.pinv(axes)

    return Generator(name, 8, decode=decode, encode=encode)


def mirrored(faces: Faces, rng: np.random.Generator) -> Fakes:
    return Fakes(faces.images[..., ::-1].copy(), np.full(len(faces), NOBODY), np.ones_like(faces.images))


pytestmark = pytest.mark.filterwarnings("ignore:few independent calibration images")
CANDIDATES = {
    name: plane(name, seed, grid) for seed, (name, grid) in enumerate({"ann": 4, "bob": 8, "cid": 16}.items())
}
SOURCES = {**CANDIDATES, "mirror": Generator("mirror", manipulate=mirrored)}


@pytest.fixture(scope="module")
def hasty() -> Iterator[pytest.MonkeyPatch]:
    """Short fits, few probes and resamples: how good these are is not what is tested here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence_model, "WARMUP", 30)
        patch.setattr(evidence_model, "THINNING", 1)
        patch.setattr(preconditioner, "PROBES", 32)
        patch.setattr(analysis, "cluster_bootstrap", partial(analysis.cluster_bootstrap, resamples=40))
        yield patch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def tree(hasty: pytest.MonkeyPatch, folder: Path) -> xr.DataTree:
    return work(SOURCES, CANDIDATES, PLAN, folder)


def test_it_names_the_planes(tree: xr.DataTree) -> None:
    answer = tree["attribution/inversion"].to_dataset()
    assert set(answer["source"].values) == {"real", *SOURCES, NONE}
    np.testing.assert_allclose(answer["probability"].sum("source"), 1.0)
    summary = tree["attribution"].to_dataset(inherit=False)
    assert (
        summary["accuracy_candidates"].sel({"estimate": "value", "method": ["inversion", "smallest_error"]}) == 1.0
    ).all()
    evidence = tree["evidence/evidence"]
    assert evidence.dims == ("image", "candidate", "term") and evidence.sizes["image"] == 5 * PLAN.images
    for name in CANDIDATES:
        own = evidence.sel(candidate=name, term="pixel")
        mine = (own["source"] == name).values
        assert own[mine].max() < own[~mine].min()


def test_a_plane_left_out_is_none_of_these(tree: xr.DataTree) -> None:
    assert (open_set(tree)["auc"] > 0.7).all()


def test_the_classifier_falls_to_its_own_attack(tree: xr.DataTree) -> None:
    attack = tree["attack"].to_dataset()
    right = attack["right"].sel({"method": "classifier"}).mean("image").values
    kind, strength = attack["kind"].values, attack["strength"].values
    before, after = right[kind == "none"][0], right[(kind == "classifier") & (strength == 8.0)][0]
    assert before > 0.5 and after < before - 0.2


def test_users_pictures_are_attributed(tree: xr.DataTree, folder: Path) -> None:
    model = load_attribution(folder / "attribution.zarr")
    picture = CANDIDATES["bob"].sample(2, 99).repeat(2, axis=1).repeat(2, axis=2)
    colour = np.stack([picture] * 3, axis=-1)
    for images in (picture, colour):
        answer = attribute(images, model, candidates=CANDIDATES, steps=PLAN.steps)
        assert answer["probability"].dims == ("image", "source")
        assert list(answer["prediction"].values) == ["bob", "bob"]
    with pytest.raises(BayesdfError, match="give grey"):
        attribute(picture[0], model, candidates=CANDIDATES)
    for wrong in (np.nan, np.inf, 200.0, -0.5):
        with pytest.raises(BayesdfError, match="image 1 has values"):
            attribute(np.concatenate([picture[:1], picture[1:] * 0 + np.float32(wrong)]), model, candidates=CANDIDATES)
    with pytest.raises(BayesdfError, match="floats in"):
        attribute((255 * picture).astype(np.uint8), model, candidates=CANDIDATES)
    with pytest.raises(BayesdfError, match="'ann', which is not at hand"):
        attribute(picture, model, candidates={"bob": CANDIDATES["bob"]})


# Attacks.


def test_an_attack_stays_within_its_budget() -> None:
    images = common_path_grey(photographs().images[::80])
    network = nn.Sequential(nn.Flatten(), nn.Linear(4096, 3))
    count = len(images)
    whole = np.ones((count, 64, 64), np.float32)
    others = images[::-1].copy()
    for budget in (1.0, 8.0):
        made = [pgd_attack(network, images, np.arange(count) % 3, budget)]
        made.append(
            adaptive_round(images, images, np.full(count, budget), images, others, whole[:, 0, 0] > 0, (whole, whole))
        )
        for changed in made:
            assert np.abs(changed - images).max() <= budget / 255 + 1e-6
            assert changed.min() >= 0.0 and changed.max() <= 1.0
            assert np.abs(changed - images).max() > 0.5 * budget / 255
            np.testing.assert_allclose(255 * changed, np.round(255 * changed), atol=1e-3)


def test_an_attack_raises_the_loss() -> None:
    torch.manual_seed(0)
    images = common_path_grey(photographs().images[::40])
    label = np.arange(len(images)) % 2
    network = nn.Sequential(nn.Flatten(), nn.Linear(4096, 2))
    changed = pgd_attack(network, images, label, 4.0)
    losses = [
        F.cross_entropy(network(torch.from_numpy(x)[:, None]), torch.from_numpy(label)) for x in (images, changed)
    ]
    assert losses[1] > losses[0] + 0.2


def test_misleading_brings_the_rival_nearer() -> None:
    generators = [CANDIDATES["ann"], CANDIDATES["bob"]]
    images = common_path_grey(generators[0].sample(4, 7), None)
    own, rival = (invert(images, one, steps=30) for one in generators)
    whole = np.ones((4, 64, 64), np.float32)
    changed = adaptive_round(
        images, images, np.full(4, 8.0), own.reconstruction, rival.reconstruction, np.ones(4, bool), (whole, whole)
    )
    after = [invert(changed, one, steps=30) for one in generators]
    assert (after[0].pixel > 2 * own.pixel).all()
    assert (np.log(after[1].loss / after[0].loss) < np.log(rival.loss / own.loss)).all()


def test_a_classifier_learns_and_repeats() -> None:
    pictures = make_pictures(CANDIDATES, "train", 24, 0)
    names = ["ann", "bob", "cid", "real"]
    learnt = train(pictures, names, augment=True, epochs=8, seed=1)
    answer = classify(learnt, names, pictures)
    assert (answer["prediction"] == answer["truth"]).mean() > 0.6
    first, again = (train(pictures, names, augment=True, epochs=1, seed=1) for _ in range(2))
    for one, other in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other)


def test_pictures_of_the_roles_share_no_person() -> None:
    drawn = {role: make_pictures(SOURCES, role, 5, 0) for role in ROLES}
    for role, pictures in drawn.items():
        assert isinstance(pictures, Pictures) and len(pictures) == 5 * 5
        for other in set(drawn) - {role}:
            people = [set(part.subject[np.isin(part.source, ["real", "mirror"])]) for part in (pictures, drawn[other])]
            assert not people[0] & people[1]
            assert people[0] <= set(people_in()["train" if role == "train" else "test"])  # which no generator has seen
            assert not np.array_equal(pictures.images, drawn[other].images)


# The command line.


def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> tuple[object, str]:
    monkeypatch.setattr("sys.argv", ["inversion", *arguments])
    monkeypatch.setattr("warnings.showwarning", None)
    with pytest.raises(SystemExit) as left:
        run_cli(command.main)
    return left.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--candidates", "ann,dan"], "unknown generator 'dan': choose candidates from ann, bob, cid"),
        (["--candidates", "ann,mirror"], "'mirror' cannot be inverted: choose candidates from ann, bob, cid"),
        (["--candidates", "ann"], "two candidates or more"),
        (["--candidates", ","], "two candidates or more"),
        (["--images", "1"], "--images 1: give 4 to 1000"),
        (["--steps", "1"], "--steps 1: give 2"),
        (["--out", "taken"], "taken holds other files"),
        (["--out", "file/below"], "cannot write to .*file/below"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "GENERATORS", SOURCES)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "x").write_text("mine")
    (tmp_path / "file").write_text("a file")
    status, said = call(monkeypatch, capsys, arguments)
    assert status == 2, said
    lines = [line for line in said.splitlines() if "bayesdf:" in line]
    assert len(lines) == 1 and re.search(message, lines[0]), said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "taken"]


def test_a_generator_without_weights_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lost(latent: Tensor) -> Tensor:
        raise BayesdfError("generator dan: weights are missing")

    monkeypatch.setattr(command, "GENERATORS", {**SOURCES, "dan": Generator("dan", 8, decode=lost)})
    status, said = call(monkeypatch, capsys, ["--out", str(tmp_path / "run"), "--quick", "--candidates", "ann,dan"])
    assert status == 2 and "bayesdf: generator dan: weights are missing" in said
    assert list(tmp_path.iterdir()) == []


def test_a_quick_look_inverts_three_candidates_unless_they_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[list[str], Plan]] = []

    def seen(sources: object, candidates: dict[str, Generator], plan: Plan, quick: bool) -> Study:
        asked.append((list(candidates), plan))
        raise BayesdfError("enough")

    monkeypatch.setattr(command, "study", seen)
    for arguments in (["--quick"], ["--quick", "--candidates", "vae,stylegan"], []):
        assert call(monkeypatch, capsys, [*arguments, "--out", str(tmp_path / "run")])[0] == 2
    chosen, plans = zip(*asked, strict=True)
    assert chosen == (["vae", "dcgan", "flow"], ["vae", "stylegan"], [n for n, g in GENERATORS.items() if g.invertible])
    assert plans[0] == plans[1] and plans[0].images < Plan.images and plans[2] == Plan()


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_a_complete_folder_and_the_same_result(
    hasty: pytest.MonkeyPatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped between two candidates. Then what is done is not done again, and the figures are those of one run."""
    monkeypatch.setattr(command, "GENERATORS", SOURCES)
    monkeypatch.setattr(evidence_model, "WARMUP", 20)
    declared: dict[str, Any] = {}

    def remembered(**given: Any) -> Study:
        declared.update(given)
        return study(**given)

    def stopping(images: np.ndarray, generator: Generator, **options: object) -> object:
        if Path(str(options["checkpoint"])).stem == "pictures_bob":
            raise KeyboardInterrupt
        return invert(images, generator, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(command, "study", remembered)
    out = tmp_path / "run"
    arguments = ["--quick", "--strict", "--steps", "2", "--candidates", "ann,bob", "--out", str(out)]
    with monkeypatch.context() as patch:
        patch.setattr(inversion.evidence, "invert", stopping)
        assert call(patch, capsys, arguments)[0] == 130
    with monkeypatch.context() as patch:
        for name in ("train", "make_pictures"):
            home = inversion.classifier if name == "train" else inversion.pictures
            patch.setattr(home, name, lambda *_, **__: pytest.fail("done again"))
        status, said = call(patch, capsys, arguments)
    assert status == 0 and "finished in" in said, said

    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    kept = {"attribution.zarr", "figures", "metrics.json", "report.html", "run.zarr", "settings.json", "tables"}
    assert {path.name for path in out.iterdir()} == kept
    tree = bdf.open_run(out)
    assert tree["attribution/inversion/probability"].dims == ("image", "source")
    assert "cid" not in tree["attribution/inversion"]["source"]
    flat = json.loads((out / "metrics.json").read_text())
    assert 0.0 <= flat["inversion.accuracy.low"] <= flat["inversion.accuracy"] <= 1.0
    assert {"open_set.ann.auc", "attack.classifier.8.inversion", "robustness.blur.2.classifier"} <= set(flat)
    assert len(list((out / "figures").iterdir())) == 9
    assert (out / "tables" / "throughput.csv").stat().st_size > 100
    page = (out / "report.html").read_text()
    assert 'src="http' not in page and "<script" not in page and "falls further" in page

    whole = work(declared["sources"], declared["candidates"], declared["plan"], tmp_path / "whole")
    write_metrics(tmp_path, metrics(whole, tables(whole)))
    assert (tmp_path / "metrics.json").read_text() == (out / "metrics.json").read_text()

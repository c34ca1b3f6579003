"""Is anything lost, half written or left over when a process is killed?

    python benchmarks/kills.py --kills 200 --seed 0

Processes are killed (SIGKILL) while they write stores, draw from ledgers, fill the cache and fit with a checkpoint.
Half of them are killed at a random time. The other half are killed before a random call that opens, makes, renames or
removes a file: a kill between two such calls would show. After every kill a fresh process makes the next call and
checks three things. Everything that was reported as finished is there and right. What was under way is there whole or
not at all. Nothing else is left. The exit status is 1 if one of these does not hold.
"""

import contextlib
import errno
import itertools
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn

import numpy as np
import pandas as pd
import torch
import typer
import xarray as xr
import zarr  # noqa: F401 (here, since a child that imports it makes hundreds of calls that count)
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from bayesdf import SVI, Detector, files, ledger
from bayesdf.cli import console, run_cli
from bayesdf.data.image_cache import cached_images
from bayesdf.data.masks import no_masks
from bayesdf.generators.generator import Generator
from bayesdf.models import priors
from bayesdf.store import open_tree, write_tree

EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.truncate", "ctypes.dlsym"}
"""Audit events of Python before which a process is killed; renameat2 is called through ctypes."""
SECRET = bytes(range(32))
TOY = Generator("toy", 4, decode=lambda latent: latent[:, None, None])


@dataclass(frozen=True)
class Scenario:
    """What is killed, and what must be true afterwards.

    Attributes
    ----------
    work
        Works in a folder without end, from turn `start` on, and reports the number of each finished turn.
    check
        Makes the next call and checks what it finds. Takes the folder and the last turn that was finished (-1: none).
    seconds, events
        A process is killed within this time, or within this number of calls: those of about two turns.
    """

    work: Callable[[Path, int, Callable[[int], None]], None]
    check: Callable[[Path, int], None]
    seconds: float
    events: int


def tree(number: int) -> xr.DataTree:
    """A store whose attributes and arrays all differ from those of other numbers."""
    group = xr.Dataset({f"v{k}": ("x", np.full(200, number, np.int32)) for k in range(3)})
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs={"number": number}), "/group": group})


def check_tree(path: Path, number: int) -> None:
    assert open_tree(path).identical(tree(number)), f"{path.name} is not that of turn {number}"


def check_nothing_else(folder: Path, *names: str) -> None:
    """Check that the folder holds these and nothing else."""
    found = {item.name for item in folder.iterdir()}
    assert found == set(names), f"left over or missing: {sorted(found ^ set(names))}"


def write_new(folder: Path, start: int, report: Callable[[int], None]) -> None:
    for turn in itertools.count(start):
        write_tree(tree(turn), folder / f"{turn}.zarr")
        report(turn)


def check_new(folder: Path, last: int) -> None:
    for turn in range(last + 1):
        check_tree(folder / f"{turn}.zarr", turn)
    path = folder / f"{last + 1}.zarr"
    if not path.exists():
        write_tree(tree(last + 1), path)
    check_tree(path, last + 1)
    check_nothing_else(folder, *(f"{turn}.zarr" for turn in range(last + 2)))


def overwrite(folder: Path, start: int, report: Callable[[int], None]) -> None:
    for turn in itertools.count(start):
        write_tree(tree(turn), folder / "a.zarr", overwrite=True)
        report(turn)


def check_overwritten(folder: Path, last: int) -> None:
    path = folder / "a.zarr"
    if last >= 0 or path.exists():
        found = open_tree(path)
        number = int(found.attrs["number"])
        assert number in (last, last + 1), f"turn {last} was done, and the store is that of {number}"
        assert found.identical(tree(number))
    write_tree(tree(last + 1), path, overwrite=True)
    check_tree(path, last + 1)
    check_nothing_else(folder, "a.zarr")


def overwrite_by_renames(folder: Path, start: int, report: Callable[[int], None]) -> None:
    """As on a system that cannot exchange two names."""

    def unknown(*_: object) -> NoReturn:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    files._renameat2 = unknown
    overwrite(folder, start, report)


def draw(folder: Path, start: int, report: Callable[[int], None]) -> None:
    """In turn through the ledger's name and through a link. What was drawn is noted before the turn is reported."""
    path, link = folder / "toy.ledger", folder / "link"
    for turn in itertools.count(start):
        if not path.exists():
            ledger.create(path, SECRET, TOY)
        if not link.exists():
            with contextlib.suppress(FileExistsError):
                link.symlink_to(path)
        indexes, latent = ledger.draw((path, link)[turn % 2], SECRET, TOY, 1 + turn % 40)
        append(folder / "given", f"{indexes.start} {indexes.stop} {latent.numpy().tobytes().hex()}\n")
        report(turn)


def check_drawn(folder: Path, last: int) -> None:
    path, given = folder / "toy.ledger", folder / "given"
    if not path.exists():
        assert last < 0
        ledger.create(path, SECRET, TOY)
    try:
        ledger.check(path)
    except ledger.TornError:
        ledger.repair(path)
    samples, seen = ledger.check(path).samples, 0
    for line in given.read_text().splitlines() if given.exists() else []:
        begin, end, latent = line.split()
        indexes = range(int(begin), int(end))
        assert seen < indexes.start and indexes.stop - 1 <= samples, f"samples {indexes} of {samples} after {seen}"
        assert ledger.recall(path, SECRET, TOY, indexes).numpy().tobytes().hex() == latent
        seen = indexes.stop - 1
    indexes, _ = ledger.draw(path, SECRET, TOY, 1)
    assert indexes.start > seen
    check_nothing_else(folder, *{"toy.ledger", *(name for name in ("given", "link") if os.path.lexists(folder / name))})


def fill(folder: Path, start: int, report: Callable[[int], None]) -> None:
    """Every other turn meets a set that was damaged."""
    os.environ["BAYESDF_CACHE"] = str(folder)
    for turn in itertools.count(start):
        cached_images(f"set{turn // 2}", partial(images, turn // 2))
        if turn % 2 == 0:
            (found,) = (folder / "datasets").glob(f"set{turn // 2}-*")
            os.truncate(found / "images.npy", 100)
        report(turn)


def images(number: int) -> tuple[np.ndarray, pd.DataFrame, np.ndarray]:
    pictures = np.full((50, 16, 16, 3), number % 256, np.uint8)
    return pictures, pd.DataFrame({"subject": [str(number)] * 50}), no_masks(pictures)


def check_filled(folder: Path, last: int) -> None:
    os.environ["BAYESDF_CACHE"] = str(folder)
    sets = (last + 1) // 2 + 1
    for number in range(sets):
        found, manifest, _ = cached_images(f"set{number}", partial(images, number))
        assert found.shape == (50, 16, 16, 3) and (found == number % 256).all()
        assert (manifest["subject"] == str(number)).all()
    left = sorted(item.name for item in (folder / "datasets").iterdir())
    assert len(left) == sets and not any(name.startswith(".") for name in left), left


class Line(nn.Module):
    """Logits (0, w·x)."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 1)

    def forward(self, images: Tensor) -> Tensor:
        score = self.linear(images.flatten(1))
        return torch.cat([torch.zeros_like(score), score], 1)


def fitted(checkpoint: Path | None) -> bytes:
    """Draws from the posterior of a short fit."""
    torch.manual_seed(0)
    network = Line()
    data = TensorDataset(torch.randn(64, 4, 1, 1), torch.randint(2, (64,)))
    method = SVI(epochs=10, batch_size=16, progress=False, seed=1, device="cpu", checkpoint=checkpoint)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ten epochs are few, and say so
        posterior = method.fit(Detector(network, {"linear": priors.normal(1.0)}), data)
    drawn = posterior.draws(3, seed=0)["posterior"]
    return b"".join(drawn[name].values.tobytes() for name in sorted(map(str, drawn.data_vars)))


def fit(folder: Path, start: int, report: Callable[[int], None]) -> None:
    """A fit that was killed continues from its checkpoint."""
    for turn in itertools.count(start):
        (folder / f"{turn}.fit").write_bytes(fitted(folder / f"{turn}.pt"))
        report(turn)


def check_fitted(folder: Path, last: int) -> None:
    reference = folder.parent / "reference"
    for turn in range(last + 1):
        assert (folder / f"{turn}.fit").read_bytes() == reference.read_bytes(), f"fit {turn} is another"
    assert fitted(folder / f"{last + 1}.pt") == reference.read_bytes(), "the fit that was killed ends elsewhere"
    left = [item.name for item in folder.iterdir() if item.suffix not in (".pt", ".fit")]
    assert not left, left


SCENARIOS = {
    "write_tree": Scenario(write_new, check_new, 0.4, 360),
    "write_tree, overwrite": Scenario(overwrite, check_overwritten, 0.4, 400),
    "write_tree, overwrite, two renames": Scenario(overwrite_by_renames, check_overwritten, 0.4, 400),
    "ledger": Scenario(draw, check_drawn, 0.2, 40),
    "cache": Scenario(fill, check_filled, 0.1, 100),
    "fit with a checkpoint": Scenario(fit, check_fitted, 1.5, 120),
}


def append(path: Path, text: str) -> None:
    """Add to a file by one call, so that the text is there if the writer is killed next."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, text.encode())
    os.close(file)


def fork(work: Callable[[], None]) -> int:
    """A child that does the work and ends. Its errors are written to standard error."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def kill_one(scenario: Scenario, folder: Path, rng: random.Random, by_event: bool) -> tuple[bool, int]:
    """Kill one process of a scenario, and let another check what it left.

    Returns
    -------
    well : bool
        Whether the checks passed.
    turns : int
        How many turns it had finished.
    """
    folder.mkdir(parents=True)
    finished, before = folder.with_suffix(".finished"), rng.randint(1, scenario.events) if by_event else 0

    def victim() -> None:
        count = 0

        def watch(event: str, _: object) -> None:
            nonlocal count
            if event in EVENTS:
                count += 1
                if count == before:
                    os.kill(os.getpid(), signal.SIGKILL)

        if by_event:
            sys.addaudithook(watch)
        scenario.work(folder, 0, lambda turn: append(finished, f"{turn}\n"))

    child = fork(victim)
    limit = time.monotonic() + (60.0 if by_event else rng.uniform(0.0, scenario.seconds))
    done = (0, 0)
    while time.monotonic() < limit and not done[0]:
        time.sleep(0.001)
        done = os.waitpid(child, os.WNOHANG)
    if not done[0]:
        os.kill(child, signal.SIGKILL)
        done = os.waitpid(child, 0)
    if os.WTERMSIG(done[1]) != signal.SIGKILL:
        return False, 0
    turns = finished.read_text().split() if finished.exists() else []  # a kill may come before the first is written
    last = int(turns[-1]) if turns else -1
    status = os.waitpid(fork(lambda: scenario.check(folder, last)), 0)[1]
    return status == 0, last + 1


def main(
    kills: Annotated[int, typer.Option(help="How many processes are killed.", min=1)] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the moments.")] = 0,
) -> None:
    """Kill processes at random moments and check that nothing is lost, half written or left over."""
    torch.set_num_threads(1)
    rng, failed = random.Random(seed), 0
    root = Path(tempfile.mkdtemp(prefix="kills-"))
    places = {name: root / str(number) for number, name in enumerate(SCENARIOS)}
    places["fit with a checkpoint"].mkdir()
    (places["fit with a checkpoint"] / "reference").write_bytes(fitted(None))  # and so all is imported before a fork
    counts = {name: [0, 0, 0] for name in SCENARIOS}
    for number in range(kills):
        name = list(SCENARIOS)[number % len(SCENARIOS)]
        place = places[name] / str(number)
        well, turns = kill_one(SCENARIOS[name], place, rng, by_event=number // len(SCENARIOS) % 2 == 1)
        counts[name] = [had + new for had, new in zip(counts[name], (1, turns, not well), strict=True)]
        failed += not well
        if well:
            shutil.rmtree(place)
        else:
            console.print(f"kill {number} of {name}: see {place}", markup=False)
    for name, (killed, turns, bad) in counts.items():
        print(f"{name:36} {killed:4d} killed, {turns:5d} turns done before, {bad} failed")
    print(f"{kills} kills, {failed} failed")
    if failed:
        sys.exit(1)
    shutil.rmtree(root)


if __name__ == "__main__":
    run_cli(main)

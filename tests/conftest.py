"""What all tests share: a cache of their own, and few threads.

``BAYESDF_TEST_THREADS`` says how many threads: one, since two processes test at once, unless more are to be tried.
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ.get("BAYESDF_TEST_THREADS", "1")  # of the processes that tests start

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from bayesdf.inference import pareto_k
from tests.experiments.small import SMALL, run_here

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder that no earlier run has touched, shared by the processes that test: images are made once."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    before = os.environ.get("BAYESDF_CACHE")
    os.environ["BAYESDF_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["BAYESDF_CACHE"]
    else:
        os.environ["BAYESDF_CACHE"] = before


@pytest.fixture(scope="module", autouse=True)
def few_draws_for_k_hat(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every fit of a small model ends with 500 evaluations for k̂, and these take longer than most fits here.

    k̂ has random numbers of its own, so that nothing else depends on it. `test_convergence` holds its value.
    """
    with pytest.MonkeyPatch.context() as patch:
        if request.module.__name__.rpartition(".")[2] != "test_convergence":
            patch.setattr(pareto_k, "DRAWS", 25)
        yield


# Matplotlib writes a font cache where it may.
os.environ.setdefault("MPLCONFIGDIR", tempfile.mkdtemp(prefix="matplotlib-"))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sources that a detector can tell apart: plain, blurred, and edge-enhanced pictures of 12 subjects."""
    root = tmp_path_factory.mktemp("photos")
    changes = {"real": None, "blur": ImageFilter.GaussianBlur(2), "edges": ImageFilter.EDGE_ENHANCE_MORE}
    for source, change in changes.items():
        for subject in range(12):
            (root / source / f"p{subject:02d}").mkdir(parents=True)
            for number in range(2):
                pixels = np.random.default_rng([subject, number]).integers(0, 255, (12, 12, 3), dtype=np.uint8)
                image = Image.fromarray(pixels).resize((48, 48), Image.Resampling.BICUBIC)
                image = image if change is None else image.filter(change)
                image.save(root / source / f"p{subject:02d}" / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "first"
    assert "report.html" in run_here("--data", photos, "--out", out, *SMALL)
    return out

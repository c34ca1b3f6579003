"""The README's example runs as it stands there."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bayesdf.data import embedded
from bayesdf.data.prepared import Images

README = Path(__file__).parents[2] / "README.md"


def some(images: Images, manifest: pd.DataFrame) -> tuple[Images, pd.DataFrame]:
    """Every sixteenth image of each split: training the example's network on all of them takes minutes."""
    kept = np.flatnonzero(manifest.groupby("split").cumcount() % 16 == 0)
    return images[kept], manifest.iloc[kept].reset_index(drop=True)


@pytest.mark.slow
def test_the_example_runs_as_written(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = embedded.read
    monkeypatch.setattr(embedded, "read", lambda *given: some(*read(*given)))
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.S)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished, tmp_path / "runs" / "source_attribution")
    names: dict[str, object] = {}
    exec(compile(code, str(README), "exec"), names)
    predictions, uncertainty = names["predictions"], names["uncertainty"]
    assert predictions["posterior_predictive/logits"].sizes["draw"] == 50  # type: ignore[index]
    assert set(uncertainty) >= {"total", "aleatoric", "epistemic"}  # type: ignore[call-overload]
    assert uncertainty.sizes["image"] == len(names["data"].test)  # type: ignore[attr-defined]

"""The README's example runs as it stands there."""

import re
import shutil
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.slow
def test_the_example_runs_as_written(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.S)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished, tmp_path / "runs" / "source_attribution")
    names: dict[str, object] = {}
    exec(compile(code, str(README), "exec"), names)
    predictions, uncertainty = names["predictions"], names["uncertainty"]
    assert predictions["posterior_predictive/logits"].sizes["draw"] == 50  # type: ignore[index]
    assert set(uncertainty) >= {"total", "aleatoric", "epistemic"}  # type: ignore[call-overload]
    assert uncertainty.sizes["image"] == len(names["data"].test)  # type: ignore[attr-defined]

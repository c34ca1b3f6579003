"""Imports point downwards only."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bayesdf

PACKAGE = Path(bayesdf.__file__).parent
LAYERS = [
    "faces",
    "generators",
    "ledger",
    "data",
    "inversion",
    "models",
    "inference",
    "analysis",
    "report",
    "experiments",
]
BASIC = {"_version", "errors", "files", "zarr_files"}
SHARED = BASIC | {"cache_folder", "cli", "store", "_torchvision"}


def imported(path: Path) -> set[str]:
    """The first names below `bayesdf` that a module imports, at any depth of its code."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "bayesdf":
            parts = node.module.split(".")
            names |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            # Its rooms load when they are asked for, so that an import of the package would hide an arrow upwards.
            assert "bayesdf" not in {alias.name for alias in node.names}, f"{path} imports the whole package"
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("bayesdf.")}
    return names


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    place = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if place in ("__init__", "__main__"):
        return
    allowed = BASIC if place in SHARED else SHARED | set(LAYERS[: LAYERS.index(place) + 1])
    assert imported(path) <= allowed


def test_analysis_does_not_need_torch() -> None:
    for path in (PACKAGE / "analysis").rglob("*.py"):
        assert "torch" not in path.read_text().replace("no torch", "").replace("_torchvision", ""), path


def test_only_one_door_to_torchvision_and_timm() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.name == "_torchvision.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not {module.split(".")[0] for module in modules} & {"torchvision", "timm"}, path


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, bayesdf; heavy = {'torch', 'pyro', 'xarray', 'zarr', 'sklearn', 'scipy', 'matplotlib', 'pandas'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules); "
        "assert set(bayesdf.__all__) <= set(dir(bayesdf)); "
        "assert all(getattr(bayesdf, name) is not None for name in bayesdf.__all__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        bayesdf.nothing  # noqa: B018


def test_no_file_is_long_without_a_reason() -> None:
    """More than 400 lines need a reason in the first comment."""
    for path in PACKAGE.rglob("*.py"):
        lines = path.read_text().splitlines()
        assert len(lines) <= 400 or "is long because" in "\n".join(lines[:12]), path


def test_headings_of_docstrings_stand_on_lines_of_their_own() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert not re.search(r"\w -{4,} \w", path.read_text()), path

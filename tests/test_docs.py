"""What README and docs show is so: python runs as printed with the outcome that stands beside it, commands parse, and
options, names, files and links exist."""

import configparser
import doctest
import importlib
import importlib.util
import os
import pkgutil
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
import xarray as xr

import bayesdf as bdf
from bayesdf import analysis, store
from bayesdf.errors import BayesdfWarning
from bayesdf.inference.training import schedule
from bayesdf.inversion import fit_attribution, preconditioner
from bayesdf.inversion.loss import TERMS
from tests import snippets
from tests.analysis.conftest import synthetic_predictions
from tests.experiments.small import thin

ROOT = Path(__file__).parents[1]
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]}
WITH_PYTHON = [name for name, text in PAGES.items() if any(one.language == "python" for one in snippets.blocks(text))]


# What a page takes for granted: made small here, under the names that the page uses.


def a_run(folder: Path) -> None:
    """`runs/source_attribution`, with the groups that a run has, of twelve people instead of forty."""
    trees: dict[str, xr.DataTree] = {}
    for seed, name in enumerate(("svi", "mc_dropout")):
        predictions = synthetic_predictions(draws=6, seed=seed)
        chain = {"chain": [0], "draw": np.arange(6)}
        draws = np.random.default_rng(seed).normal(size=(1, 6, 2))
        predictions["posterior"] = xr.DataTree(
            xr.Dataset({"fc.bias": (("chain", "draw", "fc.bias_dim_0"), draws)}, chain)
        )
        predictions["sample_stats"] = xr.DataTree(xr.Dataset({"elbo": ("step", np.linspace(-300, -100, 20))}))
        predictions["uncertainty"] = xr.DataTree(analysis.decompose(predictions))
        features = analysis.scalars(predictions)
        fakes = features[(features["source"] != "real").values]
        predictions["attribution/uncertainty"] = xr.DataTree(analysis.attribute(fakes))
        trees[name] = predictions
    store.write_tree(xr.DataTree(children=trees), folder / "runs" / "source_attribution" / "run.zarr")


def the_readme(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """The example on one embedded image in sixty, with a tenth of the steps that a fit may take to be flat.

    With ``BAYESDF_README=whole`` it is as printed, as CI runs it once.
    """
    if os.environ.get("BAYESDF_README") != "whole":
        thin(patch, 60)
        patch.setattr(schedule, "BUDGET_STEPS", schedule.BUDGET_STEPS // 10)
    warnings.simplefilter("ignore", BayesdfWarning)
    a_run(folder)


def an_inversion(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """`runs/inversion/attribution.zarr`, calibrated on errors as those of two candidates are; few probes and steps."""
    patch.setattr(preconditioner, "PROBES", 32)
    names = ["dcgan", "vae"]
    source = np.repeat([*names, "real"], 12)
    error = np.where(source[:, None] == names, 0.02, 0.07)[..., None] * np.ones(len(TERMS))
    error[..., TERMS.index("energy")] = 1.0
    noise = np.random.default_rng(0).normal(0.0, 0.15, error.shape)
    known = xr.DataArray(
        np.log(error) + noise, dims=("image", "candidate", "term"), coords={"candidate": names, "term": list(TERMS)}
    )
    fit_attribution(known, source).save(folder / "runs" / "inversion" / "attribution.zarr")


PREPARED: dict[str, Callable[[Path, pytest.MonkeyPatch], None]] = {
    "README.md": the_readme,
    "docs/inversion.md": an_inversion,
}


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_PYTHON)
def test_python_runs_as_printed_with_the_outcome_that_is_stated(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    with warnings.catch_warnings(), torch.random.fork_rng([]):
        torch.manual_seed(0)
        if page in PREPARED:
            PREPARED[page](tmp_path, monkeypatch)
        for block in snippets.blocks(PAGES[page]):
            if block.language == "python":
                snippets.run(block, names, page)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_what_it_is_and_python_states_an_outcome(page: str) -> None:
    for block in snippets.blocks(PAGES[page]):
        assert block.language, f"{page}, line {block.line}: name the block's language after ```"
        if block.language == "python":
            assert block.states_an_outcome, f"{page}, line {block.line}: no outcome stated; see tests/snippets.py"


COMMANDS = [(page, line, command) for page, text in PAGES.items() for line, command in snippets.commands(text)]


@pytest.mark.parametrize(("page", "line", "command"), COMMANDS, ids=[f"{page}:{line}" for page, line, _ in COMMANDS])
def test_commands_parse(page: str, line: int, command: str) -> None:
    words = shlex.split(command)
    if words[0] == "make":
        verbs = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M)
        assert set(words[1:]) <= set(verbs)
    elif words[0] == "pip":
        _check_pip(words[1:])
    elif words[1] != "-m":
        assert (ROOT / words[1]).is_file(), command
        parse(words[1], words[2:])
    elif not words[2].startswith("bayesdf."):
        assert importlib.util.find_spec(words[2]), command
        assert all((ROOT / word).exists() for word in words[3:] if "/" in word)
    elif "<" not in words[2]:
        parse(words[2], words[3:])


def _check_pip(words: list[str]) -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert words[0] == "install"
    for before, word in pairwise(words):
        if before == "-c":
            assert (ROOT / word).is_file(), word
        extras = re.fullmatch(r"\.\[(.*)\]", word)
        if extras:
            assert set(extras[1].split(",")) <= set(setup["options.extras_require"]), word


def parse(program: str, arguments: list[str]) -> None:
    """Parse a command line as the program would, without running it; an unknown option or a wrong value raises."""
    needed = [one for one in command(program).params if one.required]
    if arguments or not needed:  # a program that needs arguments may be named without them
        command(program).make_context(program, list(arguments))


@cache
def command(program: str) -> Any:
    """The command line of a module, or of a file of the repository."""
    if program.endswith(".py"):
        spec = importlib.util.spec_from_file_location(f"documented_{Path(program).stem}", ROOT / program)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str((ROOT / program).parent))
            spec.loader.exec_module(module)
    else:
        module = importlib.import_module(program)
        if hasattr(module, "__path__"):
            module = importlib.import_module(f"{program}.__main__")
    app = typer.Typer()
    app.command()(module.main)
    return typer.main.get_command(app)


def programs() -> Iterator[str]:
    """All that has a command line."""
    yield "bayesdf.generators.train"
    for module in pkgutil.iter_modules(bdf.experiments.__path__, "bayesdf.experiments."):  # type: ignore[attr-defined]
        place = Path(module.module_finder.path, module.name.rpartition(".")[2])  # type: ignore[union-attr]
        source = place / "__main__.py" if module.ispkg else place.with_suffix(".py")
        if "run_cli(main)" in source.read_text():
            yield module.name
    yield from (path.relative_to(ROOT).as_posix() for path in ROOT.glob("benchmarks/*.py") if path.stem != "peers")


def spans(page: str) -> list[str]:
    """What stands in running text as code."""
    plain = re.sub(r"^```.*?^```\s*$", "", PAGES[page], flags=re.S | re.M)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", plain)]


def test_options_in_running_text_exist() -> None:
    options = {option for program in programs() for one in command(program).params for option in one.opts}
    for page in PAGES:
        for span in spans(page):
            if span.startswith("--"):
                named = re.match(r"--[a-z-]+", span)
                assert named and named[0] in options | {"--help"}, f"{page}: {span}"


@pytest.mark.parametrize("page", PAGES)
def test_files_and_links_exist(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if not re.match(r"https?:|#", target):
            assert (ROOT / page).parent.joinpath(target.split("#")[0]).exists(), f"{page} points to {target}"
    for span in spans(page):
        if re.fullmatch(r"(docs|examples|tests|benchmarks|bayesdf)/[\w./-]+", span):
            assert (ROOT / span).exists(), f"{page} names {span}"


@pytest.mark.parametrize("page", PAGES)
def test_names_of_the_package_exist(page: str) -> None:
    for span in spans(page):
        named = re.match(r"(?:bdf|bayesdf)((?:\.\w+)+)(?=$|\()", span)
        if named and not span.endswith((".py", ".md", ".zarr")):
            assert resolves(named[1].split(".")[1:]), f"{page} names {span}"


def resolves(parts: list[str]) -> bool:
    found: Any = bdf
    for number, part in enumerate(parts, 1):
        if not hasattr(found, part):
            if not hasattr(found, "__path__"):
                return False
            try:
                importlib.import_module(".".join(["bayesdf", *parts[:number]]))
            except ImportError:
                return False
        found = getattr(found, part)
    return True


PACKAGE = Path(bdf.__file__).parent
WITH_EXAMPLES = sorted(path for path in PACKAGE.rglob("*.py") if ">>> " in path.read_text())


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=[str(path.relative_to(PACKAGE)) for path in WITH_EXAMPLES])
def test_examples_in_docstrings_run(path: Path) -> None:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
    assert doctest.testmod(module, optionflags=snippets.FLAGS).failed == 0


# The machinery itself.


@pytest.mark.parametrize(
    ("stated", "shown", "agree"),
    [
        ("made: sample 17 …", "made: sample 17 of 100", True),
        ("made: sample 17 …", "not made: sample 17 of 100", False),
        ("range(1, 101)", "range(1,  101)\n", True),
        ("about 0.5", "0.46", True),
        ("about 0.5", "np.float64(0.44)", False),
        ("above 0.9", "np.float64(0.91)", True),
        ("above 0.9", "0.9", False),
        ("below 1e-3", "0.0005", True),
        ("0.8 to 0.9", "0.85", True),
        ("0.8 to 0.9", "0.95", False),
        ("above 0.9", "nan", False),
        ("(2, 64, 64)", "(2, 64, 65)", False),
    ],
)
def test_outcomes_are_compared(stated: str, shown: str, agree: bool) -> None:
    assert snippets.matches(stated, shown) == agree


def test_a_block_is_run_statement_by_statement() -> None:
    text = """\
x = 3  # -> 3
print(x, "is")
# -> 3
# -> is
def double(value):  # no outcome
    return 2 * value
double(
    x
)  # -> 6
int("a")  # -> ValueError: invalid literal …
"""
    names: dict[str, Any] = {}
    snippets.run(snippets.Block("python", text, 1), names, "page")
    with pytest.raises(AssertionError, match=r"line 11.*gives\n    6\nand the page says\n    7"):
        snippets.run(snippets.Block("python", "double(3)  # -> 7\n", 11), names, "page")
    snippets.run(snippets.Block("python", ">>> double(4)\n8\n", 1), names, "page")
    with pytest.raises(AssertionError, match="Expected:"):
        snippets.run(snippets.Block("python", ">>> double(4)\n9\n", 1), names, "page")
    with pytest.raises(ZeroDivisionError):
        snippets.run(snippets.Block("python", "1 / 0\n", 1), names, "page")


def test_commands_are_found() -> None:
    page = """\
Run `python -m one --a 1` or

    pip install . && python -m two   (in a minute)

```bash
make test  # all
```
"""
    assert [command for _, command in sorted(snippets.commands(page))] == [
        "python -m one --a 1",
        "pip install .",
        "python -m two",
        "make test",
    ]
    with pytest.raises(Exception, match="No such option"):
        parse("bayesdf.experiments.source_attribution", ["--dota", "photos"])

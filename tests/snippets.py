"""The code that documentation shows: found, run as printed, and held to the outcome that stands beside it.

In a python block an outcome follows ``# ->``, at the end of a statement or on comment lines of its own below it:

    print(verdict)                      # -> made: sample 17 …
    uncertainty.sizes["image"]          # -> 100
    accuracy = float(figures["auroc"])  # -> above 0.9
    decompose(array)
    # -> BayesdfError: an array of shape … was given where … is expected …

It is what the statement prints and what the expression, or the name assigned to, shows (`repr`), or the error it ends
in. Blanks count alike, and ``…`` stands for anything. ``about 0.9`` (by a tenth), ``above 0.9``, ``below 0.9`` and
``0.8 to 0.9`` are of numbers. Blocks with ``>>>`` are doctests.
"""

import ast
import contextlib
import doctest
import io
import re
import tokenize
from dataclasses import dataclass
from typing import Any

MARK = "# ->"
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
NUMBER = r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?"


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, what it holds, and the line of the page on which that begins."""

    language: str
    text: str
    line: int

    @property
    def states_an_outcome(self) -> bool:
        return MARK in self.text or re.search(r"^>>> .*\n(?!>>>|\.\.\.|\Z)", self.text, re.M) is not None


def blocks(page: str) -> list[Block]:
    found = re.finditer(r"^```(\w*)[^\n]*\n(.*?)^```\s*$", page, flags=re.S | re.M)
    return [Block(one[1], one[2], page[: one.start(2)].count("\n") + 1) for one in found]


def run(block: Block, names: dict[str, Any], page: str) -> None:
    """Run a block in these names; an `AssertionError` says where an outcome is another than is stated."""
    if block.text.lstrip().startswith(">>>"):
        _run_doctest(block, names, page)
        return
    expected = _outcomes(block.text)
    for statement in ast.parse(block.text).body:
        line = statement.end_lineno or statement.lineno
        place = f"{page}, line {block.line + line - 1}: `{ast.unparse(statement)}`"
        stated = expected.pop(line, None)
        shown = _run_statement(statement, names, f"{page}:{block.line}", keep_error=stated is not None)
        if stated is not None:
            assert matches(stated, shown), f"{place} gives\n    {shown}\nand the page says\n    {stated}"
    assert not expected, f"{page}: outcomes that follow no statement: {expected}"


def matches(stated: str, shown: str) -> bool:
    """Whether what was shown is what is stated, by the rules above."""
    stated, shown = " ".join(stated.split()), " ".join(shown.split())
    for pattern, holds in (
        (rf"about ({NUMBER})", lambda value, a: abs(value - a) <= 0.1 * abs(a)),
        (rf"above ({NUMBER})", lambda value, a: value > a),
        (rf"below ({NUMBER})", lambda value, a: value < a),
        (rf"({NUMBER}) to ({NUMBER})", lambda value, a, b: a <= value <= b),
    ):
        words = re.fullmatch(pattern, stated)
        if words:
            number = re.fullmatch(rf"(?:\w+(?:\.\w+)*\()?({NUMBER})\)?", shown)
            return number is not None and holds(float(number[1]), *map(float, words.groups()))
    pattern = ".*".join(re.escape(part) for part in re.split(r"\s*(?:…|\.\.\.)\s*", stated))
    return re.fullmatch(pattern, shown, flags=re.S) is not None


def commands(page: str) -> list[tuple[int, str]]:
    """Shell commands of a page and their lines: in shell blocks, on indented lines and in running text."""
    fenced = [block for block in blocks(page) if block.language in ("sh", "bash", "shell", "console")]
    plain = re.sub(r"^```.*?^```\s*$", lambda one: "\n" * one[0].count("\n"), page, flags=re.S | re.M)
    lines = [(number, line) for number, line in enumerate(plain.splitlines(), 1) if line.startswith("    ")]
    for block in fenced:
        lines += list(enumerate(block.text.replace("\\\n", " ").splitlines(), block.line))
    for span in re.finditer(r"`([^`]+)`", plain):
        lines.append((plain[: span.start()].count("\n") + 1, " ".join(span[1].split())))
    found = []
    for number, line in lines:
        for part in line.strip().removeprefix("$ ").split("&&"):
            command = re.split(r"\s{2,}\(|\s#", part.strip())[0].strip()
            if re.match(r"(python|pip|make) ", command):
                found.append((number, command))
    return found


def _outcomes(code: str) -> dict[int, str]:
    """Line on which a statement ends -> what is stated of it."""
    found: dict[int, str] = {}
    above = 0
    lines = code.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type != tokenize.COMMENT or not token.string.startswith(MARK):
            continue
        line = token.start[0]
        own = not lines[line - 1][: token.start[1]].strip()
        if own and lines[line - 2].lstrip().startswith(MARK):
            line = above
        elif own:
            line = above = line - 1
        else:
            above = line
        text = token.string.removeprefix(MARK).strip()
        found[line] = f"{found[line]}\n{text}" if line in found else text
    return found


def _run_statement(statement: ast.stmt, names: dict[str, Any], place: str, keep_error: bool) -> str:
    """What it prints, and then what it shows."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            value = None
            if isinstance(statement, ast.Expr):
                value = eval(compile(ast.Expression(statement.value), place, "eval"), names)
            else:
                exec(compile(ast.Module([statement], []), place, "exec"), names)
            if isinstance(statement, ast.Assign):
                value = eval(ast.unparse(statement.targets[0]), names)
    except Exception as error:
        if not keep_error:
            raise
        return f"{printed.getvalue()}{type(error).__name__}: {error}"
    return printed.getvalue() + ("" if value is None else repr(value))


def _run_doctest(block: Block, names: dict[str, Any], page: str) -> None:
    test = doctest.DocTestParser().get_doctest(block.text, {}, page, page, block.line - 1)
    test.globs = names
    said = io.StringIO()
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    assert runner.run(test, out=said.write, clear_globs=False).failed == 0, said.getvalue()

"""Which experiments are there, and what does each of them ask?"""

import ast
import os
import sys
from pathlib import Path


def questions() -> dict[str, str]:
    """The question of each experiment by its name: the first line of its docstring, read without importing it."""
    found = {}
    for module in sorted(Path(__file__).parent.glob("*/__init__.py")):
        text = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
        found[module.parent.name] = text.partition("\n")[0]
    return found


def show() -> None:
    """Print a command and its question for each experiment; exit with status 2 where it is given something to do."""
    if len(sys.argv) > 1:
        name = sys.argv[1]
        known = name if name in questions() else "<experiment>"
        print(f"bayesdf: this only lists experiments: run python -m bayesdf.experiments.{known}", file=sys.stderr)
        sys.exit(2)
    try:
        print("Experiments. Each takes --help.\n")
        for name, question in questions().items():
            print(f"python -m bayesdf.experiments.{name}\n    {question}")
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has enough, such as head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends

"""What do all command lines of the package share? How they report a mistake, and their exit status."""

import functools
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn, TextIO

import typer
from rich.console import Console

from bayesdf.errors import BayesdfError, BayesdfWarning

console = Console(stderr=True)


def run_cli(main: Callable[..., None]) -> NoReturn:
    """Run a command line. A mistake of the user gives one line on standard error and exit status 2."""

    @functools.wraps(main)
    def command(*arguments: object, **options: object) -> None:
        try:
            main(*arguments, **options)
        except BayesdfError as error:
            _exit_with(str(error))
        except KeyboardInterrupt:
            _exit_with("stopped; the same command continues from what was finished", 130)
        except MemoryError as error:
            _exit_with(f"not enough memory ({error}): ask for fewer draws, or smaller or fewer images")
        except OSError as error:
            place = f": {error.filename}" if error.filename else ""
            _exit_with(f"{error.strerror or error}{place}; correct that and run the same command again")

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
    app.command()(command)
    warnings.showwarning = _show
    app()
    sys.exit(0)


def _exit_with(message: str, status: int = 2) -> NoReturn:
    console.print("[bold red]bayesdf:[/] ", end="")
    console.print(message, markup=False, highlight=False, soft_wrap=True)
    sys.exit(status)


_plain = warnings.showwarning


def _show(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a warning of this package as one line, and others as Python does."""
    if issubclass(category, BayesdfWarning):
        console.print("[bold yellow]warning:[/] ", end="")
        console.print(str(message), markup=False, highlight=False, soft_wrap=True)
    else:
        _plain(message, category, filename, lineno, file, line)

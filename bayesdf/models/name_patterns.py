"""Which parameters or modules does a pattern match?"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

from bayesdf.errors import BayesdfError

T = TypeVar("T")


def matches(pattern: str, name: str) -> bool:
    """Whether a glob matches a parameter's name or the name of a module that holds it.

    ``*`` matches any characters, dots included; ``?`` one; ``[ab]`` one of a set.

    >>> matches("layer4.*.conv2", "layer4.1.conv2.weight"), matches("fc", "fc2.bias")
    (True, False)
    """
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[:depth]), pattern) for depth in range(1, len(parts) + 1))


def assign(patterns: Mapping[str, T], names: Sequence[str]) -> dict[str, T]:
    """Give each parameter the value of the most specific pattern that matches it.

    The most specific pattern matches the fewest parameters of this network. Among equals it is the one with more
    literal characters, and then the one written last. So ``fc.bias`` beats ``fc``, ``fc`` beats ``*.weight``,
    and ``layer4.*.conv2`` beats ``layer4``.

    Parameters
    ----------
    patterns : mapping from glob to value
    names : sequence of str
        Parameter names, in the order the result keeps.

    Returns
    -------
    dict from parameter name to value, for the parameters that match.

    Raises
    ------
    BayesdfError
        A pattern matches nothing.
    """
    found = {pattern: [name for name in names if matches(pattern, name)] for pattern in patterns}
    for pattern, matched in found.items():
        if not matched:
            raise nothing(pattern, names, "parameter or module")

    def specificity(item: tuple[int, str]) -> tuple[int, int, int]:
        order, pattern = item
        return -len(found[pattern]), sum(character not in "*?[]" for character in pattern), order

    winner: dict[str, str] = {}
    for _, pattern in sorted(enumerate(patterns), key=specificity):
        winner.update(dict.fromkeys(found[pattern], pattern))
    return {name: patterns[winner[name]] for name in names if name in winner}


def select(patterns: str | Iterable[str], names: Sequence[str]) -> list[str]:
    """The names that any of the globs matches in full, in the order of `names`. Every glob must match one."""
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise nothing(pattern, names, "module")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def nothing(pattern: str, names: Sequence[str], what: str) -> BayesdfError:
    """The error for a pattern that matches no name. It lists the closest names."""
    candidates = {name: None for full in names for name in (full, full.rpartition(".")[0]) if name}
    close = difflib.get_close_matches(pattern, list(candidates), n=3, cutoff=0.3) or list(candidates)[-3:]
    hint = f"; the closest are {', '.join(close)}" if close else "; there are none"
    return BayesdfError(f"pattern {pattern!r} matches no {what} of the network{hint}")

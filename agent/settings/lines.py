"""Find the line of each key of a TOML text, so that a problem can be reported with its line.

tomllib keeps no positions. Each statement ends with its line, and a blank line or a comment is
valid TOML: so the lines from the end of one statement to the next end that can be parsed hold one
statement.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["find_lines", "nearest_line"]

_MAX_STATEMENT_LINES = 500
"""Each line of a statement parses it again; keys after a longer one get the nearest line."""


def find_lines(text: str) -> dict[tuple[str, ...], int]:
    """Return the lines (from 1) of every table header and key of valid TOML, by key path."""
    found: dict[tuple[str, ...], int] = {}
    header: tuple[str, ...] = ()
    statement, begins = "", 1
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        statement += f"{line}\n"
        try:
            paths = list(_paths(tomllib.loads(statement)))
        except (ValueError, RecursionError):
            if number - begins < _MAX_STATEMENT_LINES:
                continue
            break
        if statement.lstrip().startswith("["):
            header = max(paths, key=len)
            paths = [header[:length] for length in range(1, len(header) + 1)]
        else:
            paths = [header + path for path in paths]
        for path in paths:
            found.setdefault(path, begins)
        statement, begins = "", number + 1
    return found


def _paths(table: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for key, value in table.items():
        yield (key,)
        if isinstance(value, dict):
            yield from ((key, *rest) for rest in _paths(value))


def nearest_line(lines: Mapping[tuple[str, ...], int], path: tuple[str, ...]) -> int:
    """Return the line of ``path`` or of the closest table around it that has one, else 1."""
    around = (path[:length] for length in range(len(path), 0, -1))
    return next((lines[each] for each in around if each in lines), 1)

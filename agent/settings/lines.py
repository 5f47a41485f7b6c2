"""Where each key of a TOML text stands, so that a problem can be reported with its line.

tomllib keeps no positions. This scanner runs only on text that tomllib has accepted, so it
needs to recognise just as much as it takes not to be fooled: strings, comments, brackets.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping

__all__ = ["find_lines", "nearest_line"]

_TOKEN = re.compile(
    r'(?P<string>"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}'
    r'|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\')'
    r"|(?P<comment>\#[^\n]*)"
    r"|(?P<mark>[\[\]{}=,\n])"
    r"|(?P<other>[^\[\]{}=,\n\"'\#]+|.)",
    re.DOTALL,
)
_OPENS = {"[": "]", "{": "}"}


def _key_path(text: str) -> tuple[str, ...]:
    """``a."b c".d`` as a tuple; empty when it is no key."""
    try:
        found: object = tomllib.loads(f"{text.strip()} = 0")
    except (ValueError, RecursionError):
        return ()
    path: list[str] = []
    while isinstance(found, dict) and found:
        name = next(iter(found))
        path.append(name)
        found = found[name]
    return tuple(path)


class _Scanner:
    """One pass over a text; ``lines`` is the result."""

    def __init__(self) -> None:
        self.lines: dict[tuple[str, ...], int] = {}
        self._line = 1
        self._header: tuple[str, ...] = ()
        self._header_depth = 0  # brackets of a [header] or [[header]] still open
        self._before = ""  # what was read since the statement began
        self._start_line = 1
        self._key: tuple[str, ...] | None = None  # the key whose value is being read
        self._closers: list[str] = []
        self._outer: list[tuple[str, ...]] = []  # keys whose inline tables are open

    def feed(self, kind: str, text: str) -> None:
        """Take one token."""
        if kind == "mark":
            self._mark(text)
        elif kind != "comment":
            if not self._before.strip():
                self._start_line = self._line
            self._before += text
        self._line += text.count("\n")

    def _mark(self, mark: str) -> None:
        if self._header_depth or (
            mark == "[" and self._key is None and not self._closers and not self._before.strip()
        ):
            self._in_header(mark)
        elif mark == "=" and self._key is None:
            self._key_ends()
        elif mark in _OPENS:
            self._open(mark)
        elif self._closers and mark == self._closers[-1]:
            self._close()
        elif (mark == "\n" and not self._closers) or (
            mark == "," and self._closers and self._closers[-1] == "}"
        ):
            self._key, self._before = None, ""

    def _in_header(self, mark: str) -> None:
        if mark == "[":
            self._header_depth += 1
            self._start_line = self._line
        elif mark == "]":
            self._header_depth -= 1
            if self._header_depth == 0:
                self._header = _key_path(self._before)
                for length in range(1, len(self._header) + 1):
                    self.lines.setdefault(self._header[:length], self._start_line)
                self._before = ""

    def _key_ends(self) -> None:
        base = self._outer[-1] if self._outer else self._header
        path = _key_path(self._before)
        self._key, self._before = base + path, ""
        for length in range(len(base) + 1, len(base) + len(path) + 1):
            self.lines.setdefault((base + path)[:length], self._start_line)

    def _open(self, mark: str) -> None:
        self._closers.append(_OPENS[mark])
        if mark == "{":
            self._outer.append(self._key or ())
            self._key, self._before = None, ""

    def _close(self) -> None:
        if self._closers.pop() == "}":
            self._key = self._outer.pop()


def find_lines(text: str) -> dict[tuple[str, ...], int]:
    """Lines (from 1) of every table header and key of valid TOML ``text``, by key path."""
    scanner = _Scanner()
    for match in _TOKEN.finditer(text.replace("\r\n", "\n")):
        scanner.feed(match.lastgroup or "", match.group())
    return scanner.lines


def nearest_line(lines: Mapping[tuple[str, ...], int], path: tuple[str, ...]) -> int:
    """Find the line of ``path`` or of the closest thing around it that has one, else 1."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 1

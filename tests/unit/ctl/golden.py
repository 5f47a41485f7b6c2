"""Compare output with files, so that it changes only on purpose."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "golden"


def check_golden(name: str, lines: list[str], *, width: int | None = None) -> None:
    """To accept new output: delete the file, run the test, and look at the difference."""
    for line in lines if width is not None else ():
        assert cells(line) <= width, line  # type: ignore[operator] # it is not None
    path = FOLDER / name
    text = "\n".join(lines) + "\n"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        pytest.fail(f"{path} was not there; it holds the present output now")
    assert text == path.read_text()


def cells(line: str) -> int:
    """Of a terminal that ``line`` takes."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in line)

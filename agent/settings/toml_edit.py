"""Change keys of one section of agent.toml; comments and all other text stay."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence

__all__ = ["with_values"]

_HEADER = re.compile(r"\s*\[{1,2}\s*([A-Za-z0-9_. -]+?)\s*\]{1,2}\s*(#.*)?")
_KEY = re.compile(r"\s*([A-Za-z0-9_-]+)\s*=")


def with_values(
    text: str, section: str, values: Mapping[str, str | list[str]], drop: Collection[str]
) -> str:
    """Return ``text`` with these values in ``section``.

    Args:
        values: The keys' new values; right ones stay as they are written.
        drop: Other keys that go.

    Raises:
        ValueError: The section is written in a way that cannot be edited here.
    """
    document = tomllib.loads(text)
    before = document.get(section, {})
    if not isinstance(before, dict):
        raise ValueError(f"{section} is no section")  # noqa: TRY004 - one error for callers
    new = {key: value for key, value in values.items() if before.get(key) != value}
    gone = (set(drop) | new.keys()) - (values.keys() - new.keys())
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    start = next((at for at, line in enumerate(lines) if _header(line) == section), None)
    added = [f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in new.items()]
    if start is None:
        blank = ["\n"] if lines else []
        lines += [*blank, f"[{section}]\n", *added] if added else []
    else:
        end = _end(lines, start)
        kept = list(_without(lines[start + 1 : end], gone))
        lines[start + 1 : end] = [*added, *kept]
    result = "".join(lines)
    wanted = {key: value for key, value in before.items() if key not in gone} | dict(values)
    if tomllib.loads(result) != {**document, **({section: wanted} if wanted else {})}:
        raise ValueError(f"[{section}] cannot be edited")
    return result


def _header(line: str) -> str | None:
    found = _HEADER.fullmatch(line.rstrip("\r\n"))
    return found[1] if found else None


def _end(lines: Sequence[str], start: int) -> int:
    """Return where the section that begins at ``start`` ends."""
    after = range(start + 1, len(lines))
    return next((at for at in after if _header(lines[at]) is not None), len(lines))


def _without(lines: Sequence[str], gone: Collection[str]) -> Iterator[str]:
    """Yield the lines of a section but those of keys in ``gone``."""
    at = 0
    while at < len(lines):
        found = _KEY.match(lines[at])
        if not found or found[1] not in gone:
            yield lines[at]
            at += 1
            continue
        at = next(
            (end for end in range(at + 1, len(lines)) if _complete(lines[at:end])), len(lines)
        )


def _complete(lines: Sequence[str]) -> bool:
    try:
        tomllib.loads("".join(lines))
    except tomllib.TOMLDecodeError:
        return False
    return True

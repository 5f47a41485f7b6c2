"""Format output: tables that fit the terminal, durations, colours.

Every value passes through :func:`agent.settings.text.printable`: names come from etcd, where
any host can write, and must not reach the terminal as commands.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

from agent.errors import UsageError
from agent.settings.text import printable

__all__ = [
    "STATE_STYLES",
    "Column",
    "Palette",
    "Table",
    "clean",
    "cut",
    "duration",
    "flow",
    "lay_out",
    "natural",
    "render_table",
    "sentence",
    "span_s",
    "step_lines",
]

_MINUTE_S, _HOUR_MIN, _DAY_MIN = 60, 60, 1440
_SECONDS_UP_TO_S = 100
_SMALL = 10
_MOST_S = 1e12
_MAX_CELL_CHARS = 200
_MAX_SENTENCE_CHARS = 4000
_GAP = "  "
_LEAST_ROOM = 20
_STEP_TEXT_AT = 21
_RESULTS = {"ok": "good", "failed": "bad", "unknown": "warn"}
STATE_STYLES = {"ready": "good", "degraded": "bad", "stopped": "bad", "silent": "bad"}
"""How a host's state is painted."""
_NUMBERS = re.compile(r"([0-9]+)")
_COLOUR = re.compile(r"(\x1b\[[0-9]*m)")
_UNITS_S = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_OWN = "* "  # the first cell of this host's row, in some tables


def clean(value: object, *, max_chars: int = _MAX_CELL_CHARS) -> str:
    """Return ``value`` as one harmless cell; "-" for nothing."""
    if value is None or value == "":
        return "-"
    if type(value) is str and len(value) <= max_chars and value.isascii() and value.isprintable():
        return value  # fast path of most cells
    text = printable(str(value)[: max_chars + 1])
    return text if len(text) <= max_chars else text[: max_chars - 1] + "…"


def sentence(value: object) -> str:
    """Return ``value`` as a harmless line, which may be longer than a cell."""
    return clean(value, max_chars=_MAX_SENTENCE_CHARS)


def natural(text: object) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key by which host2 comes before host10."""
    parts = _NUMBERS.split(str(text))
    return tuple(
        (0, len(digits), digits) if number % 2 else (1, 0, part)
        for number, part in enumerate(parts)
        for digits in (part.lstrip("0"),)
    )


def span_s(text: str) -> float | None:
    """Return the seconds of 60, 45s, 3h12m, 2d4h or 1w, as :func:`duration` writes them."""
    if not re.fullmatch(r"\d+(\.\d+)?|(\d+(\.\d+)?(ms|s|m|h|d|w))+", text):
        return None
    return sum(
        float(number) * _UNITS_S[unit]
        for number, unit in re.findall(r"(\d+(?:\.\d+)?)([a-z]*)", text)
    )


def duration(seconds: object) -> str:
    """Return seconds as 45s, 12m, 3h12m, 2d4h or 30d; "-" when not known."""
    if type(seconds) is not float and type(seconds) is not int:
        return "-"
    if seconds != seconds:  # noqa: PLR0124 - not a number
        return "-"
    whole = int(min(max(seconds, 0), _MOST_S))
    return f"{whole}s" if whole < _SECONDS_UP_TO_S else _minutes(whole // _MINUTE_S)


@lru_cache(4096)
def _minutes(count: int) -> str:
    """Return minutes as text; cached, since thousands of hosts have few different values."""
    if count < _HOUR_MIN:
        return f"{count}m"
    if count < _DAY_MIN:
        return _two_units(count // _HOUR_MIN, "h", count % _HOUR_MIN, "m")
    return _two_units(count // _DAY_MIN, "d", count % _DAY_MIN // _HOUR_MIN, "h")


def _two_units(count: int, unit: str, rest: int, smaller_unit: str) -> str:
    """Return 3h12m, but 23h: the rest matters less the larger the number is."""
    return f"{count}{unit}" + (f"{rest}{smaller_unit}" if rest and count < _SMALL else "")


class Column(NamedTuple):
    """One column of a table. No dataclass: importing those costs more than a table.

    Attributes:
        title: Heading.
        shrink_to: Least width when the table is too wide; 0: is never shortened.
        drop: Order in which columns are left out when shortening is not enough, lowest first; 0:
            never.
        right: Align to the right, for numbers and durations.
    """

    title: str
    shrink_to: int = 0
    drop: int = 0
    right: bool = False


def _cells(text: str) -> int:
    """Return the terminal cells of printable text without combining characters."""
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _shorten(text: str, width: int) -> str:
    if _cells(text) <= width:
        return text
    kept = text
    while kept and _cells(kept) > width - 1:
        kept = kept[:-1]
    return kept + "…"


def flow(text: str, width: int | None, *, first: str = "", rest: int = 0) -> list[str]:
    """Break ``text`` after ``first`` at spaces into lines of at most ``width`` cells.

    Words stay whole, so that commands and names can be copied, unless one is longer than a line.

    Args:
        text: Clean already.
        width: None: one line of any length; a width too small to read is enlarged.
        first: Precedes the text on the first line; may have colours.
        rest: Indent of the other lines.
    """
    if width is None:
        return [first + text]
    width = max(width, rest + _LEAST_ROOM)
    found, line, used, empty = [], first, _cells(_COLOUR.sub("", first)), True
    for each in text.split(" "):
        word = each
        if not empty and used + 1 + _cells(word) > width:
            found.append(line)
            line, used, empty = " " * rest, rest, True
        while empty and used + _cells(word) > width:
            head = _head(word, width - used)
            found.append(line + head)
            line, used, word = " " * rest, rest, word[len(head) :]
        line += word if empty else f" {word}"
        used += _cells(word) + (not empty)
        empty = False
    return [*found, line]


def step_lines(
    steps: Iterable[Mapping[str, Any]], width: int | None, paint: Callable[[str, str], str]
) -> list[str]:
    """Lay out the steps of a path: host where there is one, result, name and text."""
    found = []
    for step in steps:
        result = step["result"]
        host = f"{clean(step['host']):<5} " if "host" in step else ""
        painted = paint(_RESULTS[result], f"{result:<8}")
        first = f"  {host}{painted}{clean(step['step']):<10} "
        found += flow(sentence(step["text"]), width, first=first, rest=len(host) + _STEP_TEXT_AT)
    return found


def _head(word: str, width: int) -> str:
    """Return the part of a word that fits ``width`` cells, at least one character."""
    kept = word[: max(1, width)]
    while len(kept) > 1 and _cells(kept) > width:
        kept = kept[:-1]
    return kept


def cut(line: str, width: int) -> str:
    """Cut a line, which may have colours, to ``width`` cells."""
    if line.isascii() and len(line) <= width:
        return line
    left, found = width, []
    for part in _COLOUR.split(line):
        if part.startswith("\x1b"):
            found.append(part)
        else:
            kept = _shorten(part, left) if left else ""
            found.append(kept)
            left = 0 if kept != part else left - _cells(kept)
    return "".join(found)


def _width(column: Column, cells: Sequence[str]) -> int:
    """Return the width of a column with nothing shortened."""
    measure = len if "".join(cells).isascii() else _cells
    return max(_cells(column.title), max(map(measure, cells), default=0))


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def render_table(
    columns: Sequence[Column], rows: Iterable[Sequence[object]], width: int | None
) -> list[str]:
    """Lay out ``rows`` in at most ``width`` cells; None: no limit.

    Shorten columns that allow it, widest first; if that is not enough leave out whole
    columns in their order. A table of columns that may neither be shortened nor
    dropped can be wider.
    """
    columns = list(columns)
    values = list(zip(*rows, strict=True)) or [()] * len(columns)
    cells = [_cleaned(each) for each in values]
    natural = [_width(*each) for each in zip(columns, cells, strict=True)]
    while True:
        widths = natural if width is None else _shrunk(columns, natural, width)
        droppable = [index for index, column in enumerate(columns) if column.drop]
        if width is None or _total(widths) <= width or not droppable:
            break
        gone = min(droppable, key=lambda index: columns[index].drop)
        for parts in (columns, cells, natural):
            del parts[gone]
    aligned = (_aligned(*each) for each in zip(columns, widths, cells, strict=True))
    return [_GAP.join(line).rstrip() for line in zip(*aligned, strict=True)]


def _cleaned(values: Sequence[object]) -> Sequence[str]:
    """Clean every value; a whole column at once where it is clean already."""
    if all(type(value) is str for value in values):
        texts = cast("Sequence[str]", values)
        text = "".join(texts)
        small = max(map(len, texts), default=0) <= _MAX_CELL_CHARS
        if small and all(texts) and text.isascii() and text.isprintable():
            return texts
    return [clean(value) for value in values]


def _shrunk(columns: Sequence[Column], natural: Sequence[int], width: int) -> list[int]:
    widths = list(natural)
    while (over := _total(widths) - width) > 0:
        able = [i for i, column in enumerate(columns) if 0 < column.shrink_to < widths[i]]
        if not able:
            break
        widest = max(able, key=lambda i: widths[i])
        widths[widest] = max(columns[widest].shrink_to, widths[widest] - over)
    return widths


def _aligned(column: Column, width: int, cells: Sequence[str]) -> list[str]:
    """Return the column's title and cells, each ``width`` wide."""
    texts = [column.title, *cells]
    if column.shrink_to and width < _width(column, cells):
        texts = [_shorten(text, width) for text in texts]
    if "".join(texts).isascii():
        return [text.rjust(width) if column.right else text.ljust(width) for text in texts]
    spaces = [" " * (width - _cells(text)) for text in texts]
    pairs = zip(texts, spaces, strict=True)
    return [space + text if column.right else text + space for text, space in pairs]


class Table(NamedTuple):
    """A table, as the answer of a verb. Cells are made harmless when it is laid out.

    Attributes:
        styles: A style of :class:`Palette` for each row, "" for none; empty: no row has one.
        warnings: Harmless lines above everything, such as how old the data is.
        before: Harmless lines above the table.
        after: Harmless lines below it.
        details: Lines below everything, laid out and painted already.
        empty: The line in place of a table without rows.
    """

    columns: Sequence[Column] = ()
    rows: Sequence[Sequence[object]] = ()
    styles: Sequence[str] = ()
    warnings: Sequence[str] = ()
    before: Sequence[str] = ()
    after: Sequence[str] = ()
    details: Sequence[str] = ()
    empty: str = ""


def lay_out(
    table: Table,
    width: int | None,
    *,
    sort: str | None = None,
    headers: bool = True,
    paint: Callable[[str, str], str] = lambda _style, text: text,
) -> list[str]:
    """Return the lines of a table and around it; without rows the line for that.

    Args:
        paint: Paints a line in a style.
        sort: Title of the column to sort by, in any case; None: as the rows are.
        headers: Whether to begin with the titles.

    Raises:
        UsageError: There is no column ``sort``.
    """
    table = table if sort is None else _sorted(table, sort)
    titles, *body = render_table(table.columns, table.rows, width)
    if table.styles:
        pairs = zip(table.styles, body, strict=True)
        body = [paint(style, line) if style else line for style, line in pairs]
    if headers:
        body = [titles, *body] if body else [table.empty] * bool(table.empty)
    warnings, before, after = (
        [line for text in texts for line in flow(text, width, rest=2)]
        for texts in (table.warnings, table.before, table.after)
    )
    painted = (paint("warn", line) for line in warnings)
    return [*painted, *before, *body, *after, *table.details]


def _sorted(table: Table, sort: str) -> Table:
    titles = [column.title.strip().casefold() for column in table.columns]
    wanted = sort.strip().replace("-", " ").replace("_", " ").casefold()
    if wanted not in titles:
        known = ", ".join(column.title.strip() for column in table.columns) or "none"
        raise UsageError(
            f"this table has no column {clean(sort)}",
            hint=f"columns: {known}; -o wide may add some",
        )
    index = titles.index(wanted)
    styles = table.styles or [""] * len(table.rows)
    order = sorted(
        zip(table.rows, styles, strict=True),
        key=lambda pair: _sort_key(table.columns[index], pair[0][index]),
    )
    return table._replace(rows=[row for row, _ in order], styles=[style for _, style in order])


def _sort_key(column: Column, value: object) -> tuple[int, object]:
    """Return a key: numbers and durations by size, then text in natural order, then nothing."""
    if isinstance(value, int | float):
        return 0, value
    text = str(value or "").lstrip(_OWN)
    amount = span_s(text.removesuffix(" ago").replace(" ", "")) if column.right else None
    if amount is not None:
        return 0, amount
    return (1, natural(text.casefold())) if text not in {"", "-"} else (2, 0)


class Palette:
    """Paints in colours, or not at all.

    Args:
        colours: Whether to use any: only on a terminal without NO_COLOR.
    """

    _CODES = {"good": "32", "bad": "31", "warn": "33", "strong": "1", "dim": "2"}  # noqa: RUF012 - never changed

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours

    def paint(self, style: str, text: str) -> str:
        """Wrap ``text`` (already clean) in the colour of ``style``."""
        return f"\x1b[{self._CODES[style]}m{text}\x1b[0m" if self._colours else text

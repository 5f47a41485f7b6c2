"""Make text from outside harmless for a terminal or a log line. Imports next to nothing."""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Iterable
from typing import TextIO

__all__ = ["forgive", "nearest", "printable", "shown", "whole_number"]

_SHOWN_CHARS = 60
_ELLIPSIS = "…"
_AS_ASCII = {_ELLIPSIS: "~"}  # as wide as itself: a table stays one
_FORGIVING = "hostmesh-as-ascii"


def printable(text: str, *, keep: str = "") -> str:
    """Spell out as an escape everything in ``text`` that a terminal might obey.

    Control characters, line separators and characters that reorder text are not printable in
    Unicode's sense (:meth:`str.isprintable`). Combining characters are, but pile up without end
    on the character before them, so they are spelled out too. ``keep`` has exceptions.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep or _harmless(c) else _spelled(c) for c in text)


def _harmless(char: str) -> bool:
    return char.isprintable() and unicodedata.category(char) not in {"Mn", "Me"}


def _spelled(char: str) -> str:
    return char.encode("unicode_escape").decode()


def shown(value: object) -> str:
    """Quote ``value`` for a message: short, ASCII, without control characters."""
    text = str(value).lower() if isinstance(value, bool) else ascii(value)
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + _ELLIPSIS


def whole_number(text: str, *, digits: int = 9) -> int | None:
    """Return the number that 1 to ``digits`` ASCII digits write; None for any other text.

    :meth:`str.isdigit` alone takes "²", and :class:`int` refuses more than 4300 digits.
    """
    usable = text.isascii() and text.isdigit() and len(text) <= digits
    return int(text) if usable else None


def nearest(wrong: str, known: Iterable[str], *, alike: float = 0.5) -> str:
    """Return the name that was probably meant; "" when none is near.

    Args:
        alike: From 0 to 1: how near it must be.
    """
    import difflib  # noqa: PLC0415 - only for a mistake

    return next(iter(difflib.get_close_matches(wrong, sorted(known), n=1, cutoff=alike)), "")


def forgive(*streams: TextIO | None) -> None:
    """Print characters that a stream's encoding lacks as escapes.

    Otherwise a name in etcd ends the program where the locale is not UTF-8.
    """
    codecs.register_error(_FORGIVING, _as_ascii)
    for stream in streams:
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=_FORGIVING)


def _as_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_AS_ASCII.get(char) or _spelled(char) for char in lacking), error.end

"""iptables' own quoting: words to a line of iptables-restore and back."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["join_words", "split_words"]

_PLAIN: Final = re.compile(r"[A-Za-z0-9_./:,@%+=!\[\]-]+")
_SPACE: Final = frozenset(" \t")


def join_words(words: tuple[str, ...]) -> str:
    """Return one line that iptables-restore reads back as ``words``.

    Raises:
        ValueError: A word holds a line break or a NUL, which no quoting can carry.
    """
    return " ".join(_quoted(word) for word in words)


def _quoted(word: str) -> str:
    if any(character in word for character in "\n\r\0"):
        raise ValueError(f"{word!r} cannot be written as a word of a firewall rule")
    if _PLAIN.fullmatch(word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def split_words(line: str) -> tuple[str, ...]:
    r"""Return the words of a line printed by iptables-save.

    Inside double quotes a backslash keeps the next character, whichever it is: iptables-save
    prints an apostrophe as ``\'`` (xtables_save_string in libxtables), which a shell's rules
    would read differently.
    """
    words: list[str] = []
    word: list[str] = []
    started = quoted = escaped = False
    for character in line:
        if escaped:
            word.append(character)
            escaped = False
        elif quoted and character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
            started = True
        elif character in _SPACE and not quoted:
            if started:
                words.append("".join(word))
            word, started = [], False
        else:
            word.append(character)
            started = True
    if started:
        words.append("".join(word))
    return tuple(words)

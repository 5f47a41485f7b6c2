"""JSON with the place of every part: what :mod:`agent.docker.daemonjson.document` edits by. Pure.

The standard parser says what a text means, not where it says it. This one accepts exactly
RFC 8259 (what dockerd's own parser accepts) and keeps the span of every key and value, so
that an edit can leave every other character as it is.
"""

from __future__ import annotations

import enum
import json
import re
from dataclasses import dataclass
from typing import TypeAlias

from agent.errors import DockerConfigError

__all__ = ["JsonValue", "Kind", "Member", "Node", "fail_at", "parse_object"]

JsonValue: TypeAlias = bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"] | None
"""Any JSON value in Python's types."""

_MAX_DEPTH = 64
_WHITESPACE = re.compile(r"[ \t\n\r]*+")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+"')
_SCALAR = re.compile(r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?|true|false|null")
_WORD = re.compile(r"[^\s,\]}]+")


class Kind(enum.Enum):
    """What sort of value stands at a place."""

    OBJECT = "object"
    ARRAY = "array"
    SCALAR = "scalar"


@dataclass(frozen=True, slots=True)
class Member:
    """One ``"key": value`` of an object; ``key_start`` and ``key_end`` enclose the quotes."""

    key: str
    key_start: int
    key_end: int
    value: Node


@dataclass(frozen=True, slots=True)
class Node:
    """A value from ``start`` up to, not including, ``end``; members if it is an object."""

    kind: Kind
    start: int
    end: int
    members: tuple[Member, ...] = ()

    def member(self, key: str) -> Member | None:
        """Return the member of that key, or None."""
        return next((member for member in self.members if member.key == key), None)


def fail_at(text: str, offset: int, what: str, *, source: str, hint: str = "") -> DockerConfigError:
    """Return the error for ``what`` at ``offset``, with line and column, both from 1."""
    line = text.count("\n", 0, offset) + 1
    column = offset - (text.rfind("\n", 0, offset) + 1) + 1
    return DockerConfigError(f"{source}:{line}:{column}: {what}", hint=hint)


def parse_object(text: str, start: int, *, source: str) -> Node:
    """Return the object that ``text`` holds from ``start`` to its end.

    Args:
        text: The whole text; spans count its characters.
        start: Where to begin (after a byte order mark).
        source: What to call the text in errors, usually its path.

    Raises:
        DockerConfigError: Anything that is not one JSON object: comments, damage, a key
            given twice at any depth, nesting deeper than 64. Says line and column.
    """
    return _Parser(text, source).document(start)


class _Parser:
    """Recursive descent over one text."""

    def __init__(self, text: str, source: str) -> None:
        self._text = text
        self._source = source

    def document(self, start: int) -> Node:
        at = self._skip(start)
        if not self._text.startswith("{", at):
            raise self._unexpected(at, "an object, as in {…}")
        root = self._object(at, 0)
        end = self._skip(root.end)
        if end != len(self._text):
            raise self._unexpected(end, "the end of the file")
        return root

    def _skip(self, at: int) -> int:
        match = _WHITESPACE.match(self._text, at)
        return match.end() if match else at

    def _fail(self, at: int, what: str, hint: str) -> DockerConfigError:
        return fail_at(self._text, at, what, source=self._source, hint=hint)

    def _unexpected(self, at: int, wanted: str) -> DockerConfigError:
        """Name what stands at ``at`` in place of ``wanted``."""
        hint = "dockerd does not start with this file either; repair it"
        if at >= len(self._text):
            return self._fail(at, f"the file ends where {wanted} should be", hint)
        if self._text[at] in "/#":
            return self._fail(at, "a comment: JSON has none, and dockerd refuses them", hint)
        if self._text[at] == '"' and not _STRING.match(self._text, at):
            return self._fail(at, "a string that is not closed or holds a bad escape", hint)
        word = _WORD.match(self._text, at)
        found = word.group()[:20] if word else self._text[at]
        return self._fail(at, f"{found!r} where {wanted} should be", hint)

    def _value(self, at: int, depth: int) -> Node:
        if depth > _MAX_DEPTH:
            raise self._fail(at, f"nested deeper than {_MAX_DEPTH}", "no Docker setting is")
        if self._text.startswith("{", at):
            return self._object(at, depth)
        if self._text.startswith("[", at):
            return self._array(at, depth)
        match = _STRING.match(self._text, at) or _SCALAR.match(self._text, at)
        if not match:
            raise self._unexpected(at, "a value")
        return Node(Kind.SCALAR, at, match.end())

    def _array(self, start: int, depth: int) -> Node:
        at = self._skip(start + 1)
        if self._text.startswith("]", at):
            return Node(Kind.ARRAY, start, at + 1)
        while True:
            at = self._skip(self._value(at, depth + 1).end)
            if self._text.startswith("]", at):
                return Node(Kind.ARRAY, start, at + 1)
            if not self._text.startswith(",", at):
                raise self._unexpected(at, "',' or ']'")
            at = self._skip(at + 1)

    def _object(self, start: int, depth: int) -> Node:
        members: dict[str, Member] = {}
        at = self._skip(start + 1)
        if self._text.startswith("}", at):
            return Node(Kind.OBJECT, start, at + 1)
        while True:
            member = self._member(at, depth)
            if member.key in members:
                hint = "dockerd takes the last one; remove the others, so that it is clear"
                raise self._fail(at, f"the key {member.key!r} is given twice", hint)
            members[member.key] = member
            at = self._skip(member.value.end)
            if self._text.startswith("}", at):
                return Node(Kind.OBJECT, start, at + 1, tuple(members.values()))
            if not self._text.startswith(",", at):
                raise self._unexpected(at, "',' or '}'")
            at = self._skip(at + 1)

    def _member(self, at: int, depth: int) -> Member:
        key = _STRING.match(self._text, at)
        if not key:
            raise self._unexpected(at, "a key in double quotes")
        colon = self._skip(key.end())
        if not self._text.startswith(":", colon):
            raise self._unexpected(colon, "':'")
        value = self._value(self._skip(colon + 1), depth + 1)
        return Member(str(json.loads(key.group())), at, key.end(), value)

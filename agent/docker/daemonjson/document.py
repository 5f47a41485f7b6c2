"""daemon.json as the operator's document: edited in place, every other byte kept. Pure.

Order, values, indentation, the spelling of numbers, line ends and the end of the file are
the operator's. An edit changes the text of the keys it names and nothing else; a key that
is added follows the style of its neighbours; a key that is added and removed again leaves
the text as it was.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from agent.docker.daemonjson.jsonspan import JsonValue, Kind, Member, Node, fail_at, parse_object
from agent.errors import DockerConfigError

__all__ = [
    "REMOVE",
    "Document",
    "Edit",
    "KeyPath",
    "Raw",
    "parse",
    "parse_bytes",
    "same_json",
    "with_keys",
]

KeyPath: TypeAlias = tuple[str, ...]
"""Where a value stands: ``("bip",)`` at the top, longer inside nested objects."""

_BOM = "\ufeff"
_MAX_BYTES = 1024 * 1024
_BLANK = re.compile(r"[ \t\n\r]*+\Z")
_LAST_LINE = re.compile(r"(?:\r\n|\n|\r)[ \t]*\Z")


class _Remove(enum.Enum):
    REMOVE = "remove"


REMOVE: Final = _Remove.REMOVE
"""In place of a value: the key goes."""


@dataclass(frozen=True, slots=True)
class Raw:
    """A value as JSON text, written as it is: how a former value comes back byte for byte."""

    text: str


Edit: TypeAlias = JsonValue | Raw | _Remove


@dataclass(frozen=True, slots=True)
class Document:
    """A daemon.json that parsed. Make it with :func:`parse`.

    Attributes:
        text: The whole text, a byte order mark included.
        source: What errors call it.
        root: The top-level object; None for an empty file, which dockerd takes as ``{}``.
    """

    text: str
    source: str
    root: Node | None

    def has(self, path: KeyPath) -> bool:
        """Whether a value stands at ``path``."""
        return self._node(path) is not None

    def raw(self, path: KeyPath) -> str | None:
        """Return the JSON text at ``path`` as the file spells it, None when there is none."""
        node = self._node(path)
        return None if node is None else self.text[node.start : node.end]

    def value(self, path: KeyPath) -> JsonValue:
        """Return the value at ``path``, None when there is none (or when it is null)."""
        raw = self.raw(path)
        return None if raw is None else _loads(raw)

    def names(self) -> tuple[str, ...]:
        """Return the top-level keys in the file's order."""
        return tuple(member.key for member in self.root.members) if self.root else ()

    def depth_of(self, path: KeyPath) -> int:
        """How many parts of ``path``, from the left, are there already."""
        return next((n for n in range(len(path), 0, -1) if self.has(path[:n])), 0)

    def _node(self, path: KeyPath) -> Node | None:
        node = self.root
        for part in path:
            member = node.member(part) if node is not None else None
            node = member.value if member else None
        return node


def parse_bytes(data: bytes, *, source: str) -> Document:
    """Return the document in a file's bytes.

    Raises:
        DockerConfigError: Larger than 1 MiB, not UTF-8, or not one JSON object.
    """
    if len(data) > _MAX_BYTES:
        hint = "a daemon.json of Docker's is a few hundred bytes long; look what this file is"
        raise DockerConfigError(f"{source}: {len(data)} bytes is too long", hint=hint)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        what = f"byte 0x{data[error.start]:02x} is not UTF-8"
        raise fail_at(before, len(before), what, source=source, hint="save it as UTF-8") from error
    return parse(text, source=source)


def parse(text: str, *, source: str = "daemon.json") -> Document:
    """Return the document in ``text``; an empty or blank text is an empty document.

    Raises:
        DockerConfigError: The text is not one JSON object; says line and column. Comments,
            trailing commas and keys given twice are refused.
    """
    start = len(_BOM) if text.startswith(_BOM) else 0
    if _BLANK.match(text, start):
        return Document(text, source, None)
    return Document(text, source, parse_object(text, start, source=source))


def with_keys(
    document: Document, edits: Mapping[KeyPath, Edit] | Mapping[KeyPath, JsonValue]
) -> str:
    """Return the document's text with ``edits`` made, every other character as it was.

    A key maps to its new value, to :class:`Raw` text, or to :data:`REMOVE`. A value that
    is there already, however it is spelled, is left as it is. Objects on the way to a
    nested key are made where they are missing; removing a key leaves its object.

    Raises:
        DockerConfigError: A nested key's parent is there and is not an object.
    """
    for path, edit in edits.items():
        text = _without(document, path) if edit is REMOVE else _with(document, path, edit)
        document = parse(text, source=document.source)
    return document.text


def same_json(left: JsonValue, right: JsonValue) -> bool:
    """Whether two values are the same JSON; unlike ``==``, ``1``, ``1.0`` and ``true`` differ."""
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


def _loads(raw: str) -> JsonValue:
    try:
        value: JsonValue = json.loads(raw)
    except ValueError:  # an integer of more digits than Python converts
        return raw
    return value


# --- changing and adding ---------------------------------------------------------------


def _with(document: Document, path: KeyPath, value: JsonValue | Raw) -> str:
    """Return the text with ``value`` at ``path``."""
    if document.root is None:
        return _fresh(document, path, value)
    node = document.root
    for depth, part in enumerate(path):
        if node.kind is not Kind.OBJECT:
            where = ".".join(path[:depth])
            what = f"{where!r} is not an object, so it cannot hold {part!r}"
            hint = "dockerd does not accept that value either"
            raise fail_at(document.text, node.start, what, source=document.source, hint=hint)
        member = node.member(part)
        if member is None:
            return _added(document, node, part, _nested(path[depth + 1 :], value))
        node = member.value
    return _replaced(document, node, value)


def _nested(path: KeyPath, value: JsonValue | Raw) -> JsonValue | Raw:
    for part in reversed(path):
        value = {part: json.loads(value.text) if isinstance(value, Raw) else value}
    return value


def _fresh(document: Document, path: KeyPath, value: JsonValue | Raw) -> str:
    bom = _BOM if document.text.startswith(_BOM) else ""
    rendered = _render(_nested(path[1:], value), spaced=True)
    return f"{bom}{{\n  {json.dumps(path[0])}: {rendered}\n}}\n"


def _replaced(document: Document, node: Node, value: JsonValue | Raw) -> str:
    text = document.text
    old = text[node.start : node.end]
    if not isinstance(value, Raw) and same_json(_loads(old), value):
        return text
    spaced = node.kind is Kind.SCALAR or ": " in old or ":" not in old
    return text[: node.start] + _render(value, spaced=spaced) + text[node.end :]


def _added(document: Document, parent: Node, key: str, value: JsonValue | Raw) -> str:
    """Return the text with a member appended to ``parent``, in its last member's style."""
    text = document.text
    if not parent.members:
        return _added_to_empty(document, parent, key, value)
    last = parent.members[-1]
    colon = text[last.key_end : last.value.start]
    if "\n" in colon or "\r" in colon:
        colon = ": "
    member = f"{json.dumps(key)}{colon}{_render(value, spaced=colon != ':')}"
    gap = _gap(text, parent, spaced=colon != ":")
    return text[: last.value.end] + gap + member + text[last.value.end :]


def _added_to_empty(document: Document, parent: Node, key: str, value: JsonValue | Raw) -> str:
    """Return the text with the first member of ``parent``; the blanks in it stay behind it."""
    text = document.text
    member = f"{json.dumps(key)}: {_render(value, spaced=True)}"
    broken = _LAST_LINE.search(text, parent.start + 1, parent.end - 1)
    if broken:
        member = _newline(text) + broken.group().lstrip("\r\n") + "  " + member
    elif parent is document.root:
        member = f"{_newline(text)}  {member}{_newline(text)}"
    return text[: parent.start + 1] + member + text[parent.start + 1 :]


def _gap(text: str, parent: Node, *, spaced: bool) -> str:
    """Return what separates the last member from one after it: comma and white space."""
    members = parent.members
    if len(members) > 1:
        gap = text[members[-2].value.end : members[-1].key_start]
        before, after = gap.split(",")
        return _one_line(before) + "," + _one_line(after)
    lead = _one_line(text[parent.start + 1 : members[0].key_start])
    if "\n" in lead or "\r" in lead:
        return "," + lead
    return ", " if spaced else ","


def _one_line(blank: str) -> str:
    """White space without its empty lines: the last line break and the indentation after it."""
    match = _LAST_LINE.search(blank)
    return match.group() if match else blank


def _newline(text: str) -> str:
    match = re.search(r"\r\n|\n", text)
    return match.group() if match else "\n"


def _render(value: JsonValue | Raw, *, spaced: bool) -> str:
    if isinstance(value, Raw):
        return value.text
    return json.dumps(value, separators=(", ", ": ") if spaced else (",", ":"))


# --- removing --------------------------------------------------------------------------


def _without(document: Document, path: KeyPath) -> str:
    """Return the text without the member at ``path``; as it is when there is none."""
    parent = document._node(path[:-1])  # noqa: SLF001 - the document's own module
    member = parent.member(path[-1]) if parent is not None else None
    if parent is None or member is None:
        return document.text
    start, end = _extent(parent, member)
    return document.text[:start] + document.text[end:]


def _extent(parent: Node, member: Member) -> tuple[int, int]:
    """Return what goes with a member: the comma before it, or after it if it is the first."""
    at = parent.members.index(member)
    if at > 0:
        return parent.members[at - 1].value.end, member.value.end
    if len(parent.members) > 1:
        return member.key_start, parent.members[1].key_start
    return parent.start + 1, member.value.end

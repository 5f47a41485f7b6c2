"""daemon.json as the operator's document: edited in place, every other byte kept. Pure.

The standard parser says what a text means; its scanner also says where a value ends, and by that
the text of one key is found. Order, values, indentation, the spelling of numbers, line ends and
the end of the file stay the operator's. A key that is added follows the style of its neighbours;
a key that is added and removed again leaves the text as it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from agent.errors import DockerConfigError

__all__ = ["Document", "JsonValue", "KeyPath", "parse", "parse_bytes", "same_json"]

JsonValue: TypeAlias = bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"] | None
"""Any JSON value in Python's types."""

KeyPath: TypeAlias = tuple[str, ...]
"""Where a value is: ``("bip",)`` at the top, longer inside nested objects."""

_BOM = "\ufeff"
_MAX_BYTES = 1024 * 1024
_BLANKS = re.compile(r"[ \t\n\r]*+")
_LAST_LINE = re.compile(r"(?:\r\n|\n|\r)[ \t]*\Z")


@dataclass(frozen=True, slots=True)
class Member:
    """One ``"key": value`` of an object, with its place in the text.

    ``key_start`` and ``key_end`` enclose the key's quotes, ``start`` and ``end`` the value.
    """

    key: str
    value: JsonValue
    key_start: int
    key_end: int
    start: int
    end: int


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
    root: Member | None

    def has(self, path: KeyPath) -> bool:
        """Return whether there is a value at ``path``."""
        return self.member(path) is not None

    def raw(self, path: KeyPath) -> str | None:
        """Return the JSON text at ``path`` as the file spells it, None when there is none."""
        member = self.member(path)
        return None if member is None else self.text[member.start : member.end]

    def value(self, path: KeyPath) -> JsonValue:
        """Return the value at ``path``, None when there is none (or when it is null)."""
        member = self.member(path)
        return None if member is None else member.value

    def names(self) -> tuple[str, ...]:
        """Return the top-level keys in the file's order."""
        return tuple(self.root.value) if self.root and isinstance(self.root.value, dict) else ()

    def depth_of(self, path: KeyPath) -> int:
        """Return how many parts of ``path``, from the left, are there already."""
        return next((n for n in range(len(path), 0, -1) if self.has(path[:n])), 0)

    def with_values(self, values: Mapping[KeyPath, JsonValue]) -> Document:
        """Return the document with ``values`` set, every other character as it was.

        A value that is there already, however it is spelled, is left as it is. Objects on the
        way to a nested key are made where they are missing.

        Raises:
            DockerConfigError: A nested key's parent is there and is not an object.
        """
        document = self
        for path, value in values.items():
            text = _with_value(document, path, value)
            if text != document.text:
                document = parse(text, source=self.source)
        return document

    def with_text(self, path: KeyPath, text: str | None) -> Document:
        """Return the document with other JSON text for a key that is there; None removes the key.

        Removing a key leaves its object.
        """
        member = self.member(path)
        if member is None:
            return self
        start, end = (member.start, member.end) if text is not None else self._extent(path, member)
        edited = self.text[:start] + (text or "") + self.text[end:]
        return parse(edited, source=self.source)

    def member(self, path: KeyPath) -> Member | None:
        """Return the place of the value at ``path``, None when there is none."""
        found = self.root
        for part in path:
            below = _members(self.text, found) if found else ()
            found = next((each for each in below if each.key == part), None)
        return found

    def _extent(self, path: KeyPath, member: Member) -> tuple[int, int]:
        """Return what goes with a member: the comma before it, or after it if it is the first."""
        parent = self.member(path[:-1])
        siblings = tuple(_members(self.text, parent)) if parent else ()
        at = siblings.index(member)
        if at > 0:
            return siblings[at - 1].end, member.end
        if len(siblings) > 1:
            return member.key_start, siblings[1].key_start
        return parent.start + 1 if parent else 0, member.end


def parse_bytes(data: bytes, *, source: str) -> Document:
    """Return the document in a file's bytes.

    Raises:
        DockerConfigError: Larger than 1 MiB, not UTF-8, or not one JSON object.
    """
    if len(data) > _MAX_BYTES:
        hint = "a daemon.json of Docker's is a few hundred bytes long; see what this file is"
        raise DockerConfigError(f"{source}: {len(data)} bytes is too long", hint=hint)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        what = f"byte 0x{data[error.start]:02x} is not UTF-8"
        raise _error_at(before, len(before), what, source, "save it as UTF-8") from error
    return parse(text, source=source)


def parse(text: str, *, source: str = "daemon.json") -> Document:
    """Return the document in ``text``; an empty or blank text is an empty document.

    Raises:
        DockerConfigError: The text is not one JSON object; says line and column. Comments,
            trailing commas and keys given twice are refused.
    """
    start = _skip(text, len(_BOM) if text.startswith(_BOM) else 0)
    if start == len(text):
        return Document(text, source, None)
    hint = "dockerd does not start with this file either; repair it"
    try:
        value, end = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        if text[error.pos : error.pos + 1] in {"/", "#"}:
            hint = "JSON has no comments and dockerd refuses them; remove it"
        raise _error_at(text, error.pos, error.msg, source, hint) from error
    except RecursionError:
        raise DockerConfigError(f"{source}: nested too deep", hint=hint) from None
    except ValueError as error:
        raise DockerConfigError(f"{source}: {error}", hint=hint) from error
    if not isinstance(value, dict):
        raise _error_at(text, start, "Expecting an object, as in {…}", source, hint)
    if _skip(text, end) != len(text):
        raise _error_at(text, _skip(text, end), "Expecting the end of the file", source, hint)
    return Document(text, source, Member("", value, start, start, start, end))


def same_json(left: JsonValue, right: JsonValue) -> bool:
    """Return whether two values are the same JSON; unlike ``==``, 1, 1.0 and true differ."""
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


# --- reading -----------------------------------------------------------------------------


def _once(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is given twice")
        found[key] = value
    return found


def _refuse(constant: str) -> JsonValue:
    raise ValueError(f"{constant} is not JSON")


def _integer(digits: str) -> JsonValue:
    try:
        return int(digits)
    except ValueError:  # more digits than Python converts
        return digits


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_refuse, parse_int=_integer)
"""Takes what RFC 8259 has, which is what dockerd's own parser takes."""


def _skip(text: str, at: int) -> int:
    """Return where the white space at ``at`` ends."""
    match = _BLANKS.match(text, at)
    return match.end() if match else at


def _members(text: str, parent: Member) -> Iterator[Member]:
    """Yield the members of an object of ``text``; none of another value."""
    at = _skip(text, parent.start + 1)
    while isinstance(parent.value, dict) and text[at] == '"':
        key, key_end = _DECODER.raw_decode(text, at)
        value_start = _skip(text, _skip(text, key_end) + 1)
        value, end = _DECODER.raw_decode(text, value_start)
        yield Member(key, value, at, key_end, value_start, end)
        at = _skip(text, end)
        at = _skip(text, at + 1) if text[at] == "," else at


def _error_at(text: str, offset: int, what: str, source: str, hint: str) -> DockerConfigError:
    """Return the error for ``what`` at ``offset``, with line and column, both from 1."""
    line = text.count("\n", 0, offset) + 1
    column = offset - text.rfind("\n", 0, offset)
    return DockerConfigError(f"{source}:{line}:{column}: {what}", hint=hint)


# --- changing and adding -----------------------------------------------------------------


def _with_value(document: Document, path: KeyPath, value: JsonValue) -> str:
    """Return the text with ``value`` at ``path``."""
    depth = document.depth_of(path)
    place = document.member(path[:depth])
    if place is None:  # an empty file
        bom = _BOM if document.text.startswith(_BOM) else ""
        return _with_value(parse(bom + "{}\n", source=document.source), path, value)
    if depth == len(path):
        return _replaced(document.text, place, value)
    if not isinstance(place.value, dict):
        what = f"{'.'.join(path[:depth])!r} is not an object, so it cannot hold {path[depth]!r}"
        hint = "dockerd does not accept that value either; remove it"
        raise _error_at(document.text, place.start, what, document.source, hint)
    for part in reversed(path[depth + 1 :]):
        value = {part: value}
    return _added(document, place, path[depth], value)


def _replaced(text: str, old: Member, value: JsonValue) -> str:
    if same_json(old.value, value):
        return text
    raw = text[old.start : old.end]
    spaced = raw[0] not in "{[" or ": " in raw or ":" not in raw
    return text[: old.start] + _render(value, spaced=spaced) + text[old.end :]


def _added(document: Document, parent: Member, key: str, value: JsonValue) -> str:
    """Return the text with a member appended to ``parent``, in its last member's style."""
    text = document.text
    members = tuple(_members(text, parent))
    if not members:
        return _added_to_empty(document, parent, f"{json.dumps(key)}: {_render(value)}")
    last = members[-1]
    colon = text[last.key_end : last.start]
    if "\n" in colon or "\r" in colon:
        colon = ": "
    spaced = colon != ":"
    member = f"{json.dumps(key)}{colon}{_render(value, spaced=spaced)}"
    return text[: last.end] + _gap(text, parent, members, spaced=spaced) + member + text[last.end :]


def _added_to_empty(document: Document, parent: Member, member: str) -> str:
    """Return the text with the first member of ``parent``; the blanks in it stay behind it."""
    text = document.text
    line_end = re.search(r"\r\n|\n", text)
    newline = line_end.group() if line_end else "\n"
    broken = _LAST_LINE.search(text, parent.start + 1, parent.end - 1)
    if broken:
        member = newline + broken.group().lstrip("\r\n") + "  " + member
    elif parent is document.root:
        member = f"{newline}  {member}{newline}"
    return text[: parent.start + 1] + member + text[parent.start + 1 :]


def _gap(text: str, parent: Member, members: tuple[Member, ...], *, spaced: bool) -> str:
    """Return what separates the last member from one after it: comma and white space."""
    if len(members) > 1:
        before, after = text[members[-2].end : members[-1].key_start].split(",")
        return _one_line(before) + "," + _one_line(after)
    lead = _one_line(text[parent.start + 1 : members[0].key_start])
    if "\n" in lead or "\r" in lead:
        return "," + lead
    return ", " if spaced else ","


def _one_line(blank: str) -> str:
    """Return white space without its empty lines: the last line break and what follows it."""
    match = _LAST_LINE.search(blank)
    return match.group() if match else blank


def _render(value: JsonValue, *, spaced: bool = True) -> str:
    return json.dumps(value, separators=(", ", ": ") if spaced else (",", ":"))

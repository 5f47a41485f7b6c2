"""The record of changes to daemon.json: values, their stored form, how to undo them. Pure.

The journal is written *before* daemon.json: at any moment of a power cut the file is the old or
the new one, and the journal explains both.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from agent.docker.daemonjson.document import Document, JsonValue, KeyPath, same_json
from agent.errors import StateError

__all__ = [
    "Content",
    "Failure",
    "KeyChange",
    "Phase",
    "UndoJournal",
    "digest",
    "dump",
    "load",
    "merged_changes",
    "undo",
]

_FORMAT = 1


class Phase(enum.StrEnum):
    """How far a change of daemon.json has come."""

    WRITTEN = "written"  # about to be in the file, or in it; no engine has been seen with it
    RESTARTING = "restarting"  # Docker is being restarted for it
    APPLIED = "applied"  # the engine came up with it
    ROLLED_BACK = "rolled-back"  # the previous file is back; no engine has been seen with it


@dataclass(frozen=True, slots=True)
class Content:
    """A file's bytes, mode and owner; None for ``data`` when there is no file."""

    data: bytes | None
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class KeyChange:
    """One key that Hostmesh set.

    Attributes:
        before: Its JSON text before, None when it was not there.
        ours: The values written or about to be, newest last. Several until an engine is seen
            with the newest, because any of them may be in the file, or come back.
        depth: How many parts of ``path`` were there before: objects made for it go again.
    """

    path: KeyPath
    before: str | None
    ours: tuple[JsonValue, ...]
    depth: int

    def is_ours(self, value: JsonValue) -> bool:
        """Return whether ``value`` is one that Hostmesh wrote."""
        return any(same_json(value, mine) for mine in self.ours)

    def is_in(self, document: Document) -> bool:
        """Return whether the key has a value that Hostmesh wrote."""
        return document.has(self.path) and self.is_ours(document.value(self.path))


@dataclass(frozen=True, slots=True)
class Failure:
    """A change that the engine did not take; not tried again while ``digest`` is the same."""

    digest: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoJournal:
    """The record of what was done to one daemon.json.

    Attributes:
        path: The file, symlinks resolved.
        original: What it was before the first change.
        previous: What it was when an engine was last seen with it: where a roll back leads.
        changes: The keys that Hostmesh set.
        written: Digest of the bytes that were written last.
        phase: How far the last change has come.
        made_folder: The folder was made with the file.
        bridge_before: docker0's address before, "" when it is not known.
        failure: The last change that was rolled back.
    """

    path: str
    original: Content
    previous: Content
    changes: tuple[KeyChange, ...] = ()
    written: str = ""
    phase: Phase = Phase.WRITTEN
    made_folder: bool = False
    bridge_before: str = ""
    failure: Failure | None = None

    def change(self, path: KeyPath) -> KeyChange | None:
        """Return the change of that key, None when there is none."""
        return next((change for change in self.changes if change.path == path), None)

    def is_untouched(self, now: Content) -> bool:
        """Return whether the file is as it was left, or as it was when a kill came between."""
        return digest(now.data) in {self.written, digest(self.previous.data)}


def digest(data: bytes | None) -> str:
    """Return a name for some bytes; "absent" for no file."""
    return "absent" if data is None else hashlib.sha256(data).hexdigest()


def undo(document: Document, changes: Iterable[KeyChange]) -> Document:
    """Return the document with the keys of ``changes`` as they were before.

    A key that the operator has changed or removed since is theirs and stays. An object
    that was made for a nested key goes with the last key in it.
    """
    for change in reversed(tuple(changes)):
        path = change.path
        if not change.is_in(document):
            continue
        document = document.with_text(path, change.before)
        for length in range(len(path) - 1, change.depth, -1):
            if document.value(path[:length]) == {}:
                document = document.with_text(path[:length], None)
    return document


def merged_changes(
    changes: tuple[KeyChange, ...], document: Document, values: Mapping[KeyPath, JsonValue]
) -> tuple[KeyChange, ...]:
    """Return all changes once ``values`` are written, in the order of their first change."""
    merged = {change.path: change for change in changes}
    for path, value in values.items():
        raw, old = document.raw(path), merged.get(path)
        if old and old.is_in(document):
            merged[path] = replace(old, ours=_unique(*old.ours, value))
        elif raw is None or not same_json(document.value(path), value):
            # The key was removed since: a roll back may still bring the written value back.
            earlier = old.ours if old and raw is None else ()
            depth = document.depth_of(path)
            merged[path] = KeyChange(path, raw, _unique(*earlier, value), depth)
    return tuple(merged.values())


def _unique(*values: JsonValue) -> tuple[JsonValue, ...]:
    """Return ``values`` each once, the last of them last."""
    found: list[JsonValue] = []
    for value in values:
        found = [each for each in found if not same_json(each, value)]
        found.append(value)
    return tuple(found)


def dump(journal: UndoJournal) -> str:
    """Return the journal as JSON text."""
    fields = asdict(journal)
    for name in ("original", "previous"):
        data = fields[name]["data"]
        fields[name]["data"] = None if data is None else base64.b64encode(data).decode("ascii")
    # Read by versions before 0.2: true would let them put the whole original back.
    return json.dumps({"format": _FORMAT, **fields, "pristine": False}, indent=2) + "\n"


def load(text: str, *, source: str) -> UndoJournal:
    """Return the journal that :func:`dump` wrote.

    Raises:
        StateError: The text is damaged, or of a later format.
    """
    try:
        fields = json.loads(text)
        if fields.pop("format") != _FORMAT:
            raise StateError(
                f"{source} was written by a later Hostmesh", hint="install that version again"
            )
        return _journal(fields)
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
        copy = "daemon.json.before-hostmesh beside it, the file as it was (none: there was no file)"
        hint = f"make daemon.json what it is to be, see {copy}; then remove {source}"
        raise StateError(f"{source} is damaged: {error}", hint=hint) from error


def _journal(fields: dict[str, Any]) -> UndoJournal:
    failure = fields.pop("failure")
    fields.pop("pristine", None)
    changes = tuple(
        KeyChange(tuple(c["path"]), c["before"], tuple(c["ours"]), int(c["depth"]))
        for c in fields.pop("changes")
    )
    return UndoJournal(
        original=_content(fields.pop("original")),
        previous=_content(fields.pop("previous")),
        changes=changes,
        phase=Phase(fields.pop("phase")),
        failure=None if failure is None else Failure(**failure),
        **fields,
    )


def _content(fields: dict[str, Any]) -> Content:
    data = fields["data"]
    decoded = None if data is None else base64.b64decode(data, validate=True)
    return Content(decoded, int(fields["mode"]), int(fields["uid"]), int(fields["gid"]))

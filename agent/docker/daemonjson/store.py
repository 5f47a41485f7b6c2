"""daemon.json on disk, with a journal so that every change can be undone, at any time.

The order of a change, which a kill at any point must leave startable and undoable:

1. the copy of the first original, for people to look at (``daemon.json.before-hostmesh``);
2. the journal: the previous text, and the keys that are about to be written with both values;
3. daemon.json, in one step (temporary file, fsync, rename, fsync of the folder);
4. the journal again, once an engine has come up with it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from agent.disk import sync_folder
from agent.docker.daemonjson.document import Document, JsonValue, KeyPath, parse_bytes
from agent.docker.daemonjson.files import (
    make_folder,
    read_content,
    remove_file,
    replace_file,
    resolve,
)
from agent.docker.daemonjson.undo_journal import (
    Content,
    Failure,
    Phase,
    UndoJournal,
    digest,
    dump,
    load,
    merged_changes,
    undo,
)
from agent.errors import DockerConfigError, StateError

__all__ = ["DaemonJsonStore", "Snapshot"]

_JOURNAL = "daemon.json.journal"
_COPY = "daemon.json.before-hostmesh"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """daemon.json at one moment, with what was done to it.

    Attributes:
        path: The file, symlinks resolved.
        content: Its bytes, mode and owner.
        document: It parsed.
        journal: None when nothing was done to it.
    """

    path: Path
    content: Content
    document: Document
    journal: UndoJournal | None


class DaemonJsonStore:
    """The only writer of daemon.json. Not for two threads at once.

    Args:
        path: daemon.json as configured; symlinks are followed at every use.
        state_dir: Where the journal is kept (/var/lib/hostmesh).
    """

    def __init__(self, path: Path, state_dir: Path) -> None:
        self._path = path
        self._journal_path = state_dir / _JOURNAL
        self._copy_path = state_dir / _COPY

    @property
    def path(self) -> Path:
        """daemon.json as configured."""
        return self._path

    def journal(self) -> UndoJournal | None:
        """Return what was done so far, None for nothing.

        Raises:
            StateError: The journal cannot be read or is damaged.
        """
        try:
            content = read_content(self._journal_path)
        except DockerConfigError as error:
            raise StateError(error.message, hint=error.hint) from error
        if content.data is None:
            return None
        text = content.data.decode("utf-8", errors="replace")
        return load(text, source=str(self._journal_path))

    def read(self) -> Snapshot:
        """Return the file as it is now.

        Raises:
            DockerConfigError: It cannot be read or does not parse; says line and column.
            StateError: The journal is damaged.
        """
        path = resolve(self._path)
        content = read_content(path)
        document = parse_bytes(content.data or b"", source=str(path))
        return Snapshot(path, content, document, self.journal())

    def change(
        self,
        snapshot: Snapshot,
        values: Mapping[KeyPath, JsonValue],
        *,
        drop: tuple[KeyPath, ...] = (),
        bridge_before: str = "",
        bridge_back: str = "",
    ) -> Snapshot:
        """Set keys, and give back keys that are no longer wanted.

        Args:
            snapshot: What the decision was made on; the file must still be that.
            values: The keys to set.
            drop: Keys to return to what they were before.
            bridge_before: docker0's address now, kept if this is the first change.
            bridge_back: docker0's address to be, when it is given back.

        Returns:
            The file as it is now; the same snapshot when nothing needed changing.

        Raises:
            DockerConfigError: The file changed meanwhile, or cannot be written. The old one
                is still there.
            StateError: The journal cannot be written. The old file is still there.
        """
        document = self.preview(snapshot, values, drop=drop)
        if document.text == snapshot.document.text:
            return snapshot
        content = replace(snapshot.content, data=document.text.encode("utf-8"))
        self._check_unchanged(snapshot)
        journal = self._next_journal(snapshot, values, content)
        if bridge_back or snapshot.journal is None:
            journal = replace(journal, bridge_before=bridge_back or bridge_before)
        self._save(journal)
        self._make_folder(snapshot.path)
        replace_file(snapshot.path, content)
        settled = tuple(each for each in journal.changes if each.path not in drop)
        return Snapshot(snapshot.path, content, document, replace(journal, changes=settled))

    def preview(
        self,
        snapshot: Snapshot,
        values: Mapping[KeyPath, JsonValue],
        *,
        drop: tuple[KeyPath, ...] = (),
    ) -> Document:
        """Return the document that :meth:`change` would write.

        Raises:
            DockerConfigError: A nested key's parent is not an object.
        """
        ours = snapshot.journal.changes if snapshot.journal else ()
        left = undo(snapshot.document, [change for change in ours if change.path in drop])
        return left.with_values(values)

    def mark(self, phase: Phase) -> None:
        """Record how far the last change has come; nothing to do without a journal.

        APPLIED settles which values are Hostmesh's and, unless it follows a roll back, forgets
        the last failure.

        Raises:
            StateError: The journal cannot be read or written.
        """
        journal = self.journal()
        if journal is None:
            return
        marked = replace(journal, phase=phase)
        if phase is Phase.APPLIED:
            changes = tuple(replace(each, ours=each.ours[-1:]) for each in journal.changes)
            back = journal.phase in {Phase.ROLLED_BACK, Phase.APPLIED}
            marked = replace(marked, changes=changes, failure=journal.failure if back else None)
        if marked != journal:
            self._save(marked)

    def roll_back(self, failure: Failure) -> bool:
        """Return daemon.json to what it was before the last change, and remember why.

        An operator who wrote the file since keeps what they wrote: then only keys that still
        have Hostmesh's values go back to what they were before.

        Returns:
            Whether the file changed.

        Raises:
            DockerConfigError: It cannot be written.
            StateError: The journal cannot be written.
        """
        journal = self.journal()
        if journal is None:
            return False
        now = read_content(Path(journal.path))
        target = journal.previous if journal.is_untouched(now) else self._undone(now, journal)
        return self._put_back(replace(journal, failure=failure), now, target)

    def take_out(self) -> bool:
        """Take all of Hostmesh's keys out: dockerd does not start with the previous file either.

        Returns:
            Whether the file changed; False when no such key is left in it.

        Raises:
            DockerConfigError: It cannot be written.
            StateError: The journal cannot be written.
        """
        journal = self.journal()
        if journal is None:
            return False
        now = read_content(Path(journal.path))
        target = self._undone(now, journal)
        return target != now and self._put_back(replace(journal, previous=target), now, target)

    def restore(self) -> bool:
        """Return Hostmesh's keys, and only those, to what they were; forget the journal.

        Where no other program wrote the file it is the original again, byte for byte. A file and
        folder that Hostmesh made and that hold nothing else are removed.

        Returns:
            Whether the file changed.

        Raises:
            DockerConfigError: The file does not parse any more or cannot be written; the
                journal is kept, so that it can be done again.
            StateError: The journal is damaged or cannot be removed.
        """
        journal = self.journal()
        if journal is None:
            return False
        path = Path(journal.path)
        now = read_content(path)
        target = self._undone(now, journal)
        if target != now:
            _put(path, target)
        if target.data is None and journal.made_folder:
            with contextlib.suppress(OSError):  # other files are in it
                path.parent.rmdir()
        try:
            self._journal_path.unlink(missing_ok=True)
            self._copy_path.unlink(missing_ok=True)
            sync_folder(self._journal_path.parent)
        except OSError as error:
            raise StateError(f"cannot remove {self._journal_path}: {error.strerror}") from error
        return target != now

    def _undone(self, now: Content, journal: UndoJournal) -> Content:
        """Return the file without Hostmesh's keys; as it was where nothing else is in it."""
        if now.data is None:
            return now
        document = parse_bytes(now.data, source=journal.path)
        left = undo(document, journal.changes)
        if left is document:
            return now
        original = journal.original.data
        if not left.names() and not parse_bytes(original or b"", source=journal.path).names():
            return replace(now, data=original)
        return replace(now, data=left.text.encode("utf-8"))

    def _put_back(self, journal: UndoJournal, now: Content, target: Content) -> bool:
        """Write ``target``, with the journal before and after; return whether the file changed."""
        self._save(journal)
        _put(Path(journal.path), target)
        document = parse_bytes(target.data or b"", source=journal.path)
        left = tuple(
            replace(change, ours=(document.value(change.path),))
            for change in journal.changes
            if change.is_in(document)
        )
        self._save(
            replace(
                journal,
                changes=left,
                previous=target,
                written=digest(target.data),
                phase=Phase.ROLLED_BACK,
            )
        )
        return target.data != now.data

    def _check_unchanged(self, snapshot: Snapshot) -> None:
        path = resolve(self._path)
        if path != snapshot.path or read_content(path) != snapshot.content:
            raise DockerConfigError(
                f"{self._path} changed while it was being worked on",
                hint="nothing to do: it is looked at again",
            )

    def _next_journal(
        self, snapshot: Snapshot, values: Mapping[KeyPath, JsonValue], content: Content
    ) -> UndoJournal:
        old = snapshot.journal
        if old is None or old.path != str(snapshot.path):
            return UndoJournal(
                path=str(snapshot.path),
                original=snapshot.content,
                previous=snapshot.content,
                changes=merged_changes((), snapshot.document, values),
                written=digest(content.data),
                made_folder=not snapshot.path.parent.exists(),
            )
        previous = snapshot.content
        if old.phase in {Phase.WRITTEN, Phase.RESTARTING}:
            # No engine was seen with the last text, so that is nowhere to go back to.
            untouched = old.is_untouched(previous)
            previous = old.previous if untouched else self._undone(previous, old)
        return replace(
            old,
            previous=previous,
            changes=merged_changes(old.changes, snapshot.document, values),
            written=digest(content.data),
            phase=Phase.WRITTEN,
            failure=None,
        )

    def _make_folder(self, path: Path) -> None:
        try:
            make_folder(path.parent)
        except OSError as error:
            hint = "create it yourself, or let the agent write there (ReadWritePaths= in the unit)"
            raise DockerConfigError(
                f"cannot create {path.parent}: {error.strerror}", hint=hint
            ) from error

    def _save(self, journal: UndoJournal) -> None:
        try:
            make_folder(self._journal_path.parent)
            original = journal.original
            if original.data is not None and not self._copy_path.exists():
                replace_file(self._copy_path, _private(original.data))
            replace_file(self._journal_path, _private(dump(journal).encode("utf-8")))
        except (OSError, DockerConfigError) as error:
            what = error.message if isinstance(error, DockerConfigError) else str(error)
            raise StateError(
                f"the journal of daemon.json cannot be written: {what}",
                hint="make the state folder writable; daemon.json was not touched",
            ) from error


def _put(path: Path, content: Content) -> None:
    if content.data is None:
        remove_file(path)
    else:
        replace_file(path, content)


def _private(data: bytes) -> Content:
    return Content(data, mode=0o600, uid=os.geteuid(), gid=os.getegid())

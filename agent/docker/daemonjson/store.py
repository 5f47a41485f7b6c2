"""daemon.json on disk, with a journal so that every change can be undone, at any time.

The order of a change, which a kill at any point must leave startable and undoable:

1. the copy of the first original, for people to look at (``daemon.json.before-hostmesh``);
2. the journal: the former text, the keys that are about to be ours with both values;
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
    """daemon.json at one moment, with what we did to it.

    Attributes:
        path: The file, symlinks resolved.
        content: Its bytes, mode and owner.
        document: It parsed.
        journal: None when it was never ours.
    """

    path: Path
    content: Content
    document: Document
    journal: UndoJournal | None


class DaemonJsonStore:
    """The only writer of daemon.json. Not for two threads at once.

    Args:
        path: daemon.json as configured; symlinks are followed at every use.
        state_dir: Where the journal lives (/var/lib/hostmesh).
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
        """Return what we did so far, None for nothing.

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
        """Set keys, and give back keys of ours that are no longer wanted.

        Args:
            snapshot: What the decision was made on; the file must still be that.
            values: The keys to set.
            drop: Keys of ours to return to what they were before us.
            bridge_before: docker0's address now, kept if this is our first change.
            bridge_back: docker0's address to be, when it is given back.

        Returns:
            The file as it is now; the same content when nothing needed changing.

        Raises:
            DockerConfigError: The file changed meanwhile, or cannot be written. The old one
                stands.
            StateError: The journal cannot be written. The old file stands.
        """
        text = self.preview(snapshot, values, drop=drop)
        content = replace(snapshot.content, data=text.encode("utf-8"))
        if digest(content.data) == digest(snapshot.content.data):
            return snapshot
        self._check_unchanged(snapshot)
        journal = self._next_journal(snapshot, values, content)
        if snapshot.journal is None:
            journal = replace(journal, bridge_before=bridge_before)
        if bridge_back:
            journal = replace(journal, bridge_before=bridge_back)
        self._save(journal)
        self._make_folder(snapshot.path)
        replace_file(snapshot.path, content)
        settled = tuple(c for c in journal.changes if c.path not in drop)
        return Snapshot(
            snapshot.path,
            content,
            parse_bytes(content.data or b"", source=str(snapshot.path)),
            replace(journal, changes=settled),
        )

    def preview(
        self,
        snapshot: Snapshot,
        values: Mapping[KeyPath, JsonValue],
        *,
        drop: tuple[KeyPath, ...] = (),
    ) -> str:
        """Return the text that :meth:`change` would write.

        Raises:
            DockerConfigError: A nested key's parent is not an object.
        """
        ours = snapshot.journal.changes if snapshot.journal else ()
        left = undo(snapshot.document, [change for change in ours if change.path in drop])
        return left.with_values(values).text

    def mark(self, phase: Phase) -> None:
        """Record how far the last change has come; nothing to do without a journal.

        APPLIED settles what is ours and, unless it follows a roll back, forgets the last
        failure.

        Raises:
            StateError: The journal cannot be read or written.
        """
        journal = self.journal()
        if journal is None:
            return
        marked = replace(journal, phase=phase)
        if phase is Phase.APPLIED:
            changes = tuple(replace(c, ours=c.ours[-1:]) for c in journal.changes)
            back = journal.phase in {Phase.ROLLED_BACK, Phase.APPLIED}
            marked = replace(marked, changes=changes, failure=journal.failure if back else None)
        if marked != journal:
            self._save(marked)

    def roll_back(self, failure: Failure) -> bool:
        """Return daemon.json to what it was before the last change, and remember why.

        An operator who wrote the file since keeps what they wrote: then only keys that
        are still ours go back to what they were before us.

        Returns:
            Whether the file changed.

        Raises:
            DockerConfigError: It cannot be written.
            StateError: The journal cannot be written.
        """
        journal = self.journal()
        if journal is None:
            return False
        path = Path(journal.path)
        now = read_content(path)
        target = journal.previous
        if not journal.is_untouched(now):
            target = self._undone(path, now, journal)
            journal = replace(journal, pristine=False)
        self._save(replace(journal, failure=failure))
        changed = digest(target.data) != digest(now.data)
        self._put(path, target)
        self._save(self._after_roll_back(journal, target, failure))
        return changed

    def take_out(self) -> bool:
        """Take every key of ours out: dockerd does not start with the former file either.

        Returns:
            Whether the file changed; False when nothing of ours is left in it.

        Raises:
            DockerConfigError: It cannot be written.
            StateError: The journal cannot be written.
        """
        journal = self.journal()
        if journal is None:
            return False
        path = Path(journal.path)
        now = read_content(path)
        target = self._undone(path, now, journal)
        if digest(target.data) == digest(now.data):
            return False
        pristine = journal.pristine and journal.is_untouched(now)
        journal = replace(journal, pristine=pristine, previous=target)
        self._save(journal)
        self._put(path, target)
        self._save(self._after_roll_back(journal, target, journal.failure))
        return True

    def restore(self) -> bool:
        """Return our keys, and only those, to what they were before us; forget the journal.

        Byte for byte the original when nobody else wrote; a file and folder that we made
        and that hold nothing else are removed.

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
        target = self._restored(path, now, journal)
        changed = digest(target.data) != digest(now.data)
        if changed:
            self._put(path, target)
        if target.data is None and journal.made_folder:
            with contextlib.suppress(OSError):  # somebody else's files are in it
                path.parent.rmdir()
        try:
            self._journal_path.unlink(missing_ok=True)
            self._copy_path.unlink(missing_ok=True)
            sync_folder(self._journal_path.parent)
        except OSError as error:
            raise StateError(f"cannot remove {self._journal_path}: {error.strerror}") from error
        return changed

    def _restored(self, path: Path, now: Content, journal: UndoJournal) -> Content:
        if journal.pristine and now.data is not None and journal.is_untouched(now):
            return journal.original
        return self._undone(path, now, journal)

    def _undone(self, path: Path, now: Content, journal: UndoJournal) -> Content:
        """Return the file without our keys, None for a file of ours with nothing else in it."""
        if now.data is None:
            return now
        document = parse_bytes(now.data, source=str(path))
        left = undo(document, journal.changes)
        if left is document:
            return now
        if journal.original.data is None and not left.names():
            return replace(now, data=None)
        return replace(now, data=left.text.encode("utf-8"))

    def _put(self, path: Path, content: Content) -> None:
        if content.data is None:
            remove_file(path)
        else:
            replace_file(path, content)

    def _after_roll_back(
        self, journal: UndoJournal, target: Content, failure: Failure | None
    ) -> UndoJournal:
        """Return the journal of a file that went back: only what is still in it is ours."""
        document = parse_bytes(target.data or b"", source=journal.path)
        changes = tuple(
            replace(change, ours=(document.value(change.path),))
            for change in journal.changes
            if document.has(change.path) and change.is_ours(document.value(change.path))
        )
        return replace(
            journal,
            changes=changes,
            previous=target,
            written=digest(target.data),
            phase=Phase.ROLLED_BACK,
            failure=failure,
        )

    def _check_unchanged(self, snapshot: Snapshot) -> None:
        path = resolve(self._path)
        if path != snapshot.path or read_content(path) != snapshot.content:
            raise DockerConfigError(
                f"{self._path} changed while it was being worked on",
                hint="it will be looked at again",
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
        untouched = old.is_untouched(snapshot.content)
        previous = snapshot.content
        if old.phase in {Phase.WRITTEN, Phase.RESTARTING}:
            # No engine was seen with what we wrote last, so that is nowhere to go back to.
            previous = old.previous if untouched else self._undone(snapshot.path, previous, old)
        return replace(
            old,
            previous=previous,
            changes=merged_changes(old.changes, snapshot.document, values),
            pristine=old.pristine and untouched,
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
        folder = self._journal_path.parent
        try:
            make_folder(folder)
            original = journal.original
            if original.data is not None and not self._copy_path.exists():
                replace_file(self._copy_path, _private(original.data))
            replace_file(self._journal_path, _private(dump(journal).encode("utf-8")))
        except (OSError, DockerConfigError) as error:
            what = error.message if isinstance(error, DockerConfigError) else str(error)
            raise StateError(
                f"the journal of daemon.json cannot be written: {what}",
                hint="daemon.json was not touched; the state folder must be writable",
            ) from error


def _private(data: bytes) -> Content:
    return Content(data, mode=0o600, uid=os.geteuid(), gid=os.getegid())
